//! From the limits of the policy to their counts.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use tollgate_policy::limit::{Limit, LimitKey, LimitKind, Owner, Usage};
use tollgate_policy::map::Map;

use super::LimitUsage;
use super::counter::{KeyedCounter, LimitCounts};
use super::lease::{PoolId, Replicas, SliceLease};
use super::rate;
use crate::ledger::Charge;

/// One limit beside what is counted for it. Plans share those of the registry: calls of many callers then touch less memory, and a call that
/// was let through under an earlier policy is held to the amounts of the one in force.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) limit: Limit,
    pub(super) counts: Arc<LimitCounts>,
    /// How answers name it.
    pub(super) label: Arc<str>,
}

impl Item {
    fn new(limit: &Limit, counts: Arc<LimitCounts>) -> Arc<Self> {
        Arc::new(Self { limit: limit.clone(), counts, label: rate::label(&limit.id).into() })
    }
}

/// The limits that one grant is held to, of whichever owners, in the order in which they are taken: refundable ones by id, then rates by id.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) items: Box<[Arc<Item>]>,
    /// The `RateLimit-Policy` of every answer, while no limit is raised.
    rate_policy: HeaderValue,
}

impl Plan {
    fn of(mut items: Vec<Arc<Item>>) -> Self {
        let rate = |item: &Arc<Item>| matches!(item.limit.kind, LimitKind::Gcra { .. });
        items.sort_by(|a, b| (rate(a), &a.limit.id).cmp(&(rate(b), &b.limit.id)));
        let rate_policy = rate::policy(items.iter().map(|item| Cow::Borrowed(&item.limit)));
        Self { items: items.into(), rate_policy }
    }

    /// The `RateLimit-Policy` of an answer.
    pub(super) fn rate_policy(&self, now: Timestamp) -> HeaderValue {
        let is_raised = |item: &Arc<Item>| item.limit.amount_at(now) != item.limit.amount;
        match self.items.iter().any(is_raised) {
            true => rate::policy(self.items.iter().map(|item| item.limit.at(now))),
            false => self.rate_policy.clone(),
        }
    }
}

/// All limits by id: those of the policy, and those that it no longer names but whose windows are not over.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    items: Map<Arc<str>, Arc<Item>>,
    replicas: Option<Arc<Replicas>>,
}

impl Registry {
    /// One without limits.
    pub(super) fn new(replicas: Option<Arc<Replicas>>) -> Self {
        Self { items: Map::default(), replicas }
    }

    /// The registry for these limits instead. What counts on under an edited limit is kept.
    pub(super) fn next<'a>(&self, limits: impl Iterator<Item = &'a Limit>, now: Timestamp) -> Self {
        let mut next = Map::default();
        for limit in limits {
            let kept = self.items.get(&limit.id).filter(|old| counts_on(&old.limit, limit));
            let counts = kept.map_or_else(|| Arc::new(self.counts(limit)), |old| Arc::clone(&old.counts));
            next.entry(Arc::clone(&limit.id)).or_insert_with(|| Item::new(limit, counts));
        }
        for (id, old) in &self.items {
            if !next.contains_key(id) && !old.counts.idle(&old.limit, now) {
                next.insert(Arc::clone(id), Arc::clone(old));
            }
        }
        Self { items: next, replicas: self.replicas.clone() }
    }

    fn counts(&self, limit: &Limit) -> LimitCounts {
        LimitCounts::new(limit, self.replicas.as_ref())
    }

    /// A count and its limit, while somebody counts there.
    pub(super) fn find(&self, pool: &PoolId) -> Option<(&Limit, Arc<KeyedCounter>)> {
        let item = self.items.get(&pool.limit)?;
        Some((&item.limit, item.counts.find(&pool.key)?))
    }

    /// The plan of one grant; limits not known yet begin to count.
    pub(super) fn plan(&mut self, limits: &[Limit]) -> Plan {
        Plan::of(limits.iter().map(|limit| self.item(limit)).collect())
    }

    /// The plan of one grant whose limits all count already.
    pub(super) fn known_plan(&self, limits: &[Limit]) -> Option<Plan> {
        let known = |limit: &Limit| self.items.get(&limit.id).map(Arc::clone);
        limits.iter().map(known).collect::<Option<_>>().map(Plan::of)
    }

    /// The limit of this id.
    pub(super) fn limit(&self, id: &Arc<str>) -> Option<&Limit> {
        self.items.get(id).map(|item| &item.limit)
    }

    /// Every limit that counts.
    pub(super) fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.items.values().map(|item| &item.limit)
    }

    /// The counts that replicas tell each other of: all of budgets that something is used of, and those of grants that all callers share.
    pub(super) fn told_pools(&self, now: Timestamp) -> Vec<PoolId> {
        let mut pools = Vec::new();
        for (id, item) in &self.items {
            let Item { limit, counts, .. } = &**item;
            let is_told = limit.key == LimitKey::Shared || matches!(limit.owner, Owner::Budget(_));
            if !is_told || !matches!(limit.kind, LimitKind::Counted(_)) {
                continue;
            }
            let is_used = |cell: &Arc<KeyedCounter>| {
                limit.key == LimitKey::Shared || cell.usage(limit, now) != Some(Usage::default())
            };
            let used = counts.cells().into_iter().filter(is_used);
            pools.extend(used.map(|cell| PoolId { limit: Arc::clone(id), key: Arc::clone(&cell.key) }));
        }
        pools
    }

    /// The amount of a limit under the policy in force; its own where that names it no longer.
    pub(super) fn amount(&self, limit: &Limit, now: Timestamp) -> u64 {
        self.items.get(&limit.id).map_or(limit, |item| &item.limit).amount_at(now)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Books settled charges in the windows in which they had opened.
    pub(super) fn restore(&self, charges: impl IntoIterator<Item = (Timestamp, Charge)>) {
        for (opened, charge) in charges {
            if let Some(Item { limit, counts, .. }) = self.items.get(&charge.limit).map(|item| &**item)
                && let LimitKind::Counted(window) = &limit.kind
            {
                let cell = counts.cell(&charge.key, limit, opened);
                cell.restore(window, opened, charge.amount);
                cell.lease.iter().for_each(SliceLease::ask);
            }
        }
    }

    pub(super) fn usage(&self, now: Timestamp) -> Vec<LimitUsage> {
        let mut lines = Vec::new();
        for Item { limit, counts, .. } in self.items.values().map(|item| &**item) {
            for cell in counts.cells() {
                let Some(usage) = cell.usage(limit, now) else { continue };
                lines.push(LimitUsage {
                    limit: Arc::clone(&limit.id),
                    owner: limit.owner.clone(),
                    key: Arc::clone(&cell.key),
                    unit: limit.unit,
                    amount: limit.amount_at(now),
                    spent: usage.spent,
                    held: usage.held,
                    others_spent: cell.others_spent(),
                    leased: cell.lease.as_ref().map(SliceLease::ceiling),
                });
            }
        }
        lines
    }

    fn item(&mut self, limit: &Limit) -> Arc<Item> {
        let replicas = self.replicas.as_ref();
        let new = || Item::new(limit, Arc::new(LimitCounts::new(limit, replicas)));
        Arc::clone(self.items.entry(Arc::clone(&limit.id)).or_insert_with(new))
    }
}

/// Whether what was counted under `old` still counts under `new`, a limit of the same id. A rate has its numbers built in.
fn counts_on(old: &Limit, new: &Limit) -> bool {
    let same_kind = match (&old.kind, &new.kind) {
        (LimitKind::Gcra { per, burst }, LimitKind::Gcra { per: new_per, burst: new_burst }) => {
            (old.amount, per, burst) == (new.amount, new_per, new_burst)
        }
        (LimitKind::Counted(_), LimitKind::Counted(_)) => true,
        (LimitKind::Concurrent, LimitKind::Concurrent) => true,
        _ => false,
    };
    same_kind && old.key == new.key
}
