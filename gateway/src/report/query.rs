//! Asking the store, and adding up what it says.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Dimension, Query, Report, ReportLine, Totals};
use crate::ledger::store::{COLUMNS, Reader};
use crate::ledger::{LedgerError, Outcome, UsageSource};

/// Hours, days and months of every timezone in use begin at multiples of this many minutes since the epoch.
const QUARTER: i64 = 15;

/// Adds up what the ledger in `data_dir` has in the period, in whole minutes: that of `since` counts, and that of `until` if it lies in
/// it. What the gateway wrote in the last second may be missing.
pub fn report(data_dir: &Path, mut query: Query) -> Result<Report, LedgerError> {
    let reader = Reader::open(data_dir)?;
    let minute = query.since.as_second().div_euclid(60);
    query.since = Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(query.since);
    let mut lines: HashMap<Vec<String>, Totals> = HashMap::new();
    let mut total = Totals::default();
    let by_time = query.by.iter().any(|by| matches!(by, Dimension::Hour | Dimension::Day | Dimension::Month));
    let quarter = if by_time { format!("minute / {QUARTER}") } else { "0".to_owned() };
    let status = if query.by.contains(&Dimension::Status) { "status" } else { "0" };
    let sql = format!(
        "SELECT g.quarter, g.status, g.requests, unpriced, input, cache_read, cache_write, output, reasoning, media,
             searches, sessions, images, seconds, characters, bytes_in, bytes_out, cost, {}
         FROM (SELECT dimensions, {quarter} AS quarter, {status} AS status, sum(requests) AS requests,
                   sum(unpriced) AS unpriced, sum(input) AS input, sum(cache_read) AS cache_read,
                   sum(cache_write) AS cache_write, sum(output) AS output, sum(reasoning) AS reasoning, sum(media) AS media,
                   sum(searches) AS searches, sum(sessions) AS sessions, sum(images) AS images,
                   sum(seconds) AS seconds, sum(characters) AS characters, sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out, sum(cost) AS cost
               FROM sums WHERE minute >= ?1 AND minute * 60000000 < ?2 GROUP BY 1, 2, 3) g
         JOIN dimensions d ON d.id = g.dimensions",
        COLUMNS.map(|column| format!("d.{column}")).join(", "),
    );
    reader.query(&sql, &[&minute, &query.until.as_microsecond()], |row| {
        let group = Group::read(row)?;
        total.add(&group.totals);
        let keys = query.by.iter().map(|by| group.key(*by, &query.timezone)).collect();
        lines.entry(keys).or_default().add(&group.totals);
        Ok(())
    })?;
    // What a correction moved elsewhere leaves nothing.
    lines.retain(|_, totals| *totals != Totals::default());
    let mut lines: Vec<_> = lines.into_iter().map(|(keys, totals)| ReportLine { keys, totals }).collect();
    lines.sort_by(|a, b| {
        let rank = |line: &ReportLine| Reverse((line.totals.cost, line.totals.calls, line.totals.refused));
        rank(a).cmp(&rank(b)).then_with(|| a.keys.cmp(&b.keys))
    });
    Ok(Report { query, lines, total })
}

/// What the store adds up: all records of one combination of words, in one quarter of an hour where that matters.
struct Group {
    quarter: i64,
    status: u16,
    words: [String; COLUMNS.len()],
    totals: Totals,
}

impl Group {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let number = |column: usize| row.get::<_, i64>(column).map(i128::from);
        let mut words = [const { String::new() }; COLUMNS.len()];
        for (index, word) in words.iter_mut().enumerate() {
            *word = row.get(18 + index)?;
        }
        let mut group = Self { quarter: row.get(0)?, status: row.get(1)?, words, totals: Totals::default() };
        let count = number(2)?;
        let totals = Totals {
            input: number(4)?,
            cache_read: number(5)?,
            cache_write: number(6)?,
            output: number(7)?,
            reasoning: number(8)?,
            media: number(9)?,
            searches: number(10)?,
            sessions: number(11)?,
            images: number(12)?,
            seconds: number(13)?,
            characters: number(14)?,
            bytes_in: number(15)?,
            bytes_out: number(16)?,
            cost: number(17)?,
            unpriced: number(3)?,
            ..Totals::default()
        };
        group.totals = totals;
        group.count(count);
        Ok(group)
    }

    fn count(&mut self, count: i128) {
        let (outcome, source) = (self.word("outcome"), self.word("usage_source"));
        let refused = outcome == Outcome::Refused.as_str();
        let adjustment = outcome == Outcome::Adjustment.as_str();
        let estimated = source == UsageSource::Estimated.as_str() || source == UsageSource::Presumed.as_str();
        if adjustment {
            self.totals.adjustments = count;
        } else {
            self.totals.requests = count;
            *(if refused { &mut self.totals.refused } else { &mut self.totals.calls }) = count;
        }
        if estimated {
            self.totals.estimated = count;
            self.totals.estimated_cost = self.totals.cost;
        }
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
