//! Asking the store, and adding up what it says.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Dimension, Query, Report, ReportLine, Totals};
use crate::ledger::store::{COLUMNS, Reader};
use crate::ledger::{LedgerError, Outcome, RecordId, UsageSource};

/// Hours, days and months of every timezone in use begin at multiples of this many seconds since the epoch.
const QUARTER: i64 = 15 * 60;
/// An id begins with the time when it was made, which is near the time of its record: rows are looked for this far around a period.
const AROUND: SignedDuration = SignedDuration::from_hours(1);

/// Adds up what the ledger in `data_dir` has in the period. What the gateway wrote in the last second may be missing.
pub fn report(data_dir: &Path, query: Query) -> Result<Report, LedgerError> {
    let reader = Reader::open(data_dir)?;
    let mut lines: HashMap<Vec<String>, Totals> = HashMap::new();
    let mut total = Totals::default();
    let by_time = query.by.iter().any(|by| matches!(by, Dimension::Hour | Dimension::Day | Dimension::Month));
    let quarter = if by_time { format!("at / {}", QUARTER * 1_000_000) } else { "0".to_owned() };
    let status = if query.by.contains(&Dimension::Status) { "status" } else { "0" };
    let sql = format!(
        "SELECT g.quarter, g.status, n, unpriced, input, cache_read, cache_write, output, reasoning, media, bytes_in, bytes_out, cost, {}
         FROM (SELECT dimensions, {quarter} AS quarter, {status} AS status, count(*) AS n, sum(unpriced) AS unpriced,
                   sum(input) AS input, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output) AS output,
                   sum(reasoning) AS reasoning, sum(media) AS media, sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out,
                   sum(cost) AS cost
               FROM records WHERE id >= ?1 AND id < ?2 AND at >= ?3 AND at < ?4 GROUP BY 1, 2, 3) g
         JOIN dimensions d ON d.id = g.dimensions",
        COLUMNS.map(|column| format!("d.{column}")).join(", "),
    );
    let least = |at: Timestamp| RecordId::least(u64::try_from(at.as_millisecond()).unwrap_or_default());
    let from = least(query.since.saturating_sub(AROUND).unwrap_or(Timestamp::MIN));
    let to = least(query.until.saturating_add(AROUND).unwrap_or(Timestamp::MAX));
    reader.query(
        &sql,
        &[
            &from.as_bytes().as_slice(),
            &to.as_bytes().as_slice(),
            &query.since.as_microsecond(),
            &query.until.as_microsecond(),
        ],
        |row| {
            let group = Group::read(row)?;
            total.add(&group.totals);
            let keys = query.by.iter().map(|by| group.key(*by, &query.timezone)).collect();
            lines.entry(keys).or_default().add(&group.totals);
            Ok(())
        },
    )?;
    let mut lines: Vec<_> = lines.into_iter().map(|(keys, totals)| ReportLine { keys, totals }).collect();
    lines.sort_by(|a, b| {
        let rank = |line: &ReportLine| Reverse((line.totals.cost, line.totals.calls, line.totals.refused));
        rank(a).cmp(&rank(b)).then_with(|| a.keys.cmp(&b.keys))
    });
    Ok(Report { query, lines, total })
}

/// What the store adds up: all records of one combination of words in one quarter of an hour.
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
            *word = row.get(13 + index)?;
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
            bytes_in: number(10)?,
            bytes_out: number(11)?,
            cost: number(12)?,
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
        } else if refused {
            self.totals.refused = count;
        } else {
            self.totals.calls = count;
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
            let at = Timestamp::from_second(self.quarter.saturating_mul(QUARTER)).unwrap_or_default();
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
