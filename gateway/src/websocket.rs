//! WebSocket (RFC 6455), also over HTTP/2 (RFC 8441): the handshake on both sides, and the frames that follow it.
//!
//! **Invariant:** what is offered to the provider and what is answered to the caller is written here, of what the other side said in a form
//! that was read; no field of a handshake is passed on as it came. A frame that RFC 6455 does not allow goes nowhere.
//!
//! Lacks on purpose: every extension but `permessage-deflate`, which is passed through and never unpacked.

mod frame;
mod handshake;
mod protocols;

pub(crate) use frame::{Decoder, FramePiece, FrameRules, MaskKeys, Opcode, Violation, close_payload, encode};
pub(crate) use handshake::{Handshake, Offer, Switched, asked_method};
