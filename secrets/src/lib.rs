//! The values of secrets: where they are kept, how long one may be used, and the only type that holds one.
//!
//! [`Secrets`] is a cache over every store of the policy. Values are fetched on the control runtime and read from any
//! core without a lock. The gateway hands a [`Secret`] to its injection and to nothing else.
//!
//! **Invariant:** a value leaves this crate only through [`Secret::expose`]; no error, log line, `Debug` or health
//! report holds one. Buffers of this crate that held a value are zeroized. Those inside rustls, hyper, reqwest, age,
//! AWS's SDK and serde_json's scratch space (used for a JSON string with escapes) are not ours and cannot be.
//!
//! Deliberately lacks: anything of serving HTTP, and any way to learn a value from outside other than a store, or a token endpoint that was shown what a store holds.

mod cache;
mod dial;
pub mod digest;
mod error;
mod fetch;
pub mod hex;
mod http;
mod jitter;
mod mint;
mod observe;
mod origin;
pub mod pem;
mod read;
mod reference;
mod refusals;
mod secret;
pub mod sigv4;
mod store;
mod svid;
mod value;

pub use cache::{CredentialStatus, Health, Refreshed, Secrets};
pub use error::{Failure, SecretError};
pub use fetch::{FetchToken, Fetcher};
pub use http::{PostAnswer, PostClient};
pub use jitter::jittered;
pub use mint::IssuerHealth;
pub use observe::{Event, Observation, Observations, Observer, What};
pub use secret::{Fits, Secret, Version, VersionKey};
pub use store::StoreHealth;
pub use store::age::{AgeFile, AgeFileError};
pub use store::file::read_file_secret;
pub use svid::{JwtSvid, Making, OwnSvids, X509Svid};
