//! The bytes of a connection that is passed through, both ways.
//!
//! **Invariant:** each way ends as it ended where it came from: a good end as one, anything else as a reset, so that nobody takes a part for
//! the whole. What waits is one piece each way, whoever is slow.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};
use tollgate_policy::denial::Denial;
use tollgate_policy::target::Passage;

use super::watch::TunnelWatch;
use super::{Hello, Reached};
use crate::caller_usage::UsagePermit;
use crate::fault;
use crate::ledger::Outcome;
use crate::metering::{Account, PassedBytes};
use crate::upstream::Outbound;

/// What waits each way.
const PIECE: usize = 16 << 10;

/// A connection that leads to its destination, and carries nothing yet. Dropped, it is recorded as one whose caller has gone.
pub(crate) struct OpenTunnel {
    account: Box<Account>,
    link: Outbound,
    watch: TunnelWatch,
    hello: Option<Hello>,
    _place: Option<Arc<UsagePermit>>,
}

impl OpenTunnel {
    pub(super) fn new(connected: Reached, account: Box<Account>) -> Self {
        let Reached { link, watch, hello, place } = connected;
        Self { account, link, watch, hello, _place: place }
    }

    /// Carries bytes until both sides have ended or it may not go on. `cut` ends the caller's side so that it cannot be taken for a good end.
    pub(crate) async fn relay<S>(self, stream: S, cut: impl FnOnce(S))
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { account, link, mut watch, hello, _place } = self;
        let passed = Arc::clone(watch.passed());
        let mut near = CountedStream::new(stream, Arc::clone(&passed), PassedBytes::came);
        let mut far = CountedStream::new(link, passed, PassedBytes::answered);
        let ended = fault::caught(pin!(carry(&mut near, &mut far, hello, &mut watch))).await;
        match ended {
            Ok(Outcome::Completed) => return account.ended(Outcome::Completed),
            Ok(outcome) => account.ended(outcome),
            Err(denial) => account.cut(&denial),
        }
        far.stream.reset();
        cut(near.stream);
    }
}

async fn carry<S>(
    near: &mut CountedStream<S>,
    far: &mut CountedStream<Outbound>,
    hello: Option<Hello>,
    watch: &mut TunnelWatch,
) -> Result<Outcome, Denial>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = match hello {
        None if watch.wants_hello() => {
            let hello = Hello::read(near).await?;
            let target = watch.call().permit.target().clone();
            Passage::To(target).server(hello.server())?;
            Some(hello)
        }
        Some(read) => {
            near.count(read.len());
            Some(read)
        }
        None => None,
    };
    let both = async {
        if let Some(hello) = hello {
            far.write_all(&hello.into_bytes()).await?;
        }
        copy_bidirectional_with_sizes(near, far, PIECE, PIECE).await
    };
    let ended = tokio::select! {
        ended = both => ended,
        denial = watch.over() => return Err(denial),
    };
    match ended {
        Ok(_) => Ok(Outcome::Completed),
        Err(_) if far.has_failed => Ok(Outcome::UpstreamFailed),
        // What carries it may be cut first.
        Err(_) => watch.drained().map_or(Ok(Outcome::CallerGone), Err),
    }
}

/// A stream that counts what is read of it, and knows whether it has failed.
struct CountedStream<S> {
    stream: S,
    passed: Arc<PassedBytes>,
    count: fn(&PassedBytes, usize),
    has_failed: bool,
}

impl<S> CountedStream<S> {
    const fn new(stream: S, passed: Arc<PassedBytes>, count: fn(&PassedBytes, usize)) -> Self {
        Self { stream, passed, count, has_failed: false }
    }

    fn count(&self, bytes: usize) {
        (self.count)(&self.passed, bytes);
    }

    fn noted<T>(&mut self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.has_failed |= matches!(done, Poll::Ready(Err(_)));
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.count(buf.filled().len() - before);
        self.noted(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.noted(ended)
    }
}
