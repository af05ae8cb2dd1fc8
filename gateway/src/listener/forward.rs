//! The gateway as the proxy of a program: requests in absolute form, and tunnels (CONNECT) with the program's own HTTP in them (RFC 9110,
//! sections 7.6 and 9.3.6).
//!
//! **Invariant:** a tunnel is opened only for a proven caller who may have something to ask where it leads. It chooses nothing: each request
//! in it walks the whole route. Behind a CONNECT that is refused nothing is read on its connection as HTTP.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::target::{Target, TunnelAuthority, TunnelEnd};

use super::framing::Strict;
use super::hbone::check_host;
use super::http::{self as requests, parking};
use super::lingering_close::Lingering;
use super::rewind::Rewind;
use super::tunnel_admission::{self, Begun, end};
use super::upgraded::UpgradedStream;
use super::write_timeout::WriteTimeoutStream;
use super::{HANDSHAKE_LIMIT, tls};
use crate::caller_occupancy::OccupancySlot;
use crate::core::Core;
use crate::identity::{CallerContext, CallerCredentials, Proofs, ShownTo};
use crate::ledger::RecordId;
use crate::metering::{RelayEnd, ReplyBody};
use crate::reply::{self, ErrorFormat};
use crate::session::{Arrival, HeaderDeadline, ProxyMode, Session};
use crate::snapshot::Snapshot;
use crate::tunnel::{self, OpenTunnel, RefusedTunnel, Towards, TunnelRequest};

/// What carries a tunnel: a connection of its own, or a stream of HTTP/2.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

/// Leave to open a tunnel.
struct ForwardPermit {
    authority: TunnelAuthority,
    target: Target,
    /// Of whoever has asked for it.
    proofs: Arc<Proofs>,
    opener: CallerContext,
    /// Among the connections of its caller: what comes in it is one.
    place: Arc<OccupancySlot>,
}

/// A tunnel that its peer may have.
enum ForwardTunnel {
    /// Requests come in it.
    Requests(ForwardPermit),
    /// What comes in it is passed through.
    Open(Box<OpenTunnel>),
}

/// What of a request for a tunnel is known where it is refused.
#[derive(Default)]
struct AskedTunnel {
    by: Option<(CallerContext, Arc<Snapshot>)>,
    authority: String,
    end: Option<TunnelEnd>,
}

impl AskedTunnel {
    /// Records that it was refused.
    fn refuse(&self, core: &Arc<Core>, headers: &HeaderMap, denial: &Denial) -> RecordId {
        let by = self.by.as_ref().map(|(context, snapshot)| (context, &**snapshot));
        tunnel_admission::refuse(core, headers, by, (&self.authority, self.end.as_ref()), denial)
    }
}

/// Serves requests and tunnels until the peer leaves, its proof ends, or the drain says so. `close` ends a stream so that its last answer
/// arrives, `reset` so that nobody takes it for a good end.
pub(super) async fn serve<S, F>(
    core: Arc<Core>,
    session: Arc<Session>,
    stream: S,
    (close, reset): (impl FnOnce(S) -> F, impl FnOnce(S)),
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = ()>,
{
    let _drained = core.shared.drain.watch();
    core.connections.enter(&session);
    let limits = &core.shared.limits;
    // Over HTTP/1.1 the connection becomes the tunnel.
    let opened: Arc<Mutex<Option<ForwardTunnel>>> = Arc::default();
    let switched = requests::RelaySlot::default();
    let own = (Arc::clone(&core), Arc::clone(&session), Arc::clone(&opened), switched.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (core, session, opened, switched) = own.clone();
        async move {
            if request.method() != Method::CONNECT {
                return requests::answer(core, session, request, switched).await;
            }
            session.deadline.on_request();
            Ok::<_, Infallible>(answer(&core, &session, request, &opened).await.map(ReplyBody::Full))
        }
    });
    if session.http2 {
        let mut served = requests::http2(limits).serve_connection(TokioIo::new(stream), service);
        requests::drive(&mut served, &session, |connection| connection.graceful_shutdown()).await;
    } else {
        let strict = Strict::of_proxy(stream, Arc::clone(&session.deadline));
        if let Some((mut stream, begun)) = parking::serve_http1(&session, limits, strict, service).await {
            let tunnel = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
            match tunnel {
                // On the heap, so that a task that only carries requests stays small.
                Some(ForwardTunnel::Requests(leave)) => {
                    Box::pin(carry(&core, &session, leave, (begun, Box::new(stream)))).await;
                }
                Some(ForwardTunnel::Open(tunnel)) => {
                    let stream = Rewind::new(begun, stream);
                    Box::pin(tunnel.relay(stream, |stream| reset(stream.into_inner()))).await;
                }
                None => {
                    if let Some(relay) = switched.take()
                        && relay.run(&mut stream, &begun).await == RelayEnd::Cut
                    {
                        core.connections.leave(&session);
                        return reset(stream);
                    }
                    tokio::select! {
                        () = close(stream) => {}
                        () = requests::cut(&session) => {}
                    }
                }
            }
        }
    }
    core.connections.leave(&session);
}

/// Answers one request for a tunnel, and sees to it that what comes in it is carried.
async fn answer(
    core: &Arc<Core>,
    session: &Arc<Session>,
    request: Request<Incoming>,
    opened: &Mutex<Option<ForwardTunnel>>,
) -> Response<Bytes> {
    let tunnel = match open(core, session, &request).await {
        Ok(tunnel) => tunnel,
        Err(RefusedTunnel { denial, id }) => {
            session.deadline.on_response();
            return reply::refusal(&denial, id, ErrorFormat::of_tunnel().to(ShownTo::Proxy), true);
        }
    };
    if request.version() == Version::HTTP_2 {
        let (core, session) = (Arc::clone(core), Arc::clone(session));
        tokio::spawn(async move {
            let _drained = core.shared.drain.watch();
            let Ok(stream) = hyper::upgrade::on(request).await else { return };
            let stream = UpgradedStream::new(stream);
            match tunnel {
                ForwardTunnel::Requests(leave) => {
                    carry(&core, &session, leave, (Bytes::new(), Box::new(stream))).await;
                }
                // hyper ends a stream that is dropped as one that is whole, so a caller over HTTP/2 cannot tell a cut tunnel.
                ForwardTunnel::Open(tunnel) => tunnel.relay(stream, drop).await,
            }
        });
    } else {
        *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }
    Response::default()
}

/// Opens a tunnel: where something is passed through, as far as its destination.
async fn open(
    core: &Arc<Core>,
    session: &Arc<Session>,
    request: &Request<Incoming>,
) -> Result<ForwardTunnel, RefusedTunnel> {
    let mut asked = AskedTunnel::default();
    let leave = authorise(core, session, request, &mut asked)
        .map_err(|denial| RefusedTunnel { id: asked.refuse(core, request.headers(), &denial), denial })?;
    if leave.target.destination().http().is_some() {
        return Ok(ForwardTunnel::Requests(leave));
    }
    let ForwardPermit { authority, place, .. } = leave;
    let asked = TunnelRequest {
        towards: Towards::Authority(&authority),
        hello: Ok(None),
        credentials: CallerCredentials::of(request.headers(), ShownTo::Proxy),
        place: Some(place),
    };
    Ok(ForwardTunnel::Open(Box::new(tunnel::open(core, session, asked).await?)))
}

/// Lets a tunnel be opened where its caller may have something to ask for.
fn authorise<B>(
    core: &Core,
    session: &Session,
    request: &Request<B>,
    asked: &mut AskedTunnel,
) -> Result<ForwardPermit, Denial> {
    let authority = authority(request)?;
    let snapshot = core.snapshot()?;
    let (trust, usages, now) = (&core.shared.trust, &core.shared.usages, Timestamp::now());
    let mut credentials = CallerCredentials::of(request.headers(), ShownTo::Proxy);
    let opener = session.proofs.authenticate(&mut credentials, trust, usages, &snapshot, now)?;
    asked.by = Some((opener.clone(), Arc::clone(&snapshot)));
    asked.authority = authority.to_string();
    let end = asked.end.insert(snapshot.policy.tunnel(&authority)?);
    let TunnelEnd::Host(target) = end else {
        let detail = "a tunnel of a proxy leads to a host of a destination: what is for the gateway itself, or for an \
                      address of the mesh, is called without a proxy (NO_PROXY)";
        return Err(Denial::new(Reason::UnknownHost, detail));
    };
    let target = target.clone();
    opener.grants().check_reach(end.destinations())?;
    let may_be_read = core.shared.interception.as_ref().map(|interception| interception.permits(&target));
    let is_read = target.destination().http().is_some();
    if is_read && authority.port() == 443 && may_be_read != Some(true) {
        return Err(unreadable(&target, may_be_read));
    }
    let place = tunnel_admission::place(&opener)?;
    let proofs = session.proofs.of_tunnel(&opener);
    Ok(ForwardPermit { authority, target, proofs, opener, place })
}

/// TLS to a destination whose requests have to be read. `authority`: whether there is one, and may sign for the host.
fn unreadable(target: &Target, authority: Option<bool>) -> Denial {
    let host = target.host();
    let why = match authority {
        None => "it has no `interception` to do so in TLS",
        Some(_) => "the authority of its `interception` may not sign for that host (name constraints)",
    };
    let detail = format!(
        "the gateway has to read what is for {host}, and {why}: call http://{host} instead, and the gateway calls the \
         destination over TLS"
    );
    Denial::new(Reason::TlsInTunnel, detail)
}

/// Where a tunnel is to lead: a host and a port, which stand in the request line alone or agree with `Host`; and nothing behind the head
/// but the tunnel (RFC 9110, section 9.3.6).
fn authority<B>(request: &Request<B>) -> Result<TunnelAuthority, Denial> {
    let uri = request.uri();
    let headers = request.headers();
    let is_empty = headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    if headers.contains_key(TRANSFER_ENCODING) || !is_empty {
        return Err(Denial::new(Reason::BadRequest, "a request for a tunnel (CONNECT) has no body"));
    }
    let ambiguous = |detail: &'static str| Denial::new(Reason::AmbiguousAuthority, detail);
    let named = uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
    let named = named
        .ok_or_else(|| ambiguous("a request for a tunnel (CONNECT) names HOST:PORT and nothing else"))?;
    let authority: TunnelAuthority = named.as_str().parse()?;
    check_host(&authority, headers)?;
    Ok(authority)
}

/// Serves what comes in a tunnel, `begun` first.
async fn carry(
    core: &Arc<Core>,
    outer: &Arc<Session>,
    leave: ForwardPermit,
    (begun, carrier): (Bytes, Box<dyn Carrier>),
) {
    let deadline = Arc::new(HeaderDeadline::new());
    let carrier = WriteTimeoutStream::new(
        Lingering::new(carrier, Some(Arc::clone(&leave.place))),
        Arc::clone(&deadline),
        None,
    );
    let mut whole = Rewind::new(begun, carrier);
    let begun = tokio::select! {
        begun = tunnel_admission::begun(&mut whole) => begun,
        () = requests::cut(outer) => return,
    };
    let Some(begun) = begun else { return };
    if begun != Begun::Tls {
        let session = leave.session(outer, begun == Begun::Http2, deadline);
        return requests::serve(Arc::clone(core), session, whole, end).await;
    }
    let inside = tokio::select! {
        inside = intercept(core, outer, &leave, whole) => inside,
        () = requests::cut(outer) => return,
    };
    match inside {
        Ok(Some(inside)) => {
            let http2 = inside.get_ref().1.alpn_protocol() == Some(b"h2");
            let session = leave.session(outer, http2, deadline);
            requests::serve(Arc::clone(core), session, inside, end).await;
        }
        Ok(None) => {}
        Err(denial) => leave.refuse(core, &denial),
    }
}

/// Ends the TLS of whoever has opened a tunnel, as the host that it leads to. `None`: the handshake failed, which is said.
async fn intercept<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    outer: &Session,
    leave: &ForwardPermit,
    stream: S,
) -> Result<Option<TlsStream<S>>, Denial> {
    let target = &leave.target;
    let interception = core.shared.interception.as_deref();
    let may_be_read = interception.map(|interception| interception.permits(target));
    let Some(interception) = interception.filter(|_| may_be_read == Some(true)) else {
        return Err(unreadable(target, may_be_read));
    };
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let named = start.client_hello().server_name().map(|name| name.eq_ignore_ascii_case(target.host()));
        if named == Some(false) {
            let _ = start.into_stream(interception.nothing()).await;
            return Ok(Err(Denial::new(
                Reason::SniMismatch,
                "the TLS in a tunnel is for another host (SNI) than the tunnel",
            )));
        }
        let config = match interception.server(target).await {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(host = target.host(), %error, "no certificate could be made for a tunnel");
                return Ok(Err(Denial::new(
                    Reason::Internal,
                    "no certificate could be made for the tunnel's host",
                )));
            }
        };
        start.into_stream(config).await.map(Ok)
    };
    match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
        Ok(Ok(done)) => done.map(Some),
        Ok(Err(error)) => {
            core.stats.handshake_failed();
            let reason = tls::refusal(&error).map_or("closed", |(refusal, _)| refusal.as_str());
            if core.shared.throttles.handshakes.is_due(reason) {
                tracing::warn!(
                    host = target.host(), peer = %outer.address, reason, caller = %leave.opener.caller().id(),
                    "handshake in a tunnel failed: does its caller trust the authority of `interception`? said once a minute"
                );
            }
            Ok(None)
        }
        Err(_) => {
            core.stats.handshake_failed();
            Ok(None)
        }
    }
}

impl ForwardPermit {
    /// The session of what comes in the tunnel.
    fn session(self, outer: &Session, http2: bool, deadline: Arc<HeaderDeadline>) -> Arc<Session> {
        let Self { authority, proofs, place, .. } = self;
        let arrival =
            Arrival { address: outer.address, mode: ProxyMode::Intercepted(authority), http2, deadline };
        Arc::new(Session::within(arrival, proofs, place))
    }

    /// Records that what came in the tunnel was refused.
    fn refuse(self, core: &Arc<Core>, denial: &Denial) {
        let by = core.snapshot().ok().map(|snapshot| (self.opener, snapshot));
        let (authority, end) = (self.authority.to_string(), Some(TunnelEnd::Host(self.target)));
        AskedTunnel { by, authority, end }.refuse(core, &HeaderMap::new(), denial);
    }
}

#[cfg(test)]
mod tests;
