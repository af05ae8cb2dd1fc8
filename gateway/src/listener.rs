//! The near side: sockets, TLS, and the HTTP connections on them.
//!
//! **Invariant:** a request reaches the route only on a [`Connection`] whose TLS peer was verified, also when the session was resumed.

mod connection;
mod due;
mod http;
mod linger;
mod open;
mod paced;
mod pulse;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub(crate) use self::connection::{Connection, Standing};
use self::due::Due;
pub(crate) use self::open::{Open, supervise};
pub(crate) use self::pulse::Pulse;
pub(crate) use self::tls::server_config;
use crate::core::{Core, Shared};
use crate::drain::Phase;
use crate::identity::Refusal;
use crate::upstream::KEEPALIVE;

const BACKLOG: i32 = 4096;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Handshakes under way on one core; more wait in the accept queue.
const HANDSHAKES: usize = 1024;
/// Of those, from one address: a stranger must not keep the others out.
const HANDSHAKES_FROM_ONE: usize = 512;

/// Binds a socket that others of this process may bind as well (`SO_REUSEPORT`, socket(7)).
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // What is accepted inherits it: a caller may wait for minutes behind a load balancer that forgets silent connections.
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts on one core until the drain closes the listener.
pub(crate) async fn accept(core: Arc<Core>, name: Arc<str>, listener: TcpListener, tls: TlsAcceptor) {
    let mut drained = core.shared.drain.watch();
    let handshakes = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
    let sources = Arc::new(Sources::default());
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drained.reached(Phase::Closing) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = sources.take(peer.ip()) else {
                    core.stats.handshake_failed();
                    continue;
                };
                let (core, name, tls) = (Arc::clone(&core), Arc::clone(&name), tls.clone());
                tokio::spawn(async move {
                    let connected = handshake(core, name, stream, peer, tls).await;
                    drop((permit, place));
                    // A task of its own, so that the handshake's memory is given back.
                    if let Some((stream, connection)) = connected {
                        tokio::spawn(http::serve(stream, connection));
                    }
                });
            }
            // Out of descriptors or memory: what is open has to end before more can come.
            Err(error) => {
                tracing::warn!(listener = %name, %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Handshakes under way, by address.
#[derive(Debug, Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// One of them; given back on drop.
#[derive(Debug)]
struct Place(Arc<Sources>, IpAddr);

impl Sources {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = sources.entry(address).or_default();
        if *under_way >= HANDSHAKES_FROM_ONE {
            return None;
        }
        *under_way += 1;
        Some(Place(Arc::clone(self), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = sources.get_mut(&self.1) {
            *under_way -= 1;
            if *under_way == 0 {
                sources.remove(&self.1);
            }
        }
    }
}

type TlsStream = tokio_rustls::server::TlsStream<paced::Paced>;

async fn handshake(
    core: Arc<Core>,
    name: Arc<str>,
    stream: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
) -> Option<(TlsStream, Arc<Connection>)> {
    // Without it an answer waits for the delayed ACK of the one before; a socket that refuses is already gone.
    stream.set_nodelay(true).ok()?;
    let begun = std::time::Instant::now();
    let due = Arc::new(Due::new());
    let stream = paced::Paced::new(stream, Arc::clone(&due));
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await;
    let shared = Arc::clone(&core.shared);
    let trust = &shared.trust;
    let stream = match stream {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            if tls::is_missing_certificate(&error) {
                trust.count(Refusal::NoCertificate);
            }
            core.stats.handshake_failed();
            match tls::refusal(&error) {
                Some(reason) => log_refusal(&shared, &name, address, reason),
                None => tracing::debug!(listener = %name, peer = %address, %error, "TLS handshake failed"),
            }
            return None;
        }
        Err(_) => {
            core.stats.handshake_failed();
            return None;
        }
    };
    match Connection::open(core, address, stream.get_ref().1, due) {
        Ok(connection) => {
            connection.core.stats.handshake(begun.elapsed());
            Some((stream, Arc::new(connection)))
        }
        Err(refusal) => {
            trust.count(refusal);
            log_refusal(&shared, &name, address, refusal.as_str());
            None
        }
    }
}

/// Who was turned away and why: a caller that cannot connect has no answer to read it in.
#[cold]
fn log_refusal(shared: &Shared, listener: &str, peer: SocketAddr, reason: &'static str) {
    if shared.said.handshakes.is_due(reason) {
        tracing::warn!(listener, %peer, reason, "handshake refused; said once a minute");
    }
}
