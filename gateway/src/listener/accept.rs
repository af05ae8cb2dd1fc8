//! Accepting on one core, until the drain closes the listener.
//!
//! **Invariant:** a drain waits for whoever is connected when it begins to close: for the handshake, then for what serves the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use tokio::net::{TcpListener, TcpStream};

use super::handshakes::Handshakes;
use super::{ListenerConfig, connect, serve};
use crate::core::Core;
use crate::drain::Phase;

/// How many silent connections give way where there are no descriptors left.
const MADE_ROOM: usize = 32;
/// How many connections that wait to be accepted are taken when the listener closes, and after how many of them others have their turn.
const LAST_ACCEPTED: usize = 4_096;
const AT_ONCE: usize = 64;

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
    // Who is connected already would be reset with the listener.
    if acceptor.core.shared.drain.phase() == Phase::Closing
        && let Ok(socket) = socket.into_std()
    {
        acceptor.accept_rest(&socket).await;
    }
}

impl Acceptor {
    /// Accepts who is connected already.
    async fn accept_rest(&self, socket: &net::TcpListener) {
        for number in 1..=LAST_ACCEPTED {
            let accepted = socket.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.make_room(&error).await,
            }
            if number % AT_ONCE == 0 {
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
