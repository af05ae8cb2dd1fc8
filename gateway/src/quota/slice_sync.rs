//! Keeps this replica's slices: asks the store for more, gives back what is not used, and says what is spent.
//!
//! **Invariant:** one batch is under way at a time, and the numbers of batches only grow. What a batch says is kept was lowered to that
//! under the lock of its counter before it is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;
use tollgate_policy::limit::slices::{Ask, Granted, ReplicaId, Slice};
use tollgate_policy::limit::{LimitKind, Usage};

use super::Quota;
use super::counter::{CounterState, KeyedCounter, lock};
use super::lease::{LeaseTerms, PoolId, Replicas};
use super::plan::Item;
use super::slice_store::{AskTurn, Dialable, SliceStore, SliceStoreError, Synced};
use crate::settings::RedisSettings;

/// How soon an unused slice hears that another wants it, in milliseconds: two looks fit into the second after which a refused call is
/// tried again.
const LOOK: u64 = 400;
/// After so many milliseconds without use a slice is given back.
const IDLE: u64 = 5_000;
/// Counts in one batch.
const BATCH: usize = 128;
/// The longest pause after the store failed, in milliseconds.
const LONGEST_PAUSE: u64 = 1_000;
/// A slice is for so many calls like the last that found too little, at least.
const FIRST_CALLS: u64 = 8;
/// By how much clocks of replicas may differ, in milliseconds.
const SKEW: u64 = 5_000;

/// The slices of this replica, and the way to the store.
pub(crate) struct SliceSync {
    quota: Arc<Quota>,
    replicas: Arc<Replicas>,
    store: SliceStore,
    replica: ReplicaId,
    lease: u64,
    turn: u64,
    entries: HashMap<PoolId, KeptSlice>,
    /// When all counts are told of next, in milliseconds of the replica's clock.
    whole_at: u64,
    retry_at: u64,
    pause: u64,
    /// The store has lost something, and everything was to be told again.
    rebuilding: bool,
    is_leaving: bool,
}

#[derive(Default)]
struct KeptSlice {
    slice: Slice,
    want: u64,
    /// What is wanted at least.
    least: u64,
    used: u64,
    used_at: u64,
    synced_at: u64,
    due: u64,
}

/// What one ask was made of.
struct SentAsk {
    pool: PoolId,
    cell: Option<Arc<KeyedCounter>>,
    need: u64,
    used: u64,
    /// Somebody has asked, and it is not only told of in its turn.
    is_asked: bool,
}

impl SliceSync {
    /// `replica` names the data directory: whoever takes it over has its share.
    pub(crate) fn new(
        (quota, replicas): (Arc<Quota>, Arc<Replicas>),
        settings: RedisSettings,
        dialable: Dialable,
        replica: &str,
    ) -> Self {
        let lease = replicas.lease();
        Self {
            quota,
            replicas,
            store: SliceStore::new(settings, dialable),
            replica: replica.into(),
            lease,
            // Above those of the process before, whose last may still be on its way; the store says if it is not.
            turn: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0),
            entries: HashMap::new(),
            whole_at: 0,
            retry_at: 0,
            pause: 0,
            rebuilding: false,
            is_leaving: false,
        }
    }

    /// Keeps them until it is told to stop, after the cores have ended; then says a last time what is spent, and gives the rest back.
    pub(crate) async fn keep(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let now = self.replicas.now();
            let pause = if self.retry_at > now { self.retry_at - now } else { self.next_due(now) };
            tokio::select! {
                () = self.replicas.asked(), if self.retry_at <= now => {}
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                _ = &mut stop => break,
            }
            self.look().await;
        }
        self.is_leaving = true;
        self.whole_at = 0;
        self.look().await;
    }

    /// Milliseconds until something is to be told without being asked.
    fn next_due(&self, now: u64) -> u64 {
        let due = self.entries.values().map(|entry| entry.due).min().unwrap_or(u64::MAX);
        due.min(self.whole_at).saturating_sub(now).max(1)
    }

    async fn look(&mut self) {
        let now = self.replicas.now();
        for pool in self.replicas.take_asks() {
            self.entries.entry(pool).or_default().due = 0;
        }
        if now < self.retry_at {
            return;
        }
        let all = now >= self.whole_at;
        if all {
            self.whole_at = now.saturating_add(self.lease / 3);
        }
        let is_due = |entry: &KeptSlice| all || entry.due <= now;
        let due: Vec<PoolId> =
            self.entries.iter().filter(|(_, entry)| is_due(entry)).map(|(pool, _)| pool.clone()).collect();
        let batches: Vec<&[PoolId]> =
            if due.is_empty() && all { vec![&[]] } else { due.chunks(BATCH).collect() };
        let last = batches.len().saturating_sub(1);
        for (number, pools) in batches.into_iter().enumerate() {
            if let Err(error) = self.batch(pools, all && number == last).await {
                self.failed(&error);
                return;
            }
        }
    }

    async fn batch(&mut self, pools: &[PoolId], whole: bool) -> Result<(), SliceStoreError> {
        let mut overtaken = 0;
        loop {
            self.turn += 1;
            let now = self.replicas.now();
            let (asked, asks): (Vec<_>, Vec<_>) = pools.iter().map(|pool| self.ask(pool, now)).unzip();
            let turn = AskTurn { replica: &self.replica, number: self.turn, lease: self.lease, whole };
            let synced = match self.store.sync(turn, &asks).await {
                Ok(synced) => synced,
                Err(error) => {
                    asked.iter().for_each(|asked| open(asked.cell.as_deref()));
                    return Err(error);
                }
            };
            match synced {
                Synced::Overtaken { latest } if overtaken < 3 => {
                    overtaken += 1;
                    self.turn = self.turn.max(latest);
                }
                Synced::Overtaken { .. } => return Err(SliceStoreError::Answer),
                Synced::Granted { live, grants } => {
                    self.answered(live, grants.iter().any(|grant| grant.rebuilding));
                    for (asked, grant) in asked.into_iter().zip(grants) {
                        self.take(asked, grant, now);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// What is told and asked of one count. Its slice is lowered to what is told.
    fn ask(&mut self, pool: &PoolId, now: u64) -> (SentAsk, (PoolId, Ask)) {
        let entry = self.entries.entry(pool.clone()).or_default();
        let known = entry.slice.known(now);
        let Some((Item { limit, .. }, cell)) = self.quota.find(pool) else {
            let keep = entry.slice.lower(Usage::default(), 0, now);
            let asked = SentAsk { pool: pool.clone(), cell: None, need: 0, used: 0, is_asked: false };
            return (asked, (pool.clone(), Ask { keep, lease: self.lease, known, ..Ask::default() }));
        };
        let wall = Timestamp::now();
        let (mut usage, mut keep, mut counts_for) = (Usage::default(), 0, 0);
        if let (CounterState::Counted(counter), LimitKind::Counted(window), Some(lease)) =
            (&cell.state, &limit.kind, &cell.lease)
        {
            let mut counter = lock(counter);
            usage = counter.usage(window, wall);
            let used = usage.spent.saturating_add(usage.held);
            if used != entry.used {
                (entry.used, entry.used_at) = (used, now);
            }
            let is_idle = self.is_leaving || now.saturating_sub(entry.used_at) >= IDLE;
            let spare = if is_idle { 0 } else { entry.want };
            // Clocks differ: others may still be in the window before, where what was spent counts on.
            let is_new = window.begun(wall).is_some_and(|begun| {
                u64::try_from(wall.duration_since(begun).as_millis()).is_ok_and(|passed| passed < SKEW)
            });
            keep = if is_new && !self.is_leaving {
                entry.slice.keep(usage, now)
            } else {
                entry.slice.lower(usage, spare, now)
            };
            lease.lower(keep);
            drop(counter);
            let end = SignedDuration::from_millis(i64::try_from(self.lease).unwrap_or(i64::MAX));
            let counts = window.counts_for(wall.saturating_add(end).unwrap_or(Timestamp::MAX));
            counts_for =
                u64::try_from(counts.as_millis()).unwrap_or(u64::MAX).min(1 << 48).saturating_add(SKEW);
        }
        let used = usage.spent.saturating_add(usage.held);
        let lacking = cell.lease.as_ref().map_or(0, super::lease::SliceLease::take_need);
        let need = if lacking == 0 { 0 } else { lacking.saturating_sub(keep - used) };
        let is_asked = entry.due == 0;
        entry.want = wanted(entry, lacking, now);
        let ask = Ask {
            cap: limit.amount_at(wall),
            keep,
            spent: usage.spent,
            need,
            want: if self.is_leaving { 0 } else { entry.want },
            lease: self.lease,
            counts_for,
            known,
        };
        (SentAsk { pool: pool.clone(), cell: Some(cell), need, used, is_asked }, (pool.clone(), ask))
    }

    fn take(&mut self, asked: SentAsk, grant: Granted, now: u64) {
        let Some(entry) = self.entries.get_mut(&asked.pool) else { return };
        let (more, wanted, rebuilding) = (grant.more, grant.wanted, grant.rebuilding);
        entry.slice.take(grant, now, self.lease);
        entry.synced_at = now;
        if more > 0 {
            self.replicas.count_granted();
        }
        let ceiling = entry.slice.ceiling(now).unwrap_or(0);
        let spare = ceiling.saturating_sub(asked.used);
        let soon = spare > 0 || rebuilding;
        entry.due = match () {
            () if wanted && spare > 0 && more == 0 => 0,
            () if soon => now.saturating_add(LOOK),
            () => u64::MAX,
        };
        let Some(cell) = asked.cell else {
            if ceiling == 0 && !rebuilding {
                self.entries.remove(&asked.pool);
            }
            return;
        };
        let Some(lease) = &cell.lease else { return };
        lease.agree(LeaseTerms {
            ceiling,
            ends: now.saturating_add(self.lease),
            others_spent: entry.slice.others_spent(),
            refill_at: if more == 0 { u64::MAX } else { ceiling - (spare / 2).min(ceiling) },
            is_dry: asked.need > more || (asked.is_asked && more == 0),
        });
    }

    fn answered(&mut self, live: u64, rebuilding: bool) {
        self.pause = 0;
        if rebuilding && !self.rebuilding {
            tracing::warn!(
                "the store of shared limits has lost something: nothing is granted until all replicas have said what they have"
            );
            self.whole_at = 0;
        }
        self.rebuilding = rebuilding;
        self.replicas.hear(live);
        if !self.replicas.set_up(true) {
            tracing::info!("the store of shared limits works again");
        }
    }

    fn failed(&mut self, error: &SliceStoreError) {
        self.pause = (self.pause * 2).clamp(50, LONGEST_PAUSE);
        self.retry_at = self.replicas.now().saturating_add(self.pause);
        // Whoever was answered by nobody says everything again.
        self.whole_at = 0;
        if self.replicas.set_up(false) {
            tracing::error!(%error, "the store of shared limits fails; what is leased is spent until the lease ends");
        }
    }
}

fn open(cell: Option<&KeyedCounter>) {
    if let Some(lease) = cell.and_then(|cell| cell.lease.as_ref()) {
        lease.open();
    }
}

/// How much beyond what is used a replica should have: twice as much where that was used up at once, and less while it is not. A few calls
/// like the last that lacked something find room.
fn wanted(entry: &mut KeptSlice, lacking: u64, now: u64) -> u64 {
    if lacking > 0 {
        entry.least = lacking.saturating_mul(FIRST_CALLS);
    }
    let is_asked = entry.due == 0;
    let is_soon = now.saturating_sub(entry.synced_at) < LOOK;
    let next = match (is_asked, is_soon) {
        (true, true) => entry.want.saturating_mul(2),
        (true, false) => entry.want,
        (false, _) => entry.want - entry.want / 8,
    };
    next.max(entry.least)
}
