//! The question that reports ask of a store, in the words of SQLite and of PostgreSQL.
//!
//! This is the one place that knows how the two differ.

use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::rollup::RollupSums;

/// From this status on an answer is an error.
pub(crate) const ERROR: u16 = 400;
/// Hours, days and months of every timezone in use begin at multiples of this many minutes since the epoch.
pub(crate) const QUARTER: i64 = 15;

/// Which database is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// One replica's own store.
    Sqlite,
    /// That of several.
    Postgres,
}

/// What rows are told apart by, beside the dimensions, and which minutes count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouping {
    /// By the quarter of an hour, else not by time.
    pub(crate) by_time: bool,
    /// Which texts tell rows apart where time does: the others are any of those that were there.
    pub(crate) by_texts: [bool; Dimension::ALL.len()],
    /// By status, else only by whether that is an error.
    pub(crate) by_status: bool,
    /// Whether every border of time that counts is that of an hour.
    pub(crate) by_whole_hours: bool,
    /// The first minute since the epoch.
    pub(crate) since: i64,
    /// The first minute behind.
    pub(crate) until: i64,
}

/// Which sums are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summed {
    /// [`RollupSums::COLUMNS`].
    Counts,
    /// A unit and its amount.
    Usage,
}

/// A row of an answer.
#[derive(Debug)]
pub(crate) struct GroupRow<'a> {
    /// Quarters of an hour since the epoch; 0 where rows are not told apart by time.
    pub(crate) quarter: i64,
    /// The status, or whether it is an error.
    pub(crate) status: i64,
    pub(crate) texts: Texts<'a>,
    /// The unit, where usage was asked for.
    pub(crate) unit: &'a str,
    /// The sums of [`RollupSums::COLUMNS`], or the amount of the unit and nothing more.
    pub(crate) sums: [i64; RollupSums::COLUMNS.len()],
}

impl Summed {
    const fn table(self) -> &'static str {
        match self {
            Self::Counts => "sums",
            Self::Usage => "usage",
        }
    }

    pub(crate) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Counts => &RollupSums::COLUMNS,
            Self::Usage => &["amount"],
        }
    }
}

impl Grouping {
    /// Columns: quarter, status, the dimensions, the unit where usage is asked for, the sums.
    pub(crate) fn sql(&self, dialect: Dialect, summed: Summed) -> String {
        let quarter = if self.by_time { format!("minute / {QUARTER}") } else { "0".to_owned() };
        let is_error = format!("CASE WHEN status >= {ERROR} THEN {ERROR} ELSE 0 END");
        let status = if self.by_status { "status" } else { &is_error };
        let (unit, of_unit) = if summed == Summed::Usage { (", unit", ", g.unit") } else { ("", "") };
        let sums = summed.columns().iter().map(|sum| format!(", CAST(sum({sum}) AS BIGINT) AS {sum}"));
        let schema = match dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => "tollgate.",
        };
        let rows = if self.by_whole_hours {
            self.hours(schema, summed)
        } else {
            self.part(schema, summed, (self.since, self.until))
        };
        let (dimensions, kinds) = if self.by_time {
            ("k.kind", format!("JOIN ({}) k ON k.id = r.dimensions ", self.kinds(schema)))
        } else {
            ("r.dimensions", String::new())
        };
        format!(
            "SELECT g.quarter, g.status, {}{of_unit}{}
             FROM (SELECT {dimensions} AS dimensions, CAST({quarter} AS BIGINT) AS quarter, CAST({status} AS BIGINT) AS status{unit}{}
                   FROM ({rows}) r {kinds}GROUP BY 1, 2, 3{unit}) g
             JOIN {schema}dimensions d ON d.id = g.dimensions",
            Dimension::ALL.map(|dimension| format!("d.{}", dimension.column())).join(", "),
            summed.columns().iter().map(|column| format!(", g.{column}")).collect::<String>(),
            sums.collect::<String>(),
        )
    }

    /// For each row of dimensions one that has the same of what tells them apart: of every hour far fewer are left.
    fn kinds(&self, schema: &str) -> String {
        let told = Dimension::ALL.into_iter().filter(|dimension| self.by_texts[*dimension as usize]);
        let columns: Vec<String> = told.map(Dimension::column).collect();
        let apart =
            if columns.is_empty() { String::new() } else { format!("PARTITION BY {}", columns.join(", ")) };
        format!("SELECT id, min(id) OVER ({apart}) AS kind FROM {schema}dimensions")
    }

    /// The minutes up to the first whole hour, the hours, and the minutes behind the last.
    fn hours(&self, schema: &str, summed: Summed) -> String {
        let first = self.since.saturating_add(59).div_euclid(60);
        let last = self.until.div_euclid(60);
        if first >= last {
            return self.part(schema, summed, (self.since, self.until));
        }
        let (unit, columns) = (unit(summed), summed.columns().join(", "));
        format!(
            "{} UNION ALL {} UNION ALL
             SELECT hour * 60 AS minute, dimensions, status{unit}, {columns}
             FROM {schema}{}_by_hour WHERE hour >= {first} AND hour < {last}",
            self.part(schema, summed, (self.since, first.saturating_mul(60))),
            self.part(schema, summed, (last.saturating_mul(60), self.until)),
            summed.table(),
        )
    }

    fn part(&self, schema: &str, summed: Summed, (since, until): (i64, i64)) -> String {
        let (unit, columns, table) = (unit(summed), summed.columns().join(", "), summed.table());
        format!(
            "SELECT minute, dimensions, status{unit}, {columns} FROM {schema}{table}
             WHERE minute >= {since} AND minute < {until}"
        )
    }
}

const fn unit(summed: Summed) -> &'static str {
    match summed {
        Summed::Counts => "",
        Summed::Usage => ", unit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPING: Grouping = Grouping {
        by_time: true,
        by_texts: [false; Dimension::ALL.len()],
        by_status: false,
        by_whole_hours: true,
        since: 59,
        until: 181,
    };

    #[test]
    fn rows_of_a_time_are_told_apart_by_no_more_texts_than_are_asked_for() {
        let mut by_texts = GROUPING.by_texts;
        by_texts[Dimension::Model as usize] = true;
        let sql = Grouping { by_texts, ..GROUPING }.sql(Dialect::Postgres, Summed::Usage);
        let apart = "SELECT id, min(id) OVER (PARTITION BY \"model\") AS kind FROM tollgate.dimensions";
        assert!(sql.contains(apart), "{sql}");
        let timeless = Grouping { by_time: false, ..GROUPING }.sql(Dialect::Sqlite, Summed::Usage);
        assert!(!timeless.contains("kind"), "{timeless}");
    }

    #[test]
    fn whole_hours_are_read_as_such_and_the_minutes_around_them_one_by_one() {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let sql = GROUPING.sql(dialect, Summed::Counts);
            for part in
                ["minute >= 59 AND minute < 60", "hour >= 1 AND hour < 3", "minute >= 180 AND minute < 181"]
            {
                assert!(sql.contains(part), "{part}: {sql}");
            }
            let short = Grouping { since: 61, until: 119, ..GROUPING }.sql(dialect, Summed::Usage);
            assert!(!short.contains("by_hour") && short.contains("minute >= 61 AND minute < 119"), "{short}");
        }
    }

    #[test]
    fn a_clock_that_is_off_by_half_an_hour_reads_minutes_alone() {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let sql = Grouping { by_whole_hours: false, ..GROUPING }.sql(dialect, Summed::Counts);
            assert!(!sql.contains("by_hour") && sql.contains("minute >= 59 AND minute < 181"), "{sql}");
        }
    }
}
