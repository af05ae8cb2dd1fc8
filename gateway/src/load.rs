//! What one caller may occupy at a time, whatever its grants say: one workload must not take the gateway from the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tollgate_policy::caller::SpiffeId;

/// Most connections, calls at once, drains at once and body bytes held, of one caller.
const CONNECTIONS: u64 = 4096;
const CALLS: u64 = 2048;
const DRAINS: u64 = 64;
const BUFFERED: u64 = 256 << 20;
const ROOM_STEP: u64 = 16 << 10;
/// Most body bytes held for all callers together.
const BUFFERED_BY_ALL: u64 = 1 << 30;

/// The load of every caller that has a connection.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    callers: Mutex<HashMap<SpiffeId, Arc<Load>>>,
    buffered: Arc<AtomicU64>,
}

impl Loads {
    /// The load of `caller`, shared by all of its connections on all cores.
    pub(crate) fn of(&self, caller: &SpiffeId) -> Arc<Load> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= 4096 {
            callers.retain(|_, load| Arc::strong_count(load) > 1);
        }
        let fresh = || Arc::new(Load { buffered_by_all: Arc::clone(&self.buffered), ..Load::default() });
        Arc::clone(callers.entry(caller.clone()).or_insert_with(fresh))
    }
}

/// What one caller occupies.
#[derive(Debug, Default)]
pub(crate) struct Load {
    connections: AtomicU64,
    calls: AtomicU64,
    drains: AtomicU64,
    buffered: AtomicU64,
    buffered_by_all: Arc<AtomicU64>,
}

impl Load {
    pub(crate) fn connection(self: &Arc<Self>) -> Option<Share> {
        Share::take(self, |load| &load.connections, 1, CONNECTIONS)
    }

    pub(crate) fn call(self: &Arc<Self>) -> Option<Share> {
        Share::take(self, |load| &load.calls, 1, CALLS)
    }

    pub(crate) fn drain(self: &Arc<Self>) -> Option<Share> {
        Share::take(self, |load| &load.drains, 1, DRAINS)
    }

    /// Room for `bytes` of a body that is held.
    fn buffer(self: &Arc<Self>, bytes: u64) -> Option<[Share; 2]> {
        let own = Share::take(self, |load| &load.buffered, bytes, BUFFERED)?;
        let all = Share::take(self, |load| &load.buffered_by_all, bytes, BUFFERED_BY_ALL)?;
        Some([own, all])
    }
}

/// A part of a caller's load; given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    load: Arc<Load>,
    part: fn(&Load) -> &AtomicU64,
    amount: u64,
}

impl Share {
    fn take(load: &Arc<Load>, part: fn(&Load) -> &AtomicU64, amount: u64, cap: u64) -> Option<Self> {
        let before = part(load).fetch_add(amount, Ordering::Relaxed);
        let share = Self { load: Arc::clone(load), part, amount };
        (before + amount <= cap).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        (self.part)(&self.load).fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// The place that a held body takes up among its caller's and everybody's; given back on drop.
#[derive(Debug, Default)]
pub(crate) struct Room {
    shares: Vec<[Share; 2]>,
    taken: u64,
}

impl Room {
    /// Makes it at least `bytes` large, in steps. False where there is no more to be had.
    pub(crate) fn grow(&mut self, bytes: u64, load: &Arc<Load>) -> bool {
        if self.taken >= bytes {
            return true;
        }
        let step = ROOM_STEP.max(bytes - self.taken);
        let Some(shares) = load.buffer(step) else { return false };
        self.shares.push(shares);
        self.taken += step;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_over_the_cap_is_refused_and_leaves_nothing_behind() {
        let loads = Loads::default();
        let load = loads.of(&"spiffe://a/b".parse().unwrap());
        let held: Vec<_> = (0..DRAINS).map(|_| load.drain().unwrap()).collect();
        assert!(load.drain().is_none());
        assert!(loads.of(&"spiffe://a/c".parse().unwrap()).drain().is_some());
        drop(held);
        assert!(load.drain().is_some());
        assert!(load.buffer(BUFFERED + 1).is_none());
        assert!(load.buffer(BUFFERED).is_some());
    }
}
