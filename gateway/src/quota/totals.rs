//! What all replicas have spent, for those who tell people: this replica may have no traffic of a count, and then never asks of it.
//!
//! **Invariant:** no call is decided by it.
//!
//! Lacks on purpose: what other replicas hold, which they do not say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use tollgate_policy::limit::slices::ReplicaId;
use tollgate_policy::limit::{Limit, LimitKind};

use super::lease::{PoolId, Replicas};
use super::plan::Registry;
use super::slice_store::{Dialable, SliceStore};
use super::window_terms::SKEW;
use super::{LimitUsage, Quota};
use crate::settings::RedisSettings;

/// How often the store is read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Counts that all replicas together read in a second, at most: a small part of what the store can do.
const READS_PER_SECOND: u64 = 2_000;
/// How often all keys are noted again: the store may have lost them.
const NOTE_EVERY: Duration = Duration::from_secs(60);
/// Between two tries while the store does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What other replicas have spent, as the store said last; nothing where none is shared.
#[derive(Debug, Default)]
pub(super) struct SharedTotals(ArcSwapOption<ReadTotals>);

#[derive(Debug)]
struct ReadTotals {
    others: HashMap<PoolId, u64>,
    at: Timestamp,
    /// How long after a window has begun others may still say what they spent in the one before.
    settle: SignedDuration,
}

/// Reads the totals again and again.
pub(crate) struct TotalsReader {
    quota: Arc<Quota>,
    replicas: Arc<Replicas>,
    store: SliceStore,
    replica: ReplicaId,
    noted: HashSet<PoolId>,
    note_all_at: tokio::time::Instant,
}

impl SharedTotals {
    /// What is used, with what others have spent, and with counts that only they have.
    pub(super) fn complete(
        &self,
        mut lines: Vec<LimitUsage>,
        registry: &Registry,
        now: Timestamp,
    ) -> Vec<LimitUsage> {
        let Some(read) = self.0.load_full() else { return lines };
        let mut here = HashSet::new();
        for line in &mut lines {
            let pool = PoolId { limit: Arc::clone(&line.limit), key: Arc::clone(&line.key) };
            let others = registry.limit(&line.limit).and_then(|limit| read.others_spent(limit, &pool, now));
            if let Some(others) = others {
                line.others_spent = others;
            }
            here.insert(pool);
        }
        for pool in read.others.keys().filter(|pool| !here.contains(pool)) {
            let Some(limit) = registry.limit(&pool.limit) else { continue };
            let others_spent = read.others_spent(limit, pool, now).unwrap_or(0);
            if others_spent > 0 {
                lines.push(LimitUsage {
                    limit: Arc::clone(&pool.limit),
                    owner: limit.owner.clone(),
                    key: Arc::clone(&pool.key),
                    unit: limit.unit,
                    amount: limit.amount_at(now),
                    spent: 0,
                    held: 0,
                    others_spent,
                    leased: Some(0),
                });
            }
        }
        lines
    }
}

impl ReadTotals {
    /// `None` where it is not known: then what was said with a slice is the best there is.
    fn others_spent(&self, limit: &Limit, pool: &PoolId, now: Timestamp) -> Option<u64> {
        let LimitKind::Counted(window) = &limit.kind else { return None };
        if let Some(begun) = window.begun(now)
            && self.at.duration_since(begun) < self.settle
        {
            return Some(0);
        }
        let is_old = self.at.duration_since(now).unsigned_abs() > window.length(now);
        self.others.get(pool).copied().filter(|_| !is_old)
    }
}

impl TotalsReader {
    pub(crate) fn new(
        (quota, replicas): (Arc<Quota>, Arc<Replicas>),
        settings: RedisSettings,
        dialable: Dialable,
        replica: &str,
    ) -> Self {
        Self {
            quota,
            replicas,
            store: SliceStore::new(settings, dialable),
            replica: replica.into(),
            noted: HashSet::new(),
            note_all_at: tokio::time::Instant::now(),
        }
    }

    /// Reads to the end of the process.
    pub(crate) async fn keep(mut self) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.look().await {
                Some(counts) => {
                    let reads =
                        u64::try_from(counts).unwrap_or(u64::MAX).saturating_mul(self.replicas.live());
                    LOOK_EVERY.max(Duration::from_millis(reads.saturating_mul(1_000) / READS_PER_SECOND))
                }
                None => (pause * 2).min(LONGEST_PAUSE),
            };
        }
    }

    /// How many counts were read; `None`: the store does not answer, which is said of slices.
    async fn look(&mut self) -> Option<usize> {
        let at = Timestamp::now();
        let (shared, keyed): (Vec<_>, Vec<_>) =
            self.quota.told_pools(at).into_iter().partition(|pool| pool.key.is_empty());
        let clock = tokio::time::Instant::now();
        if clock >= self.note_all_at {
            self.note_all_at = clock + NOTE_EVERY;
            self.noted.clear();
        }
        let new: Vec<PoolId> = keyed.into_iter().filter(|pool| !self.noted.contains(pool)).collect();
        match self.store.spent_by_others(&self.replica, shared, &new).await {
            Ok(others) => {
                self.noted.extend(new);
                let lease = i64::try_from(self.replicas.lease()).unwrap_or(i64::MAX);
                let skew = SignedDuration::try_from(SKEW).unwrap_or_default();
                let settle = SignedDuration::from_millis(lease).saturating_add(skew);
                let counts = others.len();
                self.quota.totals.0.store(Some(Arc::new(ReadTotals { others, at, settle })));
                Some(counts)
            }
            Err(error) => {
                tracing::debug!(%error, "what other replicas have spent cannot be read");
                None
            }
        }
    }
}

impl Quota {
    fn told_pools(&self, now: Timestamp) -> Vec<PoolId> {
        self.table.load().registry.told_pools(now)
    }
}

#[cfg(test)]
mod tests {
    use tollgate_policy::compile::compile_files;
    use tollgate_policy::model::SourceFile;
    use tollgate_policy::policy::Policy;

    use super::*;
    use crate::app;

    const SHARED: &str = "budget/team/tokens/day/shared";
    const KEYED: &str = "budget/each/tokens/day/caller";

    fn policy() -> Policy {
        let budget = |name: &str, key: &str| {
            format!(
                "---\napiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec: {{appliesTo: All, limits: [{{tokens: 100, per: day, timezone: UTC, window: calendar, key: {key}}}]}}\n"
            )
        };
        let text = budget("team", "shared") + &budget("each", "caller");
        let file = SourceFile { path: "a.yaml".into(), text };
        compile_files(&[file], &app::environment_of(&[], &["prod.acme".to_owned()]).unwrap()).unwrap().policy
    }

    fn pool(limit: &str, key: &str) -> PoolId {
        PoolId { limit: limit.into(), key: key.into() }
    }

    fn spent(quota: &Quota, now: &str) -> Vec<(String, u64)> {
        let usage = quota.usage(now.parse().unwrap());
        let mut spent: Vec<_> =
            usage.iter().map(|line| (format!("{} {}", line.limit, line.key), line.spent_by_all())).collect();
        spent.sort();
        spent
    }

    #[test]
    fn a_replica_without_traffic_says_what_the_others_have_spent_also_of_keys_that_only_they_have() {
        let quota = Quota::shared(Replicas::new(Duration::from_secs(10), Duration::ZERO));
        quota.apply(&policy());
        let none = vec![(format!("{SHARED} "), 0)];
        assert_eq!(spent(&quota, "2026-07-01T12:00:00Z"), none);
        let others = HashMap::from([
            (pool(SHARED, ""), 93),
            (pool(KEYED, "spiffe://prod.acme/a"), 7),
            (pool(KEYED, "spiffe://prod.acme/b"), 0),
            (pool("budget/gone/tokens/day/shared", ""), 5),
        ]);
        let read = |at: &str| ReadTotals {
            others: others.clone(),
            at: at.parse().unwrap(),
            settle: SignedDuration::from_secs(15),
        };
        quota.totals.0.store(Some(Arc::new(read("2026-07-01T11:59:59Z"))));
        let all = vec![(format!("{KEYED} spiffe://prod.acme/a"), 7), (format!("{SHARED} "), 93)];
        assert_eq!(spent(&quota, "2026-07-01T12:00:00Z"), all);
        assert_eq!(spent(&quota, "2026-07-02T00:00:00Z"), none, "that was the day before");
        quota.totals.0.store(Some(Arc::new(read("2026-07-02T00:00:14Z"))));
        assert_eq!(
            spent(&quota, "2026-07-02T00:00:14Z"),
            none,
            "others may not know yet that the day is new"
        );
        quota.totals.0.store(Some(Arc::new(read("2026-07-02T00:00:15Z"))));
        assert_eq!(spent(&quota, "2026-07-02T00:00:15Z"), all);
    }
}
