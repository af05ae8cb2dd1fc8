//! Asking the store, and adding up what it says.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::Row;
use tollgate_policy::caller::Identity;

use super::{By, Query, Report, ReportLine, ReportTotals};
use crate::ledger::amount::Unit;
use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::rollup::{RollupKey, RollupSums};
use crate::ledger::store::StoreReader;
use crate::ledger::{LedgerError, Outcome, UsageSource, tail};

/// From this status on an answer is an error.
const ERROR: u16 = 400;
/// Hours, days and months of every timezone in use begin at multiples of this many minutes since the epoch.
const QUARTER: i64 = 15;

/// Adds up what the ledger in `data_dir` has in the period, in whole minutes: that of `since` counts, and that of `until` if it lies in
/// it. What the store has not taken in yet is read from the journal.
pub fn report(data_dir: &Path, mut query: Query) -> Result<Report, LedgerError> {
    let reader = StoreReader::open(data_dir)?;
    let minute = query.since.as_second().div_euclid(60);
    query.since = Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(query.since);
    let mut lines: HashMap<Vec<String>, ReportTotals> = HashMap::new();
    let mut total = ReportTotals::default();
    let mut add = |group: &Group<'_>, totals: &ReportTotals| {
        total.add(totals);
        let keys = query.by.iter().map(|by| group.key(*by, &query.timezone)).collect();
        lines.entry(keys).or_default().add(totals);
    };
    let until = query.until.as_microsecond();
    reader.query(&sums_of(&query.by), &[&minute, &until], |row| {
        let group = Group::read(row)?;
        let first = GROUP + Dimension::ALL.len();
        let mut sums = [0; RollupSums::COLUMNS.len()];
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = row.get(first + index)?;
        }
        add(&group, &group.totals(sums));
        Ok(())
    })?;
    reader.query(&usage_of(&query.by), &[&minute, &until], |row| {
        let first = GROUP + Dimension::ALL.len();
        let mut used = ReportTotals::default();
        if let Unit(Some(unit)) = row.get_ref(first)?.as_str()?.into() {
            used.usage.add(unit, row.get::<_, i64>(first + 1)?.into());
        }
        add(&Group::read(row)?, &used);
        Ok(())
    })?;
    let tail = tail(data_dir, &reader)?;
    let is_in = |key: &RollupKey<'_>| key.minute >= minute && key.minute.saturating_mul(60_000_000) < until;
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

/// The hours, days and months of a line, so that they sort as time passes: an hour that the clock repeats comes after its namesake.
fn times(by: &[By], keys: &[String]) -> Vec<(Timestamp, String)> {
    let timed = by.iter().zip(keys).filter(|(by, _)| by.is_time());
    timed.map(|(_, key)| (key.parse().unwrap_or_default(), key.clone())).collect()
}

fn sums_of(by: &[By]) -> String {
    let sums = RollupSums::COLUMNS.map(|sum| format!("sum({sum}) AS {sum}")).join(", ");
    grouped(by, "sums", &sums, &RollupSums::COLUMNS)
}

fn usage_of(by: &[By]) -> String {
    grouped(by, "usage", "unit, sum(amount) AS amount", &["unit", "amount"])
}

/// The rows of a table of the store, added up by what a [`Group`] is: that, and then `columns`.
fn grouped(by: &[By], table: &str, sums: &str, columns: &[&str]) -> String {
    let by_time = by.iter().any(|by| by.is_time());
    let quarter = if by_time { format!("minute / {QUARTER}") } else { "0".to_owned() };
    let is_error = format!("CASE WHEN status >= {ERROR} THEN {ERROR} ELSE 0 END");
    let status = if by.contains(&By::Status) { "status" } else { &is_error };
    let unit = if columns.contains(&"unit") { ", unit" } else { "" };
    format!(
        "SELECT g.quarter, g.status, {}, {}
         FROM (SELECT dimensions, {quarter} AS quarter, {status} AS status, {sums}
               FROM {table} WHERE minute >= ?1 AND minute * 60000000 < ?2 GROUP BY 1, 2, 3{unit}) g
         JOIN dimensions d ON d.id = g.dimensions",
        Dimension::ALL.map(|dimension| format!("d.{}", dimension.column())).join(", "),
        columns.iter().map(|column| format!("g.{column}")).collect::<Vec<_>>().join(", "),
    )
}

/// Columns before the dimensions.
const GROUP: usize = 2;

/// All records of one combination of texts, in one quarter of an hour where that matters.
struct Group<'a> {
    quarter: i64,
    status: u16,
    texts: Texts<'a>,
}

impl<'a> Group<'a> {
    fn read(row: &'a Row<'_>) -> rusqlite::Result<Self> {
        let mut texts = Texts::default();
        for (index, text) in texts.iter_mut().enumerate() {
            *text = row.get_ref(GROUP + index)?.as_str()?;
        }
        Ok(Self { quarter: row.get(0)?, status: row.get(1)?, texts })
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
