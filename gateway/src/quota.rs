//! What a permit's limits reserve before the call is sent.
//!
//! The counts are shared by all cores, one lock per limit and key. Counted windows and concurrency are taken first, in the order of
//! their ids, and given back if a later one refuses; the rates go last, because GCRA takes nothing back.
//!
//! **Invariant:** a [`Hold`] is settled or released exactly once, whatever becomes of its request, and while no call uses more than
//! it held, `spent + held` never exceeds a limit's amount.
//!
//! Lacks on purpose: a clock for the windows, any knowledge of prices, and the ledger. Rates start full after a restart.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tollgate_policy::caller::Identity;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::Denial;
use tollgate_policy::limit::{Limit, Owner, Unit};
use tollgate_policy::map::Map;
use tollgate_policy::policy::{Grant, Policy};

use crate::ledger::Charge;

mod alert_claims;
mod counter;
mod demand;
mod departed;
mod first_look;
mod hold;
mod key;
mod lease;
mod place;
mod plan;
mod rate;
mod refusal;
mod share;
mod slice_store;
mod slice_sync;
mod terms;
mod totals;
mod window_terms;

#[cfg(test)]
mod tests;

pub(crate) use alert_claims::{AlertClaims, CLAIM};
pub use demand::{Demand, TokenDemand};
pub(crate) use departed::{DepartedReader, LeaseReclaimer};
pub use hold::{Allowance, Hold};
pub(crate) use lease::{ReplicaStatus, Replicas};
pub use rate::RateHeaders;
pub(crate) use rate::{RATE_LIMIT, quota_unit, rate_limit_of_refusal};
pub(crate) use slice_store::{Claimed, SliceStore};
pub(crate) use slice_sync::SliceSync;
use terms::HoldTerms;
pub(crate) use totals::TotalsReader;

use counter::KeyedCounter;
use key::Keys;
use lease::{PoolId, SliceLease};
use plan::{Item, Plan, Registry};
use totals::SharedTotals;

/// The counts behind every limit of the policy.
#[derive(Debug, Default)]
pub struct Quota {
    table: ArcSwap<CellTable>,
    /// Held by whoever makes the next table.
    writer: Mutex<()>,
    replicas: Option<Arc<Replicas>>,
    totals: SharedTotals,
}

/// What one limit counts for one key at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUsage {
    /// `Limit::id`.
    pub limit: Arc<str>,
    /// Whose limit it is.
    pub owner: Owner,
    /// As in [`Charge::key`].
    pub key: Arc<str>,
    /// What `amount`, `spent` and `held` are measured in.
    pub unit: Unit,
    /// The cap.
    pub amount: u64,
    /// Settled in the current window; 0 for concurrency.
    pub spent: u64,
    /// Reserved by calls under way; their number for concurrency.
    pub held: u64,
    /// What other replicas have spent, or may have, where they share the limit.
    pub others_spent: u64,
    /// What this replica may have spent and hold at most, where replicas share the limit.
    pub leased: Option<u64>,
}

impl LimitUsage {
    /// Spent in the current window, by whichever replica.
    pub const fn spent_by_all(&self) -> u64 {
        self.spent.saturating_add(self.others_spent)
    }

    /// That, and what is held here.
    pub const fn taken(&self) -> u64 {
        self.spent_by_all().saturating_add(self.held)
    }
}

/// By the address of the grant, which cannot be another's while it is kept alive here.
type GrantPlans = Map<usize, (Arc<Grant>, Arc<Plan>)>;

#[derive(Debug, Default)]
struct CellTable {
    /// Those of the policy's own grants.
    plans: GrantPlans,
    /// Those that were not known when the table was made.
    more: Arc<MorePlans>,
    registry: Registry,
}

/// Plans of grants as some callers have them, held to budgets besides, and of those of an earlier policy: by address, as the others.
/// Those that no caller has any more are forgotten.
#[derive(Debug, Default)]
struct MorePlans([RwLock<RecentPlans>; 16]);

#[derive(Debug, Default)]
struct RecentPlans {
    plans: GrantPlans,
    /// At so many it is looked for those that are gone.
    full: usize,
}

/// So many plans are kept without a look.
const FEW_PLANS: usize = 256;

impl RecentPlans {
    fn make_room(&mut self) {
        if self.plans.len() >= self.full.max(FEW_PLANS) {
            self.plans.retain(|_, (grant, _)| Arc::strong_count(grant) > 1);
            self.full = self.plans.len() * 2;
        }
    }
}

impl MorePlans {
    fn of(&self, address: usize) -> &RwLock<RecentPlans> {
        // The lowest bits of an address say how it is aligned.
        &self.0[(address >> 6) % self.0.len()]
    }
}

impl Quota {
    /// Counts that start at nothing, for no policy yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Counts that are shared with other replicas.
    pub(crate) fn shared(replicas: Arc<Replicas>) -> Arc<Self> {
        let registry = Registry::new(Some(Arc::clone(&replicas)));
        let table = CellTable { plans: Map::default(), more: Arc::default(), registry };
        Arc::new(Self { table: ArcSwap::from_pointee(table), replicas: Some(replicas), ..Self::default() })
    }

    /// How the replicas share, where they do.
    pub(crate) fn replicas(&self) -> Option<&Arc<Replicas>> {
        self.replicas.as_ref()
    }

    /// Makes room for the limits of a policy; to be called before it is published. An edit of an amount keeps what is counted, but
    /// a rate whose numbers change starts full. A limit that is no longer named is forgotten once no call holds any of it and its
    /// window has nothing left.
    pub fn apply(&self, policy: &Policy) {
        self.adopt(policy, Timestamp::now());
    }

    /// Reserves what the call may use in every limit of the permit's grant and of its budgets, or nothing. A refusal says how the limit
    /// stands: it is one that the caller is held to, and answers tell what is left of it.
    /// `model` is what the call asks for: some budgets are gone past with one.
    pub fn hold(
        &self,
        permit: &Permit,
        model: Option<&str>,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Hold, Denial> {
        self.take(permit, HoldTerms::at_once(model), demand, now)
    }

    fn take(
        &self,
        permit: &Permit,
        asked: HoldTerms<'_>,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Hold, Denial> {
        let keys = Keys::of(permit.caller().id());
        self.with_plan(permit.grant(), |plan| Hold::take(plan, (&keys, asked), demand, now))
    }

    /// With the plan of a grant, which is not cloned where the table has it.
    fn with_plan<T>(&self, grant: &Arc<Grant>, use_it: impl FnOnce(&Arc<Plan>) -> T) -> T {
        let table = self.table.load();
        match table.plans.get(&address(grant)) {
            Some((_, plan)) => use_it(plan),
            None => use_it(&self.more(&table, grant)),
        }
    }

    /// [`Quota::hold`], waiting for a slice where another replica may have what the call needs.
    ///
    /// # Errors
    /// As [`Quota::hold`].
    pub async fn hold_soon(
        &self,
        permit: &Permit,
        model: Option<&str>,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Hold, Denial> {
        let asked = HoldTerms { model, can_wait: self.replicas.is_some() };
        match (self.take(permit, asked, demand, now), &self.replicas) {
            (Err(denial), Some(replicas)) => {
                // Kept apart, so that a call that need not wait does not pay for the room.
                Box::pin(self.hold_after(permit, asked, demand, (denial, replicas.wait()))).await
            }
            (held, _) => held,
        }
    }

    #[cold]
    async fn hold_after(
        &self,
        permit: &Permit,
        asked: HoldTerms<'_>,
        demand: &Demand,
        (mut denial, patience): (Denial, Duration),
    ) -> Result<Hold, Denial> {
        let deadline = tokio::time::Instant::now() + patience;
        let plan = self.with_plan(permit.grant(), Arc::clone);
        let keys = Keys::of(permit.caller().id());
        let cell =
            |item: &Arc<Item>| item.counts.cell(keys.get(item.limit.key), &item.limit, Timestamp::now());
        'cells: for cell in plan.items.iter().map(cell) {
            while let Some(answer) = cell.lease.as_ref().and_then(SliceLease::answer) {
                if tokio::time::timeout_at(deadline, answer).await.is_err() {
                    break 'cells;
                }
                match self.take(permit, asked, demand, Timestamp::now()) {
                    Ok(hold) => return Ok(hold),
                    Err(again) => denial = again,
                }
            }
        }
        // Nobody has given it: some budgets are gone past now.
        self.take(permit, HoldTerms::at_once(asked.model), demand, Timestamp::now()).map_err(|_| denial)
    }

    /// Reserves nothing, for what has begun although it could not be held: what it used counts in the windows of `now`.
    pub fn hold_nothing(&self, permit: &Permit, now: Timestamp) -> Hold {
        let keys = Keys::of(permit.caller().id());
        self.with_plan(permit.grant(), |plan| Hold::nothing(plan, &keys, now))
    }

    /// Reserves more of what a connection takes in pieces, in every such limit of its hold or in none: at most what `piece` says, less where
    /// little is left. The amounts are those of the policy in force.
    ///
    /// # Errors
    /// As [`Quota::hold`].
    pub fn extend(&self, hold: &mut Hold, piece: &Demand, now: Timestamp) -> Result<(), Denial> {
        let table = self.table.load();
        hold.extend(piece, |limit| table.registry.amount(limit, now), now)
    }

    /// [`Quota::extend`], waiting for a slice where another replica may have what is needed.
    ///
    /// # Errors
    /// As [`Quota::hold`].
    pub async fn extend_soon(&self, hold: &mut Hold, piece: &Demand, now: Timestamp) -> Result<(), Denial> {
        let mut extended = self.extend(hold, piece, now);
        let Some(replicas) = self.replicas.as_ref().filter(|_| extended.is_err()) else { return extended };
        let deadline = tokio::time::Instant::now() + replicas.wait();
        for cell in hold.cells() {
            while let Some(answer) = cell.lease.as_ref().and_then(SliceLease::answer) {
                if extended.is_ok() || tokio::time::timeout_at(deadline, answer).await.is_err() {
                    return extended;
                }
                extended = self.extend(hold, piece, Timestamp::now());
            }
        }
        extended
    }

    /// Looks whether some of these grants, one of which will decide, still has something of every limit: `budget_exhausted` where none has.
    /// `least` is what any such call asks for.
    ///
    /// # Errors
    /// As [`Quota::hold`] would refuse whatever the call asks for.
    pub fn first_look<'a>(
        &self,
        grants: impl Iterator<Item = &'a Arc<Grant>>,
        caller: &Identity,
        least: &Demand,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let keys = Keys::of(caller);
        let mut exhausted = None;
        for grant in grants {
            let looked = self.with_plan(grant, |plan| first_look::exhausted(plan, &keys, least, now));
            match looked {
                Some(denial) => exhausted = Some(denial),
                None => return Ok(()),
            }
        }
        exhausted.map_or(Ok(()), Err)
    }

    /// Applies `policy` and books what the ledger says was charged, each charge where its hold had opened. For the start only: what
    /// is already counted would count twice. Charges of limits that the policy does not name are passed over.
    pub fn restore(&self, charges: impl IntoIterator<Item = (Timestamp, Charge)>, policy: &Policy) {
        self.apply(policy);
        self.table.load().registry.restore(charges);
        self.replicas.iter().for_each(|replicas| replicas.restored());
    }

    /// What every counted limit and every concurrency limit counts now, in no particular order. Each line is exact at one instant,
    /// all of them together are not. What other replicas have spent is as they said it last, of counts that only they have too.
    pub fn usage(&self, now: Timestamp) -> Vec<LimitUsage> {
        let table = self.table.load();
        self.totals.complete(table.registry.usage(now), &table.registry, now)
    }

    /// What is to be seen of a count and its limit, while somebody counts there.
    fn look<T>(&self, pool: &PoolId, see: impl FnOnce(&Limit, &KeyedCounter) -> Option<T>) -> Option<T> {
        let table = self.table.load();
        let (limit, cell) = table.registry.find(pool)?;
        see(limit, &cell)
    }

    fn adopt(&self, policy: &Policy, now: Timestamp) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let of_budgets = policy.budgets().flat_map(|budget| &budget.limits);
        let limits = policy.grants().flat_map(|grant| &grant.limits).chain(of_budgets);
        let mut registry = self.table.load().registry.next(limits, now);
        let plan = |grant: &Arc<Grant>| {
            (address(grant), (Arc::clone(grant), Arc::new(registry.plan(&grant.limits))))
        };
        let plans = policy.grants().map(plan).collect();
        self.table.store(Arc::new(CellTable { plans, more: Arc::default(), registry }));
    }

    /// The plan of a grant that is not among the policy's own: one that a caller has with budgets, or of another generation of the policy.
    fn more(&self, table: &CellTable, grant: &Arc<Grant>) -> Arc<Plan> {
        let plans = table.more.of(address(grant));
        let known = plans.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = known.plans.get(&address(grant)) {
            return Arc::clone(plan);
        }
        drop(known);
        let plan = self.plan(&grant.limits);
        let mut recent = plans.write().unwrap_or_else(PoisonError::into_inner);
        recent.make_room();
        Arc::clone(&recent.plans.entry(address(grant)).or_insert_with(|| (Arc::clone(grant), plan)).1)
    }

    /// A plan of these limits, which count where those of the same ids do.
    fn plan(&self, limits: &[Limit]) -> Arc<Plan> {
        // Those of the policy's budgets are there: the registry is not copied for each combination of them.
        if let Some(plan) = self.table.load().registry.known_plan(limits) {
            return Arc::new(plan);
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table.load();
        let mut registry = old.registry.clone();
        let plan = Arc::new(registry.plan(limits));
        if registry.len() > old.registry.len() {
            let (plans, more) = (old.plans.clone(), Arc::clone(&old.more));
            self.table.store(Arc::new(CellTable { plans, more, registry }));
        }
        plan
    }
}

fn address(grant: &Arc<Grant>) -> usize {
    Arc::as_ptr(grant).addr()
}
