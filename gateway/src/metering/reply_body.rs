//! A body for the caller: ours, or the provider's through the meter.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::MeteredBody;
use super::relay::Relay;
use crate::upstream::BodyError;

/// What the caller gets behind a head.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    Full(Bytes),
    Metered(Box<MeteredBody>),
    /// No body: what follows the head is no HTTP.
    Switched(Box<Relay>),
}

impl ReplyBody {
    /// Whether the call behind it is settled and recorded, so that it holds nothing that others wait for.
    pub(crate) const fn is_settled(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Metered(body) => body.is_settled(),
            Self::Switched(_) => false,
        }
    }

    /// What goes on where the head was, in the place of the body.
    pub(crate) fn take_relay(&mut self) -> Option<Box<Relay>> {
        if !matches!(self, Self::Switched(_)) {
            return None;
        }
        match std::mem::replace(self, Self::Full(Bytes::new())) {
            Self::Switched(relay) => Some(relay),
            Self::Full(_) | Self::Metered(_) => None,
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Metered(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Self::Switched(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Metered(body) => body.is_end_stream(),
            Self::Switched(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Metered(body) => body.size_hint(),
            Self::Switched(_) => SizeHint::with_exact(0),
        }
    }
}
