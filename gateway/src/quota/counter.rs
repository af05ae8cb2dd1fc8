//! The count of one limit for one key, and the counts of one limit for all its keys.
//!
//! **Invariant:** a cell that somebody holds something of is never dropped, so there is one cell per limit and key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;
use tollgate_policy::limit::{Counter, Limit, LimitKey, LimitKind, Unit, Usage, Window, WindowSlot};
use tollgate_policy::map::Map;

use super::key::Keys;
use super::lease::{Replicas, SliceLease, SliceReach};
use super::rate::Rate;
use super::share::{HeldShare, Room, Shares};

/// The least number of keys at which those that count nothing are looked for.
const SWEEP: usize = 1024;

/// One count, shared by the cores.
#[derive(Debug)]
pub(super) struct KeyedCounter {
    pub(super) key: Arc<str>,
    pub(super) state: CounterState,
    /// Who holds how much of it; absent where that is one caller, or nothing is held.
    pub(super) shares: Option<Shares>,
    /// What this replica may take of it; absent where it counts for itself alone.
    pub(super) lease: Option<SliceLease>,
}

#[derive(Debug)]
pub(super) enum CounterState {
    Counted(Mutex<Counter>),
    /// Calls under way.
    Concurrent(Mutex<u64>),
    Rate(Rate),
}

/// The cells of one limit.
#[derive(Debug)]
pub(super) enum LimitCounts {
    Shared(Arc<KeyedCounter>),
    ByKey(RwLock<Keyed>),
}

#[derive(Debug)]
pub(super) struct Keyed {
    cells: Map<Arc<str>, Arc<KeyedCounter>>,
    replicas: Option<Arc<Replicas>>,
    /// How many cells there may be before idle ones are dropped: twice what the last time left.
    sweep_at: usize,
}

impl KeyedCounter {
    fn new(key: Arc<str>, limit: &Limit, replicas: Option<&Arc<Replicas>>) -> Arc<Self> {
        let state = match &limit.kind {
            LimitKind::Counted(_) => CounterState::Counted(Mutex::new(Counter::new())),
            LimitKind::Concurrent => CounterState::Concurrent(Mutex::new(0)),
            LimitKind::Gcra { per, burst } => {
                CounterState::Rate(Rate::new(limit.amount, *per, *burst, replicas))
            }
        };
        let shared = limit.key != LimitKey::Caller && !matches!(state, CounterState::Rate(_));
        let lease = match state {
            CounterState::Counted(_) | CounterState::Concurrent(_) => {
                replicas.map(|replicas| SliceLease::new(&limit.id, &key, replicas))
            }
            CounterState::Rate(_) => None,
        };
        Arc::new(Self { key, state, shares: shared.then(Shares::default), lease })
    }

    /// What can be taken where this is used already.
    pub(super) fn reach(&self, limit: &Limit, usage: Usage) -> SliceReach {
        match &self.lease {
            Some(lease) => lease.reach(limit, usage),
            None => {
                let free = limit.amount.saturating_sub(usage.spent).saturating_sub(usage.held);
                SliceReach { cap: limit.amount, here: free, free }
            }
        }
    }

    /// What one caller's share is a part of: with replicas, of an even part, so that all its shares together are no more than one.
    pub(super) fn room(&self, limit: &Limit, free: u64) -> Room {
        // Of places only those that this replica has are known to be free.
        let live = match limit.unit {
            Unit::Concurrency => 1,
            _ => self.lease.as_ref().map_or(1, SliceLease::live),
        };
        Room { cap: limit.amount / live, free: free / live }
    }

    /// The caller's share of what is held together, where there is such a thing. An error where it has more than that already.
    pub(super) fn take_share(
        &self,
        keys: &Keys<'_>,
        amount: u64,
        room: Room,
        now: Timestamp,
    ) -> Result<Option<HeldShare>, ()> {
        match &self.shares {
            Some(shares) if amount > 0 => shares.take(keys, amount, room, now).map(Some).ok_or(()),
            _ => Ok(None),
        }
    }

    /// What other replicas have spent, as far as is known.
    pub(super) fn others_spent(&self) -> u64 {
        self.lease.as_ref().map_or(0, SliceLease::others_spent)
    }

    /// `None` for a rate, which cannot be asked.
    pub(super) fn usage(&self, limit: &Limit, now: Timestamp) -> Option<Usage> {
        match (&self.state, &limit.kind) {
            (CounterState::Counted(counter), LimitKind::Counted(window)) => {
                Some(lock(counter).usage(window, now))
            }
            (CounterState::Concurrent(calls), _) => Some(Usage { spent: 0, held: *lock(calls) }),
            _ => None,
        }
    }

    /// Gives back what was taken of a counted window.
    pub(super) fn release(&self, slot: WindowSlot, amount: u64) {
        if let CounterState::Counted(counter) = &self.state {
            lock(counter).release(slot, amount);
        }
    }

    pub(super) fn restore(&self, window: &Window, opened: Timestamp, amount: u64) {
        if let CounterState::Counted(counter) = &self.state {
            lock(counter).restore(window, opened, amount);
        }
    }

    /// Whether forgetting it changes nothing. The caller keeps others from reaching the cell meanwhile.
    fn idle(self: &Arc<Self>, limit: &Limit, now: Timestamp) -> bool {
        let empty = match &self.state {
            CounterState::Rate(rate) => rate.is_full(now),
            _ => self.usage(limit, now) == Some(Usage::default()),
        };
        empty && Arc::strong_count(self) == 1
    }
}

impl LimitCounts {
    pub(super) fn new(limit: &Limit, replicas: Option<&Arc<Replicas>>) -> Self {
        match limit.key {
            LimitKey::Shared => Self::Shared(KeyedCounter::new(Arc::from(""), limit, replicas)),
            LimitKey::Namespace | LimitKey::Caller => {
                let replicas = replicas.cloned();
                Self::ByKey(RwLock::new(Keyed { cells: Map::default(), replicas, sweep_at: SWEEP }))
            }
        }
    }

    pub(super) fn cell(&self, key: &str, limit: &Limit, now: Timestamp) -> Arc<KeyedCounter> {
        let keyed = match self {
            Self::Shared(cell) => return Arc::clone(cell),
            Self::ByKey(keyed) => keyed,
        };
        if let Some(cell) = keyed.read().unwrap_or_else(PoisonError::into_inner).cells.get(key) {
            return Arc::clone(cell);
        }
        let mut keyed = keyed.write().unwrap_or_else(PoisonError::into_inner);
        if keyed.cells.len() >= keyed.sweep_at {
            keyed.cells.retain(|_, cell| !cell.idle(limit, now));
            keyed.sweep_at = SWEEP.max(keyed.cells.len() * 2);
        }
        let key: Arc<str> = Arc::from(key);
        let Keyed { cells, replicas, .. } = &mut *keyed;
        let cell =
            cells.entry(Arc::clone(&key)).or_insert_with(|| KeyedCounter::new(key, limit, replicas.as_ref()));
        Arc::clone(cell)
    }

    /// The cell of this key, if there is one.
    pub(super) fn find(&self, key: &str) -> Option<Arc<KeyedCounter>> {
        match self {
            Self::Shared(cell) => Some(Arc::clone(cell)),
            Self::ByKey(keyed) => {
                keyed.read().unwrap_or_else(PoisonError::into_inner).cells.get(key).map(Arc::clone)
            }
        }
    }

    pub(super) fn idle(&self, limit: &Limit, now: Timestamp) -> bool {
        match self {
            Self::Shared(cell) => cell.idle(limit, now),
            Self::ByKey(keyed) => {
                let keyed = keyed.read().unwrap_or_else(PoisonError::into_inner);
                keyed.cells.values().all(|cell| cell.idle(limit, now))
            }
        }
    }

    pub(super) fn cells(&self) -> Vec<Arc<KeyedCounter>> {
        match self {
            Self::Shared(cell) => vec![Arc::clone(cell)],
            Self::ByKey(keyed) => {
                let keyed = keyed.read().unwrap_or_else(PoisonError::into_inner);
                keyed.cells.values().map(Arc::clone).collect()
            }
        }
    }
}

/// A counter is whole after every call of its methods, so a panic elsewhere leaves nothing to mend.
pub(super) fn lock<T>(counter: &Mutex<T>) -> MutexGuard<'_, T> {
    counter.lock().unwrap_or_else(PoisonError::into_inner)
}
