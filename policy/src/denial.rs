//! Why a call was refused: one closed set of words for the answer, the log, the metric and the record.
//!
//! **Invariant:** no status codes here (one table in the gateway has them), and nothing in a denial names a secret,
//! its store or its path.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limit::LimitState;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// The reason of a refusal or failure. The words are part of the interface: they never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word, in snake case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    /// No configuration is loaded yet.
    NotReady = "not_ready",
    /// The caller presented no certificate.
    NoCertificate = "no_certificate",
    /// The caller's certificate is no longer valid.
    CertificateExpired = "certificate_expired",
    /// The caller presented neither a certificate nor a token for this gateway.
    NoProof = "no_proof",
    /// The caller's token has expired.
    TokenExpired = "token_expired",
    /// The caller's token is for somebody else.
    TokenAudience = "token_audience",
    /// No issuer of the settings has made the caller's token.
    TokenIssuerUnknown = "token_issuer_unknown",
    /// The caller's token proves nobody, for a reason that no other word says.
    TokenInvalid = "token_invalid",
    /// The keys of the issuer of the caller's token could not be had yet.
    TokenKeysUnavailable = "token_keys_unavailable",
    /// What the caller presented names different callers.
    ProofsDisagree = "proofs_disagree",
    /// The grant passes the caller's own token on, and there is none for the destination.
    CallerToken = "caller_token",
    /// The request is malformed in a way that no other word says.
    BadRequest = "bad_request",
    /// Two readers could take the path for two different ones.
    AmbiguousPath = "ambiguous_path",
    /// Several authorities in one request, or one that two readers could take for two.
    AmbiguousAuthority = "ambiguous_authority",
    /// No destination has this host, port or name.
    UnknownHost = "unknown_host",
    /// A method that is never forwarded: TRACE, TRACK, CONNECT without a tunnel.
    MethodRefused = "method_refused",
    /// More header fields than are read.
    HeaderRefused = "header_refused",
    /// The caller has no grant for this destination.
    NoGrant = "no_grant",
    /// A grant has the path, none has it with this method.
    MethodNotAllowed = "method_not_allowed",
    /// The caller's grants for this destination do not have the path.
    PathNotAllowed = "path_not_allowed",
    /// The caller's grants do not have the model.
    ModelNotAllowed = "model_not_allowed",
    /// Models are limited and the request names none.
    ModelRequired = "model_required",
    /// The caller's grants do not have an action that the request names, or have some and it names none.
    ActionNotAllowed = "action_not_allowed",
    /// The endpoint's class (account state, credentials, administration) is not named by a grant.
    EndpointClass = "endpoint_class",
    /// Models, tokens or spend are limited and the dialect cannot meter the endpoint.
    UnmeteredEndpoint = "unmetered_endpoint",
    /// The endpoint defers its cost past the answer, and cost is limited.
    DeferredCost = "deferred_cost",
    /// The grant that decides is suspended.
    GrantSuspended = "grant_suspended",
    /// The grant that decides is not approved by the owners of its destination.
    NotApproved = "not_approved",
    /// What decides the call has an error in its configuration.
    BrokenConfiguration = "broken_configuration",
    /// Spend is limited and the model has no price.
    UnpricedModel = "unpriced_model",
    /// A deciding member of the body occurs twice, or contradicts the path or query.
    AmbiguousBody = "ambiguous_body",
    /// The body is not what the dialect expects.
    BodyInvalid = "body_invalid",
    /// The body is larger than what is read of one.
    BodyTooLarge = "body_too_large",
    /// The content type is not the dialect's.
    UnsupportedMediaType = "unsupported_media_type",
    /// A content encoding that is not decoded.
    UnsupportedEncoding = "unsupported_encoding",
    /// Nothing bounds what the call may cost.
    UnboundedCost = "unbounded_cost",
    /// Too many requests for the moment.
    RateLimited = "rate_limited",
    /// Too many requests at once.
    ConcurrencyLimited = "concurrency_limited",
    /// The gateway has as many calls under way as it takes at once.
    Overloaded = "overloaded",
    /// The budget is held by calls in flight; it may fit soon.
    BudgetHeld = "budget_held",
    /// The budget is used up until its window ends.
    BudgetExhausted = "budget_exhausted",
    /// The store that replicas share a limit in has been gone for too long.
    LimitsUnavailable = "limits_unavailable",
    /// The ledger cannot be written.
    LedgerUnavailable = "ledger_unavailable",
    /// The credential's value cannot be had.
    SecretUnavailable = "secret_unavailable",
    /// The destination's name resolved to addresses that may not be dialled.
    AddressRefused = "address_refused",
    /// The destination's name could not be resolved.
    DnsFailed = "dns_failed",
    /// None of the addresses can be had that calls to the destination may leave from.
    SourceUnavailable = "source_unavailable",
    /// The destination has as many calls or connections as it may have, or none of its endpoints could be reached lately.
    CircuitOpen = "circuit_open",
    /// No connection to the destination.
    UpstreamUnreachable = "upstream_unreachable",
    /// The destination's TLS did not verify.
    UpstreamTls = "upstream_tls",
    /// The destination took too long.
    UpstreamTimeout = "upstream_timeout",
    /// The destination broke the connection off.
    UpstreamReset = "upstream_reset",
    /// The destination broke the protocol.
    UpstreamProtocol = "upstream_protocol",
    /// The destination reported an error in an answer whose head said success.
    UpstreamError = "upstream_error",
    /// The destination refused the gateway's credential.
    CredentialRejected = "credential_rejected",
    /// The destination's own limits have refused every key of the pool.
    KeysCooling = "keys_cooling",
    /// The caller asks for another protocol on its connection, such as WebSocket, which is not forwarded.
    UpgradeRefused = "upgrade_refused",
    /// An upgrade that is not supported, or an unrequested 101.
    UnsupportedUpgrade = "unsupported_upgrade",
    /// TLS came in a tunnel of the mesh, where the gateway has to read the request.
    TlsInTunnel = "tls_in_tunnel",
    /// What came for a destination that takes TLS alone is none.
    TlsExpected = "tls_expected",
    /// The caller's own TLS names no server, or hides which it means.
    SniMissing = "sni_missing",
    /// The caller's own TLS is for another server than its connection.
    SniMismatch = "sni_mismatch",
    /// A connection that is passed through was cut: its caller may not have it any more.
    Withdrawn = "withdrawn",
    /// A connection that is passed through was cut: no byte passed for too long.
    TunnelIdle = "tunnel_idle",
    /// A connection that is passed through was cut: it lasted as long as one may.
    TunnelLifetime = "tunnel_lifetime",
    /// A connection that is passed through was cut: the gateway stops.
    Drained = "drained",
    /// The destination's answer is in an encoding in which a reflected key would not be seen.
    EncodedAnswer = "encoded_answer",
    /// A bug of the gateway.
    Internal = "internal",
}

/// The text is none of the reason words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a reason")]
pub struct UnknownReason(String);

/// A refusal: the reason, and what the caller is told.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The word.
    pub reason: Reason,
    /// One sentence for the caller; may name grants, limits, destinations, paths and models, never a secret or its store.
    pub detail: Cow<'static, str>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// The limit that refused the call, and how it stood.
    pub limit: Option<Box<LimitState>>,
    /// Whether the same call may be made again as it is. `None`: nothing is known that its caller does not know as well.
    pub repeatable: Option<bool>,
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(word: &str) -> Result<Self, UnknownReason> {
        let found = Self::ALL.iter().copied().find(|reason| reason.as_str() == word);
        found.ok_or_else(|| UnknownReason(word.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Reason {
    type Error = UnknownReason;

    fn try_from(word: String) -> Result<Self, UnknownReason> {
        word.parse()
    }
}

impl From<Reason> for &'static str {
    fn from(reason: Reason) -> Self {
        reason.as_str()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Denial {
    /// A refusal that trying again does not change.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None, limit: None, repeatable: None }
    }

    /// The same refusal, with the time after which trying again may help.
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// The same refusal, with the limit that it comes from.
    pub fn by(self, limit: LimitState) -> Self {
        Self { limit: Some(Box::new(limit)), ..self }
    }

    /// [`Limit::id`](crate::limit::Limit::id) of the limit that refuses, where one does.
    pub fn limit_id(&self) -> Option<Arc<str>> {
        self.limit.as_ref().map(|limit| Arc::clone(&limit.id))
    }

    /// The same refusal, and whether the call may be made again as it is.
    pub fn repeatable(self, repeatable: bool) -> Self {
        Self { repeatable: Some(repeatable), ..self }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Denial {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back_from_its_word() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>().unwrap(), *reason);
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
        assert!("no_such_word".parse::<Reason>().is_err());
    }
}
