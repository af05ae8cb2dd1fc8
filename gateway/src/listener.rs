//! The near side: sockets, TLS, and the HTTP connections on them.
//!
//! **Invariant:** a request reaches the route only with a [`Session`]. A certificate that its peer has shown was verified, also when the TLS
//! session was resumed; where a listener does without one, the route refuses whoever is not proven otherwise.

mod accept;
mod bind;
mod double_hbone;
#[cfg(test)]
mod fixture;
mod forward;
mod framing;
mod h2_stream;
mod handshakes;
mod hbone;
mod http;
mod lingering_close;
mod proxy_protocol;
mod rewind;
mod sandwich;
mod supervise;
mod tcp;
mod tls;
mod tunnel_admission;
mod upgraded;
mod write_timeout;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tollgate_policy::name::ResourceId;

pub(crate) use self::accept::accept;
pub(crate) use self::bind::{bind, by_whom};
use self::double_hbone::InnerTunnels;
use self::handshakes::{HandshakeSignal, HandshakeSlot, Handshakes};
use self::proxy_protocol::Proxied;
#[cfg(any(test, fuzzing))]
pub use self::proxy_protocol::fuzz as fuzz_proxy_protocol;
use self::sandwich::SandwichedWorkload;
pub(crate) use self::supervise::supervise;
pub(crate) use self::tls::server_config;
use self::write_timeout::{TlsStream, WriteTimeoutStream};
use crate::caller_occupancy::OccupancySlot;
use crate::core::{Core, Shared};
use crate::identity::{Proofs, Refusal};
use crate::session::{Arrival, HeaderDeadline, ProxyMode, Session};
use crate::settings::{DoubleHboneSettings, ListenerKind, ProxyProtocolSettings};

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// What is spoken at a listener.
#[derive(Clone)]
pub(crate) struct ListenerConfig {
    pub(crate) name: Arc<str>,
    pub(crate) kind: ListenerKind,
    /// Where it leads, where it passes connections through to one destination.
    pub(crate) destination: Option<ResourceId>,
    /// `None`: whoever connects is on this machine.
    pub(crate) tls: Option<TlsAcceptor>,
    /// The proxies in front of it, where there are some.
    pub(crate) proxy: Option<Arc<ProxyProtocolSettings>>,
    /// Where each of its tunnels carries another.
    pub(crate) double_hbone: Option<Arc<DoubleHboneSettings>>,
}

/// A connection whose peer is known as far as it will be.
enum Connected {
    /// Boxed for good: a future keeps a copy of what it moves for each of its ends, and a pointer is small.
    Tls(Box<TlsStream>, Arc<Session>),
    /// Of somebody on this machine.
    Clear(WriteTimeoutStream, Arc<Session>),
    /// Without TLS: a listed proxy says whose it is.
    Vouched(TcpStream, SandwichedWorkload),
}

fn serve(listener: ListenerConfig, core: Arc<Core>, connected: Connected) {
    match (listener.kind, connected) {
        (ListenerKind::Http, Connected::Tls(stream, session)) => {
            tokio::spawn(http::serve(core, session, stream, lingering_close::close));
        }
        (ListenerKind::Hbone, Connected::Tls(stream, session)) => {
            let (settings, tls) = (listener.double_hbone.clone(), listener.tls.clone());
            match settings.zip(tls) {
                Some((settings, tls)) => {
                    let inner = InnerTunnels { listener, tls, settings };
                    tokio::spawn(double_hbone::serve(core, session, stream, inner));
                }
                None => {
                    tokio::spawn(hbone::serve(core, session, stream));
                }
            }
        }
        (ListenerKind::Tcp, Connected::Tls(stream, session)) => {
            let leads = tcp::Leads { settings: listener.destination, asked: None };
            tokio::spawn(tcp::serve(core, session, (stream, lingering_close::reset), leads));
        }
        (ListenerKind::Forward, Connected::Tls(stream, session)) => {
            tokio::spawn(forward::serve(
                core,
                session,
                stream,
                (lingering_close::close, lingering_close::reset),
            ));
        }
        (ListenerKind::Forward, Connected::Clear(stream, session)) => {
            tokio::spawn(forward::serve(
                core,
                session,
                stream,
                (lingering_close::close_clear, lingering_close::reset_clear),
            ));
        }
        (ListenerKind::Http, Connected::Vouched(stream, workload)) => {
            tokio::spawn(sandwich::serve(core, listener, stream, workload));
        }
        (ListenerKind::Tcp, Connected::Vouched(stream, workload)) => {
            tokio::spawn(sandwich::pass_through(core, listener, stream, workload));
        }
        // The settings refuse it.
        (ListenerKind::Http | ListenerKind::Hbone | ListenerKind::Tcp, Connected::Clear(..))
        | (ListenerKind::Hbone | ListenerKind::Forward, Connected::Vouched(..)) => {}
    }
}

/// Who really connected, and what that has shown. The place is given back at the end.
async fn connect(
    core: &Core,
    listener: &ListenerConfig,
    handshakes: &Arc<Handshakes>,
    (mut stream, peer, mut place): (TcpStream, SocketAddr, HandshakeSlot),
) -> Option<Connected> {
    // Without it an answer waits for the delayed ACK of the one before; a socket that refuses is already gone.
    stream.set_nodelay(true).ok()?;
    let mut source = peer;
    if let Some(proxy) = &listener.proxy {
        let said = tokio::select! {
            said = tokio::time::timeout(HANDSHAKE_LIMIT, proxy_protocol::read(&mut stream, peer, proxy)) => said,
            () = place.gives_way() => return failed(core),
        };
        match said.unwrap_or(Err(Refusal::ProxyHeader)) {
            Ok(Proxied { source, destination, workload: Some(id) }) => {
                return Some(Connected::Vouched(stream, SandwichedWorkload { source, id, destination }));
            }
            Ok(proxied) => source = proxied.source,
            Err(refusal) => {
                core.shared.trust.count(refusal);
                log_refusal(&core.shared, &listener.name, peer, refusal.as_str());
                return failed(core);
            }
        }
        let Some(own) = handshakes.admit(source.ip()) else { return failed(core) };
        place = own;
    }
    let signal = Arc::clone(&place.signal);
    tokio::select! {
        connected = secure(core, listener, stream, source, signal) => connected,
        () = place.gives_way() => failed(core),
    }
}

fn failed(core: &Core) -> Option<Connected> {
    core.stats.handshake_failed();
    None
}

/// The session of a connection, once its peer has shown what there is to show.
async fn secure(
    core: &Core,
    listener: &ListenerConfig,
    stream: TcpStream,
    address: SocketAddr,
    signal: Arc<HandshakeSignal>,
) -> Option<Connected> {
    if let Some(tls) = &listener.tls {
        let (stream, session) = handshake(core, (listener, tls), stream, address, signal).await?;
        return Some(Connected::Tls(Box::new(stream), session));
    }
    let deadline = Arc::new(HeaderDeadline::new());
    let stream = WriteTimeoutStream::new(stream, Arc::clone(&deadline), None);
    let proven = Proofs::of(Vec::new(), &core.shared.trust, &core.shared.usages).ok()?;
    let arrival = Arrival { address, mode: proxy_mode(listener.kind), http2: false, deadline };
    Some(Connected::Clear(stream, Arc::new(Session::new(arrival, proven))))
}

/// How the connections of a listener are proxied.
const fn proxy_mode(kind: ListenerKind) -> ProxyMode {
    match kind {
        ListenerKind::Http | ListenerKind::Hbone | ListenerKind::Tcp => ProxyMode::Direct,
        ListenerKind::Forward => ProxyMode::Forward,
    }
}

async fn handshake(
    core: &Core,
    (listener, tls): (&ListenerConfig, &TlsAcceptor),
    stream: TcpStream,
    address: SocketAddr,
    signal: Arc<HandshakeSignal>,
) -> Option<(TlsStream, Arc<Session>)> {
    let deadline = Arc::new(HeaderDeadline::new());
    let mut stream = WriteTimeoutStream::new(stream, Arc::clone(&deadline), Some(signal));
    if listener.kind == ListenerKind::Tcp {
        stream.wait_for_reader();
    }
    let (stream, proven) = prove(core, (listener, tls), stream, address).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let arrival = Arrival { address, mode: proxy_mode(listener.kind), http2, deadline };
    Some((stream, Arc::new(Session::new(arrival, proven))))
}

/// TLS of whoever is at the other end of `stream`, with what that proves and its place among the connections of its caller. `None`: it is
/// turned away. The certificate, the protocol or the time may fail it; that is counted and logged, and nobody can be answered.
async fn prove<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    (listener, tls): (&ListenerConfig, &TlsAcceptor),
    stream: S,
    address: SocketAddr,
) -> Option<(tokio_rustls::server::TlsStream<S>, (Proofs, Option<OccupancySlot>))> {
    let begun = std::time::Instant::now();
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await;
    let name = &*listener.name;
    let shared = &*core.shared;
    let trust = &shared.trust;
    let stream = match stream {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            core.stats.handshake_failed();
            match tls::refusal(&error) {
                Some((refusal, counted)) => {
                    if !counted {
                        trust.count(refusal);
                    }
                    log_refusal(shared, name, address, refusal.as_str());
                }
                None => tracing::debug!(listener = %name, peer = %address, %error, "TLS handshake failed"),
            }
            return None;
        }
        Err(_) => {
            core.stats.handshake_failed();
            return None;
        }
    };
    // The chain of a resumed handshake may prove nobody any more, and the caller may have too many connections.
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().iter().cloned();
    let chain = chain.map(CertificateDer::into_owned).collect();
    match Proofs::of(chain, trust, &shared.usages) {
        Ok(proven) => {
            core.stats.handshake(begun.elapsed());
            Some((stream, proven))
        }
        Err(refusal) => {
            trust.count(refusal);
            log_refusal(shared, name, address, refusal.as_str());
            None
        }
    }
}

/// Who was turned away and why: a caller that cannot connect has no answer to read it in.
#[cold]
fn log_refusal(shared: &Shared, listener: &str, peer: SocketAddr, reason: &'static str) {
    if shared.throttles.handshakes.is_due(reason) {
        tracing::warn!(listener, %peer, reason, "handshake refused; said once a minute");
    }
}
