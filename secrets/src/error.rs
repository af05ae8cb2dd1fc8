//! What can go wrong with a secret, as a closed set.
//!
//! **Invariant:** every message is made of fixed words, status numbers and the credential's name. Text that a store,
//! a file or a client library produced is never taken over: it may hold a value.

use tollgate_policy::name::ResourceId;

/// A credential whose value cannot be had now. For the operator's log; the caller only learns `secret_unavailable`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("credential {credential}: {failure}")]
pub struct SecretError {
    credential: ResourceId,
    failure: Failure,
}

impl SecretError {
    pub(crate) fn new(credential: &ResourceId, failure: Failure) -> Self {
        Self { credential: credential.clone(), failure }
    }

    /// The kind of failure.
    #[must_use]
    pub const fn failure(&self) -> Failure {
        self.failure
    }
}

/// The kinds of failure. `Display` says what is wrong and, where it helps, what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The policy in force has no such credential, or names another secret for it.
    #[error("not part of the policy in force")]
    Withdrawn,
    /// The store has nothing at that path and version, or it was deleted there.
    #[error("the store has no such secret")]
    NotFound,
    /// The secret exists but not the field; or none was named and it has more than one.
    #[error("the secret has no such field; name one of its fields")]
    FieldMissing,
    /// The store answered, but not with a usable value. The text says why.
    #[error("unusable value: {0}")]
    Malformed(&'static str),
    /// The store knows the gateway and refuses it this path.
    #[error("the store's own policy denies this path")]
    Denied,
    /// The path of the reference is not one that the store may read. The text says why.
    #[error("path refused: {0}")]
    PathRefused(&'static str),
    /// Vault answers 503: sealed, not initialised, or a standby without a leader.
    #[error("the vault is sealed or not ready")]
    Sealed,
    /// The gateway's own login at the store failed. The text says which part of it.
    #[error("login failed: {0}")]
    Login(&'static str),
    /// The store wants to be asked less often.
    #[error("the store is asked too often")]
    Throttled,
    /// No answer in time.
    #[error("timed out")]
    Timeout,
    /// No connection. The text says why.
    #[error("not reachable: {0}")]
    Unreachable(&'static str),
    /// The store's certificate was not accepted. The text says why.
    #[error("TLS failed: {0}")]
    Tls(&'static str),
    /// The store's address is not one that the gateway may dial.
    #[error("address not allowed; list its range among the private ranges that may be dialled")]
    AddressRefused,
    /// Something else answers than a store. The text says what.
    #[error("the answer is not the store's: {0}; is the address right, and is nothing in between?")]
    Foreign(&'static str),
    /// An answer that the store's protocol does not have here, by its HTTP status.
    #[error("unexpected answer with status {0}")]
    Status(u16),
    /// A local file could not be read.
    #[error("cannot read file: {0}")]
    File(std::io::ErrorKind),
    /// The encrypted file cannot be opened with the identity.
    #[error("cannot decrypt with this identity")]
    Decrypt,
    /// A store or token endpoint is defined in a way that cannot work. The text says what.
    #[error("misconfigured: {0}")]
    Misconfigured(&'static str),
    /// The token endpoint answers that it makes no such token. The text says why, as far as its protocol has a word.
    #[error("the token endpoint refuses: {0}")]
    MintRefused(&'static str),
    /// The token endpoint answers that it makes none now. The text says why, as far as its protocol has a word.
    #[error("the token endpoint makes none at the moment: {0}")]
    MintBusy(&'static str),
    /// The token endpoint answered, but not with a token that can be used. The text says why.
    #[error("unusable answer of the token endpoint: {0}")]
    MintNonsense(&'static str),
    /// A fault of this program.
    #[error("internal fault")]
    Internal,
    /// The observer did not say that the new value is written down.
    #[error("the audit trail cannot be written, and no new value is used without it")]
    Unrecorded,
}

impl Failure {
    /// One snake_case word for metrics and readiness.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::NotFound => "not_found",
            Self::FieldMissing => "field_missing",
            Self::Malformed(_) => "malformed",
            Self::Denied => "denied",
            Self::PathRefused(_) => "path_refused",
            Self::Sealed => "sealed",
            Self::Login(_) => "login_failed",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Tls(_) => "tls",
            Self::AddressRefused => "address_refused",
            Self::Foreign(_) => "foreign_answer",
            Self::Status(_) => "unexpected_status",
            Self::File(_) => "file",
            Self::Decrypt => "decrypt",
            Self::Misconfigured(_) => "misconfigured",
            Self::MintRefused(_) => "mint_refused",
            Self::MintBusy(_) => "mint_busy",
            Self::MintNonsense(_) => "mint_nonsense",
            Self::Internal => "internal",
            Self::Unrecorded => "unrecorded",
        }
    }

    /// Whether it is the store's word about this secret, not a fault of reaching the store. Such an answer ends the
    /// cached value at once: deleting a secret, or taking away the right to it, is how it is revoked.
    pub(crate) const fn revokes(self) -> bool {
        matches!(
            self,
            Self::Withdrawn | Self::NotFound | Self::FieldMissing | Self::Denied | Self::PathRefused(_)
        )
    }

    /// Whether it is told of the secret itself, not of its store.
    pub(crate) const fn concerns_secret(self) -> bool {
        self.spares_store() || matches!(self, Self::Unrecorded)
    }

    /// Whether it concerns the one secret only, so that the store or token endpoint as a whole still counts as working.
    pub(crate) const fn spares_store(self) -> bool {
        self.revokes() || matches!(self, Self::Malformed(_) | Self::MintRefused(_))
    }
}
