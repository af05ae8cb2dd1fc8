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

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::ser::{SerializeMap, SerializeSeq, Serializer as _};

use crate::table::Page;

pub(crate) use csv::{cell, record};
pub use period::instant;
pub use query::report;

/// What lines are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// The identity, in its text.
    Caller,
    /// Kubernetes namespace of the caller.
    Namespace,
    /// Kubernetes service account of the caller.
    ServiceAccount,
    /// Name of the destination.
    Destination,
    /// Host called.
    Host,
    /// Name of the grant that decided.
    Grant,
    /// Name of the credential that was put on the call.
    Credential,
    /// Which of the credential's keys, where it has several.
    Alias,
    /// Model asked for; where none was, the one that answered.
    Model,
    /// Model that answered.
    ModelAnswered,
    /// How the provider says it served the call: its service tier, and what else it charges by.
    Tier,
    /// Hour on the wall clock, with its offset from UTC.
    Hour,
    /// Day on the wall clock.
    Day,
    /// Month on the wall clock.
    Month,
    /// Why Tollgate refused or broke off.
    Reason,
    /// HTTP status that the caller got.
    Status,
    /// Local address that the call left from.
    Source,
    /// How the call ended.
    Outcome,
    /// Where its usage comes from.
    UsageSource,
}

/// Not the name of a dimension.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no dimension; there are: {names}", names = Dimension::ALL.map(Dimension::as_str).join(", "))]
pub struct DimensionError(String);

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Caller,
        Self::Namespace,
        Self::ServiceAccount,
        Self::Destination,
        Self::Host,
        Self::Grant,
        Self::Credential,
        Self::Alias,
        Self::Model,
        Self::ModelAnswered,
        Self::Tier,
        Self::Hour,
        Self::Day,
        Self::Month,
        Self::Reason,
        Self::Status,
        Self::Source,
        Self::Outcome,
        Self::UsageSource,
    ];

    /// Whether lines are told apart by when it was.
    const fn is_time(self) -> bool {
        matches!(self, Self::Hour | Self::Day | Self::Month)
    }

    /// The name on the command line and in the heading.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::Destination => "destination",
            Self::Host => "host",
            Self::Grant => "grant",
            Self::Credential => "credential",
            Self::Alias => "alias",
            Self::Model => "model",
            Self::ModelAnswered => "model_answered",
            Self::Tier => "tier",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Reason => "reason",
            Self::Status => "status",
            Self::Source => "source",
            Self::Outcome => "outcome",
            Self::UsageSource => "usage_source",
        }
    }
}

impl std::str::FromStr for Dimension {
    type Err = DimensionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|dimension| dimension.as_str() == text.trim());
        named.ok_or_else(|| DimensionError(text.to_owned()))
    }
}

/// What is asked of the ledger.
#[derive(Debug, Clone)]
pub struct Query {
    /// What lines are told apart by, in this order; none gives one line.
    pub by: Vec<Dimension>,
    /// From this minute on.
    pub since: Timestamp,
    /// Up to this instant, which is outside.
    pub until: Timestamp,
    /// Whose hours, days and months.
    pub timezone: TimeZone,
}

/// Sums of one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// All requests, those that were refused included.
    pub requests: i128,
    /// Requests that Tollgate let through and that were answered, other than with an error.
    pub calls: i128,
    /// Requests that it let through and that came to nothing: the provider answered with an error (a status of 400 or more), or not
    /// at all.
    pub failed: i128,
    /// Requests that it refused.
    pub refused: i128,
    /// Tokens read that came neither from nor into a cache.
    pub input: i128,
    /// Tokens read from a cache.
    pub cache_read: i128,
    /// Tokens written to a cache.
    pub cache_write: i128,
    /// Tokens written, without those of `reasoning`.
    pub output: i128,
    /// Tokens of reasoning, where the provider tells them apart.
    pub reasoning: i128,
    /// Tokens of audio and images, read or written.
    pub media: i128,
    /// Searches that providers ran, of the web and of files.
    pub searches: i128,
    /// Containers that providers started to run code in.
    pub sessions: i128,
    /// Images made.
    pub images: i128,
    /// Seconds of sound that were heard.
    pub seconds: i128,
    /// Characters of text that were spoken.
    pub characters: i128,
    /// Body bytes from callers.
    pub bytes_in: i128,
    /// Body bytes to callers.
    pub bytes_out: i128,
    /// Nano-USD.
    pub cost: i128,
    /// Calls whose usage the provider did not report: estimated, or presumed after a crash.
    pub estimated: i128,
    /// Nano-USD of `cost` that those calls make up.
    pub estimated_cost: i128,
    /// Calls that cost something and have no price: they are not in `cost`.
    pub unpriced: i128,
    /// Corrections of earlier calls that are in the other sums.
    pub adjustments: i128,
}

impl Totals {
    /// Requests that Tollgate let through.
    pub const fn sent(&self) -> i128 {
        self.calls.saturating_add(self.failed)
    }

    /// Adds another line's sums.
    pub fn add(&mut self, other: &Self) {
        for ((_, sum), (_, part)) in self.slots().into_iter().zip(other.columns()) {
            *sum = sum.saturating_add(part);
        }
    }

    /// Name and value of each, in the order of CSV and JSON. The two amounts of money are in nano-USD.
    pub fn columns(&self) -> [(&'static str, i128); 22] {
        let mut copy = *self;
        copy.slots().map(|(name, value)| (name, *value))
    }

    fn slots(&mut self) -> [(&'static str, &mut i128); 22] {
        [
            ("requests", &mut self.requests),
            ("calls", &mut self.calls),
            ("failed", &mut self.failed),
            ("refused", &mut self.refused),
            ("input", &mut self.input),
            ("cache_read", &mut self.cache_read),
            ("cache_write", &mut self.cache_write),
            ("output", &mut self.output),
            ("reasoning", &mut self.reasoning),
            ("media", &mut self.media),
            ("searches", &mut self.searches),
            ("sessions", &mut self.sessions),
            ("images", &mut self.images),
            ("seconds", &mut self.seconds),
            ("characters", &mut self.characters),
            ("bytes_in", &mut self.bytes_in),
            ("bytes_out", &mut self.bytes_out),
            ("cost", &mut self.cost),
            ("estimated", &mut self.estimated),
            ("estimated_cost", &mut self.estimated_cost),
            ("unpriced", &mut self.unpriced),
            ("adjustments", &mut self.adjustments),
        ]
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportLine {
    /// One value for each dimension asked for; empty where there is none.
    pub keys: Vec<String>,
    /// The sums.
    pub totals: Totals,
}

/// A report: lines in the order of time where they are told apart by it, else and then by descending cost.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked.
    pub query: Query,
    /// The lines.
    pub lines: Vec<ReportLine>,
    /// Their sum.
    pub total: Totals,
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
    by: &'a [Dimension],
    line: &'a ReportLine,
}

impl serde::Serialize for JsonLine<'_> {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        for (dimension, key) in self.by.iter().zip(&self.line.keys) {
            map.serialize_entry(dimension.as_str(), key)?;
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
