//! Whether anything is left at all, before the body of a call is read.

use jiff::Timestamp;
use tollgate_policy::denial::Denial;
use tollgate_policy::limit::{LimitKind, OnExhausted, Refused};

use super::Demand;
use super::counter::{CounterState, lock};
use super::key::Keys;
use super::plan::Plan;
use super::refusal;

/// Why the limits of this plan have nothing left even for `least`, if that is so. What others only hold may be given back.
pub(super) fn exhausted(plan: &Plan, keys: &Keys<'_>, least: &Demand, now: Timestamp) -> Option<Denial> {
    plan.items.iter().filter(|item| item.limit.on_exhausted == OnExhausted::Deny).find_map(|item| {
        let (limit, counts) = (item.limit.at(now), &item.counts);
        let limit = &*limit;
        let LimitKind::Counted(window) = &limit.kind else { return None };
        let cell = counts.cell(keys.get(limit.key), limit, now);
        let CounterState::Counted(counter) = &cell.state else { return None };
        let mut counter = lock(counter);
        let wanted = least.of(limit.unit);
        let spent = counter.usage(window, now).spent.saturating_add(cell.others_spent());
        let is_over = wanted > 0 && spent.saturating_add(wanted) > limit.amount;
        is_over.then(|| {
            let resets_in = counter.resets_in(window, now);
            refusal::over_budget(
                (limit, wanted),
                Refused::Exhausted { resets_in },
                (&mut counter, cell.others_spent()),
                now,
            )
        })
    })
}
