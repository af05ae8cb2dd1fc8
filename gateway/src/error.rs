//! What a failing upstream is to the caller: the one translation into reasons.

use std::time::Duration;

use tollgate_policy::denial::{Denial, Reason};

use crate::upstream::{CircuitError, DialError, LookupError, ProxyError, UpstreamError};

/// When a call that a circuit refused may well find room.
const CIRCUIT_RETRY: Duration = Duration::from_secs(1);

/// The reason of a failure.
pub(crate) const fn upstream_reason(error: &UpstreamError) -> Reason {
    match error {
        UpstreamError::Dial(DialError::Refused) => Reason::AddressRefused,
        UpstreamError::Dial(DialError::Timeout)
        | UpstreamError::ConnectTimeout
        | UpstreamError::FirstByteTimeout
        | UpstreamError::TotalTimeout { .. } => Reason::UpstreamTimeout,
        UpstreamError::Dial(DialError::Resolve(_)) => Reason::DnsFailed,
        UpstreamError::Dial(error) if error.is_of_source() => Reason::SourceUnavailable,
        UpstreamError::Dial(_)
        | UpstreamError::Proxy(_)
        | UpstreamError::Authority(_)
        | UpstreamError::Unsent => Reason::UpstreamUnreachable,
        UpstreamError::Circuit(CircuitError::Share) => Reason::Overloaded,
        UpstreamError::Circuit(_) => Reason::CircuitOpen,
        UpstreamError::Tls(_) => Reason::UpstreamTls,
        UpstreamError::Certificate(_) => Reason::SecretUnavailable,
        UpstreamError::CertificateRefused(_) => Reason::CredentialRejected,
        UpstreamError::Handshake(_)
        | UpstreamError::Framing
        | UpstreamError::OtherHttp
        | UpstreamError::Unreadable(_) => Reason::UpstreamProtocol,
        UpstreamError::Broken(_) | UpstreamError::Unprocessed(_) => Reason::UpstreamReset,
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
        UpstreamError::Proxy(error) => {
            return Denial::new(Reason::UpstreamUnreachable, proxy_detail(error));
        }
        UpstreamError::Circuit(circuit) => {
            let detail = format!("the destination is not called at the moment: {circuit}");
            return Denial::new(upstream_reason(error), detail).retry_after(CIRCUIT_RETRY);
        }
        _ => {}
    }
    let detail = match upstream_reason(error) {
        Reason::AddressRefused => {
            "the destination resolves to an address that may not be dialled; `egress.privateRanges` of the gateway lists private ones that may"
        }
        Reason::DnsFailed => match error {
            UpstreamError::Dial(DialError::Resolve(LookupError::Timeout)) => {
                "the destination's name could not be resolved in time; nothing was sent"
            }
            _ => "the destination's name could not be resolved; nothing was sent",
        },
        Reason::SourceUnavailable => {
            "no address that calls to this destination may leave from can be had at the moment; nothing was sent"
        }
        Reason::UpstreamTimeout => match error {
            UpstreamError::FirstByteTimeout => {
                "the destination did not answer in time (`timeouts.firstByte`); it may have done what it was asked, and may bill it"
            }
            UpstreamError::TotalTimeout { sent: true } => {
                "the call had all of its time (`timeouts.total`); the destination may have done what it was asked, and may bill it"
            }
            UpstreamError::TotalTimeout { sent: false } => {
                "the call had all of its time (`timeouts.total`) before it could be sent"
            }
            _ => "no connection to the destination came about in time; nothing was sent",
        },
        Reason::UpstreamTls => "the destination's TLS certificate could not be verified, or its TLS failed",
        Reason::SecretUnavailable => {
            "the client certificate for this destination cannot be had at the moment"
        }
        Reason::CredentialRejected => {
            "the destination refused the gateway's client certificate, or wants one; its owner has to look at it"
        }
        Reason::UpstreamProtocol if matches!(error, UpstreamError::OtherHttp) => {
            "the destination does not speak the HTTP version that is set for it; nothing was sent"
        }
        Reason::UpstreamProtocol => "the destination broke the protocol",
        Reason::UpstreamReset if matches!(error, UpstreamError::Unprocessed(_)) => {
            "the destination refused the call unread"
        }
        Reason::UpstreamReset => "the destination closed the connection before it answered",
        _ if matches!(error, UpstreamError::Unsent) => {
            "the destination closed the connection before the call could leave; nothing was sent"
        }
        _ => "the destination cannot be reached",
    };
    Denial::new(upstream_reason(error), detail)
}

/// Whether the same call may well succeed a moment later.
pub(crate) const fn is_passing(reason: Reason) -> bool {
    use Reason as R;
    matches!(
        reason,
        R::CircuitOpen
            | R::Overloaded
            | R::DnsFailed
            | R::SourceUnavailable
            | R::UpstreamUnreachable
            | R::UpstreamTimeout
            | R::UpstreamReset
    )
}

/// What a caller is told of a proxy on the way.
const fn proxy_detail(error: &ProxyError) -> &'static str {
    match error {
        ProxyError::Refused(407) => {
            "the proxy on the way to the destination asks for proof that the gateway does not have; nothing was sent"
        }
        ProxyError::Refused(403) => {
            "the proxy on the way to the destination does not let calls through to it; nothing was sent"
        }
        ProxyError::Refused(502..=504) => {
            "the proxy on the way to the destination cannot reach it; nothing was sent"
        }
        ProxyError::Refused(_) => {
            "the proxy on the way to the destination refused the connection; nothing was sent"
        }
        ProxyError::Tls(_) => {
            "the TLS certificate of the proxy on the way to the destination could not be verified, or its TLS failed"
        }
        ProxyError::Broken(_) | ProxyError::NotHttp => {
            "the proxy on the way to the destination gave no answer that could be read; nothing was sent"
        }
    }
}
