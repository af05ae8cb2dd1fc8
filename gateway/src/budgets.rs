//! Budgets as people see them: what the resources say, and what is used of them where a gateway runs.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tollgate_policy::limit::{Limit, LimitKind, Window};
use tollgate_policy::policy::Policy;

use crate::quota::{LimitUsage, quota_unit};

mod raises;
mod threshold;

pub(crate) use threshold::{is_foreseen, reached, watch};

/// What one limit of a budget counts for one key, in its unit. What only a running gateway knows is absent elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BudgetListing {
    /// The budget's name.
    pub(crate) budget: String,
    /// The budget above it.
    pub(crate) parent: Option<String>,
    /// The id of the limit.
    pub(crate) limit: String,
    /// Whose count it is: a namespace or a caller; empty where all share one.
    pub(crate) key: String,
    /// As in the header `RateLimit-Policy`.
    pub(crate) unit: String,
    /// The cap, with what it is raised by now.
    pub(crate) amount: u64,
    /// Settled in the window.
    pub(crate) spent: Option<u64>,
    /// Reserved by calls under way.
    pub(crate) held: Option<u64>,
    /// What is left for new calls.
    pub(crate) left: Option<u64>,
    /// What is spent and held of the cap, in percent.
    pub(crate) percent: Option<f64>,
    /// What will be spent when the window ends, if it goes on as it did so far; absent where no window ends.
    pub(crate) forecast: Option<u64>,
    /// Since when what is spent counts.
    pub(crate) since: Option<Timestamp>,
    /// When the window begins anew.
    pub(crate) resets: Option<Timestamp>,
    /// When the last raise ends that is in force.
    pub(crate) raised_until: Option<Timestamp>,
}

/// All budgets, by name. `usage` is what is counted; `None`: no gateway runs.
pub(crate) fn of(policy: &Policy, usage: Option<&[LimitUsage]>, now: Timestamp) -> Vec<BudgetListing> {
    let mut counted: HashMap<&Arc<str>, Vec<&LimitUsage>> = HashMap::new();
    for line in usage.unwrap_or_default() {
        counted.entry(&line.limit).or_default().push(line);
    }
    let mut listed = Vec::new();
    for budget in policy.budgets() {
        for limit in &budget.limits {
            let plain = BudgetListing {
                budget: budget.name.to_string(),
                parent: budget.parent.as_ref().map(ToString::to_string),
                limit: limit.id.to_string(),
                unit: quota_unit(limit.unit).to_owned(),
                amount: limit.amount_at(now),
                since: window(limit).and_then(|window| since(window, now)),
                resets: window(limit).and_then(|window| window.resets(now)),
                raised_until: raised_until(limit, now),
                ..BudgetListing::default()
            };
            let mut lines = counted.remove(&limit.id).unwrap_or_default();
            lines.sort_by(|one, other| one.key.cmp(&other.key));
            match lines.is_empty() {
                true => listed.push(plain),
                false => listed.extend(lines.into_iter().map(|line| used(&plain, limit, line, now))),
            }
        }
    }
    listed
}

fn used(plain: &BudgetListing, limit: &Limit, line: &LimitUsage, now: Timestamp) -> BudgetListing {
    let taken = line.taken();
    BudgetListing {
        key: line.key.to_string(),
        spent: Some(line.spent_by_all()),
        held: Some(line.held),
        left: Some(plain.amount.saturating_sub(taken)),
        percent: Some(percent(taken, plain.amount)),
        forecast: window(limit).and_then(|window| forecast(window, line.spent_by_all(), now)),
        ..plain.clone()
    }
}

/// To a tenth.
fn percent(taken: u64, amount: u64) -> f64 {
    if amount == 0 { 100.0 } else { (taken as f64 / amount as f64 * 1_000.0).round() / 10.0 }
}

const fn window(limit: &Limit) -> Option<&Window> {
    match &limit.kind {
        LimitKind::Counted(window) => Some(window),
        LimitKind::Gcra { .. } | LimitKind::Concurrent => None,
    }
}

fn since(window: &Window, now: Timestamp) -> Option<Timestamp> {
    match window {
        Window::Rolling { length, .. } => now.checked_sub(*length).ok(),
        Window::Calendar { .. } => window.begun(now),
    }
}

/// What was spent since the window began, drawn on to its end.
fn forecast(window: &Window, spent: u64, now: Timestamp) -> Option<u64> {
    let resets = window.resets(now)?;
    let length = window.length(now).as_millis();
    let left = u128::try_from(resets.duration_since(now).as_millis()).ok()?;
    let passed = length.checked_sub(left).filter(|passed| *passed > 0)?;
    u64::try_from(u128::from(spent).saturating_mul(length) / passed).ok()
}

fn raised_until(limit: &Limit, now: Timestamp) -> Option<Timestamp> {
    limit.raises.iter().map(|raise| raise.until).filter(|until| now < *until).max()
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use tollgate_policy::limit::Per;

    use super::*;

    #[test]
    fn what_was_spent_is_drawn_on_to_the_end_of_the_window() {
        let day = Window::Calendar { per: Per::Day, timezone: TimeZone::UTC };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(forecast(&day, 100, at("2026-07-01T06:00:00Z")), Some(400));
        assert_eq!(forecast(&day, 100, at("2026-07-01T18:00:00Z")), Some(133));
        assert_eq!(forecast(&day, 100, at("2026-07-01T00:00:00Z")), None, "nothing is known yet");
        assert_eq!(
            forecast(&Window::rolling(jiff::SignedDuration::from_hours(1)), 100, at("2026-07-01T06:00:00Z")),
            None
        );
    }

    #[test]
    fn a_percent_is_of_the_amount_and_goes_past_it() {
        assert_eq!((percent(1, 3), percent(150, 100), percent(0, 0)), (33.3, 150.0, 100.0));
    }
}
