//! Accepting on one core, until the drain closes the listener.
//!
//! **Invariant:** a drain waits for whoever is connected when it begins to close: for the handshake, then for what serves the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, net};

use tokio::net::{TcpListener, TcpStream};

use super::bind::BACKLOG;
use super::handshakes::Handshakes;
use super::{ListenerConfig, connect, serve};
use crate::core::Core;
use crate::drain::Phase;

/// How many silent connections give way where there are no descriptors left.
const MADE_ROOM: usize = 32;
/// After how many connections of the accept queue other tasks have their turn.
const YIELD_EVERY: i32 = 64;
/// How long the accept queue is emptied where that fails again and again.
const EMPTYING_LIMIT: Duration = Duration::from_secs(1);

/// Where connections come from, and what is under way of them.
struct Acceptor {
    core: Arc<Core>,
    listener: ListenerConfig,
    handshakes: Arc<Handshakes>,
}

/// Accepts on one core until the drain closes the listener.
pub(crate) async fn accept(core: Arc<Core>, listener: ListenerConfig, socket: TcpListener) {
    let mut drained = core.shared.drain.watch();
    let acceptor = Acceptor { core, listener, handshakes: Arc::default() };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = drained.reached(Phase::Closing) => break,
        };
        match accepted {
            Ok((stream, peer)) => acceptor.admit(stream, peer),
            Err(error) => acceptor.make_room(&error).await,
        }
    }
    if let Ok(socket) = socket.into_std() {
        acceptor.empty_queue(&socket).await;
    }
}

impl Acceptor {
    /// Accepts what waits in the accept queue, which would be reset with the listener. Not by tokio: what it knows may lag behind the queue.
    async fn empty_queue(&self, socket: &net::TcpListener) {
        let begun = Instant::now();
        for number in 1..=BACKLOG {
            if self.core.shared.drain.phase() > Phase::Closing {
                return;
            }
            let accepted = socket.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) if begun.elapsed() > EMPTYING_LIMIT => return,
                Err(error) => self.make_room(&error).await,
            }
            if number % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Has a connection prove whose it is and serves it, in tasks of its own. It is closed where its address has too many that prove nothing.
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Self { core, listener, handshakes } = self;
        let is_proxy = listener.proxy.as_ref().is_some_and(|proxy| proxy.lists(peer.ip()));
        let place = if is_proxy { handshakes.admit_proxy() } else { handshakes.admit(peer.ip()) };
        let Some(place) = place else {
            core.stats.handshake_failed();
            return;
        };
        let (core, listener) = (Arc::clone(core), listener.clone());
        let handshakes = Arc::clone(handshakes);
        let mut drained = core.shared.drain.watch();
        tokio::spawn(async move {
            let connected = tokio::select! {
                connected = connect(&core, &listener, &handshakes, (stream, peer, place)) => connected,
                () = drained.reached(Phase::Cutting) => None,
            };
            // A task of its own, so that the handshake's memory is given back.
            if let Some(connected) = connected {
                serve(listener, core, connected);
                // It holds the drain from its first turn on.
                tokio::task::yield_now().await;
            }
        });
    }

    /// Out of descriptors or memory: what is open has to end before more can come, and what is silent ends now.
    async fn make_room(&self, error: &io::Error) {
        let Self { core, listener, handshakes } = self;
        if core.shared.throttles.handshakes.is_due("accept failed") {
            tracing::warn!(listener = %listener.name, %error, "accept failed; said once a minute");
        }
        let made_room = handshakes.make_room(MADE_ROOM) || core.connections.make_room(MADE_ROOM);
        tokio::time::sleep(Duration::from_millis(if made_room { 5 } else { 100 })).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::listener::fixture::Fixture;
    use crate::settings::ListenerKind;

    #[tokio::test]
    async fn a_connection_in_the_accept_queue_is_not_reset_when_the_listener_closes() {
        let fixture = Fixture::new().await;
        let core = Arc::clone(&fixture.core);
        let kind = ListenerKind::Forward;
        let listener = ListenerConfig {
            name: "proxy".into(),
            kind,
            destination: None,
            tls: None,
            proxy: None,
            double_hbone: None,
        };
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut queued = Vec::new();
        for _ in 0..100 {
            queued.push(TcpStream::connect(address).await.unwrap());
        }
        let shared = Arc::clone(&core.shared);
        let minute = Duration::from_secs(60);
        let drain =
            tokio::spawn(
                async move { shared.drain.run(Duration::ZERO, minute, std::future::pending()).await },
            );
        core.shared.drain.watch().reached(Phase::Closing).await;
        accept(core, listener, socket).await;
        TcpStream::connect(address).await.unwrap_err();
        for mut stream in queued {
            stream.write_all(b"GET http://up.test/ HTTP/1.1\r\nhost: up.test\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 407 "), "{}", String::from_utf8_lossy(&answer));
        }
        assert!(!drain.await.unwrap());
    }
}
