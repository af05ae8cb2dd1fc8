//! What a call asks for, what it uses, and what that costs: read off the wire, held before, settled after.
//!
//! **Invariant:** from the moment its caller is proven a request has exactly one record, whatever becomes of it, and its hold is
//! settled or released exactly once.

mod account;
mod action;
mod answer;
mod answered;
mod body;
mod bound;
pub(crate) mod catalog;
mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod inspected_body;
mod offload;
mod permitted;
mod realtime;
mod reauthorize;
mod recorder;
mod refusals;
mod relay;
mod reply_body;
mod scan;
mod sse;
mod traffic;
mod usage;

pub(crate) use account::Account;
pub(crate) use answer::answer;
pub(crate) use answered::Answered;
pub(crate) use inspected_body::{is_large, least, read, too_slow};
pub(crate) use permitted::PermittedCall;
pub(crate) use reauthorize::{LastingProof, Over, Reauthorizer, RelayWatch, TimeBounds};
pub(crate) use recorder::Recorder;
pub(crate) use relay::{Relay, RelayEnd};
pub(crate) use reply_body::ReplyBody;
pub(crate) use traffic::Traffic;
