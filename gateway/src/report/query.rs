//! Asking the store, and adding up what it says.

use std::cmp::Reverse;
use std::collections::HashMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tollgate_policy::caller::Identity;

use super::{By, Query, Report, ReportLine, ReportTotals};
use crate::ledger::amount::Unit;
use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::grouping::{ERROR, GroupRow, Grouping, QUARTER, Summed};
use crate::ledger::rollup::{RollupKey, RollupSums};
use crate::ledger::timed_sums::TimeUnit;
use crate::ledger::{LedgerError, Outcome, ReportStore, UsageSource};

/// Adds up what the store and the journal behind it have in the period, in whole minutes: that of `since` counts, and that of `until` if it
/// lies in it.
pub fn report(store: &mut ReportStore, mut query: Query) -> Result<Report, LedgerError> {
    let minute = query.since.as_second().div_euclid(60);
    query.since = Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(query.since);
    let mut lines: HashMap<Vec<String>, ReportTotals> = HashMap::new();
    let mut total = ReportTotals::default();
    let mut add = |group: &Group<'_>, totals: &ReportTotals| {
        total.add(totals);
        let keys = query.by.iter().map(|by| group.key(*by, &query.timezone)).collect();
        lines.entry(keys).or_default().add(totals);
    };
    let grouping = grouping(&query, minute);
    store.grouped(&grouping, Summed::Counts, |row| {
        let group = Group::read(row);
        add(&group, &group.totals(row.sums));
    })?;
    store.grouped(&grouping, Summed::Usage, |row| {
        let mut used = ReportTotals::default();
        if let Unit(Some(unit)) = row.unit.into() {
            used.usage.add(unit, row.sums[0].into());
        }
        add(&Group::read(row), &used);
    })?;
    let tail = store.tail()?;
    let is_in = |key: &RollupKey<'_>| key.minute >= grouping.since && key.minute < grouping.until;
    for (key, sums) in &tail.sums {
        let Some(key) = RollupKey::decode(key).filter(is_in) else { continue };
        let group = Group::of(&key);
        let mut totals = group.totals(sums.columns());
        sums.usage.entries().for_each(|(unit, amount)| totals.usage.add(unit, amount.into()));
        add(&group, &totals);
    }
    // What a correction moved elsewhere leaves nothing.
    lines.retain(|_, totals| *totals != ReportTotals::default());
    let mut lines: Vec<_> = lines.into_iter().map(|(keys, totals)| ReportLine { keys, totals }).collect();
    lines.sort_by_cached_key(|line| {
        let ReportTotals { cost, calls, failed, refused, .. } = line.totals;
        (times(&query.by, &line.keys), Reverse((cost, calls, failed, refused)), line.keys.clone())
    });
    Ok(Report { query, lines, total })
}

fn grouping(query: &Query, since: i64) -> Grouping {
    let by_time = query.by.iter().any(|by| by.is_time());
    let micros = query.until.as_microsecond();
    Grouping {
        by_time,
        by_texts: texts(query),
        by_status: query.by.contains(&By::Status),
        units: units(query),
        since,
        until: micros.div_euclid(60_000_000) + i64::from(micros.rem_euclid(60_000_000) > 0),
    }
}

/// The texts that lines are told apart by, and that how calls ended and were billed is known by.
fn texts(query: &Query) -> [bool; Dimension::ALL.len()] {
    let mut texts = [false; Dimension::ALL.len()];
    let mut tell = |dimension: Dimension| texts[dimension as usize] = true;
    [Dimension::Outcome, Dimension::UsageSource].into_iter().for_each(&mut tell);
    for by in &query.by {
        match by {
            By::Dimension(Dimension::Model) => {
                [Dimension::Model, Dimension::ModelAnswered].into_iter().for_each(&mut tell);
            }
            By::Dimension(dimension) => tell(*dimension),
            By::Namespace | By::ServiceAccount => tell(Dimension::Caller),
            By::Status | By::Hour | By::Day | By::Month => {}
        }
    }
    texts
}

/// The units of time that begin on the wall clock, where lines are told apart by it, when they begin in UTC, all through the period.
fn units(query: &Query) -> &'static [TimeUnit] {
    let [_, from_hours @ ..] = &TimeUnit::ALL;
    let [_, _, from_minutes @ ..] = &TimeUnit::ALL;
    let is_off = |seconds: i32| has_offset(query, |offset| offset.rem_euclid(seconds) != 0);
    match () {
        () if !query.by.iter().any(|by| by.is_time()) => &TimeUnit::ALL,
        () if is_off(3_600) => from_minutes,
        () if query.by.contains(&By::Hour) || is_off(24 * 3_600) => from_hours,
        () => &TimeUnit::ALL,
    }
}

/// Whether the wall clock is ever off UTC by such a number of seconds in the period.
fn has_offset(query: &Query, is_such: impl Fn(i32) -> bool) -> bool {
    // A clock that is put forward or back stays so for weeks.
    const STEP: SignedDuration = SignedDuration::from_hours(7 * 24);
    let is_such = |at: Timestamp| is_such(query.timezone.to_offset(at).seconds());
    let mut at = query.since;
    while at < query.until {
        if is_such(at) {
            return true;
        }
        at = at.saturating_add(STEP).unwrap_or(query.until);
    }
    is_such(query.until)
}

/// The hours, days and months of a line, so that they sort as time passes: an hour that the clock repeats comes after its namesake.
fn times(by: &[By], keys: &[String]) -> Vec<(Timestamp, String)> {
    let timed = by.iter().zip(keys).filter(|(by, _)| by.is_time());
    timed.map(|(_, key)| (key.parse().unwrap_or_default(), key.clone())).collect()
}

/// All records of one combination of texts, in one quarter of an hour where that matters.
struct Group<'a> {
    quarter: i64,
    status: u16,
    texts: Texts<'a>,
}

impl<'a> Group<'a> {
    fn read(row: &GroupRow<'a>) -> Self {
        Self { quarter: row.quarter, status: u16::try_from(row.status).unwrap_or_default(), texts: row.texts }
    }

    fn of(key: &RollupKey<'a>) -> Self {
        Self { quarter: key.minute.div_euclid(QUARTER), status: key.status, texts: key.texts }
    }

    /// What these sums are, by how the calls of the group ended.
    fn totals(&self, sums: [i64; RollupSums::COLUMNS.len()]) -> ReportTotals {
        let [count, unpriced, bytes_in, bytes_out, cost] = sums.map(i128::from);
        let mut totals = ReportTotals { unpriced, bytes_in, bytes_out, cost, ..ReportTotals::default() };
        let outcome = self.text(Dimension::Outcome);
        let is = |other: Outcome| other.as_str() == outcome;
        let answered = is(Outcome::Completed) || is(Outcome::CallerGone);
        *(match () {
            () if is(Outcome::Adjustment) => &mut totals.adjustments,
            () if is(Outcome::Refused) => &mut totals.refused,
            () if answered && self.status < ERROR => &mut totals.calls,
            () => &mut totals.failed,
        }) = count;
        if !is(Outcome::Adjustment) {
            totals.requests = count;
        }
        let source = self.text(Dimension::UsageSource);
        if [UsageSource::Estimated, UsageSource::Presumed].iter().any(|open| open.as_str() == source) {
            totals.estimated = count;
            totals.estimated_cost = cost;
        }
        totals
    }

    const fn text(&self, dimension: Dimension) -> &'a str {
        self.texts[dimension as usize]
    }

    fn key(&self, by: By, timezone: &TimeZone) -> String {
        let time = |format: &str| {
            let at = Timestamp::from_second(self.quarter.saturating_mul(QUARTER * 60)).unwrap_or_default();
            at.to_zoned(timezone.clone()).strftime(format).to_string()
        };
        let of_caller = |part: fn(&Identity) -> Option<&str>| {
            let caller: Option<Identity> = self.text(Dimension::Caller).parse().ok();
            caller.as_ref().and_then(part).unwrap_or_default().to_owned()
        };
        match by {
            By::Hour => time("%Y-%m-%dT%H:00%:z"),
            By::Day => time("%Y-%m-%d"),
            By::Month => time("%Y-%m"),
            By::Namespace => of_caller(Identity::namespace),
            By::ServiceAccount => of_caller(Identity::service_account),
            By::Status if self.status == 0 => String::new(),
            By::Status => self.status.to_string(),
            By::Dimension(Dimension::Model) if self.text(Dimension::Model).is_empty() => {
                self.text(Dimension::ModelAnswered).to_owned()
            }
            By::Dimension(dimension) => self.text(dimension).to_owned(),
        }
    }
}
