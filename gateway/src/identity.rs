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
mod constraints;
mod credentials;
mod files;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod head;
mod jwt;
mod recent;
mod refusal;
mod strip;
mod tokens;
mod trust;

pub(crate) use self::authenticate::{CallerContext, Proofs, Unproven};
#[cfg(test)]
pub(crate) use self::bundle::Bundle;
pub(crate) use self::call_proof::CallProof;
pub(crate) use self::certificate::{SpiffeVerifier, refusal_of};
pub(crate) use self::credentials::{CallerCredentials, ShownTo};
pub use self::files::IdentitySettings;
pub(crate) use self::files::{FileError, FilesInForce, IdentityFiles, MOST_SKEW};
#[cfg(any(test, fuzzing))]
pub use self::fuzz::{credentials as fuzz_credentials, head as fuzz_head};
pub(crate) use self::head::{AwsScope, RequestHead};
pub(crate) use self::refusal::Refusal;
pub(crate) use self::strip::{headers as strip_headers, query as without, same_name};
pub use self::tokens::{IssuerKind, TokenIssuerSettings};
pub(crate) use self::tokens::{IssuerStanding, problems as token_problems};
pub(crate) use self::trust::Trust;
use self::trust::VerifiedIdentity;
