//! What one call has reserved.
//!
//! **Invariant:** `taken` is emptied exactly once, by `settle`, `release` or `Drop`; what is in it is what the counts hold.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::limit::{Limit, LimitKind, OnExhausted, Owner, Refused, Unit, Usage, WindowSlot};
use tollgate_policy::name::ResourceId;

use super::Demand;
use super::counter::{CounterState, KeyedCounter, lock};
use super::key::Keys;
use super::lease::SliceReach;
use super::place;
use super::plan::{Item, Plan};
use super::rate::{self, RateHeaders};
use super::refusal::{self, SHORT_RETRY};
use super::share::HeldShare;
use super::terms::HoldTerms;
use crate::ledger::Charge;

/// A piece of bytes is no smaller while there is more.
const SMALL_BYTES: u64 = 16 << 10;

/// The reservation of one call. Dropped before [`Hold::sent`] it is released, dropped after it is settled at what it held: the
/// provider may bill whatever was sent.
#[must_use = "dropping a hold releases or settles it"]
#[derive(Debug)]
pub struct Hold {
    plan: Arc<Plan>,
    /// One for each item of the plan, in its order; fewer while the hold is being taken.
    taken: Vec<HeldItem>,
    /// One for each counted window, in the order of `taken`.
    charges: Vec<Charge>,
    opened: Timestamp,
    sent: bool,
    /// The first of its limits that it goes past.
    past: Option<Arc<str>>,
}

/// What a call really used of its windows.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What each counted window was charged, for the record.
    pub charges: Vec<Charge>,
    /// Whether some window was charged more than was held of it: the only way past a cap.
    pub exceeded: bool,
}

/// What a connection may use until it asks for more; `None`: as much as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes both ways, since it was opened.
    pub bytes: Option<u64>,
    /// Seconds, since it was opened.
    pub seconds: Option<u64>,
    /// How long it may last at most: the window in which it counts ends then.
    pub lasts: Option<Duration>,
}

#[derive(Debug)]
struct HeldItem {
    cell: Arc<KeyedCounter>,
    place: HeldPlace,
    /// Given back with the rest.
    _share: Option<HeldShare>,
}

#[derive(Debug)]
enum HeldPlace {
    Window {
        slot: WindowSlot,
        held: u64,
    },
    Slot,
    Rate {
        left: u32,
    },
    /// It is part of a call that has its place.
    Within,
}

impl Hold {
    pub(super) fn take(
        plan: &Arc<Plan>,
        (keys, asked): (&Keys<'_>, HoldTerms<'_>),
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Self, Denial> {
        let model = asked.model;
        let taken = Vec::with_capacity(plan.items.len());
        let mut hold =
            Self { plan: Arc::clone(plan), taken, charges: Vec::new(), opened: now, sent: false, past: None };
        for (index, item) in plan.items.iter().enumerate() {
            match HeldItem::take(item, keys, demand, now) {
                Ok(taken) => hold.taken.push(taken),
                Err(denial) if is_passed(&item.limit, model) && !asked.waits_for(&denial) => {
                    hold.past.get_or_insert_with(|| Arc::clone(&item.limit.id));
                    hold.taken.push(HeldItem::past(item, keys, demand, now));
                }
                // It drops the hold, and that gives back what came before.
                Err(denial) => {
                    let rest =
                        plan.items.iter().skip(index + 1).filter(|item| !is_passed(&item.limit, model));
                    let others = rest.filter_map(|item| refusal::counted(item, keys, demand, now));
                    return Err(others.fold(denial, refusal::longer));
                }
            }
        }
        hold.charges = charges(plan, &hold.taken);
        Ok(hold)
    }

    /// A hold of nothing, in the windows of `now`.
    pub(super) fn nothing(plan: &Arc<Plan>, keys: &Keys<'_>, now: Timestamp) -> Self {
        let taken: Vec<_> = plan.items.iter().map(|item| HeldItem::nothing(item, keys, now)).collect();
        let charges = charges(plan, &taken);
        Self { plan: Arc::clone(plan), taken, charges, opened: now, sent: false, past: None }
    }

    /// The budget whose amount the call goes past, if there is one.
    pub fn past(&self) -> Option<&ResourceId> {
        let past = self.past.as_ref()?;
        let item = self.plan.items.iter().find(|item| item.limit.id == *past)?;
        match &item.limit.owner {
            Owner::Budget(budget) => Some(budget),
            Owner::Grant(_) => None,
        }
    }

    /// What is reserved of each counted window, for the ledger: written before the call is sent.
    pub fn charges(&self) -> &[Charge] {
        &self.charges
    }

    /// The instant in whose windows the call counts, however long it takes.
    pub fn opened(&self) -> Timestamp {
        self.opened
    }

    /// The counts that it is taken from.
    pub(super) fn cells(&self) -> Vec<Arc<KeyedCounter>> {
        self.taken.iter().map(|taken| Arc::clone(&taken.cell)).collect()
    }

    /// What of it is taken in pieces, while it is the whole of it.
    pub fn allowance(&self) -> Allowance {
        let mut allowance = Allowance::default();
        for (item, taken) in self.plan.items.iter().zip(&self.taken) {
            let HeldPlace::Window { held, .. } = taken.place else { continue };
            let most = match item.limit.unit {
                Unit::Bytes => &mut allowance.bytes,
                Unit::Seconds => &mut allowance.seconds,
                _ => continue,
            };
            *most = Some(most.map_or(held, |most| most.min(held)));
            if let LimitKind::Counted(window) = &item.limit.kind {
                let lasts = window.counts_for(self.opened);
                allowance.lasts = Some(allowance.lasts.map_or(lasts, |least| least.min(lasts)));
            }
        }
        allowance
    }

    /// Takes more in every limit that is taken in pieces, or in none. `amount` is that of a limit now.
    pub(super) fn extend(
        &mut self,
        piece: &Demand,
        amount: impl Fn(&Limit) -> u64,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let mut more = Vec::new();
        let mut refused = None;
        for (item, taken) in self.plan.items.iter().zip(&self.taken) {
            match taken.extend(&item.limit, piece, amount(&item.limit), now) {
                Ok(taken) => more.push(taken),
                Err(denial) => {
                    refused = Some(denial);
                    break;
                }
            }
        }
        let mut charges = self.charges.iter_mut();
        for (taken, more) in self.taken.iter_mut().zip(more) {
            let HeldPlace::Window { slot, held } = &mut taken.place else { continue };
            match &refused {
                Some(_) => taken.cell.release(*slot, more),
                None => *held = held.saturating_add(more),
            }
            charges.next().into_iter().for_each(|charge| charge.amount = *held);
        }
        refused.map_or(Ok(()), Err)
    }

    /// From here on the call may cost something even if nothing more is heard of it.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// The request came back whole, or was refused unread: it cost nothing so far, and dropping the hold releases it again.
    pub fn unsent(&mut self) {
        self.sent = false;
    }

    /// Books what the call used, in the windows in which it opened, and frees the rest.
    pub fn settle(mut self, actual: &Demand) -> Settled {
        let exceeded = self.finish(|unit, held| match unit {
            // It is cut within the second.
            Unit::Seconds => actual.seconds.min(held),
            _ => actual.of(unit),
        });
        Settled { charges: std::mem::take(&mut self.charges), exceeded }
    }

    /// Frees everything: the call is known to have cost nothing. What a rate has let through stays let through.
    pub fn release(mut self) {
        self.finish(|_, _| 0);
    }

    /// What to tell the caller of its limits at `now`; `None` where it has none.
    pub fn rate_headers(&self, now: Timestamp) -> Option<RateHeaders> {
        if self.plan.items.is_empty() {
            return None;
        }
        let mut limit = String::with_capacity(128 * self.plan.items.len());
        for (item, taken) in self.plan.items.iter().zip(&self.taken) {
            taken.tell(item, &mut limit, now);
        }
        let limit = HeaderValue::from_maybe_shared(Bytes::from(limit)).ok()?;
        Some(RateHeaders { policy: self.plan.rate_policy(now), limit })
    }

    /// Empties the hold, and returns whether some window is charged more than was held of it.
    fn finish(&mut self, actual: impl Fn(Unit, u64) -> u64) -> bool {
        let mut exceeded = false;
        let mut charges = self.charges.iter_mut();
        for (item, taken) in self.plan.items.iter().zip(self.taken.drain(..)) {
            match (&taken.cell.state, taken.place) {
                (CounterState::Counted(counter), HeldPlace::Window { slot, held }) => {
                    let actual = actual(item.limit.unit, held);
                    exceeded |= lock(counter).settle(slot, held, actual) > 0;
                    charges.next().into_iter().for_each(|charge| charge.amount = actual);
                }
                (CounterState::Concurrent(calls), HeldPlace::Slot) => {
                    let mut calls = lock(calls);
                    *calls = calls.saturating_sub(1);
                }
                _ => {}
            }
        }
        exceeded
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let sent = self.sent;
        self.finish(|_, held| if sent { held } else { 0 });
    }
}

/// What is reserved of each counted window.
fn charges(plan: &Plan, taken: &[HeldItem]) -> Vec<Charge> {
    let charges = plan.items.iter().zip(taken).filter_map(|(item, taken)| match taken.place {
        HeldPlace::Window { held, .. } => {
            let (limit, key) = (Arc::clone(&item.limit.id), Arc::clone(&taken.cell.key));
            Some(Charge { limit, key, amount: held })
        }
        HeldPlace::Slot | HeldPlace::Rate { .. } | HeldPlace::Within => None,
    });
    charges.collect()
}

impl HeldItem {
    fn nothing(item: &Item, keys: &Keys<'_>, now: Timestamp) -> Self {
        let cell = item.counts.cell(keys.get(item.limit.key), &item.limit, now);
        let place = match (&cell.state, &item.limit.kind) {
            (CounterState::Counted(counter), LimitKind::Counted(window)) => {
                // Nothing fits under any cap but one that is passed already.
                let slot = lock(counter).reserve(window, u64::MAX, 0, now);
                slot.map_or(HeldPlace::Within, |slot| HeldPlace::Window { slot, held: 0 })
            }
            _ => HeldPlace::Within,
        };
        Self { cell, place, _share: None }
    }

    /// Takes it whatever is left, where the budget has it so.
    #[cold]
    fn past(item: &Item, keys: &Keys<'_>, demand: &Demand, now: Timestamp) -> Self {
        let (cell, held) =
            (item.counts.cell(keys.get(item.limit.key), &item.limit, now), demand.of(item.limit.unit));
        let place = match (&cell.state, &item.limit.kind) {
            (CounterState::Counted(counter), LimitKind::Counted(window)) => {
                let slot = lock(counter).reserve_past(window, held, now);
                HeldPlace::Window { slot, held }
            }
            (CounterState::Concurrent(calls), LimitKind::Concurrent) if demand.requests > 0 => {
                *lock(calls) += 1;
                HeldPlace::Slot
            }
            _ => HeldPlace::Within,
        };
        Self { cell, place, _share: None }
    }

    fn take(item: &Item, keys: &Keys<'_>, demand: &Demand, now: Timestamp) -> Result<Self, Denial> {
        let limit = item.limit.at(now);
        let limit = &*limit;
        let cell = item.counts.cell(keys.get(limit.key), limit, now);
        let mut amount = demand.of(limit.unit);
        let mut share = None;
        let place = match (&cell.state, &limit.kind) {
            (CounterState::Counted(counter), LimitKind::Counted(window)) => {
                let mut counter = lock(counter);
                let usage = counter.usage(window, now);
                let SliceReach { cap, here, free } = cell.reach(limit, usage);
                if limit.unit.is_taken_in_pieces() {
                    amount = piece(limit.unit, amount, if here > 0 { here } else { free });
                }
                let reserved = counter.reserve(window, cap, amount, now);
                let slot = reserved.map_err(|refused| {
                    if let (Refused::Held { .. }, Some(shares)) = (refused, &cell.shares) {
                        shares.want(keys, now);
                    }
                    refusal::over_reach(&cell, (limit, amount), refused, &mut counter, now)
                })?;
                if let Some(lease) = &cell.lease {
                    lease.used(usage.spent.saturating_add(usage.held).saturating_add(amount));
                }
                // A piece is a small part of what is left, and does without.
                if !limit.unit.is_taken_in_pieces() {
                    let room = cell.room(limit, free);
                    share = cell
                        .take_share(keys, amount, room, now)
                        .inspect_err(|()| counter.release(slot, amount))
                        .map_err(|()| refusal::over_share(limit, Reason::BudgetHeld))?;
                }
                HeldPlace::Window { slot, held: amount }
            }
            (CounterState::Concurrent(_), LimitKind::Concurrent) if demand.requests == 0 => HeldPlace::Within,
            (CounterState::Concurrent(calls), LimitKind::Concurrent) => {
                let mut calls = lock(calls);
                share = place::occupy(&cell, limit, &mut calls, keys, now)?;
                HeldPlace::Slot
            }
            (CounterState::Rate(rate), LimitKind::Gcra { .. }) if rate.is_lost(limit) => {
                return Err(refusal::without_store(limit));
            }
            (CounterState::Rate(rate), LimitKind::Gcra { .. }) => {
                let left = rate.take(amount, now).map_err(|wait| refusal::too_fast(limit, amount, wait))?;
                HeldPlace::Rate { left }
            }
            // Two generations of the policy disagree about what this id is; nothing can be counted for the older one.
            _ => {
                let detail = format!("limit {} has just changed its kind; retry", limit.id);
                return Err(Denial::new(Reason::Internal, detail).retry_after(SHORT_RETRY));
            }
        };
        Ok(Self { cell, place, _share: share })
    }

    /// Takes the next piece of a limit that is taken so; how much it was.
    fn extend(&self, limit: &Limit, next: &Demand, cap: u64, now: Timestamp) -> Result<u64, Denial> {
        let wanted = next.of(limit.unit);
        let (CounterState::Counted(counter), LimitKind::Counted(window)) = (&self.cell.state, &limit.kind)
        else {
            return Ok(0);
        };
        let HeldPlace::Window { slot, held: own } = self.place else { return Ok(0) };
        if !limit.unit.is_taken_in_pieces() || wanted == 0 {
            return Ok(0);
        }
        let mut counter = lock(counter);
        let usage = counter.usage(window, now);
        let current = Limit { amount: cap, ..limit.clone() };
        let SliceReach { cap, here, free } = self.cell.reach(&current, usage);
        let amount = piece(limit.unit, wanted, if here > 0 { here } else { free });
        match counter.extend(slot, (window, cap), amount, now) {
            Ok(()) => {
                if let Some(lease) = &self.cell.lease {
                    lease.used(usage.spent.saturating_add(usage.held).saturating_add(amount));
                }
                Ok(amount)
            }
            Err(_) if is_passed(limit, None) => {
                let whole = (window, u64::MAX);
                counter.extend(slot, whole, wanted, now).map(|()| wanted).map_err(|refused| {
                    let charged = (&mut *counter, self.cell.others_spent());
                    refusal::over_budget((limit, wanted), refused, charged, now)
                })
            }
            Err(refused) => {
                let refused = match refused {
                    // Nobody but this connection holds any of it, and it has used that.
                    Refused::Held { .. } if usage.held <= own && self.cell.lease.is_none() => {
                        Refused::Exhausted { resets_in: counter.resets_in(window, now) }
                    }
                    refused => refused,
                };
                Err(refusal::over_reach(&self.cell, (&current, amount), refused, &mut counter, now))
            }
        }
    }

    fn tell(&self, item: &Item, field: &mut String, now: Timestamp) {
        let (limit, label) = (item.limit.at(now), &item.label);
        match (&self.cell.state, &self.place, &limit.kind) {
            (CounterState::Counted(counter), _, LimitKind::Counted(window)) => {
                let mut counter = lock(counter);
                let (usage, more_in) = (counter.usage(window, now), counter.resets_in(window, now));
                rate::limit(field, label, self.cell.reach(&limit, usage).free, Some(more_in));
            }
            (CounterState::Concurrent(calls), ..) => {
                let usage = Usage { spent: 0, held: *lock(calls) };
                rate::limit(field, label, self.cell.reach(&limit, usage).free, None);
            }
            (CounterState::Rate(rate), HeldPlace::Rate { left }, LimitKind::Gcra { burst, .. }) => {
                rate::limit(field, label, u64::from(*left), Some(rate.refills_in(*left, *burst)));
            }
            _ => {}
        }
    }
}

/// Whether a call that asks for this model goes on past the limit, if not enough of it is left.
fn is_passed(limit: &Limit, model: Option<&str>) -> bool {
    match &limit.on_exhausted {
        OnExhausted::Deny => false,
        OnExhausted::Flag => true,
        OnExhausted::Downgrade(cheaper) => {
            matches!(limit.kind, LimitKind::Counted(_)) && Some(&**cheaper) == model
        }
    }
}

/// What is taken at once where `free` is left: pieces become small before all is used up, so that a few connections share the end.
fn piece(unit: Unit, wanted: u64, free: u64) -> u64 {
    let small = if unit == Unit::Bytes { SMALL_BYTES } else { 1 };
    wanted.min((free / 4).max(small.min(free)).max(1))
}
