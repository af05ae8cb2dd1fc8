//! Asking the store, and adding up what it says.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Dimension, Query, Report, ReportLine, Totals};
use crate::ledger::store::{COLUMNS, Reader, columns};
use crate::ledger::tally::{Key, SUMS, Sums};
use crate::ledger::{LedgerError, Outcome, UsageSource, tail};

/// From this status on an answer is an error.
const ERROR: u16 = 400;
/// Hours, days and months of every timezone in use begin at multiples of this many minutes since the epoch.
const QUARTER: i64 = 15;

/// Adds up what the ledger in `data_dir` has in the period, in whole minutes: that of `since` counts, and that of `until` if it lies in
/// it. What the store has not taken in yet is read from the journal.
pub fn report(data_dir: &Path, mut query: Query) -> Result<Report, LedgerError> {
    let reader = Reader::open(data_dir)?;
    let minute = query.since.as_second().div_euclid(60);
    query.since = Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(query.since);
    let mut lines: HashMap<Vec<String>, Totals> = HashMap::new();
    let mut total = Totals::default();
    let mut add = |group: Group| {
        total.add(&group.totals);
        let keys = query.by.iter().map(|by| group.key(*by, &query.timezone)).collect();
        lines.entry(keys).or_default().add(&group.totals);
    };
    reader.query(&sums_of(&query.by), &[&minute, &query.until.as_microsecond()], |row| {
        add(Group::read(row)?);
        Ok(())
    })?;
    let tail = tail(data_dir, &reader)?;
    let until = query.until.as_microsecond();
    let is_in = |key: &Key<'_>| key.minute >= minute && key.minute.saturating_mul(60_000_000) < until;
    for (key, sums) in &tail.sums {
        if let Some(key) = Key::decode(key).filter(is_in) {
            add(Group::of(&key, sums));
        }
    }
    // What a correction moved elsewhere leaves nothing.
    lines.retain(|_, totals| *totals != Totals::default());
    let mut lines: Vec<_> = lines.into_iter().map(|(keys, totals)| ReportLine { keys, totals }).collect();
    lines.sort_by_cached_key(|line| {
        let Totals { cost, calls, failed, refused, .. } = line.totals;
        (times(&query.by, &line.keys), Reverse((cost, calls, failed, refused)), line.keys.clone())
    });
    Ok(Report { query, lines, total })
}

/// The hours, days and months of a line, so that they sort as time passes: an hour that the clock repeats comes after its namesake.
fn times(by: &[Dimension], keys: &[String]) -> Vec<(Timestamp, String)> {
    let timed = by.iter().zip(keys).filter(|(by, _)| by.is_time());
    timed.map(|(_, key)| (key.parse().unwrap_or_default(), key.clone())).collect()
}

fn sums_of(by: &[Dimension]) -> String {
    let by_time = by.iter().any(|by| by.is_time());
    let quarter = if by_time { format!("minute / {QUARTER}") } else { "0".to_owned() };
    let is_error = format!("CASE WHEN status >= {ERROR} THEN {ERROR} ELSE 0 END");
    let status = if by.contains(&Dimension::Status) { "status" } else { &is_error };
    let sums = SUMS.map(|sum| format!("sum({sum}) AS {sum}")).join(", ");
    format!(
        "SELECT g.quarter, g.status, {}, {}
         FROM (SELECT dimensions, {quarter} AS quarter, {status} AS status, {sums}
               FROM sums WHERE minute >= ?1 AND minute * 60000000 < ?2 GROUP BY 1, 2, 3) g
         JOIN dimensions d ON d.id = g.dimensions",
        SUMS.map(|sum| format!("g.{sum}")).join(", "),
        COLUMNS.map(|column| format!("d.{column}")).join(", "),
    )
}

/// What the ledger adds up: all records of one combination of words, in one quarter of an hour where that matters.
struct Group {
    quarter: i64,
    status: u16,
    words: [String; COLUMNS.len()],
    totals: Totals,
}

impl Group {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let mut sums = Sums::default();
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = row.get(2 + index)?;
        }
        let mut words = [const { String::new() }; COLUMNS.len()];
        for (index, word) in words.iter_mut().enumerate() {
            *word = row.get(2 + SUMS.len() + index)?;
        }
        Ok(Self::new(row.get(0)?, row.get(1)?, words, &sums))
    }

    fn of(key: &Key<'_>, sums: &Sums) -> Self {
        Self::new(key.minute.div_euclid(QUARTER), key.status, columns(&key.words), sums)
    }

    fn new(quarter: i64, status: u16, words: [String; COLUMNS.len()], sums: &Sums) -> Self {
        let sum = |name: &str| {
            let place = SUMS.iter().position(|known| *known == name);
            place.and_then(|place| sums.get(place)).copied().map(i128::from).unwrap_or_default()
        };
        let totals = Totals {
            input: sum("input"),
            cache_read: sum("cache_read"),
            cache_write: sum("cache_write"),
            output: sum("output"),
            reasoning: sum("reasoning"),
            media: sum("media"),
            searches: sum("searches"),
            sessions: sum("sessions"),
            images: sum("images"),
            seconds: sum("seconds"),
            characters: sum("characters"),
            bytes_in: sum("bytes_in"),
            bytes_out: sum("bytes_out"),
            cost: sum("cost"),
            unpriced: sum("unpriced"),
            ..Totals::default()
        };
        let mut group = Self { quarter, status, words, totals };
        group.count(sum("requests"));
        group
    }

    fn count(&mut self, count: i128) {
        let (outcome, source) = (self.word("outcome"), self.word("usage_source"));
        let estimated = source == UsageSource::Estimated.as_str() || source == UsageSource::Presumed.as_str();
        let answered = [Outcome::Completed, Outcome::CallerGone].iter().any(|good| good.as_str() == outcome);
        let is = |other: Outcome| other.as_str() == outcome;
        let totals = &self.totals;
        let (adjustments, mut counts) = (is(Outcome::Adjustment), *totals);
        *(match () {
            () if adjustments => &mut counts.adjustments,
            () if is(Outcome::Refused) => &mut counts.refused,
            () if answered && self.status < ERROR => &mut counts.calls,
            () => &mut counts.failed,
        }) = count;
        if !adjustments {
            counts.requests = count;
        }
        if estimated {
            counts.estimated = count;
            counts.estimated_cost = counts.cost;
        }
        self.totals = counts;
    }

    fn word(&self, column: &str) -> &str {
        let at = COLUMNS.iter().position(|known| *known == column);
        at.and_then(|at| self.words.get(at)).map_or("", String::as_str)
    }

    fn key(&self, by: Dimension, timezone: &TimeZone) -> String {
        let time = |format: &str| {
            let at = Timestamp::from_second(self.quarter.saturating_mul(QUARTER * 60)).unwrap_or_default();
            at.to_zoned(timezone.clone()).strftime(format).to_string()
        };
        match by {
            Dimension::Hour => time("%Y-%m-%dT%H:00%:z"),
            Dimension::Day => time("%Y-%m-%d"),
            Dimension::Month => time("%Y-%m"),
            Dimension::Status if self.status == 0 => String::new(),
            Dimension::Status => self.status.to_string(),
            Dimension::Grant => self.word("grant_name").to_owned(),
            Dimension::Model if self.word("model").is_empty() => self.word("model_answered").to_owned(),
            by => self.word(by.as_str()).to_owned(),
        }
    }
}
