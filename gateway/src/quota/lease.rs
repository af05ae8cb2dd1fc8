//! What this replica may take of a count that replicas share, and how a call asks for more.
//!
//! **Invariant:** what is told to be kept was lowered to that under the lock of its counter before, and is raised only by what the store has
//! granted. After the lease's end nothing is taken, but where a limit's own replicas go on without the store.
//!
//! Lacks on purpose: the arithmetic, which is [`tollgate_policy::limit::slices`], and the store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tollgate_policy::limit::slices::keeper::SliceTerms;
use tollgate_policy::limit::{Limit, StoreFailure, Unit, Usage};

/// How long a call is refused at once after the store had nothing for the one before, in milliseconds.
const DRY: u64 = 100;

/// What the cores and the keeper of slices have in common.
#[derive(Debug)]
pub(crate) struct Replicas {
    begun: Instant,
    /// How long a call waits for a slice.
    wait: Duration,
    asks: Mutex<Vec<PoolId>>,
    ready: Notify,
    up: AtomicBool,
    /// The counts say what the ledger does.
    restored: AtomicBool,
    /// Another process has the directory, or a copy of it.
    superseded: AtomicBool,
    live: AtomicU64,
    /// When the lease of all counts ends, in milliseconds of the replica's clock.
    ends: AtomicU64,
    /// When the store has answered last, in milliseconds of the replica's clock.
    heard: AtomicU64,
    lease: u64,
    granted: AtomicU64,
    lacked: AtomicU64,
}

/// How the store and the slices do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplicaStatus {
    /// Whether the store answers.
    pub(crate) up: bool,
    /// How many replicas share, this one included.
    pub(crate) live: u64,
    /// Slices that were granted.
    pub(crate) granted: u64,
    /// How often a call found too little here.
    pub(crate) lacked: u64,
}

/// One count at the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PoolId {
    pub(super) limit: Arc<str>,
    pub(super) key: Arc<str>,
}

/// What this replica may take of one count.
#[derive(Debug)]
pub(super) struct SliceLease {
    pool: PoolId,
    replicas: Arc<Replicas>,
    ceiling: AtomicU64,
    others_spent: AtomicU64,
    /// More is asked for once this much is used.
    refill_at: AtomicU64,
    /// The largest amount that a call lacked since it was asked last.
    largest_lack: AtomicU64,
    /// What all calls lacked since then.
    lacked_together: AtomicU64,
    asked: AtomicBool,
    dry_until: AtomicU64,
    answered: Notify,
}

/// What of a count can be taken here and now.
#[derive(Debug, Clone, Copy)]
pub(super) struct SliceReach {
    /// What this replica may have spent and hold, at most.
    pub(super) cap: u64,
    /// What is left of that.
    pub(super) here: u64,
    /// What nobody is known to have spent or to hold.
    pub(super) free: u64,
}

impl Replicas {
    /// `lease` is how long a replica goes on without the store, `wait` how long a call waits for it.
    pub(crate) fn new(lease: Duration, wait: Duration) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            wait,
            asks: Mutex::default(),
            ready: Notify::new(),
            up: AtomicBool::new(true),
            restored: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            ends: AtomicU64::new(0),
            live: AtomicU64::new(1),
            heard: AtomicU64::new(0),
            lease: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            granted: AtomicU64::new(0),
            lacked: AtomicU64::new(0),
        })
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            up: self.up.load(Ordering::Relaxed),
            live: self.live.load(Ordering::Relaxed),
            granted: self.granted.load(Ordering::Relaxed),
            lacked: self.lacked.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since the process began; at least 1.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Returns what it was before.
    pub(super) fn set_up(&self, up: bool) -> bool {
        self.up.swap(up, Ordering::Relaxed)
    }

    /// Notes that the counts say what the ledger does.
    pub(super) fn restored(&self) {
        self.restored.store(true, Ordering::Relaxed);
        self.ready.notify_one();
    }

    pub(super) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    /// Whether another process has the directory, or a copy of it: nothing that replicas share is spent here any more.
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// Stops for good to spend what replicas share. Returns whether that was so before.
    pub(super) fn supersede(&self) -> bool {
        self.ends.store(0, Ordering::Relaxed);
        self.superseded.swap(true, Ordering::Relaxed)
    }

    /// Notes when the lease ends.
    pub(super) fn extend(&self, ends: u64) {
        self.ends.store(ends, Ordering::Relaxed);
    }

    /// Whether the lease runs.
    fn runs(&self) -> bool {
        self.now() < self.ends.load(Ordering::Relaxed)
    }

    /// Notes that the store has said how many replicas there are.
    pub(super) fn hear(&self, live: u64) {
        self.live.store(live.max(1), Ordering::Relaxed);
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    /// How many replicas share, this one included.
    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Milliseconds for which a replica goes on without the store.
    pub(super) fn lease(&self) -> u64 {
        self.lease
    }

    /// Whether the store is gone for longer than a lease.
    pub(super) fn is_lost(&self) -> bool {
        !self.is_up() && self.now() >= self.heard.load(Ordering::Relaxed).saturating_add(self.lease)
    }

    pub(super) fn count_granted(&self) {
        self.granted.fetch_add(1, Ordering::Relaxed);
    }

    /// What was asked for since the last look.
    pub(super) fn take_asks(&self) -> Vec<PoolId> {
        std::mem::take(&mut *self.asks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Until something is asked for.
    pub(super) async fn asked(&self) {
        self.ready.notified().await;
    }

    fn ask(&self, pool: &PoolId) {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        self.ready.notify_one();
    }
}

impl SliceLease {
    pub(super) fn new(limit: &Arc<str>, key: &Arc<str>, replicas: &Arc<Replicas>) -> Self {
        Self {
            pool: PoolId { limit: Arc::clone(limit), key: Arc::clone(key) },
            replicas: Arc::clone(replicas),
            ceiling: AtomicU64::new(0),
            others_spent: AtomicU64::new(0),
            refill_at: AtomicU64::new(u64::MAX),
            largest_lack: AtomicU64::new(0),
            lacked_together: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            dry_until: AtomicU64::new(0),
            answered: Notify::new(),
        }
    }

    /// What can be taken where this is used already.
    pub(super) fn reach(&self, limit: &Limit, usage: Usage) -> SliceReach {
        let used = usage.spent.saturating_add(usage.held);
        let cap = if self.runs() {
            self.ceiling.load(Ordering::Relaxed).min(limit.amount)
        } else if self.goes_on_alone(limit) {
            (limit.amount / self.replicas.live()).max(u64::from(limit.unit == Unit::Concurrency))
        } else {
            0
        };
        let free = limit.amount.saturating_sub(used).saturating_sub(self.others_spent());
        SliceReach { cap, here: cap.saturating_sub(used), free }
    }

    /// How many replicas share limits, this one included.
    pub(super) fn live(&self) -> u64 {
        self.replicas.live()
    }

    /// What others have spent, as far as is known.
    pub(super) fn others_spent(&self) -> u64 {
        self.others_spent.load(Ordering::Relaxed)
    }

    /// What it may have spent and hold; 0 after its end.
    pub(super) fn ceiling(&self) -> u64 {
        if self.runs() { self.ceiling.load(Ordering::Relaxed) } else { 0 }
    }

    /// Whether the store is gone for longer than the lease, and nothing may be taken without it.
    pub(super) fn is_lost(&self, limit: &Limit) -> bool {
        let has_store = self.replicas.is_up() && !self.replicas.is_superseded();
        !self.runs() && !has_store && !self.goes_on_alone(limit)
    }

    /// Notes that so much is used now, and asks ahead of time for more.
    pub(super) fn used(&self, used: u64) {
        if used > self.refill_at.load(Ordering::Relaxed) {
            self.ask();
        }
    }

    /// Notes that a call lacks so much.
    pub(super) fn lacks(&self, amount: u64) {
        self.largest_lack.fetch_max(amount, Ordering::Relaxed);
        self.lacked_together.fetch_add(amount, Ordering::Relaxed);
        self.doubts();
        self.replicas.lacked.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks how it stands, unless that was answered just now: what others have spent may have left the window.
    pub(super) fn doubts(&self) {
        if self.replicas.now() >= self.dry_until.load(Ordering::Relaxed) {
            self.ask();
        }
    }

    /// Has the keeper tell the store of it.
    pub(super) fn ask(&self) {
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.replicas.ask(&self.pool);
        }
    }

    /// Until what was asked for is answered; `None`: nothing is to be waited for.
    pub(super) fn answer(&self) -> Option<Notified<'_>> {
        let answered = self.answered.notified();
        let may_come = self.replicas.is_up() && !self.replicas.is_superseded();
        (self.asked.load(Ordering::Relaxed) && may_come).then_some(answered)
    }

    /// The most that a call lacked and what all lacked, which is now told to the store.
    pub(super) fn take_lack(&self) -> (u64, u64) {
        (self.largest_lack.swap(0, Ordering::Relaxed), self.lacked_together.swap(0, Ordering::Relaxed))
    }

    /// To be called under the lock of the counter.
    pub(super) fn lower(&self, ceiling: u64) {
        self.ceiling.store(ceiling, Ordering::Relaxed);
    }

    /// Takes what the store has said.
    pub(super) fn agree(&self, terms: SliceTerms) {
        self.ceiling.store(terms.ceiling, Ordering::Relaxed);
        self.others_spent.store(terms.others_spent, Ordering::Relaxed);
        if let Some(refill_at) = terms.refill_at {
            self.refill_at.store(refill_at, Ordering::Relaxed);
        }
        if terms.is_dry {
            self.dry_until.store(self.replicas.now().saturating_add(DRY), Ordering::Relaxed);
        }
        self.open();
    }

    /// Lets those go on who wait, whatever was answered.
    pub(super) fn open(&self) {
        self.asked.store(false, Ordering::Relaxed);
        self.answered.notify_waiters();
    }

    fn runs(&self) -> bool {
        self.replicas.runs()
    }

    fn goes_on_alone(&self, limit: &Limit) -> bool {
        let has_store = self.replicas.is_up() || self.replicas.is_superseded();
        limit.store_failure == StoreFailure::Local && !has_store
    }
}
