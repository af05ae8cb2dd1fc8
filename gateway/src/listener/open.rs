//! The open connections of a core, and who tells them that they have to end.
//!
//! **Invariant:** a connection whose chain has expired or lost its bundle is told within [`LOOK_EVERY`]; every request on it is refused
//! from that moment on anyway, and an answer that is under way is cut after [`GRACE`]. What a connection polls for this is one flag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::Connection;
use super::due::Late;
use crate::core::Core;
use crate::drain::Phase;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Seconds that what is under way has to end in, once its caller is proven no longer.
const GRACE: i64 = 60;

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Finish what is under way and take no more.
    Close,
    /// End now.
    Cut,
}

/// A connection's ear.
#[derive(Debug, Default)]
pub(super) struct Ear {
    order: AtomicU8,
    notify: Notify,
}

impl Ear {
    fn tell(&self, order: Order) {
        if self.order.fetch_max(order as u8 + 1, Ordering::AcqRel) <= order as u8 {
            self.notify.notify_one();
        }
    }

    /// Has the connection look at itself.
    fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits for the next order. `None`: there is none, but something to look at.
    pub(super) async fn told(&self) -> Option<Order> {
        self.notify.notified().await;
        match self.order.load(Ordering::Acquire) {
            0 => None,
            order if order > Order::Cut as u8 => Some(Order::Cut),
            _ => Some(Order::Close),
        }
    }
}

/// The open connections of a core.
#[derive(Debug, Default)]
pub(crate) struct Open(Mutex<HashMap<usize, Weak<Connection>>>);

impl Open {
    pub(super) fn enter(&self, connection: &Arc<Connection>) {
        self.connections().insert(Arc::as_ptr(connection).addr(), Arc::downgrade(connection));
    }

    pub(super) fn leave(&self, connection: &Connection) {
        self.connections().remove(&std::ptr::from_ref(connection).addr());
    }

    fn review(&self, phase: Phase) {
        let mut connections = self.connections();
        // A connection whose task panicked did not leave.
        connections.retain(|_, connection| connection.strong_count() > 0);
        let open: Vec<Arc<Connection>> = connections.values().filter_map(Weak::upgrade).collect();
        drop(connections);
        let now = Timestamp::now();
        for connection in open {
            let order = match (connection.late(now), connection.unproven_since(now)) {
                (Some(Late::Head), _) => Some(Order::Cut),
                _ if connection.pulses.any_still(now) => Some(Order::Cut),
                (Some(Late::Body), since) => {
                    connection.ear.wake();
                    order(phase, since, now)
                }
                (late, since) => order(phase, since, now).or_else(|| late.map(|_| Order::Close)),
            };
            if let Some(order) = order {
                connection.ear.tell(order);
            }
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<usize, Weak<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection is told in this phase of the drain, whose caller is not proven `unproven_since` a time.
fn order(phase: Phase, unproven_since: Option<Timestamp>, now: Timestamp) -> Option<Order> {
    let is_over = |since: Timestamp| now.as_second().saturating_sub(since.as_second()) > GRACE;
    if phase >= Phase::Cutting || unproven_since.is_some_and(is_over) {
        return Some(Order::Cut);
    }
    (phase >= Phase::Closing || unproven_since.is_some()).then_some(Order::Close)
}

/// Looks after the connections of a core until its runtime ends.
pub(crate) async fn supervise(core: Arc<Core>) {
    let mut bundles = core.shared.trust.subscribe();
    let mut phase = core.shared.drain.observe();
    loop {
        // A sender that is gone means that the process ends.
        let lives = tokio::select! {
            changed = bundles.changed() => changed.is_ok(),
            changed = phase.changed() => changed.is_ok(),
            () = tokio::time::sleep(LOOK_EVERY) => true,
        };
        if !lives {
            return;
        }
        let now = *phase.borrow_and_update();
        core.open.review(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_ends_a_minute_after_its_callers_proof() {
        let ended = Timestamp::from_second(1_000).unwrap();
        let told = |phase, after| {
            let now = Timestamp::from_second(1_000 + after).unwrap();
            order(phase, Some(ended), now)
        };
        assert_eq!(told(Phase::Serving, 0), Some(Order::Close));
        assert_eq!(told(Phase::Serving, GRACE), Some(Order::Close));
        assert_eq!(told(Phase::Serving, GRACE + 1), Some(Order::Cut));
        assert_eq!(told(Phase::Cutting, 0), Some(Order::Cut));
        assert_eq!(order(Phase::Serving, None, ended), None);
        assert_eq!(order(Phase::Closing, None, ended), Some(Order::Close));
    }

    #[tokio::test]
    async fn an_order_is_heard_once_and_a_stronger_one_again() {
        let ear = Ear::default();
        ear.tell(Order::Close);
        ear.tell(Order::Close);
        assert_eq!(ear.told().await, Some(Order::Close));
        ear.tell(Order::Close);
        ear.tell(Order::Cut);
        assert_eq!(ear.told().await, Some(Order::Cut));
    }
}
