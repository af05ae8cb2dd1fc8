//! Who calls: the proof on the connection, and nothing that the caller wrote into the request.
//!
//! **Invariant:** a caller is [`Proven`](tollgate_policy::caller::Proven) only here: by a chain that was verified against the bundle of the trust
//! domain in its own URI SAN, or by a token that was verified by a key of its issuer. Headers that only say who calls name nobody; they are
//! removed before anything else looks.

mod authenticate;
mod bundle;
mod call_proof;
mod certificate;
mod chain;
mod connection_proof;
mod constraints;
mod credentials;
mod files;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod head;
mod jwt;
mod known_caller;
mod loaded_bundle;
mod own_svids;
mod recent;
mod refusal;
mod revocation;
mod settings;
mod strip;
mod svid_pem;
mod tokens;
mod trust;
mod watched;
mod workload_api;

pub(crate) use self::authenticate::{CallerContext, ProofEnded, Proofs};
#[cfg(test)]
pub(crate) use self::bundle::Bundle;
pub(crate) use self::call_proof::CallProof;
pub(crate) use self::certificate::{SpiffeVerifier, refusal_of};
pub(crate) use self::credentials::{CallerCredentials, ShownTo};
pub(crate) use self::files::{FilesInForce, IdentityFiles};
#[cfg(any(test, fuzzing))]
pub use self::fuzz::{credentials as fuzz_credentials, head as fuzz_head};
pub(crate) use self::head::{AwsScope, RequestHead};
pub(crate) use self::refusal::Refusal;
pub use self::settings::IdentitySettings;
pub(crate) use self::settings::default_socket;
pub(crate) use self::strip::{headers as strip_headers, query as without, same_name};
pub(crate) use self::tokens::IssuerStanding;
pub use self::tokens::{IssuerKind, TokenIssuerSettings};
pub(crate) use self::trust::Trust;
use self::trust::VerifiedIdentity;
pub(crate) use self::watched::FileError;
