//! HBONE: the tunnels of an ambient mesh. Each is an HTTP/2 CONNECT on a connection that a workload's own certificate has opened, and what
//! comes in it is the workload's HTTP, or a connection that `tunnel` passes through (istio/ztunnel, `src/proxy/h2`).
//!
//! **Invariant:** a tunnel proves nothing and chooses nothing: who calls is who has opened the connection, and each request in it walks the
//! whole route. What the sender says of itself in headers (`baggage`, `forwarded`) is not read.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::header::{ALLOW, CONNECTION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::target::{Passage, TunnelAuthority};

use super::h2_stream::H2Stream;
use super::http as requests;
use super::lingering_close::Lingering;
use super::rewind::Rewind;
use super::tunnel_admission::{self, Begun, FIRST_BYTES, end};
use super::write_timeout::WriteTimeoutStream;
use crate::caller_occupancy::OccupancySlot;
use crate::core::Core;
use crate::identity::CallerCredentials;
use crate::ledger::RecordId;
use crate::reply::{self, ErrorFormat};
use crate::session::{HeaderDeadline, ProxyMode, Session, Shutdown};
use crate::settings::RequestLimits;
use crate::tunnel::{self, Hello, OpenTunnel, RefusedTunnel, Towards, TunnelRequest};

/// Bytes of one tunnel that wait for its destination, and of all of one connection: it takes 64 that wait to stop another.
const WINDOW: u32 = 256 << 10;
const WINDOW_OF_ALL: u32 = 16 << 20;
/// Bytes of one tunnel that wait for its workload.
const SENT_AHEAD: usize = 64 << 10;
/// How often a silent peer is asked whether it is there, and how long it has to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Serves tunnels until the peer leaves, its proof ends, or the drain says so.
pub(super) async fn serve<S>(core: Arc<Core>, session: Arc<Session>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (own_core, own_session) = (Arc::clone(&core), Arc::clone(&session));
    let asked = move |request, respond| {
        tokio::spawn(answer(Arc::clone(&own_core), Arc::clone(&own_session), request, respond));
    };
    connection(core, session, stream, asked).await;
}

/// Hands each request for a tunnel to `asked`, until the peer leaves, its proof ends, or the drain says so.
pub(super) async fn connection<S>(
    core: Arc<Core>,
    session: Arc<Session>,
    stream: S,
    asked: impl Fn(Request<RecvStream>, SendResponse<Bytes>),
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _drained = core.shared.drain.watch();
    core.connections.enter(&session);
    if let Err(error) = tunnels(&core, &session, stream, asked).await {
        tracing::debug!(peer = %session.address, %error, "connection of tunnels ended");
    }
    core.connections.leave(&session);
}

async fn tunnels<S>(
    core: &Core,
    session: &Session,
    stream: S,
    asked: impl Fn(Request<RecvStream>, SendResponse<Bytes>),
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Ok(begun) = timeout(FIRST_BYTES, http2(&core.shared.limits).handshake(stream)).await else {
        return Ok(());
    };
    let mut connection = begun?;
    let mut silent = pin!(silent(connection.ping_pong()));
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(accepted) = accepted else { return Ok(()) };
                let (request, respond) = accepted?;
                // A drain gives time for a first request, which this is. Whose turn it is counts over HTTP/1.1 alone.
                session.deadline.on_request();
                asked(request, respond);
            }
            () = &mut silent => return Ok(()),
            order = session.shutdown.received() => match order {
                Some(Shutdown::Abort) => return Ok(()),
                Some(Shutdown::Graceful) => connection.graceful_shutdown(),
                None => {}
            }
        }
    }
}

fn http2(limits: &RequestLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW_OF_ALL)
        .max_send_buffer_size(SENT_AHEAD);
    builder
}

/// Ready once the peer does not answer any more.
async fn silent(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(PING_EVERY).await;
        if !matches!(timeout(PONG_WITHIN, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// Answers one request for a tunnel, and carries what comes in it.
async fn answer(
    core: Arc<Core>,
    session: Arc<Session>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let opened = tokio::select! {
        opened = open(&core, &session, &request) => opened,
        _gone = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(RefusedTunnel { denial, id }) => {
            // A peer that is gone does not read it.
            let _ = refused(&denial, id, &mut respond);
            return;
        }
    };
    let Ok(sender) = respond.send_response(Response::default(), false) else { return };
    let stream = H2Stream::new(sender, request.into_body());
    match tunnel {
        Tunnel::Requests(leave) => requests_in(core, session, leave, stream).await,
        Tunnel::Named(leave) => named(&core, &session, leave, stream).await,
        Tunnel::Open(tunnel) => tunnel.relay(stream, H2Stream::reset).await,
    }
}

/// Answers a request for a tunnel that is refused.
pub(super) fn refused(
    denial: &Denial,
    id: RecordId,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (mut head, body) = reply::refusal(denial, id, ErrorFormat::of_tunnel(), false).into_parts();
    // A client of the mesh shows nothing but this number: as ztunnel says it (`src/proxy/inbound.rs`).
    head.status = match head.status {
        StatusCode::FORBIDDEN => StatusCode::UNAUTHORIZED,
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    };
    if head.status == StatusCode::METHOD_NOT_ALLOWED {
        head.headers.insert(ALLOW, HeaderValue::from_static("CONNECT"));
    }
    // There is none in HTTP/2 (RFC 9113, section 8.2.2).
    head.headers.remove(CONNECTION);
    let is_empty = body.is_empty();
    let mut sender = respond.send_response(Response::from_parts(head, ()), is_empty)?;
    if is_empty { Ok(()) } else { sender.send_data(body, true) }
}

/// A tunnel that its peer may have.
enum Tunnel {
    /// Requests come in it.
    Requests(TunnelPermit),
    /// The caller's own TLS says where it leads.
    Named(TunnelPermit),
    Open(Box<OpenTunnel>),
}

/// Leave to open a tunnel.
struct TunnelPermit {
    authority: TunnelAuthority,
    /// Among the connections of its caller: what comes in it is one.
    place: Arc<OccupancySlot>,
}

/// Opens a tunnel: where something is passed through, as far as its destination.
async fn open(
    core: &Arc<Core>,
    session: &Arc<Session>,
    request: &Request<RecvStream>,
) -> Result<Tunnel, RefusedTunnel> {
    let authorised = authorise(core, session, request).map_err(|denial| {
        let authority = request.uri().authority().and_then(|text| text.as_str().parse().ok());
        RefusedTunnel { id: refuse(core, session, authority.as_ref(), &denial), denial }
    });
    let (leave, passage) = authorised?;
    match passage {
        None => Ok(Tunnel::Requests(leave)),
        Some(Passage::ByServerName(_)) => Ok(Tunnel::Named(leave)),
        Some(Passage::To(_)) => passed(core, session, leave, Ok(None)).await.map(Box::new).map(Tunnel::Open),
    }
}

async fn passed(
    core: &Arc<Core>,
    session: &Arc<Session>,
    leave: TunnelPermit,
    hello: Result<Option<Hello>, Denial>,
) -> Result<OpenTunnel, RefusedTunnel> {
    let TunnelPermit { authority, place } = leave;
    let towards = Towards::Authority(&authority);
    let credentials = CallerCredentials::none();
    tunnel::open(core, session, TunnelRequest { towards, hello, credentials, place: Some(place) }).await
}

/// Lets a tunnel be opened where its caller may have something to ask for.
fn authorise<B>(
    core: &Core,
    session: &Session,
    request: &Request<B>,
) -> Result<(TunnelPermit, Option<Passage>), Denial> {
    let authority = authority(request)?;
    if let ProxyMode::Hbone(outer) = &session.mode
        && *outer != authority
    {
        let detail = "the tunnel inside leads elsewhere than the one that it comes in";
        return Err(Denial::new(Reason::AmbiguousAuthority, detail));
    }
    let snapshot = core.snapshot()?;
    let shared = &core.shared;
    let context =
        session.proofs.connection_caller(&shared.trust, &shared.usages, &snapshot, Timestamp::now())?;
    let passage = context.grants().reach(snapshot.policy.tunnel(&authority)?)?.passage()?;
    let place = tunnel_admission::place(&context)?;
    Ok((TunnelPermit { authority, place }, passage))
}

/// Where a tunnel is to lead.
///
/// # Errors
/// `method_refused` where none is asked for, `ambiguous_authority` where it is not said.
pub(super) fn authority<B>(request: &Request<B>) -> Result<TunnelAuthority, Denial> {
    let authority = request.uri().authority().filter(|_| request.method() == Method::CONNECT);
    let authority = authority.ok_or_else(|| {
        Denial::new(
            Reason::MethodRefused,
            "this listener takes requests for tunnels alone: CONNECT, as HBONE has it",
        )
    })?;
    let authority = authority.as_str().parse()?;
    check_host(&authority, request.headers())?;
    Ok(authority)
}

/// Refuses a request for a tunnel whose `Host` names another authority (RFC 9113, section 8.3.1).
pub(super) fn check_host(authority: &TunnelAuthority, headers: &HeaderMap) -> Result<(), Denial> {
    for host in headers.get_all(HOST) {
        if !authority.is_named_by(host.to_str().unwrap_or_default()) {
            return Err(Denial::new(Reason::AmbiguousAuthority, "the request names two authorities"));
        }
    }
    Ok(())
}

/// Passes through a connection whose own TLS says where it leads.
async fn named(core: &Arc<Core>, session: &Arc<Session>, leave: TunnelPermit, mut stream: H2Stream) {
    let hello = Hello::read(&mut stream).await.map(Some);
    match passed(core, session, leave, hello).await {
        Ok(tunnel) => tunnel.relay(stream, H2Stream::reset).await,
        Err(_) => stream.reset(),
    }
}

/// Records that a tunnel, or what came in it, was refused.
pub(super) fn refuse(
    core: &Arc<Core>,
    session: &Session,
    authority: Option<&TunnelAuthority>,
    denial: &Denial,
) -> RecordId {
    let shared = &core.shared;
    let by = core.snapshot().ok().and_then(|snapshot| {
        let now = Timestamp::now();
        let caller = session.proofs.connection_caller(&shared.trust, &shared.usages, &snapshot, now);
        Some((caller.ok()?, snapshot))
    });
    let end = by.as_ref().zip(authority).and_then(|((_, it), authority)| it.policy.tunnel(authority).ok());
    let by = by.as_ref().map(|(context, snapshot)| (context, &**snapshot));
    let asked = authority.map(ToString::to_string).unwrap_or_default();
    tunnel_admission::refuse(core, &HeaderMap::new(), by, (&asked, end.as_ref()), denial)
}

/// Serves what comes in a tunnel: the workload's own HTTP, in the version that it begins with.
async fn requests_in(core: Arc<Core>, outer: Arc<Session>, leave: TunnelPermit, stream: H2Stream) {
    let TunnelPermit { authority, place } = leave;
    let deadline = Arc::new(HeaderDeadline::new());
    let tunnel = WriteTimeoutStream::new(
        Lingering::new(stream, Some(Arc::clone(&place))),
        Arc::clone(&deadline),
        None,
    );
    let mut whole = Rewind::new(Bytes::new(), tunnel);
    let Some(begun) = tunnel_admission::begun(&mut whole).await else { return };
    if begun == Begun::Tls {
        let detail = "TLS came in a tunnel to a destination whose requests the gateway has to read: call http:// instead, \
                      and the gateway calls the destination over TLS";
        refuse(&core, &outer, Some(&authority), &Denial::new(Reason::TlsInTunnel, detail));
        return;
    }
    let session = outer.tunnelled(ProxyMode::Hbone(authority), begun == Begun::Http2, deadline, place);
    requests::serve(core, Arc::new(session), whole, end).await;
}

#[cfg(test)]
mod tests;
