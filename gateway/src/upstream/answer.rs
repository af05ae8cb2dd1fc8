//! The body of an answer, the beginning of which may have been read already.
//!
//! **Invariant:** whoever reads it gets every byte, and the failure if there is one, at its place.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::incoming::{IncomingBody, IncompleteBody};

/// Most bytes of the head of an answer over HTTP/1.
pub(super) const HEAD_BYTES: usize = 256 << 10;

/// What about an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnreadableAnswer {
    #[error("its head has more fields than `limits.answerFields` allows, or more than {} KiB", HEAD_BYTES >> 10)]
    TooLarge,
    #[error("it does not begin as HTTP/1.1 or 1.0 does")]
    NotHttp,
    #[error("its status is no number of three digits")]
    Status,
    #[error("its Content-Length or Transfer-Encoding is malformed")]
    Framing,
    #[error("a field of its head is malformed, or folded into several lines")]
    Field,
}

impl UnreadableAnswer {
    /// `None` where the answer did not fail for what it said.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        if !error.is_parse() {
            return None;
        }
        // hyper tells the rest in its words alone.
        let words = error.to_string();
        Some(match &*words {
            _ if error.is_parse_too_large() => Self::TooLarge,
            _ if error.is_parse_status() => Self::Status,
            _ if words.contains("HTTP version") => Self::NotHttp,
            _ if words.contains("content-length") || words.contains("transfer-encoding") => Self::Framing,
            _ => Self::Field,
        })
    }
}

/// A body from a provider.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    read: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    failed: Option<IncompleteBody>,
    /// `None`: it ended, or broke off.
    rest: Option<IncomingBody>,
}

impl From<IncomingBody> for AnswerBody {
    fn from(incoming: IncomingBody) -> Self {
        Self { read: VecDeque::new(), trailers: None, failed: None, rest: Some(incoming) }
    }
}

impl AnswerBody {
    /// All of it, where it has at most `limit` bytes and is there before `patience` is over. It stays in the body.
    pub(crate) async fn peek(&mut self, limit: usize, patience: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        while self.size_hint().lower() <= limit as u64 {
            let Some(rest) = &mut self.rest else {
                return self.failed.is_none().then(|| self.read.iter().flatten().copied().collect());
            };
            match timeout_at(deadline, rest.frame()).await.ok()? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.read.push_back(bytes),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => (self.failed, self.rest) = (Some(error), None),
                None => self.rest = None,
            }
        }
        None
    }

    /// Whether nothing of it is still to come from the provider.
    pub(crate) fn is_here(&self) -> bool {
        self.failed.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn length(&self) -> u64 {
        self.read.iter().map(|bytes| bytes.len() as u64).sum()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = IncompleteBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncompleteBody>>> {
        if let Some(bytes) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        Pin::new(rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.trailers.is_none() && self.is_here()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        if self.read.is_empty() {
            return rest;
        }
        let length = self.length();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + length);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + length);
        }
        hint
    }
}
