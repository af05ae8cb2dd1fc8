//! The bytes of a connection that is passed through, both ways.
//!
//! **Invariant:** each way ends as it ended where it came from: a good end as one, anything else as a reset, so that nobody takes a part for
//! the whole. What waits is one piece each way, whoever is slow.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::TunnelTls;
use tollgate_policy::target::Passage;

use super::budget::Budget;
use super::{Hello, Reached};
use crate::caller_occupancy::OccupancySlot;
use crate::fault;
use crate::ledger::Outcome;
use crate::metering::{Account, Over, Reauthorizer, RelayWatch, Traffic};
use crate::upstream::Outbound;

/// What waits each way.
const PIECE: usize = 16 << 10;

/// A connection that leads to its destination, and carries nothing yet. Dropped, it is recorded as one whose caller has gone.
pub(crate) struct OpenTunnel {
    account: Box<Account>,
    link: Outbound,
    reauthorizer: Reauthorizer,
    watch: RelayWatch,
    traffic: Arc<Traffic>,
    budget: Arc<Budget>,
    hello: Option<Hello>,
    _place: Option<Arc<OccupancySlot>>,
}

impl OpenTunnel {
    pub(super) fn new(connected: Reached, account: Box<Account>) -> Self {
        let Reached { link, reauthorizer, watch, traffic, budget, hello, place } = connected;
        Self { account, link, reauthorizer, watch, traffic, budget, hello, _place: place }
    }

    /// Carries bytes until both sides have ended or it may not go on. `cut` ends the caller's side so that it cannot be taken for a good end.
    pub(crate) async fn relay<S>(self, stream: S, cut: impl FnOnce(S))
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { mut account, link, reauthorizer, mut watch, traffic, budget, hello, _place } = self;
        let mut near = CountedStream::new(stream, (&traffic, &budget), Way::Up);
        let mut far = CountedStream::new(link, (&traffic, &budget), Way::Down);
        let ended = {
            let carried = carry(&mut near, &mut far, hello, (&reauthorizer, &mut watch));
            let within = async {
                tokio::select! {
                    ended = carried => ended,
                    denial = budget.kept_up(&mut account) => Err(denial),
                }
            };
            fault::caught(pin!(within)).await
        };
        match ended {
            Ok(Ended::Well) => return account.ended(Outcome::Completed),
            Ok(Ended::CallerGone { is_whole: true }) => {
                account.ended(Outcome::CallerGone);
                // The last of it may still be on its way to the destination.
                return cut(near.stream);
            }
            Ok(Ended::CallerGone { is_whole: false }) => account.ended(Outcome::CallerGone),
            Ok(Ended::DestinationFailed) => account.ended(Outcome::UpstreamFailed),
            Err(denial) => account.cut(&denial),
        }
        far.stream.reset();
        cut(near.stream);
    }
}

/// How both ways are over.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// `is_whole`: it has ended its own way before, and all of that has passed.
    CallerGone {
        is_whole: bool,
    },
    DestinationFailed,
}

/// The end of one way that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailedEnd {
    From,
    To,
    /// What it leads to is there, and takes nothing for too long.
    Stalled,
}

impl FailedEnd {
    fn to(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Stalled } else { Self::To }
    }
}

async fn carry<S>(
    near: &mut CountedStream<S>,
    far: &mut CountedStream<Outbound>,
    hello: Option<Hello>,
    (reauthorizer, watch): (&Reauthorizer, &mut RelayWatch),
) -> Result<Ended, Denial>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = match hello {
        None if wants_hello(reauthorizer) => {
            let hello = Hello::read(near).await?;
            let target = reauthorizer.call().permit.target().clone();
            Passage::To(target).server(hello.server())?;
            Some(hello)
        }
        Some(read) => {
            if near.budget.room() < read.len() as u64 {
                let detail = "the caller's own TLS begins with more bytes than are left of a limit";
                return Err(Denial::new(Reason::BudgetExhausted, detail));
            }
            near.count(read.len());
            Some(read)
        }
        None => None,
    };
    let traffic = Arc::clone(&near.traffic);
    let carried = async {
        if let Some(hello) = hello
            && far.write_all(&hello.into_bytes()).await.is_err()
        {
            return Ended::DestinationFailed;
        }
        both_ways(near, far).await
    };
    let ended = tokio::select! {
        ended = carried => ended,
        over = watch.over(reauthorizer, &traffic) => return why(over),
    };
    match ended {
        // What carries it may be cut first.
        Ended::CallerGone { .. } if reauthorizer.is_drained() => why(Over::Draining),
        ended => Ok(ended),
    }
}

/// Carries both ways until they end. A client that drops a stream of HTTP/2 ends its way and then resets it: what it sent before is to
/// arrive.
async fn both_ways(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite) -> Ended {
    let ((from_near, to_near), (from_far, to_far)) = (split(near), split(far));
    let (mut up, mut down) = (pin!(one_way(from_near, to_far)), pin!(one_way(from_far, to_near)));
    let (up, down) = tokio::select! {
        done = &mut up => (done, if done.is_ok() { down.await } else { Ok(()) }),
        done = &mut down => (if matches!(done, Ok(()) | Err(FailedEnd::To)) { up.await } else { Ok(()) }, done),
    };
    match (up, down) {
        (Ok(()), Ok(())) => Ended::Well,
        (Err(FailedEnd::To | FailedEnd::Stalled), _) | (_, Err(FailedEnd::From)) => Ended::DestinationFailed,
        (Err(FailedEnd::From), _) | (_, Err(FailedEnd::Stalled)) => Ended::CallerGone { is_whole: false },
        (Ok(()), Err(FailedEnd::To)) => Ended::CallerGone { is_whole: true },
    }
}

/// Carries what comes until its end, which it passes on, or until either end fails.
///
/// While nothing comes, the end that it leads to is flushed: a stream of HTTP/2 says then that it was reset, also where nobody reads it any
/// more. A socket says no such thing.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<(), FailedEnd> {
    let mut piece = vec![0; PIECE];
    loop {
        let mut read = ReadBuf::new(&mut piece);
        let next = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = Pin::new(&mut to).poll_flush(cx) {
                return Poll::Ready(Err(FailedEnd::to(&error)));
            }
            Pin::new(&mut from).poll_read(cx, &mut read).map_err(|_| FailedEnd::From)
        });
        next.await?;
        if read.filled().is_empty() {
            return to.shutdown().await.map_err(|error| FailedEnd::to(&error));
        }
        to.write_all(read.filled()).await.map_err(|error| FailedEnd::to(&error))?;
    }
}

/// Whether the destination takes the caller's own TLS alone.
fn wants_hello(reauthorizer: &Reauthorizer) -> bool {
    reauthorizer.call().permit.destination().tcp().is_some_and(|tcp| tcp.tls == TunnelTls::Callers)
}

/// What becomes of a connection that may not go on.
fn why(over: Over) -> Result<Ended, Denial> {
    let (reason, detail) = match over {
        Over::Withdrawn => (Reason::Withdrawn, "the policy permits this connection no longer"),
        Over::ProofEnded(reason) => (reason, "what has proven its caller has ended"),
        Over::Draining => (Reason::Drained, "the gateway stops"),
        Over::Idle => (Reason::TunnelIdle, "no byte has passed for as long as the destination lets none"),
        Over::Lifetime => (
            Reason::TunnelLifetime,
            "it has lasted as long as the destination, or the window of a limit in which it counts, lets one",
        ),
        Over::Cut => return Ok(Ended::CallerGone { is_whole: false }),
    };
    Err(Denial::new(reason, detail))
}

/// Which way bytes pass.
#[derive(Clone, Copy, Debug)]
enum Way {
    Up,
    Down,
}

/// A stream that counts what is read of it, and reads no more than may pass.
struct CountedStream<S> {
    stream: S,
    traffic: Arc<Traffic>,
    budget: Arc<Budget>,
    way: Way,
}

impl<S> CountedStream<S> {
    fn new(stream: S, (traffic, budget): (&Arc<Traffic>, &Arc<Budget>), way: Way) -> Self {
        let (traffic, budget) = (Arc::clone(traffic), Arc::clone(budget));
        Self { stream, traffic, budget, way }
    }

    fn count(&self, bytes: usize) {
        match self.way {
            Way::Up => self.traffic.came(bytes),
            Way::Down => self.traffic.answered(bytes),
        }
        self.budget.used();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = usize::try_from(self.budget.room()).unwrap_or(usize::MAX);
        if room == 0 {
            self.budget.wait(self.way as usize, cx);
            return Poll::Pending;
        }
        let (bytes, read) = if room >= buf.remaining() {
            let before = buf.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(cx, buf);
            (buf.filled().len() - before, read)
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
            let bytes = part.filled().len();
            buf.advance(bytes);
            (bytes, read)
        };
        if bytes > 0 {
            self.count(bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;

    /// A caller that says nothing, and to whom nothing can be written.
    struct Silent(io::ErrorKind);

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.0.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_caller_that_takes_nothing_for_too_long_is_not_waited_for() {
        let (far, mut destination) = duplex(1 << 10);
        destination.write_all(b"an answer").await.unwrap();
        let ended = timeout(Duration::from_secs(10), both_ways(Silent(io::ErrorKind::TimedOut), far)).await;
        assert_eq!(ended, Ok(Ended::CallerGone { is_whole: false }));
    }
}
