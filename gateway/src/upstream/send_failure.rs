//! What became of a request that got no answer.
//!
//! **Invariant:** it is called unsent only where it provably was, or where the other side said that it did not look at it.

use std::error::Error;

use h2::Reason;
use rustls::AlertDescription;

use super::answer::UnreadableAnswer;
use super::body::OutBody;
use super::error::UpstreamError;

/// No answer came.
#[derive(Debug)]
pub(crate) struct SendFailure {
    /// The body of a request that never left, because its connection was closing.
    pub(crate) returned: Option<OutBody>,
    pub(crate) error: hyper::Error,
    /// The certificate was refused: on a new connection, before the request was read.
    pub(super) refused: Option<AlertDescription>,
    /// It left on a kept connection, from which nothing of an answer came.
    pub(super) died: bool,
}

/// What that means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendFate {
    /// It never left.
    Unsent,
    /// It was not processed, and the other side said so: the stream was refused (RFC 9113, section 8.7), or is above the last one of a
    /// GOAWAY (section 6.8).
    Unprocessed,
    /// The same, and the other side wants it over HTTP/1.1 (section 7).
    NeedsHttp1,
    /// Its kept connection ended without a byte of an answer: very likely it came too late, but that is not certain.
    Died,
    /// Nobody knows.
    Unknown,
}

impl SendFailure {
    pub(crate) fn fate(&self) -> SendFate {
        if self.refused.is_some() {
            return SendFate::Unknown;
        }
        if self.returned.is_some() {
            return SendFate::Unsent;
        }
        match self.http2() {
            Some(error) if error.is_remote() => match error.reason() {
                Some(Reason::HTTP_1_1_REQUIRED) => SendFate::NeedsHttp1,
                Some(Reason::REFUSED_STREAM) => SendFate::Unprocessed,
                _ if error.is_go_away() => SendFate::Unprocessed,
                _ => SendFate::Unknown,
            },
            Some(_) => SendFate::Unknown,
            None if self.died && !self.error.is_parse() => SendFate::Died,
            None => SendFate::Unknown,
        }
    }

    /// Whether the endpoint broke off under a request that it may have looked at: not one that its kept connection was too old for, nor an
    /// answer that cannot be read.
    pub(crate) fn is_of_endpoint(&self) -> bool {
        self.refused.is_none() && self.fate() == SendFate::Unknown && !self.error.is_parse()
    }

    fn http2(&self) -> Option<&h2::Error> {
        self.error.source()?.downcast_ref()
    }

    pub(crate) fn into_error(self) -> UpstreamError {
        if let Some(unreadable) = UnreadableAnswer::of(&self.error).filter(|_| self.refused.is_none()) {
            return UpstreamError::Unreadable(unreadable);
        }
        match (self.refused, self.fate()) {
            (Some(alert), _) => UpstreamError::CertificateRefused(alert),
            (None, SendFate::Unsent) => UpstreamError::Unsent,
            (None, SendFate::Unprocessed | SendFate::NeedsHttp1) => UpstreamError::Unprocessed(self.error),
            (None, SendFate::Died | SendFate::Unknown) if self.error.is_timeout() => {
                UpstreamError::FirstByteTimeout
            }
            (None, SendFate::Died | SendFate::Unknown) => UpstreamError::Broken(self.error),
        }
    }
}
