//! What is known of a verified connection, and what happens on it, for whoever shares it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::AlertDescription;
use tokio::sync::Notify;

use super::health::EndpointSlot;
use super::source::SourceSlot;

/// One connection; addresses as records show them.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    /// The name that the other side's certificate was verified for.
    pub(super) host: Arc<str>,
    pub(super) remote: Arc<str>,
    pub(super) source: Arc<str>,
    /// Held as long as anybody has the connection.
    pub(super) place: SourceSlot,
    /// The endpoint that it leads to, with its place there.
    pub(super) endpoint: EndpointSlot,
    /// Why the other side did not take the connection after all.
    refused: OnceLock<AlertDescription>,
    /// How many bytes it has sent.
    received: AtomicU64,
    /// Each time that bytes go either way.
    pub(super) moves: Notify,
}

impl ConnectionState {
    pub(super) fn new(host: Arc<str>, remote: SocketAddr, place: SourceSlot, endpoint: EndpointSlot) -> Self {
        let (remote, source) = (remote.to_string().into(), place.address().to_string().into());
        let (refused, received, moves) = (OnceLock::new(), AtomicU64::new(0), Notify::new());
        Self { host, remote, source, place, endpoint, refused, received, moves }
    }

    /// Whether a call may use it: from its local address, which `may_leave_from` knows, to its endpoint.
    pub(super) fn is_usable(&self, may_leave_from: impl Fn(IpAddr) -> bool) -> bool {
        may_leave_from(self.place.address()) && !self.endpoint.endpoint().is_ejected()
    }

    /// Bytes went to the other side, or this many came from it.
    pub(super) fn moved(&self, received: usize) {
        self.received.fetch_add(received as u64, Ordering::Relaxed);
        self.moves.notify_waiters();
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The other side says by `alert` that it does not take our certificate. The first that it says is the reason.
    pub(super) fn refuse(&self, alert: AlertDescription) {
        let _ = self.refused.set(alert);
    }

    /// Why our certificate was refused, where it was.
    pub(super) fn refusal(&self) -> Option<AlertDescription> {
        self.refused.get().copied()
    }
}
