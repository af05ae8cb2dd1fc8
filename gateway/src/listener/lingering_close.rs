//! Closing a connection so that its last answer arrives.
//!
//! **Invariant:** what the peer still sends after we closed our half is read and thrown away, within bounds. A socket that is closed with bytes
//! left unread is reset, and a reset discards what the peer has not read yet: the answer (RFC 9112, section 9.6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::write_timeout::{TlsStream, WriteTimeoutStream};
use crate::caller_occupancy::OccupancySlot;

/// As long as nginx lingers by default (`lingering_time`, `lingering_timeout`).
const LONGEST: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(5);
const PIECE: usize = 16 << 10;
/// A connection may have hundreds of tunnels.
const TUNNEL_PIECE: usize = 1 << 10;

/// Ends our half of `stream`, and reads on until the peer has ended its own, is silent, or has had its time.
pub(super) async fn close(mut stream: Box<TlsStream>) {
    let deadline = Instant::now() + LONGEST;
    // Done already where HTTP ended in good order.
    let shut = timeout_at(deadline, stream.shutdown()).await;
    if matches!(shut, Ok(Ok(()))) {
        discard(stream.into_inner().0.into_inner(), deadline).await;
    }
}

/// The same without TLS.
pub(super) async fn close_clear(mut stream: WriteTimeoutStream) {
    let deadline = Instant::now() + LONGEST;
    let shut = timeout_at(deadline, stream.shutdown()).await;
    if matches!(shut, Ok(Ok(()))) {
        discard(stream.into_inner(), deadline).await;
    }
}

/// Ends a connection so that nobody takes it for a good end.
pub(super) fn reset(stream: Box<TlsStream>) {
    abort(&stream.into_inner().0.into_inner());
}

/// The same without TLS.
pub(super) fn reset_clear(stream: WriteTimeoutStream) {
    abort(&stream.into_inner());
}

fn abort(socket: &TcpStream) {
    // A socket that refuses is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// A tunnel that reads on once our half of it has ended, also where what is spoken in it owns the stream.
///
/// A tunnel that is dropped with its peer's half open is reset, and a peer that still writes (its own half of HTTP/2 is never silent) takes
/// that for the end of what it has not read yet.
#[derive(Debug)]
pub(super) struct Lingering<S: AsyncRead + Send + Unpin + 'static> {
    stream: Option<S>,
    has_ended: bool,
    /// Of its caller, until all of it is over.
    place: Option<Arc<OccupancySlot>>,
}

impl<S: AsyncRead + Send + Unpin + 'static> Lingering<S> {
    pub(super) const fn new(stream: S, place: Option<Arc<OccupancySlot>>) -> Self {
        Self { stream: Some(stream), has_ended: false, place }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        // It is there until the drop.
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + Send + Unpin + 'static> Drop for Lingering<S> {
    fn drop(&mut self) {
        if let (true, Some(mut stream)) = (self.has_ended, self.stream.take()) {
            // Not as below TLS: a tunnel has no socket whose readiness could be asked for.
            let place = self.place.take();
            let rest = async move {
                let mut piece = vec![0; TUNNEL_PIECE];
                while let Ok(Ok(1..)) = timeout(SILENCE, stream.read(&mut piece)).await {}
            };
            tokio::spawn(async move {
                // A peer that still writes has had its time.
                let _ = timeout(LONGEST, rest).await;
                drop(place);
            });
        }
    }
}

impl<S: AsyncRead + Send + Unpin + 'static> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_ended = true;
        self.stream()?.poll_shutdown(cx)
    }
}

/// Below TLS: nobody asks what it says.
async fn discard(stream: TcpStream, deadline: Instant) {
    let mut piece = vec![0; PIECE];
    loop {
        let silent = deadline.min(Instant::now() + SILENCE);
        if !matches!(timeout_at(silent, stream.readable()).await, Ok(Ok(()))) {
            return;
        }
        match stream.try_read(&mut piece) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
