//! Raises that come into force, for the audit trail: whichever way they came into the resources.

use std::collections::HashSet;

use jiff::Timestamp;
use tollgate_policy::policy::{BudgetRaise, Policy};

/// Raises that were there at the last look. At a start it is empty: what is in force then is told, too.
#[derive(Debug, Default)]
pub(super) struct SeenRaises(HashSet<BudgetRaise>);

impl SeenRaises {
    /// Those that have come since, and are not over.
    pub(super) fn look(&mut self, policy: &Policy, now: Timestamp) -> Vec<BudgetRaise> {
        let raises = policy.budgets().flat_map(|budget| &budget.raises);
        let in_force: HashSet<BudgetRaise> = raises.filter(|raise| now < raise.until).cloned().collect();
        let mut new: Vec<BudgetRaise> = in_force.difference(&self.0).cloned().collect();
        new.sort_by(|one, other| (&one.limit, one.until).cmp(&(&other.limit, other.until)));
        self.0 = in_force;
        new
    }
}

#[cfg(test)]
mod tests {
    use tollgate_policy::compile::compile_files;
    use tollgate_policy::model::SourceFile;

    use super::*;
    use crate::app;

    #[test]
    fn a_raise_is_told_once_while_it_is_in_force() {
        let policy = |raises: &str| {
            let text = format!(
                "apiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: team}}\nspec: {{appliesTo: All, limits: [{{tokens: 100, per: day}}], raises: [{raises}]}}\n"
            );
            let file = SourceFile { path: "a.yaml".into(), text };
            let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
            compile_files(&[file], &environment).unwrap().policy
        };
        let raise = |tokens: u32, until: &str| {
            format!("{{tokens: {tokens}, until: \"{until}\", by: alice, reason: launch}}")
        };
        let (one, over) = (raise(5, "2030-01-01T00:00:00Z"), raise(6, "2020-01-01T00:00:00Z"));
        let two = raise(7, "2031-01-01T00:00:00Z");
        let now: Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
        let mut seen = SeenRaises::default();
        let mut look = |raises: &str| -> Vec<u64> {
            seen.look(&policy(raises), now).iter().map(|raise| raise.amount).collect()
        };
        assert_eq!(look(&format!("{one}, {over}")), [5]);
        assert_eq!(look(&format!("{one}, {over}")), [0_u64; 0]);
        assert_eq!(look(&format!("{one}, {two}")), [7]);
        assert_eq!(look(&two), [0_u64; 0]);
        assert_eq!(look(&format!("{one}, {two}")), [5], "it was taken back, and has come again");
    }
}
