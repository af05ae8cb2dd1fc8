//! The body of a caller's request, and how much of it the connection has still to bring.
//!
//! **Invariant:** a body that was not read to its end is known as such, so that an answer that does not wait for it can say that the connection
//! closes, and the connection is closed in a way that lets the answer arrive. Over HTTP/2, where a stream that ends early costs its caller the
//! answer, what nobody wants of a body is read before an error is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::caller_occupancy::OccupancySlot;
use crate::incoming::{IncomingBody, IncompleteBody};

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

    /// Whether it was read to its end.
    pub(crate) fn was_read(&self) -> bool {
        self.0.load(Ordering::Relaxed) == READ
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

/// Longest that an error waits for the rest of a body, and for its next bytes.
const DISCARD_MOST: Duration = Duration::from_secs(300);
const DISCARD_SILENCE: Duration = Duration::from_secs(5);
/// Longest that it waits for the rest to be sent to the provider.
const STILL_SENT: Duration = Duration::from_secs(2);

/// What the body of a request over HTTP/2 may leave unread.
#[derive(Debug)]
pub(crate) struct Leftover(oneshot::Receiver<IncomingBody>);

/// Reading what is left of a body before an error is answered.
///
/// HTTP/2 clients write a body to its end before they look at the answer (Python's `httpcore`), or take a stream that was ended
/// while they wrote for a broken one (Node's `undici`): RFC 9113, section 8.1 allows the early end, and they lose the answer by it.
#[derive(Debug)]
pub(crate) struct BodyDiscard {
    leftover: Leftover,
    /// Among those that the caller may have at once: its call is over.
    _place: OccupancySlot,
}

impl BodyDiscard {
    pub(crate) const fn new(leftover: Leftover, place: OccupancySlot) -> Self {
        Self { leftover, _place: place }
    }

    /// Returns when the body has ended, or has had its time. An answer that is not settled holds what others share, and waits for nothing.
    pub(crate) async fn over(discard: Option<Self>, is_settled: bool) {
        if let Some(discard) = discard.filter(|_| is_settled) {
            // Whoever is as slow as that gets its answer all the same.
            let _ = timeout(DISCARD_MOST, discard.leftover.read()).await;
        }
    }
}

impl Leftover {
    async fn read(self) {
        // The provider that answered may read on, and then nothing is left; or it reads no more, and does not say so.
        let Ok(Ok(mut incoming)) = timeout(STILL_SENT, self.0).await else { return };
        while let Ok(Some(Ok(_))) = timeout(DISCARD_SILENCE, incoming.frame()).await {}
    }
}

/// Who is told how a body ended.
#[derive(Debug)]
enum Watcher {
    /// It has ended, or there was none.
    Nobody,
    Connection(Arc<BodyProgress>),
    Stream(oneshot::Sender<IncomingBody>),
}

/// A request's body as it comes.
#[derive(Debug)]
pub(crate) struct CallerBody {
    /// Gone only while it is dropped.
    incoming: Option<IncomingBody>,
    watcher: Watcher,
}

impl CallerBody {
    /// `progress` is told how far the body has come, where its connection carries it alone. Of one stream of several it says what it leaves; a
    /// caller that waits to be told before it sends (`expect`) leaves nothing.
    pub(crate) fn new(
        incoming: IncomingBody,
        headers: &HeaderMap,
        progress: Option<&Arc<BodyProgress>>,
    ) -> (Self, Option<Leftover>) {
        let comes = !incoming.is_end_stream();
        let (mut watcher, mut leftover) = (Watcher::Nobody, None);
        match progress {
            Some(progress) => {
                progress.set(if comes { COMES } else { READ });
                if comes {
                    watcher = Watcher::Connection(Arc::clone(progress));
                }
            }
            None if comes && !headers.contains_key(EXPECT) => {
                let (left, what) = oneshot::channel();
                (watcher, leftover) = (Watcher::Stream(left), Some(Leftover(what)));
            }
            None => {}
        }
        (Self { incoming: Some(incoming), watcher }, leftover)
    }

    fn ended(&mut self, word: i64) {
        if let Watcher::Connection(progress) = std::mem::replace(&mut self.watcher, Watcher::Nobody) {
            progress.set(word);
        }
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = IncompleteBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncompleteBody>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *incoming).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(_))) if !incoming.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => self.ended(READ),
            Poll::Ready(Some(Err(_))) => self.ended(DROPPED),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.watcher, Watcher::Nobody) {
            Watcher::Nobody => {}
            Watcher::Connection(progress) => {
                let is_short = self.size_hint().upper().is_some_and(|left| left <= SHORT);
                progress.set(if is_short { READ } else { DROPPED });
            }
            Watcher::Stream(left) => {
                // Nobody waits for it where the call went well.
                let _ = self.incoming.take().map(|incoming| left.send(incoming));
            }
        }
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
