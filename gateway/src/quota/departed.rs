//! Telling the store of shared limits what the ledger says of replicas that cannot say it themselves.
//!
//! It speaks as a process of such a replica would that came back with its ledger and ended at once, so that the store needs no other rules. In a
//! store that has lost something that is process 0, which each real one succeeds. Of a replica that has ended in order, or is gone for good, it
//! is the process after the last: what that one did not use is then free.
//!
//! **Invariant:** nothing is told of this replica itself, and nothing is asked for. Where the database does not answer in time the store learns
//! what the replicas say that are there.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate_policy::limit::slices::ReplicaId;
use tollgate_policy::limit::slices::keeper::{Keeper, Seen};
use tollgate_policy::limit::{LimitId, LimitKind, Usage};

use super::Quota;
use super::lease::{PoolId, Replicas};
use super::slice_store::{AskTurn, SliceStore, SliceStoreError, StoreLife, Synced};
use super::window_terms::window_terms;
use crate::ledger::{
    ChargeReader, ChargedReplica, ChargedWindow, LedgerError, PostgresProgress, PostgresServer, chain,
};

/// Between two tries while the database does not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// What a limit counts for at most that the policy does not name and whose id does not say it.
const LONGEST: Duration = Duration::from_secs(32 * 86_400);
/// Between two looks for shares that can be given back: so many leases.
const LEASES: u32 = 3;
/// The longest pause while that does not work.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Messages of one process beside those that its counts need.
const MOST_ROUNDS: usize = 50;

/// The ledger's word.
#[derive(Clone)]
pub(crate) struct DepartedReader {
    server: PostgresServer,
    own: ReplicaId,
    progress: Arc<PostgresProgress>,
}

/// What is told to a store that has lost something, once for each of its lives.
pub(super) struct StoreRecovery {
    reader: DepartedReader,
    told: Option<StoreLife>,
    due: Option<StoreLife>,
    reading: Option<JoinHandle<(Vec<AskedWindow>, Vec<ChargedReplica>)>>,
    /// What was read, without what was told of it.
    left: Option<(Vec<AskedWindow>, Vec<ChargedReplica>)>,
}

/// Gives back what replicas had leased that have ended.
pub(crate) struct LeaseReclaimer {
    reader: DepartedReader,
    quota: Arc<Quota>,
    replicas: Arc<Replicas>,
    store: SliceStore,
}

/// What it takes to tell something.
struct Telling<'a> {
    quota: &'a Quota,
    replicas: &'a Replicas,
    /// Those that were read.
    windows: &'a [AskedWindow],
}

/// Since when this count counts, as it was asked for.
struct AskedWindow {
    begun: Option<Timestamp>,
    window: ChargedWindow,
}

impl DepartedReader {
    /// `own` is the id of this replica.
    pub(crate) fn new(server: PostgresServer, own: &str, progress: Arc<PostgresProgress>) -> Self {
        Self { server, own: own.into(), progress }
    }

    /// What replicas were charged in windows that are not over, as `read` asks for it.
    async fn read(
        &self,
        windows: &[AskedWindow],
        read: impl FnOnce(&mut ChargeReader, &str, &[ChargedWindow]) -> Result<Vec<ChargedReplica>, LedgerError>
        + Send
        + 'static,
    ) -> Result<Vec<ChargedReplica>, LedgerError> {
        let (server, own) = (self.server.clone(), Arc::clone(&self.own));
        let windows: Vec<_> = windows.iter().map(|asked| asked.window.clone()).collect();
        let work = move || read(&mut ChargeReader::open(&server)?, &own, &windows);
        let read = tokio::task::spawn_blocking(work).await;
        read.unwrap_or_else(|_| Err(LedgerError::Unavailable))
    }

    /// What was charged to other replicas in these windows; nothing where the database does not say it in time.
    async fn others(
        self,
        windows: Vec<AskedWindow>,
        patience: Duration,
    ) -> (Vec<AskedWindow>, Vec<ChargedReplica>) {
        let deadline = Instant::now() + patience;
        loop {
            let read = self.read(&windows, |charges, own, windows| charges.others(own, windows));
            let error = match tokio::time::timeout_at(deadline, read).await {
                Ok(Ok(gone)) => {
                    tracing::info!(
                        replicas = gone.len(),
                        "the store of shared limits is told what the ledger's database says of other replicas"
                    );
                    return (windows, gone);
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("no answer within {} ms", patience.as_millis()),
            };
            if Instant::now() + AGAIN >= deadline {
                tracing::warn!(
                    error,
                    "the store of shared limits has lost something, and the ledger's database does not say what replicas have spent that are gone: it counts for nothing"
                );
                return (windows, Vec::new());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Telling<'_> {
    /// As a process of this number that has no more than its ledger. Returns whether the store has taken it; not where it knows a later
    /// process, unless it `goes_on` as one that is later still.
    async fn report_as(
        &self,
        store: &mut SliceStore,
        replica: &ChargedReplica,
        process: u64,
        goes_on: bool,
    ) -> Result<bool, SliceStoreError> {
        let charges = self.charges(replica);
        let seen = |pool: &PoolId| {
            charges.binary_search_by(|(known, _)| known.cmp(pool)).ok().map(|at| charges[at].1)
        };
        let (name, lease): (ReplicaId, _) = (replica.id.as_str().into(), self.replicas.lease());
        let mut keeper: Keeper<PoolId, StoreLife> = Keeper::new(process, lease);
        keeper.restored();
        charges.iter().for_each(|(pool, _)| keeper.asked(pool.clone()));
        keeper.leave();
        for _ in 0..MOST_ROUNDS + charges.len() / 16 {
            let now = self.replicas.now();
            let Some(batch) = keeper.batch(now) else {
                tokio::time::sleep(Duration::from_millis(keeper.pause(now).max(1))).await;
                continue;
            };
            let asks: Vec<_> =
                batch.pools.iter().map(|pool| (pool.clone(), keeper.ask(pool, seen(pool), now))).collect();
            let turn = AskTurn { reports: true, ..AskTurn::of(&name, lease, &batch) };
            match store.sync(turn, &asks).await? {
                Synced::Granted { standing, grants, .. } => {
                    keeper.answered(&batch, &standing, now);
                    for ((pool, ask), grant) in asks.iter().zip(grants) {
                        keeper.take(&batch, (pool, ask), grant, now);
                    }
                    if standing.heard && keeper.has_left() {
                        return Ok(true);
                    }
                }
                Synced::Overtaken { latest } => keeper.overtaken(batch, latest),
                Synced::Superseded { latest } => {
                    if !goes_on || !keeper.superseded(batch, latest, now) {
                        return Ok(false);
                    }
                }
            }
        }
        Err(SliceStoreError::Answer)
    }

    /// What is told of each count, in their order.
    fn charges(&self, replica: &ChargedReplica) -> Vec<(PoolId, Seen)> {
        let wall = Timestamp::now();
        let mut charges: Vec<(PoolId, Seen)> = Vec::new();
        for charge in &replica.charges {
            let pool = PoolId { limit: Arc::clone(&charge.limit), key: Arc::clone(&charge.key) };
            let seen = self.quota.charged(&pool, charge.amount, self.windows, wall);
            charges.extend(seen.map(|seen| (pool, seen)));
        }
        charges.sort_by(|(a, _), (b, _)| a.cmp(b));
        charges
    }
}

impl StoreRecovery {
    pub(super) fn new(reader: DepartedReader) -> Self {
        Self { reader, told: None, due: None, reading: None, left: None }
    }

    /// Notes the process that has this replica's shares.
    pub(super) fn shares_as(&self, process: u64) {
        self.reader.progress.shares_as(process);
    }

    /// Notes that another process has the directory, or a copy of it.
    pub(super) fn superseded(&self) {
        self.reader.progress.superseded();
    }

    /// Notes that the store has lost something.
    pub(super) fn lost(&mut self, life: &StoreLife) {
        if self.told.as_ref() != Some(life) && self.due.as_ref() != Some(life) {
            (self.due, self.left) = (Some(Arc::clone(life)), None);
        }
    }

    /// Tells of one replica more, if that is due: meanwhile the lease is lengthened. Whether not all is told yet; the database is waited for so
    /// long.
    ///
    /// # Errors
    /// Where the store fails: it is told again.
    pub(super) async fn tell(
        &mut self,
        (quota, replicas): (&Quota, &Replicas),
        store: &mut SliceStore,
        patience: Duration,
    ) -> Result<bool, SliceStoreError> {
        let Some(life) = self.due.clone() else { return Ok(false) };
        if self.left.is_none() {
            let reading = self.reading.get_or_insert_with(|| {
                let windows = quota.asked_windows(Timestamp::now());
                tokio::spawn(self.reader.clone().others(windows, patience))
            });
            if !reading.is_finished() {
                return Ok(true);
            }
            let read = reading.await;
            self.reading = None;
            self.left = Some(read.unwrap_or_default());
        }
        if let Some((windows, left)) = &mut self.left
            && let Some(replica) = left.last()
        {
            Telling { quota, replicas, windows }.report_as(store, replica, 0, false).await?;
            left.pop();
            return Ok(true);
        }
        (self.told, self.due, self.left) = (Some(life), None, None);
        Ok(false)
    }
}

impl LeaseReclaimer {
    pub(crate) fn new(
        reader: DepartedReader,
        (quota, replicas): (Arc<Quota>, Arc<Replicas>),
        store: SliceStore,
    ) -> Self {
        Self { reader, quota, replicas, store }
    }

    /// Looks again and again, to the end of the process.
    pub(crate) async fn keep(mut self) {
        let every = Duration::from_millis(self.replicas.lease()) * LEASES;
        let (mut pause, mut fails) = (every, false);
        loop {
            tokio::time::sleep(pause).await;
            let looked = self.look().await;
            let failed_before = std::mem::replace(&mut fails, looked.is_err());
            pause = match looked {
                Ok(()) => every,
                Err(_) if failed_before => (pause * 2).min(LONGEST_PAUSE),
                Err(error) => {
                    tracing::warn!(
                        error,
                        "what replicas that have ended had leased cannot be given back now"
                    );
                    pause
                }
            };
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        if !self.replicas.is_restored() || !self.replicas.is_up() {
            return Ok(());
        }
        let windows = self.quota.asked_windows(Timestamp::now());
        let ended = self.reader.read(&windows, |charges, own, windows| {
            let mut ended = charges.ended(windows)?;
            ended.retain(|replica| replica.id != own);
            Ok(ended)
        });
        for replica in ended.await.map_err(|error| chain(&error))? {
            let telling = Telling { quota: &self.quota, replicas: &self.replicas, windows: &windows };
            let (process, goes_on) = (replica.process + 1, replica.is_forgotten);
            let told = telling.report_as(&mut self.store, &replica, process, goes_on).await;
            if told.map_err(|error| error.to_string())? {
                let id = &replica.id;
                tracing::info!(id, "what a replica that has ended had leased and not spent is given back");
            }
            let note = self.reader.read(&[], move |charges, _, _| {
                charges.settled(&replica)?;
                Ok(Vec::new())
            });
            note.await.map_err(|error| chain(&error))?;
        }
        Ok(())
    }
}

impl Quota {
    /// Since when the counts count that replicas share.
    fn asked_windows(&self, now: Timestamp) -> Vec<AskedWindow> {
        let table = self.table.load();
        let mut windows = Vec::new();
        for limit in table.registry.limits() {
            let LimitKind::Counted(window) = &limit.kind else { continue };
            let begun = window.begun(now);
            let longest = SignedDuration::try_from(window.longest()).unwrap_or(SignedDuration::MAX);
            let since = begun.unwrap_or_else(|| now.saturating_sub(longest).unwrap_or(Timestamp::UNIX_EPOCH));
            windows
                .push(AskedWindow { begun, window: ChargedWindow { limit: Arc::clone(&limit.id), since } });
        }
        windows.sort_by(|a, b| a.window.limit.cmp(&b.window.limit));
        windows
    }

    /// What a replica tells of a count of which the ledger has this much; `None` where the window that it was of is over.
    fn charged(&self, pool: &PoolId, amount: u64, windows: &[AskedWindow], now: Timestamp) -> Option<Seen> {
        let usage = Usage { spent: amount, held: 0 };
        let table = self.table.load();
        let kind = table.registry.limit(&pool.limit).map(|limit| &limit.kind);
        let asked = windows.binary_search_by(|asked| asked.window.limit.cmp(&pool.limit));
        if let (Some(LimitKind::Counted(window)), Ok(at)) = (kind, asked) {
            let (resets_in, counts_for) = window_terms(window, now);
            let is_same = window.begun(now) == windows[at].begun;
            return is_same.then_some(Seen { usage, resets_in, counts_for, ..Seen::default() });
        }
        let length = LimitId::read(&pool.limit).and_then(|id| id.per).map(|per| per.length() * 2);
        let counts_for =
            u64::try_from(length.unwrap_or(LONGEST).min(LONGEST).as_millis()).unwrap_or(u64::MAX);
        Some(Seen { usage, counts_for, ..Seen::default() })
    }
}

#[cfg(test)]
mod tests {
    use tollgate_policy::compile::compile_files;
    use tollgate_policy::model::SourceFile;

    use super::*;
    use crate::app;

    fn quota() -> Arc<Quota> {
        let budget = |name: &str, window: &str| {
            format!(
                "---\napiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec: {{appliesTo: All, limits: [{{tokens: 100, per: day, {window}}}]}}\n"
            )
        };
        let text = budget("daily", "window: calendar, timezone: UTC") + &budget("rolls", "window: rolling");
        let file = SourceFile { path: "a.yaml".into(), text };
        let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
        let quota = Quota::shared(Replicas::new(Duration::from_secs(10), Duration::ZERO));
        quota.apply(&compile_files(&[file], &environment).unwrap().policy);
        quota
    }

    fn pool(limit: &str) -> PoolId {
        PoolId { limit: limit.into(), key: "".into() }
    }

    #[test]
    fn what_was_charged_in_a_window_is_told_as_long_as_it_is_that_window() {
        let (quota, at) = (quota(), |text: &str| text.parse::<Timestamp>().unwrap());
        let noon = at("2026-07-01T12:00:00Z");
        let windows = quota.asked_windows(noon);
        let since: Vec<_> = windows.iter().map(|asked| asked.window.since).collect();
        assert_eq!(since[0], at("2026-07-01T00:00:00Z"), "a day on the calendar begins at midnight");
        assert!(since[1] < at("2026-06-30T12:00:00Z"), "one that rolls reaches back for all of it");
        let daily = pool("budget/daily/tokens/day/shared");
        let seen = quota.charged(&daily, 70, &windows, noon).unwrap();
        assert_eq!((seen.usage.spent, seen.usage.held), (70, 0));
        let hours = |hours: u64| hours * 3_600_000 + 5_000;
        assert_eq!((seen.resets_in, seen.counts_for), (hours(12), hours(25)));
        let next = at("2026-07-02T00:00:01Z");
        assert!(quota.charged(&daily, 70, &windows, next).is_none(), "that was the day before");
        let rolls = quota.charged(&pool("budget/rolls/tokens/day/shared"), 70, &windows, next).unwrap();
        assert_eq!(rolls.resets_in, 0);
        assert!(rolls.counts_for > hours(24));
    }

    #[test]
    fn a_limit_that_the_policy_does_not_name_counts_for_as_long_as_it_says() {
        let (quota, now) = (quota(), Timestamp::now());
        for (limit, days) in
            [("budget/gone/spend/week/shared", 14), ("budget/gone/spend/month/shared", 32), ("else", 32)]
        {
            let seen = quota.charged(&pool(limit), 7, &quota.asked_windows(now), now).unwrap();
            assert_eq!((seen.resets_in, seen.counts_for), (0, days * 86_400_000), "{limit}");
        }
    }
}
