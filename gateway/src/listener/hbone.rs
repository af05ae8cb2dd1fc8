//! HBONE: the tunnels of an ambient mesh. Each is an HTTP/2 CONNECT on a connection that a workload's own certificate has opened, and what
//! comes in it is the workload's HTTP (istio/ztunnel, `src/proxy/h2`).
//!
//! **Invariant:** a tunnel proves nothing and chooses nothing: who calls is who has opened the connection, and each request in it walks the
//! whole route. What the sender says of itself in headers (`baggage`, `forwarded`) is not read.

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::target::TunnelAuthority;

use super::http as requests;
use super::linger::Lingering;
use super::write_timeout::WriteTimeoutStream;
use crate::caller_usage::UsagePermit;
use crate::core::Core;
use crate::ledger::RecordId;
use crate::metering::Account;
use crate::reply::{self, ErrorFormat};
use crate::session::{HEAD_LIMIT, HeaderDeadline, Road, Session};

/// For the first bytes in a tunnel.
pub(super) const FIRST_BYTES: Duration = Duration::from_secs(HEAD_LIMIT.unsigned_abs());
/// What a client of HTTP/2 begins with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a TLS client begins with: a handshake record (RFC 8446, section 5.1).
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// Serves tunnels until the peer leaves, its proof ends, or the drain says so.
pub(super) async fn serve<S>(core: Arc<Core>, session: Arc<Session>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _drained = core.shared.drain.watch();
    core.connections.enter(&session);
    let (own_core, own_session) = (Arc::clone(&core), Arc::clone(&session));
    let service = service_fn(move |request| {
        let answer = open(&own_core, &own_session, request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut served = requests::http2(&core.shared.limits).serve_connection(TokioIo::new(stream), service);
    requests::drive(&mut served, &session, |connection| connection.graceful_shutdown()).await;
    core.connections.leave(&session);
}

/// Answers one request for a tunnel, and begins to serve what comes in it.
fn open(core: &Arc<Core>, session: &Arc<Session>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match authorise(core, session, &request) {
        Ok(leave) => {
            let (core, session) = (Arc::clone(core), Arc::clone(session));
            tokio::spawn(async move {
                if let Ok(tunnel) = hyper::upgrade::on(request).await {
                    carry(core, session, leave, tunnel).await;
                }
            });
            Response::default()
        }
        Err(denial) => {
            let authority = request.uri().authority().and_then(|text| text.as_str().parse().ok());
            let id = refuse(core, session, authority.as_ref(), &denial);
            let mut response = reply::refusal(&denial, id, ErrorFormat::of_tunnel(), false).map(Full::new);
            // As ztunnel says it; a client of the mesh shows nothing but this number.
            if response.status() == StatusCode::FORBIDDEN {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            response
        }
    }
}

/// Leave to open a tunnel.
struct TunnelPermit {
    authority: TunnelAuthority,
    /// Among the connections of its caller: what comes in it is one.
    place: UsagePermit,
}

/// Lets a tunnel be opened where its caller may have something to ask for.
fn authorise<B>(core: &Core, session: &Session, request: &Request<B>) -> Result<TunnelPermit, Denial> {
    let authority = request.uri().authority().filter(|_| request.method() == Method::CONNECT);
    let authority = authority.ok_or_else(|| {
        Denial::new(
            Reason::MethodRefused,
            "this listener takes requests for tunnels alone: CONNECT, as HBONE has it",
        )
    })?;
    let authority: TunnelAuthority = authority.as_str().parse()?;
    let snapshot = core.snapshot()?;
    let shared = &core.shared;
    let context =
        session.proofs.connection_caller(&shared.trust, &shared.usages, &snapshot, Timestamp::now())?;
    let end = snapshot.policy.tunnel(&authority)?;
    context.grants().check_reach(end.destinations())?;
    let full = "this workload has too many connections and tunnels at once";
    let place = context.usage().connection();
    let place = place.ok_or_else(|| Denial::new(Reason::ConcurrencyLimited, full))?;
    Ok(TunnelPermit { authority, place })
}

/// Records that a tunnel, or what came in it, was refused.
fn refuse(
    core: &Arc<Core>,
    session: &Session,
    authority: Option<&TunnelAuthority>,
    denial: &Denial,
) -> RecordId {
    let mut account = Account::open(Arc::clone(core), &Method::CONNECT, &HeaderMap::new());
    let shared = &core.shared;
    if let Ok(snapshot) = core.snapshot()
        && let Ok(context) =
            session.proofs.connection_caller(&shared.trust, &shared.usages, &snapshot, account.begun())
    {
        // It is refused either way.
        let _ = account.identified(&context, &snapshot);
        if let Some(end) = authority.and_then(|authority| snapshot.policy.tunnel(authority).ok()) {
            account.tunnelled(&end);
        }
    }
    account.refuse(denial)
}

/// Serves what comes in a tunnel: the workload's own HTTP, in the version that it begins with.
async fn carry(core: Arc<Core>, outer: Arc<Session>, leave: TunnelPermit, tunnel: Upgraded) {
    let TunnelPermit { authority, place } = leave;
    let deadline = Arc::new(HeaderDeadline::new());
    let tunnel = Lingering::new(TokioIo::new(tunnel));
    let mut tunnel = WriteTimeoutStream::new(tunnel, Arc::clone(&deadline), None);
    let Ok(Ok(begun)) = tokio::time::timeout(FIRST_BYTES, first_bytes(&mut tunnel)).await else { return };
    if begun.first() == Some(&TLS_HANDSHAKE) {
        let detail = "TLS came in a tunnel to a destination whose requests the gateway has to read: call http:// instead, \
                      and the gateway calls the destination over TLS";
        refuse(&core, &outer, Some(&authority), &Denial::new(Reason::TlsInTunnel, detail));
        return;
    }
    let session = outer.tunnelled(Road::Hbone(authority), begun == PREFACE, deadline, place);
    let (reader, writer) = tokio::io::split(tunnel);
    let whole = tokio::io::join(Cursor::new(begun).chain(reader), writer);
    requests::serve(core, Arc::new(session), whole, end).await;
}

/// Reads on until it is known which HTTP is spoken: to its end where it may be version 2.
pub(super) async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut begun = Vec::with_capacity(PREFACE.len());
    while begun.len() < PREFACE.len() && PREFACE.starts_with(&begun) {
        let room = PREFACE.len() - begun.len();
        if (&mut *stream).take(room as u64).read_buf(&mut begun).await? == 0 {
            break;
        }
    }
    Ok(begun)
}

/// Ends our half of a tunnel, behind the last answer.
pub(super) async fn end<S: AsyncWrite + Unpin>(mut stream: S) {
    // A peer that is gone has its answer or does not want it.
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests;
