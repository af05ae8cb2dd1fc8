//! A stream of HTTP/2 as bytes: what a CONNECT opens (RFC 9113, section 8.5).
//!
//! **Invariant:** a stream that was reset is read as an error, never as its end, and one that is dropped before its end is reset. Whoever
//! flushes it hears of a reset that comes behind the peer's end. What waits to be sent is bounded by the connection's buffer for a stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is sent at once: the frame that every peer takes (RFC 9113, section 6.5.2).
const PIECE: usize = 16 << 10;

/// Both halves of a stream.
#[derive(Debug)]
pub(super) struct H2Stream {
    sender: SendStream<Bytes>,
    receiver: RecvStream,
    /// Of the last frame, what was not asked for yet.
    rest: Bytes,
    has_ended: bool,
}

impl H2Stream {
    pub(super) const fn new(sender: SendStream<Bytes>, receiver: RecvStream) -> Self {
        Self { sender, receiver, rest: Bytes::new(), has_ended: false }
    }

    /// Says that the connection that it stands for has failed (RFC 9113, section 8.5).
    pub(super) fn reset(mut self) {
        self.sender.send_reset(Reason::CONNECT_ERROR);
    }

    /// Fails once the peer has reset it, and has the task woken that waits for that.
    fn check_reset(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.sender.poll_reset(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(_)) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Ready(Err(error)) => Err(io::Error::other(error)),
        }
    }
}

impl AsyncRead for H2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receiver.poll_data(cx)) {
                Some(data) => self.rest = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let bytes = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..bytes]);
        self.rest.advance(bytes);
        let released = self.receiver.flow_control().release_capacity(bytes);
        Poll::Ready(released.map_err(io::Error::other))
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.has_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // Asked for also where there is room: who waits for room has to hear of it too.
        self.check_reset(cx)?;
        self.sender.reserve_capacity(buf.len().min(PIECE));
        while self.sender.capacity() == 0 {
            match ready!(self.sender.poll_capacity(cx)) {
                Some(room) => drop(room.map_err(io::Error::other)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let piece = buf.get(..self.sender.capacity().min(PIECE)).unwrap_or(buf);
        let sent = self.sender.send_data(Bytes::copy_from_slice(piece), false);
        Poll::Ready(sent.map(|()| piece.len()).map_err(io::Error::other))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.has_ended { Ok(()) } else { self.check_reset(cx) })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ended {
            return Poll::Ready(Ok(()));
        }
        self.has_ended = true;
        Poll::Ready(self.sender.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
