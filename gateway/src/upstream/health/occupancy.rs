//! How many calls and connections a destination has, on all cores together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tollgate_policy::policy::CircuitBreaker;

use super::{CircuitError, DestinationHealth, HostHealth};

/// How long a connection that is being closed is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct Occupancy {
    /// Ever begun.
    begun: AtomicU64,
    calls: AtomicUsize,
    connections: AtomicUsize,
    /// A call found no place for a connection: those that nobody uses are closed.
    is_wanted: AtomicBool,
    /// A connection closed.
    closed: Notify,
}

impl Occupancy {
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// One call more. `free`: how many more the gateway takes. Where nothing else is said a destination has as many as it leaves free:
    /// callers of one trust domain get four fifths at most, so that one which does not answer takes no place that they need elsewhere.
    ///
    /// # Errors
    /// Where that is more than it may have. It counts all the same, until [`Self::end`].
    pub(crate) fn begin(&self, rules: CircuitBreaker, free: u64) -> Result<(), CircuitError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        // Counted before it is looked at, so that no two take the last place.
        let before = self.calls.fetch_add(1, Ordering::Relaxed) as u64;
        match rules.max_requests {
            Some(most) if before >= u64::from(most) => Err(CircuitError::Calls(most)),
            None if before >= free.max(1) => Err(CircuitError::Share),
            _ => Ok(()),
        }
    }

    /// A call is over.
    pub(crate) fn end(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether connections that nobody uses are in the way of calls.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }
}

/// A connection's place among those of its destination; given back on drop.
#[derive(Debug)]
pub(crate) struct ConnectionSlot(Arc<DestinationHealth>);

impl ConnectionSlot {
    /// Where there is none, `shed` may close one that nobody uses, which is waited for.
    ///
    /// # Errors
    /// Where the destination has as many as it may.
    pub(crate) async fn take(
        host: &HostHealth,
        rules: CircuitBreaker,
        shed: impl Fn() -> bool,
    ) -> Result<Self, CircuitError> {
        let destination = &host.destination;
        let Some(most) = rules.max_connections else { return Ok(Self::counted(destination)) };
        let mut closed = std::pin::pin!(destination.occupancy.closed.notified());
        closed.as_mut().enable();
        let is_wanted = &destination.occupancy.is_wanted;
        if let Some(place) = Self::within(destination, most) {
            if is_wanted.load(Ordering::Relaxed) {
                is_wanted.store(false, Ordering::Relaxed);
            }
            return Ok(place);
        }
        is_wanted.store(true, Ordering::Relaxed);
        if shed() {
            // What it frees another call may take first: this one is refused then as if it had come later.
            let _ = timeout(PATIENCE, closed).await;
        }
        Self::within(destination, most).ok_or(CircuitError::Connections(most))
    }

    fn within(destination: &Arc<DestinationHealth>, most: u32) -> Option<Self> {
        let before = destination.occupancy.connections.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(destination));
        (before < most as usize).then_some(place)
    }

    pub(super) fn counted(destination: &Arc<DestinationHealth>) -> Self {
        destination.occupancy.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(destination))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.occupancy.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.occupancy.closed.notify_waiters();
    }
}
