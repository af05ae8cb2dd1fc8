//! The body of a caller's request, and how much of it the connection has still to bring.
//!
//! **Invariant:** a body that was not read to its end is known as such, so that an answer that does not wait for it can say that the connection
//! closes, and the connection is closed in a way that lets the answer arrive.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Seconds that a body may still come after its answer has left. It may be all but here, and the connection of use.
const AFTER_ANSWER: i64 = 2;

/// A body of no more than this has most likely come with its head. hyper reads that much of what nobody wants, and keeps the connection.
const SHORT: u64 = 16 << 10;

const READ: i64 = 0;
const COMES: i64 = -1;
const DROPPED: i64 = -2;

/// Of the one request that an HTTP/1 connection carries at a time: whether its body was read. Beside the words above: the second at
/// which the answer was first seen to be over while the body still came.
#[derive(Debug)]
pub(crate) struct BodyProgress(AtomicI64);

impl BodyProgress {
    /// Of a connection that has carried nothing yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicI64::new(READ))
    }

    /// Whether nobody will read what is left of the body.
    pub(crate) fn was_dropped(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DROPPED
    }

    /// Whether the body comes although its answer has been over for too long, at `now`, in seconds. To be asked about once a second.
    pub(crate) fn is_late(&self, now: i64) -> bool {
        match self.0.load(Ordering::Relaxed) {
            READ | DROPPED => false,
            COMES => {
                self.0.store(now, Ordering::Relaxed);
                false
            }
            since => now - since >= AFTER_ANSWER,
        }
    }

    fn set(&self, word: i64) {
        self.0.store(word, Ordering::Relaxed);
    }
}

/// A request's body as it comes.
#[derive(Debug)]
pub(crate) struct CallerBody {
    incoming: Incoming,
    /// `None`: the connection carries other requests beside this one, or the body has ended.
    progress: Option<Arc<BodyProgress>>,
}

impl CallerBody {
    /// `progress` is told how far the body has come.
    pub(crate) fn new(incoming: Incoming, progress: Option<&Arc<BodyProgress>>) -> Self {
        let progress = progress.filter(|progress| {
            let comes = !incoming.is_end_stream();
            progress.set(if comes { COMES } else { READ });
            comes
        });
        Self { progress: progress.map(Arc::clone), incoming }
    }

    fn ended(&mut self, word: i64) {
        if let Some(progress) = self.progress.take() {
            progress.set(word);
        }
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(_))) if !self.incoming.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => self.ended(READ),
            Poll::Ready(Some(Err(_))) => self.ended(DROPPED),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        let is_short = self.incoming.size_hint().upper().is_some_and(|left| left <= SHORT);
        self.ended(if is_short { READ } else { DROPPED });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_two_seconds_after_its_answer() {
        let progress = BodyProgress::new();
        assert!(!progress.is_late(100));
        progress.set(COMES);
        assert!(!progress.is_late(100) && !progress.is_late(101));
        assert!(progress.is_late(102));
        progress.set(READ);
        assert!(!progress.is_late(200));
        progress.set(DROPPED);
        assert!(progress.was_dropped() && !progress.is_late(200));
    }
}
