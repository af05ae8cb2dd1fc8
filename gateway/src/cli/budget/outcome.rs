//! What a raise comes to, and amounts as people read them.

use jiff::Timestamp;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{BudgetRaise, Policy};
use tollgate_policy::price::NanoUsd;

use crate::quota::quota_unit;

/// An amount of this unit, as the admin port calls it.
pub(super) fn shown(unit: &str, amount: u64) -> String {
    if unit == "nano-usd" { NanoUsd(amount).to_string() } else { amount.to_string() }
}

/// The one raise that a policy has more than another, of this Budget.
pub(super) fn added(budget: &ResourceId, before: &Policy, after: &Policy) -> Option<BudgetRaise> {
    let raises = |policy: &Policy| {
        let mut found = policy.budgets().filter(|it| it.name == *budget);
        found.next().map(|it| it.raises.clone()).unwrap_or_default()
    };
    let (before, after) = (raises(before), raises(after));
    let [known @ .., new] = &*after else { return None };
    (*known == *before).then(|| new.clone())
}

/// What the limit is now, and until when.
pub(super) fn told(policy: &Policy, raise: &BudgetRaise, now: Timestamp) -> String {
    let BudgetRaise { limit, until, by, reason, .. } = raise;
    let mut limits = policy.budgets().flat_map(|budget| &budget.limits);
    let amount = limits.find(|it| it.id == *limit).map_or(0, |it| it.amount_at(now));
    let shown = shown(quota_unit(raise.unit), amount);
    format!("{limit}: {shown}, raised until {until} by {by}: {reason}")
}
