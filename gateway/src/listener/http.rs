//! HTTP/1.1 and HTTP/2 on a caller's connection, whatever carries it.

pub(super) mod parking;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::framing::Strict;
use crate::core::Core;
use crate::in_place::boxed;
use crate::metering::{Relay, RelayEnd, ReplyBody};
use crate::request;
use crate::session::{Session, Shutdown};
use crate::settings::{INLINE_FIELDS, RequestLimits};

/// Serves requests until the peer leaves, its proof ends, or the drain says so. `close` ends a stream so that its last answer arrives.
pub(super) async fn serve<S, F>(core: Arc<Core>, session: Arc<Session>, stream: S, close: impl FnOnce(S) -> F)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = ()>,
{
    let _drained = core.shared.drain.watch();
    core.connections.enter(&session);
    let limits = &core.shared.limits;
    let (own_core, own_session) = (Arc::clone(&core), Arc::clone(&session));
    let switched = RelaySlot::default();
    let own_switched = switched.clone();
    let service = service_fn(move |request| {
        answer(Arc::clone(&own_core), Arc::clone(&own_session), request, own_switched.clone())
    });
    if session.http2 {
        let mut served =
            http2(limits).enable_connect_protocol().serve_connection(TokioIo::new(stream), service);
        drive(&mut served, &session, |c| c.graceful_shutdown()).await;
    } else {
        let strict = Strict::new(stream, Arc::clone(&session.deadline));
        if let Some((mut stream, begun)) = parking::serve_http1(&session, limits, strict, service).await {
            let relay = switched.take();
            if let Some(relay) = relay
                && relay.run(&mut stream, &begun).await == RelayEnd::Cut
            {
                core.connections.leave(&session);
                return;
            }
            tokio::select! {
                () = close(stream) => {}
                () = cut(&session) => {}
            }
        }
    }
    core.connections.leave(&session);
}

/// What a connection of HTTP/1.1 goes on with: nothing, or one relay.
#[derive(Clone, Default)]
pub(super) struct RelaySlot(Arc<Mutex<Option<Box<Relay>>>>);

impl RelaySlot {
    /// It is held for no longer than it takes to put something in or take it out.
    fn lock(&self) -> MutexGuard<'_, Option<Box<Relay>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay that its connection goes on with.
    pub(super) fn take(&self) -> Option<Box<Relay>> {
        self.lock().take()
    }
}

/// Answers one request. A relay that it begins goes on in its own stream of HTTP/2, or in `switched`.
pub(super) fn answer(
    core: Arc<Core>,
    session: Arc<Session>,
    request: Request<Incoming>,
    switched: RelaySlot,
) -> impl Future<Output = Result<Response<ReplyBody>, Infallible>> {
    session.deadline.on_request();
    let mut request = Box::new(request);
    // Over HTTP/2 a connection is closed in a way that loses nothing.
    let own_core = (request.version() < Version::HTTP_2).then(|| Arc::clone(&core));
    let stream = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut *request));
    let own_session = Arc::clone(&session);
    // Boxed: hyper moves the future around before it polls it, and this one is large.
    let answer = Box::into_pin(boxed(|| request::handle(core, own_session, request)));
    async move {
        let mut answer = answer.await;
        if let Some(relay) = answer.body_mut().take_relay() {
            match stream {
                Some(stream) => drop(tokio::spawn(relay_stream(relay, stream))),
                None => *switched.lock() = Some(relay),
            }
            return Ok(answer);
        }
        if let ReplyBody::Full(_) = answer.body() {
            session.deadline.on_response();
        }
        // Whoever is told leaves before its connection is closed, which could be while its next request is on the way.
        if own_core.is_some_and(|core| core.shared.drain.is_leaving()) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }
}

/// Relays in one stream of HTTP/2.
async fn relay_stream(relay: Box<Relay>, stream: OnUpgrade) {
    if let Ok(stream) = stream.await {
        relay.run(TokioIo::new(stream), &[]).await;
    }
}

/// How HTTP/1.1 is spoken with callers.
pub(super) fn http1(limits: &RequestLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Heads are waited for by `HeaderDeadline`: a timer for each request is dear, and would close idle connections as well.
        .header_read_timeout(None)
        .max_buf_size(limits.head_bytes);
    if limits.head_fields != INLINE_FIELDS {
        builder.max_headers(limits.head_fields);
    }
    builder
}

/// How HTTP/2 is spoken with callers.
pub(super) fn http2(limits: &RequestLimits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// What was answered is to arrive.
    Close,
    /// In the middle of something: no end that its peer could take for a good one.
    Cut,
    /// None yet: it asks for nothing, and is to be parked.
    Park,
}

/// Drives a connection. Told to close, it finishes the answers under way and takes no more.
pub(super) async fn drive<C>(served: &mut C, session: &Session, close: impl Fn(Pin<&mut C>)) -> End
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    loop {
        tokio::select! {
            biased;
            result = &mut *served => {
                let Err(error) = result else { return End::Close };
                tracing::debug!(peer = %session.address, mode = ?session.mode, %error, "connection ended");
                return if error.is_parse() { End::Close } else { End::Cut };
            }
            order = session.shutdown.received() => {
                let is_answered = session.is_answered_early(Timestamp::now());
                match order {
                    Some(Shutdown::Abort) => return End::Cut,
                    // What hyper has written by now has left: the rest of the request is of no use to anybody.
                    _ if is_answered && session.deadline.is_flushed() => return End::Close,
                    Some(Shutdown::Graceful) => close(Pin::new(&mut *served)),
                    None if session.can_park(Timestamp::now()) => return End::Park,
                    None => {}
                }
            }
        }
    }
}

pub(super) async fn cut(session: &Session) {
    session.shutdown.aborted().await;
}

#[cfg(test)]
mod tests;
