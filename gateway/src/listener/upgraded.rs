//! A stream of HTTP/2 as bytes, where hyper serves the connection.
//!
//! **Invariant:** a stream that was reset is read as an error, never as its end. One that is dropped is ended by hyper as if it were whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What hyper hands over for a CONNECT.
///
/// hyper reads a stream that its peer has cancelled as one that has ended. A peer that has only ended its own way can still be written to.
#[derive(Debug)]
pub(super) struct UpgradedStream {
    stream: TokioIo<Upgraded>,
    has_waited: bool,
}

impl UpgradedStream {
    pub(super) fn new(stream: Upgraded) -> Self {
        Self { stream: TokioIo::new(stream), has_waited: false }
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
        // hyper's task that writes it was woken by the same reset: it comes first.
        if !self.has_waited {
            self.has_waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            // What waits for a slow reader is no reason to hold back the end of the other way.
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for UpgradedStream {
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
