//! Resources after compilation: every name resolved, every value in the form that the route uses.

mod block;
mod boundary;
mod budget;
mod budget_index;
mod caller_index;
mod canonical;
mod credential;
mod destination;
mod grant;
mod hmac;
mod key;
mod mint;
mod resilience;
mod source_pool;
mod store;
mod vault;

pub(crate) use block::{Block, BlockedAt, BlockedHosts};
pub use boundary::Boundary;
pub use budget::{Budget, BudgetRaise, CallSelector};
pub(crate) use budget_index::BudgetIndex;
pub(crate) use caller_index::CallerIndex;
pub(crate) use canonical::Referred;
pub use credential::{Credential, Inject, Injection, Key, SigV4, is_s3};
pub use destination::{
    Destination, HttpDestination, HttpVersion, Protocol, Proxy, Scrub, TcpDestination, Timeouts, TlsStart,
    TlsVerify, TunnelTls,
};
pub use grant::{Allow, Approval, Assume, Grant, Unpriced};
pub use hmac::{Hmac, HmacAlgorithm, KeyEncoding, Piece, SignatureEncoding};
pub use mint::{Algorithm, AwsKey, AwsSession, Client, ClientAuth, Mint, Signer, TokenEndpoint, TokenGrant};
pub use resilience::{CircuitBreaker, OutlierDetection, Resilience, Retries};
pub use source_pool::{SourceOrder, SourcePlan, SourcePool, SourceRules};
pub use store::{AwsStore, SecretRef, Store, StoreKind, Svid};
pub use vault::{ClientCertificate, KvVersion, SecretId, TokenLogin, VaultAuth, VaultStore};
