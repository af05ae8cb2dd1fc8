//! What can go wrong between a permit and the head of an answer.

use std::io;

use rustls::AlertDescription;

use super::alerts::{alert, refusal};
use super::answer::UnreadableAnswer;
use super::certificate::BadCertificate;
use super::connection_state::ConnectionState;
use super::dial::DialError;
use super::health::CircuitError;
use super::proxy::ProxyError;

/// Why there is no connection, or no answer on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the destination is not called: {0}")]
    Circuit(#[from] CircuitError),
    #[error("the proxy did not let it through: {0}")]
    Proxy(#[from] ProxyError),
    #[error("host and port are no authority: {0}")]
    Authority(#[from] http::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("the client certificate cannot be shown: {0}")]
    Certificate(#[from] BadCertificate),
    #[error("the destination refused the client certificate: {0:?}")]
    CertificateRefused(AlertDescription),
    #[error("connect timed out")]
    ConnectTimeout,
    #[error("the connection closed before the request could leave")]
    Unsent,
    #[error("the provider refused the request unread: {0}")]
    Unprocessed(hyper::Error),
    #[error("it does not speak the HTTP that was asked for; `http` in its resource says which")]
    OtherHttp,
    #[error("no answer in time")]
    FirstByteTimeout,
    #[error("no answer within `timeouts.total`")]
    TotalTimeout {
        /// The request may have been read.
        sent: bool,
    },
    #[error("the HTTP handshake failed: {0}")]
    Handshake(hyper::Error),
    #[error("the answer's framing is ambiguous")]
    Framing,
    #[error("the answer cannot be read: {0}")]
    Unreadable(UnreadableAnswer),
    #[error("the provider broke off: {0}")]
    Broken(hyper::Error),
}

impl UpstreamError {
    /// A handshake that failed.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        if alert(&error) == Some(AlertDescription::NoApplicationProtocol) {
            return Self::OtherHttp;
        }
        refusal(&error).map_or(Self::Tls(error), Self::CertificateRefused)
    }

    /// A connection that broke off before the first request.
    pub(super) fn of_http(error: hyper::Error, state: &ConnectionState) -> Self {
        state.refusal().map_or(Self::Handshake(error), Self::CertificateRefused)
    }

    /// Whether no connection came about and nothing of ours is to blame: not an address that calls leave from, nor a certificate of ours,
    /// nor a resolver.
    pub(crate) const fn is_unreached(&self) -> bool {
        match self {
            Self::Dial(error) => matches!(error, DialError::Connect(_) | DialError::Timeout),
            Self::Proxy(error) => error.is_unreached(),
            Self::ConnectTimeout | Self::Tls(_) | Self::Handshake(_) => true,
            _ => false,
        }
    }

    /// Whether it is about the one endpoint that was reached: another may do better.
    pub(crate) const fn is_of_endpoint(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::Tls(_) | Self::Handshake(_))
    }

    /// Whether it is about the certificate that we show.
    pub(crate) const fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::CertificateRefused(_))
    }
}
