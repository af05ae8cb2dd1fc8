//! The far side: from a permit to a verified connection, and back into the pool.
//!
//! **Invariant:** three proofs, each made of the one before. [`Dialled`]: the address was checked, and the source address is the policy's.
//! [`Secured`]: TLS verified the target's own name. [`Peer`]: HTTP is spoken on that, and only injection may send on it.

mod address;
mod alerts;
mod alpn;
mod answer;
mod body;
mod certificate;
mod connect;
mod connection_state;
mod dial;
mod dialled;
mod error;
mod health;
mod http_handshake;
mod outbound;
mod peer;
mod pool;
mod probe;
mod proxy;
mod resolve;
mod secured;
mod send_failure;
mod source;
mod tls;
mod transport;
mod upstream_slot;

pub use self::address::{DialRules, local_addresses};
pub(crate) use self::alpn::AlpnOffer;
pub(crate) use self::answer::AnswerBody;
pub(crate) use self::body::{BodyError, BodyRewriter, MalformedBody, OutBody, Stall, TrailerFilter, Upload};
pub(crate) use self::certificate::{ClientCert, dated, ends, fingerprint, fits};
pub(crate) use self::dial::{DialError, KEEPALIVE};
pub(crate) use self::error::UpstreamError;
pub(crate) use self::health::{CircuitError, DestinationStatus, EndpointFailure, UpstreamHealth};
pub(crate) use self::outbound::Outbound;
pub(crate) use self::peer::{Answer, KeptConnection, Lease, Peer, PeerOptions, TlsParams};
pub(crate) use self::pool::Pool;
pub(crate) use self::probe::Prober;
pub(crate) use self::proxy::ProxyError;
pub(crate) use self::resolve::{LookupError, Resolver};
pub(crate) use self::send_failure::{SendFailure, SendFate};
pub(crate) use self::source::{SourceAddresses, lacking};
pub(crate) use self::tls::{CaState, TlsClient, TlsClients, ca_state};
