//! Who used what, for how much: sums over the ledger, as a table, CSV or JSON.
//!
//! Reads the store, and in the journal what the store has not taken in yet: beside a gateway that is running, and where none is.
//!
//! **Invariant:** money is integer nano-USD until it is printed, exactly. Usage that no provider reported and calls without a price are
//! counted in every line that contains them.

mod csv;
mod period;
mod query;
mod table;
#[cfg(test)]
mod tests;
mod totals;

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::ser::{SerializeMap, SerializeSeq, Serializer as _};

use crate::ledger::Dimension;
use crate::table::Page;

pub(crate) use csv::{cell, record};
pub use period::instant;
pub use query::report;
pub use totals::ReportTotals;

/// What lines are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A text of the records. For the model: the one asked for; where none was, the one that answered.
    Dimension(Dimension),
    /// Kubernetes namespace of the caller.
    Namespace,
    /// Kubernetes service account of the caller.
    ServiceAccount,
    /// HTTP status that the caller got.
    Status,
    /// Hour on the wall clock, with its offset from UTC.
    Hour,
    /// Day on the wall clock.
    Day,
    /// Month on the wall clock.
    Month,
}

/// Not the name of a dimension.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no dimension; there are: {names}", names = By::names())]
pub struct ByError(String);

impl By {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let others =
            [Self::Namespace, Self::ServiceAccount, Self::Status, Self::Hour, Self::Day, Self::Month];
        Dimension::ALL.map(Self::Dimension).into_iter().chain(others)
    }

    /// The names of all, for people.
    pub fn names() -> String {
        Self::all().map(Self::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Whether lines are told apart by when it was.
    const fn is_time(self) -> bool {
        matches!(self, Self::Hour | Self::Day | Self::Month)
    }

    /// The name on the command line and in the heading.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dimension(dimension) => dimension.as_str(),
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::Status => "status",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl std::str::FromStr for By {
    type Err = ByError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::all().find(|by| by.as_str() == text.trim());
        named.ok_or_else(|| ByError(text.to_owned()))
    }
}

/// What is asked of the ledger.
#[derive(Debug, Clone)]
pub struct Query {
    /// What lines are told apart by, in this order; none gives one line.
    pub by: Vec<By>,
    /// From this minute on.
    pub since: Timestamp,
    /// Up to this instant, which is outside.
    pub until: Timestamp,
    /// Whose hours, days and months.
    pub timezone: TimeZone,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportLine {
    /// One value for each dimension asked for; empty where there is none.
    pub keys: Vec<String>,
    /// The sums.
    pub totals: ReportTotals,
}

/// A report: lines in the order of time where they are told apart by it, else and then by descending cost.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked.
    pub query: Query,
    /// The lines.
    pub lines: Vec<ReportLine>,
    /// Their sum.
    pub total: ReportTotals,
}

impl Report {
    /// For people: aligned, with thousands separators, a line of totals, and what is estimated or unpriced said below. Columns in which
    /// there is nothing are left out.
    pub(crate) fn write_table(&self, out: &mut impl Write, page: Page) -> io::Result<()> {
        table::write(self, out, page)
    }

    /// For spreadsheets: RFC 4180 with a heading, no line of totals, money in USD. Text that a spreadsheet would take for a formula
    /// begins with `'`.
    pub fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        csv::write(self, out)
    }

    /// For programs: an array with one object for each line. Money stands there twice: as an integer of nano-USD and as a decimal
    /// string of USD.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let mut json = serde_json::Serializer::pretty(&mut *out);
        let mut lines = json.serialize_seq(Some(self.lines.len()))?;
        for line in &self.lines {
            lines.serialize_element(&JsonLine { by: &self.query.by, line })?;
        }
        SerializeSeq::end(lines)?;
        out.write_all(b"\n")
    }
}

struct JsonLine<'a> {
    by: &'a [By],
    line: &'a ReportLine,
}

impl serde::Serialize for JsonLine<'_> {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        for (by, key) in self.by.iter().zip(&self.line.keys) {
            map.serialize_entry(by.as_str(), key)?;
        }
        for (name, value) in self.line.totals.columns() {
            match name {
                "cost" | "estimated_cost" => {
                    map.serialize_entry(&format!("{name}_nano_usd"), &value)?;
                    map.serialize_entry(&format!("{name}_usd"), &usd(value, 0))?;
                }
                name => map.serialize_entry(name, &value)?,
            }
        }
        map.end()
    }
}

/// Nano-USD as decimal USD, exactly, with at least `decimals` digits behind the point.
pub(crate) fn usd(nanos: i128, decimals: usize) -> String {
    const PER_USD: u128 = 1_000_000_000;
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = format!("{:09}", nanos % PER_USD);
    let kept = fraction.trim_end_matches('0').len().max(decimals.min(9));
    let point = if kept == 0 { "" } else { "." };
    format!("{sign}{}{point}{}", nanos / PER_USD, &fraction[..kept])
}
