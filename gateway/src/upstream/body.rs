//! The request body on its way out.
//!
//! **Invariant:** it is framed by us: length or chunks follow from what is really sent. Of the caller's trailers those leave that injection lets
//! pass, where the body is not rewritten.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::caller_body::CallerBody;
use crate::incoming::IncompleteBody;
use crate::min_rate::MinRateClock;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the other side sent nothing for too long")]
    Stalled,
    #[error("the call took longer than it may altogether")]
    Overlong,
    #[error("the caller sends too slowly for what it holds")]
    Slow,
    #[error("the peer broke off: {0}")]
    Peer(#[from] IncompleteBody),
    #[error("the record could not be written")]
    Ledger,
    #[error("the grant was withdrawn while the answer was streaming")]
    Revoked,
    #[error("the token that the call was made with proves nobody any more")]
    ProofEnded,
    #[error("the request body is not what its head announces")]
    Malformed(#[from] MalformedBody),
}

/// A body that is rewritten on its way is not in the form that it has to have.
#[derive(Debug, thiserror::Error)]
#[error("malformed")]
pub(crate) struct MalformedBody;

/// What rewrites a body on its way, without changing its length.
pub(crate) trait BodyRewriter: std::fmt::Debug + Send {
    /// Takes the next bytes; what may leave is put at the end of `out`.
    fn feed(&mut self, input: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), MalformedBody>;

    /// The body has ended: an error where it should have gone on.
    fn end(&mut self) -> Result<(), MalformedBody>;
}

/// What of a caller's trailers may leave.
pub(crate) trait TrailerFilter: std::fmt::Debug + Send {
    /// Takes out what may not.
    fn clean(&self, trailers: &mut HeaderMap);
}

/// A body for the provider.
#[derive(Debug)]
pub(crate) enum OutBody {
    /// No body, or one held whole. Can be sent again.
    Whole(Bytes),
    /// Straight from the caller, with back-pressure.
    Streaming(Box<StreamingBody>),
}

/// Apart, so that a body that is held stays small.
#[derive(Debug)]
pub(crate) struct StreamingBody {
    incoming: CallerBody,
    stall: Stall,
    /// Of a call that holds what others share.
    rate_clock: Option<MinRateClock>,
    upload: Arc<Upload>,
    recoding: Option<Rewriting>,
    trailers: Option<Box<dyn TrailerFilter>>,
}

#[derive(Debug)]
struct Rewriting {
    by: Box<dyn BodyRewriter>,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl OutBody {
    pub(crate) fn streaming(incoming: CallerBody, idle: Duration, rate_clock: Option<MinRateClock>) -> Self {
        let (stall, upload) = (Stall::new(idle), Arc::default());
        let (recoding, trailers) = (None, None);
        Self::Streaming(Box::new(StreamingBody { incoming, stall, rate_clock, upload, recoding, trailers }))
    }

    /// The body as `by` rewrites it.
    ///
    /// # Errors
    /// Where it is held whole and is found to be malformed; one that streams breaks off there.
    pub(crate) fn recoded(self, mut by: Box<dyn BodyRewriter>) -> Result<Self, MalformedBody> {
        match self {
            Self::Whole(bytes) => {
                let mut out = VecDeque::new();
                by.feed(bytes, &mut out)?;
                by.end()?;
                Ok(Self::Whole(out.iter().flat_map(|part| part.iter().copied()).collect()))
            }
            Self::Streaming(mut body) => {
                body.recoding = Some(Rewriting { by, ready: VecDeque::new(), ended: false });
                Ok(Self::Streaming(body))
            }
        }
    }

    /// Lets pass what `by` leaves of the trailers of a body that streams.
    pub(crate) fn pass_trailers(&mut self, by: impl FnOnce() -> Box<dyn TrailerFilter>) {
        if let Self::Streaming(body) = self {
            body.trailers = Some(by());
        }
    }

    /// How far a body that streams has come, for whoever waits for the answer.
    pub(crate) fn upload(&self) -> Option<Arc<Upload>> {
        match self {
            Self::Whole(_) => None,
            Self::Streaming(body) => Some(Arc::clone(&body.upload)),
        }
    }

    /// The same body once more, where it is held whole.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Streaming(_) => None,
        }
    }
}

impl StreamingBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(Rewriting { ready, ended, .. }) = &mut self.recoding else {
                return self.poll_incoming(cx);
            };
            if let Some(bytes) = ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if *ended {
                return Poll::Ready(None);
            }
            let next = ready!(self.poll_incoming(cx));
            if let Err(error) = self.recode(next) {
                if matches!(error, BodyError::Malformed(_)) {
                    self.upload.malformed.store(true, Ordering::Relaxed);
                }
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn recode(&mut self, next: Option<Result<Frame<Bytes>, BodyError>>) -> Result<(), BodyError> {
        let Some(Rewriting { by, ready, ended }) = &mut self.recoding else { return Ok(()) };
        match next {
            Some(frame) => {
                if let Ok(bytes) = frame?.into_data() {
                    by.feed(bytes, ready)?;
                }
            }
            None => {
                *ended = true;
                by.end()?;
            }
        }
        Ok(())
    }

    /// Trailers as they may leave.
    fn clean(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let by = self.trailers.as_ref().filter(|_| self.recoding.is_none())?;
        let mut trailers = frame.into_trailers().ok()?;
        by.clean(&mut trailers);
        (!trailers.is_empty()).then(|| Frame::trailers(trailers))
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                let answered = self.upload.answered.load(Ordering::Relaxed);
                if let Some(rate_clock) = self.rate_clock.as_mut().filter(|_| !answered)
                    && rate_clock.poll_late(cx).is_ready()
                {
                    self.upload.slow.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(BodyError::Slow)));
                }
                ready!(self.stall.poll(cx));
                self.upload.broken.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::Stalled)));
            };
            self.stall.progress();
            let left = self.incoming.size_hint();
            if next.is_none() || self.incoming.is_end_stream() || left.exact() == Some(0) {
                self.upload.whole.store(true, Ordering::Relaxed);
            }
            if let Some(rate_clock) = &mut self.rate_clock {
                let came = next.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                rate_clock.came(came.map_or(0, Bytes::len));
            }
            match next {
                Some(Ok(frame)) if frame.is_data() => {
                    self.upload.add(frame.data_ref().map_or(0, Bytes::len));
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Ok(frame)) => {
                    if let Some(trailers) = self.clean(frame) {
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                }
                Some(Err(error)) => {
                    self.upload.broken.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streaming(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streaming(body) => match &body.recoding {
                None => body.incoming.is_end_stream(),
                Some(recoding) => recoding.ended && recoding.ready.is_empty(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streaming(body) => body.incoming.size_hint(),
        }
    }
}

/// How far a streaming body has come.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    bytes: AtomicU64,
    malformed: AtomicBool,
    slow: AtomicBool,
    broken: AtomicBool,
    answered: AtomicBool,
    whole: AtomicBool,
}

impl Upload {
    /// Whether all of it was handed over to be sent.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many bytes have left.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The answer has begun: what is still to be sent may depend on it, as in a call that streams both ways.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether it broke off because its caller sent too slowly.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether its caller broke off, or sent no more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Whether it broke off because it is not what its head announces. What a connection says of that depends on its protocol.
    pub(crate) fn is_malformed(&self) -> bool {
        self.malformed.load(Ordering::Relaxed)
    }
}

/// Notices that nothing moved for `limit`, or that all time is over. The timer is armed on the first wait and re-armed only when it fires,
/// so that a chunk costs one clock reading.
#[derive(Debug)]
pub(crate) struct Stall {
    limit: Duration,
    deadline: Option<Instant>,
    last: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) const fn new(limit: Duration) -> Self {
        Self { limit, deadline: None, last: None, timer: None }
    }

    /// However much moves, at `deadline` all is over.
    pub(crate) const fn until(limit: Duration, deadline: Option<Instant>) -> Self {
        Self { limit, deadline, last: None, timer: None }
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Something moved.
    pub(crate) fn progress(&mut self) {
        if self.timer.is_some() {
            self.last = Some(Instant::now());
        }
    }

    /// Ready once nothing has moved for the limit, or the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let first = |at: Instant| deadline.map_or(at, |deadline| at.min(deadline));
        let begin = || Box::pin(tokio::time::sleep_until(first(Instant::now() + self.limit)));
        let timer = self.timer.get_or_insert_with(begin);
        loop {
            ready!(timer.as_mut().poll(cx));
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let Some(last) = self.last.take().filter(|_| !is_over) else { return Poll::Ready(()) };
            timer.as_mut().reset(first(last + self.limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_counted_from_the_last_progress() {
        let mut stall = Stall::new(Duration::from_secs(10));
        let begun = Instant::now();
        assert!(futures_poll(&mut stall).await.is_pending());
        tokio::time::advance(Duration::from_secs(8)).await;
        stall.progress();
        std::future::poll_fn(|cx| stall.poll(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 18);
    }

    #[tokio::test(start_paused = true)]
    async fn all_is_over_at_the_deadline_however_much_moves() {
        let begun = Instant::now();
        let mut stall = Stall::until(Duration::from_secs(10), Some(begun + Duration::from_secs(15)));
        assert!(futures_poll(&mut stall).await.is_pending());
        tokio::time::advance(Duration::from_secs(9)).await;
        stall.progress();
        assert!(!stall.is_over());
        std::future::poll_fn(|cx| stall.poll(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 15);
        assert!(stall.is_over());
    }

    async fn futures_poll(stall: &mut Stall) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(stall.poll(cx))).await
    }
}
