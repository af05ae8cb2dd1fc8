//! A socket whose reader may be slow but not still.
//!
//! **Invariant:** bytes that wait for the peer move within [`WRITE_LIMIT`], or the connection ends and what depends on it settles.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::handshakes::HandshakeSignal;
use crate::session::HeaderDeadline;
use crate::upstream::Stall;

const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// A TLS connection from a caller.
pub(super) type TlsStream = tokio_rustls::server::TlsStream<WriteTimeoutStream>;

#[derive(Debug)]
pub(super) struct WriteTimeoutStream<S = TcpStream> {
    stream: S,
    stalled: Option<Stall>,
    deadline: Arc<HeaderDeadline>,
    /// Until the first byte.
    handshake: Option<Arc<HandshakeSignal>>,
    /// Whoever uses it looks after a reader that is still.
    is_patient: bool,
}

impl<S> WriteTimeoutStream<S> {
    /// `handshake` is told of the first byte.
    pub(super) const fn new(
        stream: S,
        deadline: Arc<HeaderDeadline>,
        handshake: Option<Arc<HandshakeSignal>>,
    ) -> Self {
        Self { stream, stalled: None, deadline, handshake, is_patient: false }
    }

    /// A reader may be still: what is spoken has its own time, and whoever carries it looks after that.
    pub(super) const fn wait_for_reader(&mut self) {
        self.is_patient = true;
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.is_patient {
            return Poll::Pending;
        }
        let stall = self.stalled.get_or_insert_with(|| Stall::new(WRITE_LIMIT));
        stall.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.deadline.on_bytes();
            if let Some(signal) = self.handshake.take() {
                signal.on_bytes();
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeoutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
