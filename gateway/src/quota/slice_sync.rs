//! Keeps this replica's slices: asks the store for more, gives back what is not used, and says what is spent.
//!
//! What is told and asked, and when, are the rules of [`tollgate_policy::limit::slices::keeper`]. Here are the counts, the clock and the store.
//!
//! **Invariant:** one batch is under way at a time. What it says is kept was lowered to that under the lock of its counter before it is sent.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tollgate_policy::limit::slices::keeper::{Batch, Keeper, Seen};
use tollgate_policy::limit::slices::{Ask, Granted, ReplicaId, Standing};
use tollgate_policy::limit::{Counter, Limit, LimitKind, Usage, Window};

use super::Quota;
use super::counter::{CounterState, KeyedCounter, lock};
use super::departed::{DepartedReader, StoreRecovery};
use super::lease::{PoolId, Replicas, SliceLease};
use super::slice_store::{AskTurn, Dialable, SliceStore, SliceStoreError, StoreLife, Synced};
use super::window_terms::{SKEW, millis, window_terms};
use crate::settings::RedisSettings;

/// Between two tries to tell the store of replicas that are gone.
const RECALL_AGAIN: Duration = Duration::from_millis(200);

/// The slices of this replica, and the way to the store.
pub(crate) struct SliceSync {
    quota: Arc<Quota>,
    replicas: Arc<Replicas>,
    store: SliceStore,
    replica: ReplicaId,
    /// How long a call may last.
    longest_call: Duration,
    keeper: Keeper<PoolId, StoreLife>,
    /// The store has lost something, and is asking who has what.
    rebuilding: bool,
    /// What the ledger of all says then.
    recovery: Option<StoreRecovery>,
}

impl SliceSync {
    /// `replica` names the data directory: whoever takes it over has its share. Places of calls count for `longest_call` after the lease's end.
    pub(crate) fn new(
        (quota, replicas): (Arc<Quota>, Arc<Replicas>),
        settings: RedisSettings,
        dialable: Dialable,
        replica: &str,
        longest_call: Duration,
    ) -> Self {
        let lease = replicas.lease();
        Self {
            quota,
            replicas,
            store: SliceStore::new(settings, dialable),
            replica: replica.into(),
            longest_call,
            keeper: Keeper::new(process_number(), lease),
            rebuilding: false,
            recovery: None,
        }
    }

    /// A store that has lost something is also told what the ledger says of replicas that are gone.
    pub(crate) fn recovering(mut self, ledger: Option<DepartedReader>) -> Self {
        self.recovery = ledger.map(StoreRecovery::new);
        self
    }

    /// Keeps them until it is told to stop, after the cores have ended; then says a last time what is spent, and gives the rest back.
    pub(crate) async fn keep(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let now = self.replicas.now();
            let pause = self.keeper.pause(now);
            tokio::select! {
                () = self.replicas.asked(), if !self.keeper.is_retrying(now) => {}
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                _ = &mut stop => break,
            }
            self.look().await;
        }
        self.recovery = None;
        self.keeper.leave();
        while !self.keeper.has_left() && self.look().await {}
    }

    /// Sends what is to be sent now; whether that was answered.
    async fn look(&mut self) -> bool {
        let now = self.replicas.now();
        for pool in self.replicas.take_asks() {
            self.keeper.asked(pool);
        }
        if self.replicas.is_restored() {
            self.keeper.restored();
        }
        let (quota, wall) = (&self.quota, Timestamp::now());
        self.keeper.sweep(now, |pool| quota.look(pool, |limit, cell| usage(limit, cell, wall)));
        let is_waiting = match self.tell_of_the_gone().await {
            Ok(is_waiting) => is_waiting,
            Err(error) => {
                self.fails(&error);
                tokio::time::sleep(RECALL_AGAIN).await;
                return false;
            }
        };
        match self.keeper.batch(now) {
            Some(mut batch) => {
                batch.whole &= !is_waiting;
                self.send(batch).await
            }
            None => false,
        }
    }

    /// Of replicas that cannot say it themselves, before this one says that it has told everything. Whether that is still to come.
    async fn tell_of_the_gone(&mut self) -> Result<bool, SliceStoreError> {
        // Which windows there are is not known before.
        let Some(recovery) = self.recovery.as_mut().filter(|_| self.replicas.is_restored()) else {
            return Ok(false);
        };
        let lease = Duration::from_millis(self.replicas.lease());
        // Who spends already has its lease to lengthen.
        let patience = if self.keeper.ends() > 0 { lease / 3 } else { lease };
        recovery.tell((&self.quota, &self.replicas), &mut self.store, patience).await
    }

    async fn send(&mut self, batch: Batch<PoolId, StoreLife>) -> bool {
        let asks: Vec<_> =
            batch.pools.iter().map(|pool| (pool.clone(), self.ask(pool, batch.asked))).collect();
        let turn = AskTurn::of(&self.replica, self.replicas.lease(), &batch);
        self.recovery.iter().for_each(|recovery| recovery.shares_as(batch.process));
        let synced = self.store.sync(turn, &asks).await;
        let now = self.replicas.now();
        match synced {
            Ok(Synced::Granted { standing, wanted, grants }) => {
                self.granted(&batch, (standing, wanted), asks.into_iter().zip(grants), now);
                return true;
            }
            Ok(Synced::Overtaken { latest }) => self.keeper.overtaken(batch, latest),
            Ok(Synced::Superseded { latest }) => {
                if !self.keeper.superseded(batch, latest, now) && !self.replicas.supersede() {
                    self.recovery.iter().for_each(StoreRecovery::superseded);
                    let replica = &*self.replica;
                    tracing::error!(
                        replica,
                        "another process has the id of this replica: its data directory was copied. This one spends no shared limit any more; delete the file `replica` in the copy"
                    );
                }
            }
            Err(error) => self.failed(batch, &error, now),
        }
        for (pool, _) in &asks {
            self.quota.look(pool, |_, cell| cell.lease.as_ref().map(SliceLease::open));
        }
        false
    }

    /// What is told and asked of one count. Its slice is lowered to what is told.
    fn ask(&mut self, pool: &PoolId, now: u64) -> Ask {
        let (quota, keeper, wall, longest_call) =
            (&self.quota, &mut self.keeper, Timestamp::now(), self.longest_call);
        let asked = quota.look(pool, |limit, cell| {
            let lease = cell.lease.as_ref()?;
            let mut lowered = |seen| {
                let ask = keeper.ask(pool, Some(seen), now);
                lease.lower(ask.keep);
                ask
            };
            match (&cell.state, &limit.kind) {
                (CounterState::Counted(counter), LimitKind::Counted(window)) => {
                    let mut counter = lock(counter);
                    Some(lowered(seen((limit, window), &mut counter, lease, wall)))
                }
                (CounterState::Concurrent(calls), LimitKind::Concurrent) => {
                    let calls = lock(calls);
                    Some(lowered(places(limit, *calls, (lease, longest_call), wall)))
                }
                _ => None,
            }
        });
        asked.unwrap_or_else(|| self.keeper.ask(pool, None, now))
    }

    fn granted(
        &mut self,
        batch: &Batch<PoolId, StoreLife>,
        (standing, wanted): (Standing<StoreLife>, Vec<PoolId>),
        grants: impl Iterator<Item = ((PoolId, Ask), Granted)>,
        now: u64,
    ) {
        self.keeper.answered(batch, &standing, now);
        self.replicas.extend(self.keeper.ends());
        for ((pool, ask), grant) in grants {
            if grant.more > 0 {
                self.replicas.count_granted();
            }
            if let Some(terms) = self.keeper.take(batch, (&pool, &ask), grant, now) {
                self.quota.look(&pool, |_, cell| cell.lease.as_ref().map(|lease| lease.agree(terms)));
            }
        }
        let wall = Timestamp::now();
        for pool in wanted {
            let used = self.quota.look(&pool, |limit, cell| usage(limit, cell, wall));
            self.keeper.wanted(&pool, used.unwrap_or_default(), now);
        }
        if standing.rebuilding && !self.rebuilding {
            tracing::warn!(
                "the store of shared limits is new or has lost something: nothing is granted for one lease (limits.redis.lease), until \
                 all replicas have said what they have"
            );
        }
        if standing.rebuilding {
            self.recovery.iter_mut().for_each(|recovery| recovery.lost(&standing.life));
        }
        self.rebuilding = standing.rebuilding;
        self.replicas.hear(standing.live);
        if !self.replicas.set_up(true) {
            tracing::info!("the store of shared limits works again");
        }
    }

    fn failed(&mut self, batch: Batch<PoolId, StoreLife>, error: &SliceStoreError, now: u64) {
        self.keeper.failed(batch, now);
        self.fails(error);
    }

    fn fails(&self, error: &SliceStoreError) {
        if self.replicas.set_up(false) {
            tracing::error!(%error, "the store of shared limits fails; what is leased is spent until the lease ends");
        }
    }
}

/// Larger than that of the process before, while clocks go forward; the store says if it is not. Two that begin at once differ.
fn process_number() -> u64 {
    let mut random = [0_u8; 2];
    // Without randomness two that begin in one millisecond may have the same.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let begun = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    (begun << 10) | u64::from(u16::from_le_bytes(random) & 0x3ff)
}

/// What is used of a count that replicas share.
fn usage(limit: &Limit, cell: &KeyedCounter, wall: Timestamp) -> Option<Usage> {
    cell.lease.as_ref()?;
    cell.usage(limit, wall)
}

fn seen(
    (limit, window): (&Limit, &Window),
    counter: &mut Counter,
    lease: &SliceLease,
    wall: Timestamp,
) -> Seen {
    let ((resets_in, counts_for), (lacking, lacking_together)) =
        (window_terms(window, wall), lease.take_lack());
    Seen {
        cap: limit.amount_at(wall),
        usage: counter.usage(window, wall),
        former: counter.used_before(window, SKEW, wall),
        lacking,
        lacking_together,
        resets_in,
        counts_for,
    }
}

/// A limit of calls at once: what is held when the lease ends may be held for as long as a call lasts.
fn places(
    limit: &Limit,
    calls: u64,
    (lease, longest_call): (&SliceLease, Duration),
    wall: Timestamp,
) -> Seen {
    let (lacking, lacking_together) = lease.take_lack();
    Seen {
        cap: limit.amount_at(wall),
        usage: Usage { spent: 0, held: calls },
        former: 0,
        lacking,
        lacking_together,
        resets_in: 0,
        counts_for: millis(longest_call),
    }
}
