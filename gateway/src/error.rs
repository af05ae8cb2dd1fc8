//! What a failing upstream is to the caller: the one translation into reasons.

use tollgate_policy::denial::{Denial, Reason};

use crate::upstream::{DialError, UpstreamError};

/// The reason of a failure.
pub(crate) const fn upstream_reason(error: &UpstreamError) -> Reason {
    match error {
        UpstreamError::Dial(DialError::Refused) => Reason::AddressRefused,
        UpstreamError::Dial(DialError::Timeout)
        | UpstreamError::ConnectTimeout
        | UpstreamError::FirstByteTimeout => Reason::UpstreamTimeout,
        UpstreamError::Dial(_) | UpstreamError::Unsent => Reason::UpstreamUnreachable,
        UpstreamError::Tls(_) => Reason::UpstreamTls,
        UpstreamError::Certificate(_) => Reason::SecretUnavailable,
        UpstreamError::CertificateRefused(_) => Reason::CredentialRejected,
        UpstreamError::Handshake(_) | UpstreamError::Framing | UpstreamError::Unreadable(_) => {
            Reason::UpstreamProtocol
        }
        UpstreamError::Broken(_) => Reason::UpstreamReset,
    }
}

/// The refusal that the caller gets. What the other side said stays in our log.
pub(crate) fn upstream(error: &UpstreamError) -> Denial {
    match error {
        UpstreamError::Unreadable(unreadable) => {
            let detail = format!("the destination's answer cannot be read: {unreadable}");
            return Denial::new(Reason::UpstreamProtocol, detail);
        }
        UpstreamError::Framing => {
            let detail = "the destination's answer says in two ways where it ends";
            return Denial::new(Reason::UpstreamProtocol, detail);
        }
        _ => {}
    }
    let detail = match upstream_reason(error) {
        Reason::AddressRefused => "the destination resolves to an address that may not be dialled",
        Reason::UpstreamTimeout => "the destination did not answer in time",
        Reason::UpstreamTls => "the destination's TLS certificate could not be verified, or its TLS failed",
        Reason::SecretUnavailable => {
            "the client certificate for this destination cannot be had at the moment"
        }
        Reason::CredentialRejected => {
            "the destination refused the gateway's client certificate, or wants one; its owner has to look at it"
        }
        Reason::UpstreamProtocol => "the destination broke the protocol",
        Reason::UpstreamReset => "the destination closed the connection before it answered",
        _ => "the destination cannot be reached",
    };
    Denial::new(upstream_reason(error), detail)
}
