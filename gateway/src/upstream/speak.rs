//! HTTP on a verified connection.
//!
//! **Invariant:** an HTTP/2 connection is there when the other side has sent its SETTINGS, and has no more streams than these allow: a call
//! that waits for either has not left.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tollgate_policy::caller::Identity;

use super::UpstreamError;
use super::answer::HEAD_BYTES;
use super::body::OutBody;
use super::heard::Heard;
use super::offer::Offer;
use super::pool::{Bucket, Line, Verified};
use crate::ledger::Gated;

type Connection = http2::Connection<TokioIo<Heard<TlsStream<TcpStream>>>, OutBody, TokioExecutor>;

/// How many streams the other side of an HTTP/2 connection allows.
#[derive(Clone)]
pub(super) struct Streams(Source);

#[derive(Clone)]
enum Source {
    /// What its SETTINGS say now.
    Settings(Weak<Mutex<Connection>>),
    #[cfg(test)]
    Fixed(usize),
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Streams").field(&self.now()).finish()
    }
}

impl Streams {
    #[cfg(test)]
    pub(super) const fn fixed(streams: usize) -> Self {
        Self(Source::Fixed(streams))
    }

    /// None before the first SETTINGS, and after the end.
    pub(super) fn now(&self) -> usize {
        match &self.0 {
            Source::Settings(connection) => {
                connection.upgrade().map_or(0, |connection| lock(&connection).current_max_send_streams())
            }
            #[cfg(test)]
            Source::Fixed(streams) => *streams,
        }
    }
}

/// Drives a connection that can be asked for its settings meanwhile.
struct Driven(Arc<Mutex<Connection>>);

impl Future for Driven {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *lock(&self.0)).poll(cx)
    }
}

/// Begins to speak what TLS agreed on.
pub(super) async fn speak(
    stream: TlsStream<TcpStream>,
    (offer, deadline): (Offer, Instant),
    caller: &Identity,
    bucket: &Bucket,
    verified: &Arc<Verified>,
) -> Result<Line, UpstreamError> {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(Heard { stream, verified: Arc::clone(verified) });
    if is_http2 {
        let agreed = timeout_at(deadline, http2(io, verified)).await;
        let spoken = agreed.map_err(|_| UpstreamError::ConnectTimeout)??;
        return Ok(bucket.share(caller.clone(), spoken, verified));
    }
    if offer == Offer::Grpc {
        return Err(UpstreamError::OtherHttp);
    }
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .max_headers(bucket.answer_fields)
        .handshake(io)
        .await
        .map_err(|error| UpstreamError::spoken(error, verified))?;
    tokio::spawn(Gated { connection, gate: Arc::clone(&verified.gate) });
    Ok(Line::Http1(sender))
}

async fn http2(
    io: TokioIo<Heard<TlsStream<TcpStream>>>,
    verified: &Arc<Verified>,
) -> Result<(http2::SendRequest<OutBody>, Streams), UpstreamError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_header_list_size(64 << 10)
        // Until its SETTINGS are here, the other side has allowed none.
        .initial_max_send_streams(0)
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .handshake(io)
        .await
        .map_err(|error| UpstreamError::spoken(error, verified))?;
    let connection = Arc::new(Mutex::new(connection));
    let allowed = Streams(Source::Settings(Arc::downgrade(&connection)));
    let mut driven = Driven(connection);
    loop {
        let mut moves = pin!(verified.moves.notified());
        moves.as_mut().enable();
        if allowed.now() > 0 {
            break;
        }
        tokio::select! {
            ended = &mut driven => {
                let refused = verified.refused.get().copied().map(UpstreamError::CertificateRefused);
                return Err(refused.unwrap_or_else(|| ended.err().map_or(UpstreamError::Unsent, UpstreamError::Handshake)));
            }
            () = moves => {}
        }
    }
    tokio::spawn(driven);
    Ok((sender, allowed))
}

/// The connection belongs to one core: the lock is never contended.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
