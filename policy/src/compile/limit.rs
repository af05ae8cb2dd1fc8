//! Limits: what is counted, in which window, under which id its state is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::Scope;
use crate::limit::{
    Limit, LimitId, LimitKey, LimitKind, OnExhausted, Owner, Per, StoreFailure, Unit, Window,
};
use crate::model::{LimitSpec, List, WindowWord};

/// The limits that one resource says, in the order of their ids.
pub(super) fn limits((owner, written): (&Owner, &List<LimitSpec>), scope: &mut Scope<'_>) -> Vec<Limit> {
    let mut limits: BTreeMap<Arc<str>, (usize, Limit)> = BTreeMap::new();
    for (index, spec) in written.iter() {
        let mut writer = Writer { path: format!("spec.limits[{index}]"), scope };
        let Some(limit) = writer.limit(owner, spec) else { continue };
        match limits.get(&limit.id) {
            Some((first, _)) => {
                let per = spec.per.map_or_else(String::new, |per| format!(" per {per}"));
                let message = format!(
                    "limits[{first}] limits {}{per} with key {} already: only one of the two could be counted",
                    limit.unit, limit.key,
                );
                writer.problem("", message);
            }
            None => {
                limits.insert(Arc::clone(&limit.id), (index, limit));
            }
        }
    }
    limits.into_values().map(|(_, limit)| limit).collect()
}

struct Writer<'a, 'b> {
    /// `spec.limits[0]`.
    path: String,
    scope: &'a mut Scope<'b>,
}

impl Writer<'_, '_> {
    fn problem(&mut self, field: &str, message: impl Into<String>) {
        let dot = if field.is_empty() { "" } else { "." };
        self.scope.problem(&format!("{}{dot}{field}", self.path), message);
    }

    /// Fields that have no effect on this kind of limit.
    fn refuse(&mut self, fields: &[(&str, bool)], why: &str) {
        for (field, _) in fields.iter().filter(|(_, is_written)| *is_written) {
            self.problem(field, why);
        }
    }

    fn limit(&mut self, owner: &Owner, spec: &LimitSpec) -> Option<Limit> {
        let path = self.path.clone();
        let (unit, amount) = self.scope.exactly_one(&path, spec.amounts().map(field))?;
        if amount == 0 {
            self.problem(
                unit.as_str(),
                "a limit of nothing allows nothing: write at least 1, or allow no such calls",
            );
        }
        let key = spec.key.unwrap_or_default();
        let made = |per: Option<Per>, kind, store_failure| Limit {
            id: id(owner, unit, per, key),
            owner: owner.clone(),
            unit,
            amount,
            kind,
            key,
            on_exhausted: OnExhausted::Deny,
            raises: Arc::default(),
            store_failure,
        };
        let store_failure = spec.on_store_failure.unwrap_or_else(|| StoreFailure::of(unit));
        if unit == Unit::Concurrency {
            let unused = [
                ("per", spec.per.is_some()),
                ("burst", spec.burst.is_some()),
                ("window", spec.window.is_some()),
                ("timezone", spec.timezone.is_some()),
            ];
            self.refuse(&unused, "calls at one time are not counted over time: leave this out");
            return Some(made(None, LimitKind::Concurrent, store_failure));
        }
        let what = "one of second, minute, hour, day, week, month";
        let per = self.scope.required(&format!("{path}.per"), spec.per, what)?;
        let is_rate = unit == Unit::Requests && matches!(per, Per::Second | Per::Minute | Per::Hour);
        let kind =
            if is_rate { self.rate(spec, amount, per)? } else { LimitKind::Counted(self.window(spec, per)?) };
        Some(made(Some(per), kind, store_failure))
    }

    /// Requests per second, minute or hour: a rate, with room for a tenth of it at once.
    fn rate(&mut self, spec: &LimitSpec, amount: u64, per: Per) -> Option<LimitKind> {
        let unused = [("window", spec.window.is_some()), ("timezone", spec.timezone.is_some())];
        self.refuse(
            &unused,
            "requests per second, minute or hour are a rate and have no window: leave this out",
        );
        let Ok(amount) = u32::try_from(amount) else {
            self.problem("requests", "a rate is at most 4294967295 requests");
            return None;
        };
        if spec.burst == Some(0) {
            self.problem("burst", "a burst of nothing allows nothing: write at least 1");
        }
        let a_tenth = (amount / 10).max(1);
        Some(LimitKind::Gcra { per: per.length(), burst: spec.burst.unwrap_or(a_tenth) })
    }

    fn window(&mut self, spec: &LimitSpec, per: Per) -> Option<Window> {
        let why = "only requests per second, minute or hour have a burst: leave this out";
        self.refuse(&[("burst", spec.burst.is_some())], why);
        let default = match per {
            Per::Second | Per::Minute | Per::Hour => WindowWord::Rolling,
            Per::Day | Per::Week | Per::Month => WindowWord::Calendar,
        };
        match spec.window.unwrap_or(default) {
            WindowWord::Rolling => {
                let why = "a rolling window knows no timezone: leave this out, or write `window: calendar`";
                self.refuse(&[("timezone", spec.timezone.is_some())], why);
                Some(Window::rolling(SignedDuration::try_from(per.length()).ok()?))
            }
            WindowWord::Calendar => match spec.timezone.as_deref().map(TimeZone::get) {
                None => Some(Window::Calendar { per, timezone: TimeZone::UTC }),
                Some(Ok(timezone)) => Some(Window::Calendar { per, timezone }),
                Some(Err(_)) => {
                    let message =
                        "there is no such timezone: write a name of the IANA database, as in `Europe/Berlin`";
                    self.problem("timezone", message);
                    None
                }
            },
        }
    }
}

/// An amount beside the field that it is written in.
pub(super) fn field((unit, amount): (Unit, Option<u64>)) -> (&'static str, Option<(Unit, u64)>) {
    (unit.as_str(), amount.map(|amount| (unit, amount)))
}

fn id(owner: &Owner, unit: Unit, per: Option<Per>, key: LimitKey) -> Arc<str> {
    LimitId { owner: &owner.to_string(), unit, per, key }.to_string().into()
}
