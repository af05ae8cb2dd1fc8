//! A stream of HTTP/2 as bytes, where hyper serves the connection.
//!
//! **Invariant:** a stream that was reset before its end is read as an error. So is one that was reset right behind it, which hyper does not
//! tell apart. Two things cannot be told: one that is dropped is ended by hyper as if it were whole, and behind the gateway's own end a
//! reset looks like an end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What hyper hands over for a CONNECT.
///
/// hyper reads a stream that its peer has cancelled as one that has ended. A peer that has only ended its own way can still be written to.
/// Nobody is woken by a reset behind the end: whoever flushes now and then hears of it.
#[derive(Debug)]
pub(super) struct UpgradedStream {
    stream: TokioIo<Upgraded>,
    end: StreamEnd,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    Open,
    /// hyper says that it has ended.
    Doubted,
    Sure,
    /// hyper says it once.
    Reset,
}

impl UpgradedStream {
    pub(super) fn new(stream: Upgraded) -> Self {
        Self { stream: TokioIo::new(stream), end: StreamEnd::Open }
    }

    fn noted<T>(&mut self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(done, Poll::Ready(Err(_))) {
            self.end = StreamEnd::Reset;
        }
        done
    }
}

impl AsyncRead for UpgradedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.end {
            StreamEnd::Open => {
                // hyper's task that writes it was woken by the same reset, and has its turn first: a core has one thread, which takes tasks
                // in order.
                self.end = StreamEnd::Doubted;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            StreamEnd::Doubted => {
                // What waits for a slow reader is no reason to hold back the end of the other way.
                if let Poll::Ready(flushed) = self.as_mut().poll_flush(cx) {
                    flushed?;
                }
                self.end = StreamEnd::Sure;
                Poll::Ready(Ok(()))
            }
            StreamEnd::Sure => Poll::Ready(Ok(())),
            StreamEnd::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for UpgradedStream {
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
