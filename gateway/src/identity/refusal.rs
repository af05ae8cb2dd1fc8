//! Why a handshake ends without a proven caller.

/// Why a handshake ended without a proven caller. The words are the same in the log and in the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.as_str())]
pub(crate) enum Refusal {
    NoCertificate,
    Malformed,
    NotOneUriSan,
    NotSpiffe,
    SigningCertificate,
    UnknownTrustDomain,
    UnknownIssuer,
    Expired,
    NotYetValid,
    /// The path is good up to a root that expired, or is not valid yet.
    RootNotInDate,
    IssuerMayNotSign,
    /// An issuer may not issue for this trust domain.
    NameNotPermitted,
    /// Its issuer has revoked it, or an issuer on its path.
    Revoked,
    /// Whether it is revoked is not known: the list of its issuer ended.
    RevocationListEnded,
    Unverified,
    /// The chain is good, but its caller has as many connections as one caller may.
    TooMany,
    /// What claims to be a proxy is not one of those that are listed.
    ProxyStranger,
    /// What a proxy says of a connection cannot be understood, or it says nothing.
    ProxyHeader,
    /// The caller has no trust bundle with our issuer in it.
    IssuerRefused,
    /// The caller takes our certificate for expired or broken.
    CertificateRefused,
    /// The caller ended it for another reason, with an alert.
    Alert,
    /// No version or cipher suite that both sides have.
    Incompatible,
    /// What the caller sent is not the TLS that was due.
    Protocol,
}

impl Refusal {
    pub(super) const ALL: [Self; 23] = [
        Self::NoCertificate,
        Self::Malformed,
        Self::NotOneUriSan,
        Self::NotSpiffe,
        Self::SigningCertificate,
        Self::UnknownTrustDomain,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::RootNotInDate,
        Self::IssuerMayNotSign,
        Self::NameNotPermitted,
        Self::Revoked,
        Self::RevocationListEnded,
        Self::Unverified,
        Self::TooMany,
        Self::ProxyStranger,
        Self::ProxyHeader,
        Self::IssuerRefused,
        Self::CertificateRefused,
        Self::Alert,
        Self::Incompatible,
        Self::Protocol,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Malformed => "malformed_certificate",
            Self::NotOneUriSan => "not_one_uri_san",
            Self::NotSpiffe => "not_a_spiffe_id",
            Self::SigningCertificate => "signing_certificate",
            Self::UnknownTrustDomain => "unknown_trust_domain",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::RootNotInDate => "root_not_in_date",
            Self::IssuerMayNotSign => "issuer_may_not_sign",
            Self::NameNotPermitted => "name_not_permitted",
            Self::Revoked => "revoked",
            Self::RevocationListEnded => "revocation_list_ended",
            Self::Unverified => "unverified",
            Self::ProxyStranger => "proxy_stranger",
            Self::ProxyHeader => "proxy_header",
            Self::TooMany => "too_many_connections",
            Self::IssuerRefused => "caller_does_not_trust_our_issuer",
            Self::CertificateRefused => "caller_refuses_our_certificate",
            Self::Alert => "alert_received",
            Self::Incompatible => "incompatible",
            Self::Protocol => "protocol",
        }
    }
}
