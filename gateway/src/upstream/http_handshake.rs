//! HTTP on a secured connection.
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
use tokio::time::{Instant, timeout_at};

use super::alpn::AlpnOffer;
use super::answer::HEAD_BYTES;
use super::body::OutBody;
use super::connection_state::ConnectionState;
use super::error::UpstreamError;
use super::secured::{Secured, SecuredStream};
use crate::ledger::{Gate, Gated, Journal};
use crate::settings::INLINE_FIELDS;

type Http2Connection = http2::Connection<TokioIo<SecuredStream>, OutBody, TokioExecutor>;

/// How many streams the other side of an HTTP/2 connection allows.
#[derive(Clone)]
pub(super) struct StreamLimit(LimitSource);

#[derive(Clone)]
enum LimitSource {
    /// What its SETTINGS say now.
    Settings(Weak<Mutex<Http2Connection>>),
    #[cfg(test)]
    Fixed(usize),
}

impl fmt::Debug for StreamLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamLimit").field(&self.now()).finish()
    }
}

impl StreamLimit {
    #[cfg(test)]
    pub(super) const fn fixed(streams: usize) -> Self {
        Self(LimitSource::Fixed(streams))
    }

    /// None before the first SETTINGS, and after the end.
    pub(super) fn now(&self) -> usize {
        match &self.0 {
            LimitSource::Settings(connection) => {
                connection.upgrade().map_or(0, |connection| lock(&connection).current_max_send_streams())
            }
            #[cfg(test)]
            LimitSource::Fixed(streams) => *streams,
        }
    }
}

/// Drives a connection that can be asked for its settings meanwhile.
struct Http2Driver(Arc<Mutex<Http2Connection>>);

impl Future for Http2Driver {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *lock(&self.0)).poll(cx)
    }
}

/// Sends on an HTTP/1 connection, of which nothing leaves while its gate is closed.
#[derive(Debug)]
pub(super) struct Http1Sender {
    pub(super) sender: http1::SendRequest<OutBody>,
    pub(super) gate: Arc<Gate>,
}

/// What TLS agreed on, ready for the first request.
pub(super) enum Negotiated {
    Http1(Http1Sender),
    Http2(http2::SendRequest<OutBody>, StreamLimit),
}

/// Begins to speak what TLS agreed on; `answer_fields`: most fields of an answer over HTTP/1.1.
pub(super) async fn handshake(
    secured: Secured,
    (offer, deadline): (AlpnOffer, Instant),
    answer_fields: usize,
    journal: &Arc<Journal>,
) -> Result<Negotiated, UpstreamError> {
    let state = Arc::clone(secured.state());
    let is_http2 = secured.protocol() == Some(b"h2");
    let io = TokioIo::new(secured.into_stream());
    if is_http2 {
        let agreed = timeout_at(deadline, http2(io, &state)).await;
        let (sender, allowed) = agreed.map_err(|_| UpstreamError::ConnectTimeout)??;
        return Ok(Negotiated::Http2(sender, allowed));
    }
    if offer == AlpnOffer::Grpc {
        return Err(UpstreamError::OtherHttp);
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    if answer_fields != INLINE_FIELDS {
        builder.max_headers(answer_fields);
    }
    let (sender, connection) =
        builder.handshake(io).await.map_err(|error| UpstreamError::of_http(error, &state))?;
    let gate = Arc::new(Gate::new(journal));
    let connection = connection.with_upgrades();
    tokio::spawn(Gated { connection, gate: Arc::clone(&gate) });
    Ok(Negotiated::Http1(Http1Sender { sender, gate }))
}

async fn http2(
    io: TokioIo<SecuredStream>,
    state: &ConnectionState,
) -> Result<(http2::SendRequest<OutBody>, StreamLimit), UpstreamError> {
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
        .map_err(|error| UpstreamError::of_http(error, state))?;
    // It is driven until it may carry a stream. The other side can still refuse the client certificate, or close.
    let connection = Arc::new(Mutex::new(connection));
    let allowed = StreamLimit(LimitSource::Settings(Arc::downgrade(&connection)));
    let mut driven = Http2Driver(connection);
    loop {
        let mut moves = pin!(state.moves.notified());
        moves.as_mut().enable();
        if allowed.now() > 0 {
            break;
        }
        tokio::select! {
            ended = &mut driven => {
                let refused = state.refusal().map(UpstreamError::CertificateRefused);
                return Err(refused.unwrap_or_else(|| ended.err().map_or(UpstreamError::Unsent, UpstreamError::Handshake)));
            }
            () = moves => {}
        }
    }
    tokio::spawn(driven);
    Ok((sender, allowed))
}

/// The connection belongs to one core: the lock is never contended.
fn lock(connection: &Mutex<Http2Connection>) -> MutexGuard<'_, Http2Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
