//! Which thresholds of budgets are reached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tollgate_policy::limit::{Limit, LimitKind, Window};
use tollgate_policy::policy::{Budget, Policy};

use super::raises::SeenRaises;
use super::{forecast, percent};
use crate::alerts::{Alert, Alerts, Threshold};
use crate::audit::{AuditView, Entry};
use crate::core::Shared;
use crate::quota::{LimitUsage, quota_unit};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Of a window that so small a part of has gone, nothing is foreseen: one in so many.
const LEAST_PART: u32 = 10;
/// Of shorter windows nothing is told: they begin anew before anybody could look.
const SHORTEST: Duration = Duration::from_secs(3_600);

/// Looks at the budgets of the policy in force, to the end of the process.
pub(crate) async fn watch(shared: Arc<Shared>, alerts: Arc<Alerts>, audit: Arc<AuditView>) {
    let mut raises = SeenRaises::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(snapshot) = shared.snapshots.current() else { continue };
        // Without budgets there is nothing to count through.
        if snapshot.policy.budgets().next().is_none() {
            continue;
        }
        let now = Timestamp::now();
        for raise in raises.look(&snapshot.policy, now) {
            audit.note(Entry::raised(now, &raise));
        }
        for alert in all_reached(&snapshot.policy, &shared.quota.usage(now), now) {
            if !alerts.raise(alert).await {
                break;
            }
        }
    }
}

/// The highest threshold that so much of an amount has reached; 0 where it is none.
pub(crate) fn reached(thresholds: &[u8], spent: u64, amount: u64) -> u8 {
    passed(thresholds, spent, amount).max().unwrap_or(0)
}

/// Whether at this pace an amount is used up before its window ends, and is not yet.
pub(crate) fn is_foreseen(limit: &Limit, spent: u64, amount: u64, now: Timestamp) -> bool {
    let LimitKind::Counted(window) = &limit.kind else { return false };
    let Some(begun) = window.begun(now) else { return false };
    let passed = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
    passed.saturating_mul(LEAST_PART) >= window.length(now)
        && spent < amount
        && forecast(window, spent, now).is_some_and(|forecast| forecast > amount)
}

fn passed(thresholds: &[u8], spent: u64, amount: u64) -> impl Iterator<Item = u8> {
    let used = percent(spent, amount);
    thresholds.iter().copied().filter(move |threshold| f64::from(*threshold) <= used && spent > 0)
}

/// All thresholds that are reached now.
fn all_reached(policy: &Policy, usage: &[LimitUsage], now: Timestamp) -> Vec<Alert> {
    let mut by_limit: HashMap<&Arc<str>, Vec<&LimitUsage>> = HashMap::new();
    for line in usage {
        by_limit.entry(&line.limit).or_default().push(line);
    }
    let mut found = Vec::new();
    for budget in policy.budgets() {
        for limit in &budget.limits {
            let LimitKind::Counted(window) = &limit.kind else { continue };
            if window.length(now) < SHORTEST {
                continue;
            }
            for line in by_limit.get(&limit.id).into_iter().flatten() {
                let (spent, amount) = (line.spent_by_all(), line.amount);
                let percents = passed(&budget.thresholds, spent, amount).map(Threshold::Percent);
                let foreseen = budget.tells_forecast && is_foreseen(limit, spent, amount, now);
                let thresholds = percents.chain(foreseen.then_some(Threshold::Forecast));
                found.extend(thresholds.map(|threshold| alert((budget, window), line, threshold, now)));
            }
        }
    }
    found
}

fn alert(
    (budget, window): (&Budget, &Window),
    line: &LimitUsage,
    threshold: Threshold,
    now: Timestamp,
) -> Alert {
    let once = period(window, now);
    let is_rolling = window.begun(now).is_none();
    let length = SignedDuration::try_from(window.length(now)).unwrap_or(SignedDuration::MAX);
    let start = if is_rolling { now.saturating_sub(length).unwrap_or(Timestamp::MIN) } else { once.0 };
    Alert {
        budget: budget.name.to_string(),
        limit: line.limit.to_string(),
        key: line.key.to_string(),
        threshold,
        unit: quota_unit(line.unit),
        amount: line.amount,
        spent: line.spent_by_all(),
        held: line.held,
        forecast: forecast(window, line.spent_by_all(), now),
        window_start: start,
        window_end: (!is_rolling).then_some(once.1),
        once,
        at: now,
    }
}

/// From when to when a threshold is told once: a window of the calendar, or a stretch as long as one that rolls.
fn period(window: &Window, now: Timestamp) -> (Timestamp, Timestamp) {
    if let (Some(begun), Some(resets)) = (window.begun(now), window.resets(now)) {
        return (begun, resets);
    }
    let length = i64::try_from(window.length(now).as_millis()).unwrap_or(i64::MAX).max(1);
    let start = now.as_millisecond().div_euclid(length).saturating_mul(length);
    let at = |millis| Timestamp::from_millisecond(millis).unwrap_or(now);
    (at(start), at(start.saturating_add(length)))
}

#[cfg(test)]
mod tests {
    use tollgate_policy::compile::compile_files;
    use tollgate_policy::limit::{Owner, Unit};
    use tollgate_policy::model::SourceFile;

    use super::*;
    use crate::app;

    fn policy() -> Policy {
        let text = "apiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {name: team}\nspec: {appliesTo: All, limits: [{tokens: 100, per: day}], thresholds: [80, 50, forecast]}\n";
        let file = SourceFile { path: "a.yaml".into(), text: text.to_owned() };
        compile_files(&[file], &app::environment_of(&[], &["prod.acme".to_owned()]).unwrap()).unwrap().policy
    }

    fn line(spent: u64, others_spent: u64, amount: u64) -> LimitUsage {
        LimitUsage {
            limit: "budget/team/tokens/day/shared".into(),
            owner: Owner::Budget("team".parse().unwrap()),
            key: "".into(),
            unit: Unit::Tokens,
            amount,
            spent,
            held: 0,
            others_spent,
            leased: None,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_all_replicas_spent_reaches_each_threshold_below_it_and_a_pace_that_leads_past_the_amount() {
        let policy = policy();
        let look = |line: LimitUsage, now: &str| -> Vec<String> {
            let found = all_reached(&policy, &[line], at(now));
            found.iter().map(|alert| alert.threshold.to_string()).collect()
        };
        assert_eq!(look(line(20, 29, 100), "2026-07-01T23:00:00Z"), [""; 0]);
        assert_eq!(look(line(20, 40, 100), "2026-07-01T23:00:00Z"), ["50"]);
        assert_eq!(look(line(0, 95, 100), "2026-07-01T23:30:00Z"), ["50", "80"]);
        assert_eq!(look(line(20, 40, 1_000), "2026-07-01T23:00:00Z"), [""; 0], "it was raised");
        // A third of the amount in a quarter of the day leads past it; a tenth of the day has to be gone.
        assert_eq!(look(line(34, 0, 100), "2026-07-01T06:00:00Z"), ["forecast"]);
        assert_eq!(look(line(34, 0, 100), "2026-07-01T02:23:59Z"), [""; 0]);
        assert_eq!(look(line(24, 0, 100), "2026-07-01T06:00:00Z"), [""; 0]);
        assert_eq!(look(line(100, 0, 100), "2026-07-01T06:00:00Z"), ["50", "80"], "it is used up already");
    }

    #[test]
    fn an_alert_says_its_window_and_is_told_once_in_it() {
        let now = at("2026-07-01T18:00:00Z");
        let found = all_reached(&policy(), &[line(60, 0, 100)], now);
        let [alert] = &found[..] else { panic!("{found:?}") };
        let (start, end) = (at("2026-07-01T00:00:00Z"), at("2026-07-02T00:00:00Z"));
        assert_eq!((alert.window_start, alert.window_end, alert.once), (start, Some(end), (start, end)));
        assert_eq!((alert.spent, alert.forecast), (60, Some(80)));

        let file = "apiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {name: team}\nspec: {appliesTo: All, limits: [{tokens: 100, per: day, window: rolling}]}\n";
        let file = SourceFile { path: "a.yaml".into(), text: file.to_owned() };
        let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
        let rolling = compile_files(&[file], &environment).unwrap().policy;
        let found = all_reached(&rolling, &[line(60, 0, 100)], now);
        let [alert] = &found[..] else { panic!("{found:?}") };
        assert_eq!((alert.window_start, alert.window_end), (at("2026-06-30T18:00:00Z"), None));
        assert_eq!((alert.forecast, alert.once), (None, (start, end)));
    }

    #[test]
    fn nothing_used_reaches_no_threshold() {
        assert_eq!(
            (reached(&[1, 100], 0, 0), reached(&[1, 100], 0, 5), reached(&[50, 100], 7, 5)),
            (0, 0, 100)
        );
    }
}
