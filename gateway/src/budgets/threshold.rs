//! Telling that much of a budget is used: once for each threshold and window.
//!
//! What was passed before the process began is not told again. A window that begins anew, or an amount that is raised, takes back what
//! was told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tollgate_policy::limit::{Limit, LimitKind};
use tollgate_policy::policy::{Budget, Policy};

use super::{forecast, percent};
use crate::core::Shared;
use crate::quota::LimitUsage;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What was told: the highest threshold of each limit and key.
#[derive(Debug, Default)]
struct Told {
    highest: HashMap<(Arc<str>, Arc<str>), u8>,
    /// Whether it has looked before.
    has_looked: bool,
}

/// A threshold that has just been reached.
#[derive(Debug)]
struct ReachedThreshold<'a> {
    budget: &'a Budget,
    limit: &'a Limit,
    line: &'a LimitUsage,
    percent: u8,
}

/// Looks at the budgets of the policy in force, to the end of the process.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut told = Told::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(snapshot) = shared.snapshots.current() else { continue };
        // Without budgets there is nothing to count through.
        if snapshot.policy.budgets().next().is_none() {
            continue;
        }
        let now = Timestamp::now();
        for ReachedThreshold { budget, limit, line, percent } in
            told.look(&snapshot.policy, &shared.quota.usage(now))
        {
            let forecast = match &limit.kind {
                LimitKind::Counted(window) => forecast(window, line.spent, now),
                LimitKind::Gcra { .. } | LimitKind::Concurrent => None,
            };
            let (budget, unit) = (&budget.name, limit.unit);
            let (limit, key, spent, amount) = (&*limit.id, &*line.key, line.spent, line.amount);
            tracing::warn!(%budget, limit, key, %unit, percent, spent, amount, forecast, "a budget has reached a threshold");
        }
    }
}

/// The highest threshold that so much of an amount has reached; 0 where it is none.
pub(crate) fn reached(thresholds: &[u8], spent: u64, amount: u64) -> u8 {
    let used = percent(spent, amount);
    thresholds
        .iter()
        .copied()
        .filter(|threshold| f64::from(*threshold) <= used && spent > 0)
        .max()
        .unwrap_or(0)
}

impl Told {
    /// What is to be told now.
    fn look<'a>(&mut self, policy: &'a Policy, usage: &'a [LimitUsage]) -> Vec<ReachedThreshold<'a>> {
        let mut by_limit: HashMap<&Arc<str>, Vec<&LimitUsage>> = HashMap::new();
        for line in usage {
            by_limit.entry(&line.limit).or_default().push(line);
        }
        let mut highest = HashMap::new();
        let mut found = Vec::new();
        for budget in policy.budgets() {
            for limit in &budget.limits {
                for line in by_limit.get(&limit.id).into_iter().flatten().copied() {
                    let percent = reached(&budget.thresholds, line.spent_by_all(), line.amount);
                    let key = (Arc::clone(&limit.id), Arc::clone(&line.key));
                    let before = self.highest.get(&key).copied().unwrap_or(0);
                    if percent > before && self.has_looked {
                        found.push(ReachedThreshold { budget, limit, line, percent });
                    }
                    if percent > 0 {
                        highest.insert(key, percent);
                    }
                }
            }
        }
        self.highest = highest;
        self.has_looked = true;
        found
    }
}

#[cfg(test)]
mod tests {
    use tollgate_policy::compile::compile_files;
    use tollgate_policy::limit::{Owner, Unit};
    use tollgate_policy::model::SourceFile;

    use super::*;
    use crate::app;

    fn policy() -> Policy {
        let text = "apiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {name: team}\nspec: {appliesTo: All, limits: [{tokens: 100, per: day}], thresholds: [80, 50]}\n";
        let file = SourceFile { path: "a.yaml".into(), text: text.to_owned() };
        compile_files(&[file], &app::environment_of(&[], &["prod.acme".to_owned()]).unwrap()).unwrap().policy
    }

    fn line(spent: u64, amount: u64) -> LimitUsage {
        LimitUsage {
            limit: "budget/team/tokens/day/shared".into(),
            owner: Owner::Budget("team".parse().unwrap()),
            key: "".into(),
            unit: Unit::Tokens,
            amount,
            spent,
            held: 0,
            others_spent: 0,
            leased: None,
        }
    }

    #[test]
    fn each_threshold_is_told_once_until_a_window_begins_anew_or_the_amount_is_raised() {
        let policy = policy();
        let mut told = Told::default();
        let mut look = |spent, amount| -> Vec<u8> {
            told.look(&policy, &[line(spent, amount)]).iter().map(|reached| reached.percent).collect()
        };
        assert_eq!(look(60, 100), [0_u8; 0], "what was passed before is not told again");
        assert_eq!(look(60, 100), [0_u8; 0]);
        assert_eq!(look(85, 100), [80]);
        assert_eq!(look(99, 100), [0_u8; 0]);
        assert_eq!(look(0, 100), [0_u8; 0], "the window began anew");
        assert_eq!(look(95, 100), [80], "of two at once the higher");
        assert_eq!(look(95, 1_000), [0_u8; 0], "it was raised");
        assert_eq!(look(500, 1_000), [50]);
    }

    #[test]
    fn nothing_used_reaches_no_threshold() {
        assert_eq!(
            (reached(&[1, 100], 0, 0), reached(&[1, 100], 0, 5), reached(&[50, 100], 7, 5)),
            (0, 0, 100)
        );
    }
}
