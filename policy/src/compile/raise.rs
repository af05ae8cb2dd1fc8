//! Raises: amounts of a budget that are more for a time, each with a name and an end.

use std::sync::Arc;

use super::Scope;
use crate::limit::{Limit, LimitId, LimitKind, Raise, Unit};
use crate::model::{Instant, List, RaiseSpec};
use crate::resource::BudgetRaise;

/// Adds each raise to the limit that it is of.
pub(super) fn raises(
    written: &List<RaiseSpec>,
    limits: &mut [Limit],
    scope: &mut Scope<'_>,
) -> Vec<BudgetRaise> {
    let mut raises = Vec::new();
    for (index, spec) in written.iter() {
        let path = format!("spec.raises[{index}]");
        let raised = scope.exactly_one(&path, spec.amounts().map(super::limit::field));
        let until = scope.required(&format!("{path}.until"), spec.until, "when it ends");
        for (field, text, what) in
            [("by", &spec.by, "who has raised it"), ("reason", &spec.reason, "why it is raised")]
        {
            let path = format!("{path}.{field}");
            let text = scope.required(&path, text.as_deref(), what);
            if text.is_some_and(|text| text.trim().is_empty() || text.chars().any(char::is_control)) {
                scope.problem(&path, format!("say {what}, in one line"));
            }
        }
        let (Some((unit, by)), Some(Instant(until))) = (raised, until) else { continue };
        if by == 0 {
            scope.problem(&format!("{path}.{unit}"), "a raise of nothing changes nothing: leave it out");
        }
        match of(spec, unit, limits) {
            Ok(limit) => {
                let more = limit.raises.iter().copied().chain([Raise { by, until }]);
                limit.raises = more.collect::<Arc<[Raise]>>();
                let said = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
                raises.push(BudgetRaise {
                    limit: Arc::clone(&limit.id),
                    unit,
                    amount: by,
                    until,
                    by: said(&spec.by),
                    reason: said(&spec.reason),
                });
            }
            Err(message) => scope.problem(&format!("{path}.{unit}"), message),
        }
    }
    raises
}

/// The one limit that a raise can be of.
fn of<'a>(spec: &RaiseSpec, unit: Unit, limits: &'a mut [Limit]) -> Result<&'a mut Limit, String> {
    let per = |limit: &Limit| LimitId::read(&limit.id).and_then(|id| id.per);
    let is_meant = |limit: &Limit| {
        limit.unit == unit
            && spec.per.is_none_or(|wanted| per(limit) == Some(wanted))
            && spec.key.is_none_or(|wanted| limit.key == wanted)
    };
    let mut meant = limits.iter_mut().filter(|limit| is_meant(limit));
    match (meant.next(), meant.next()) {
        (None, _) => Err(format!("this budget has no such limit on {unit}")),
        (Some(limit), None) if matches!(limit.kind, LimitKind::Gcra { .. }) => {
            Err("a rate is not raised for a time: write another amount".to_owned())
        }
        (Some(limit), None) => Ok(limit),
        (Some(_), Some(_)) => {
            Err(format!("several limits of this budget are on {unit}: say which in `per` and `key`"))
        }
    }
}
