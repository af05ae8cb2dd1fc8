//! A report as a table for a terminal.

use std::io::{self, Write};

use jiff::Timestamp;

use super::{Report, Totals, usd};
use crate::ledger::record::shows;

/// A column of numbers: its heading, and what stands in it.
type Column = (&'static str, fn(&Totals) -> i128);

const BEFORE_COST: [Column; 7] = [
    ("calls", |totals| totals.calls),
    ("refused", |totals| totals.refused),
    ("input", |totals| totals.input),
    ("cache read", |totals| totals.cache_read),
    ("cache write", |totals| totals.cache_write),
    ("output", |totals| totals.output),
    ("reasoning", |totals| totals.reasoning),
];
const AFTER_COST: [Column; 2] =
    [("estimated", |totals| totals.estimated), ("unpriced", |totals| totals.unpriced)];
/// Shown only where there is anything.
const SELDOM: [Column; 6] = [
    ("media", |totals| totals.media),
    ("searches", |totals| totals.searches),
    ("sessions", |totals| totals.sessions),
    ("images", |totals| totals.images),
    ("seconds", |totals| totals.seconds),
    ("characters", |totals| totals.characters),
];
const ADJUSTMENTS: Column = ("adjustments", |totals| totals.adjustments);

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let at = |instant: Timestamp| {
        instant.to_zoned(report.query.timezone.clone()).strftime("%Y-%m-%d %H:%M %:z").to_string()
    };
    let until = at(report.query.until);
    if report.query.since == Timestamp::UNIX_EPOCH {
        writeln!(out, "Everything up to {until}")?;
    } else {
        writeln!(out, "From {} to {until}", at(report.query.since))?;
    }
    if report.lines.is_empty() {
        return writeln!(out, "No calls.");
    }
    let shown = |column: Column| Some(column).filter(|(_, value)| value(&report.total) != 0);
    let before: Vec<Column> = BEFORE_COST.into_iter().chain(SELDOM.into_iter().filter_map(shown)).collect();
    let after: Vec<Column> = AFTER_COST.into_iter().chain(shown(ADJUSTMENTS)).collect();
    let texts = report.query.by.len();
    let decimals = report.lines.iter().map(|line| decimals(line.totals.cost)).fold(2, usize::max);
    let numbers = |totals: &Totals| {
        let cost = grouped(&usd(totals.cost, decimals));
        let count = |(_, value): &Column| grouped(&value(totals).to_string());
        before.iter().map(count).chain([cost]).chain(after.iter().map(count)).collect::<Vec<_>>()
    };
    let heading = report.query.by.iter().map(|by| by.as_str());
    let heading = heading
        .chain(before.iter().map(|column| column.0))
        .chain(["cost USD"])
        .chain(after.iter().map(|column| column.0));
    let mut rows: Vec<Vec<String>> = vec![heading.map(str::to_owned).collect()];
    for line in &report.lines {
        rows.push(line.keys.iter().map(|key| visible(key)).chain(numbers(&line.totals)).collect());
    }
    let blank = (1..texts).map(|_| String::new());
    let total: Vec<String> = (texts > 0)
        .then(|| "total".to_owned())
        .into_iter()
        .chain(blank)
        .chain(numbers(&report.total))
        .collect();
    let widths = widths(rows.iter().chain([&total]));
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("  ");
    for (index, row) in rows.iter().enumerate() {
        write_row(out, row, &widths, texts)?;
        if index == 0 {
            writeln!(out, "{rule}")?;
        }
    }
    if texts > 0 {
        writeln!(out, "{rule}")?;
        write_row(out, &total, &widths, texts)?;
    }
    notes(&report.total, out)
}

fn notes(total: &Totals, out: &mut impl Write) -> io::Result<()> {
    let calls = grouped(&total.calls.to_string());
    // Below zero where calls of an earlier period were corrected in this one.
    if total.estimated > 0 {
        let (estimated, cost) =
            (grouped(&total.estimated.to_string()), grouped(&usd(total.estimated_cost, 2)));
        writeln!(
            out,
            "Usage of {estimated} of {calls} calls was not reported by the provider: {cost} USD of the cost is estimated."
        )?;
    }
    if total.unpriced > 0 {
        let unpriced = grouped(&total.unpriced.to_string());
        writeln!(out, "{unpriced} of {calls} calls have no price: what they cost is not in these sums.")?;
    }
    if total.adjustments != 0 {
        writeln!(
            out,
            "{} corrections of earlier calls are in these sums.",
            grouped(&total.adjustments.to_string())
        )?;
    }
    Ok(())
}

pub(crate) fn widths<'a>(rows: impl Iterator<Item = &'a Vec<String>>) -> Vec<usize> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

/// Text to the left, numbers to the right.
pub(crate) fn write_row(
    out: &mut impl Write,
    row: &[String],
    widths: &[usize],
    texts: usize,
) -> io::Result<()> {
    let cells = row.iter().zip(widths).enumerate().map(|(index, (cell, width))| {
        if index < texts { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    let line = cells.collect::<Vec<_>>().join("  ");
    writeln!(out, "{}", line.trim_end())
}

/// Text that cannot act on the terminal. Records are clean when they are written; a store that somebody else wrote need not be.
pub(crate) fn visible(text: &str) -> String {
    let text: String = text.chars().filter(|char| shows(*char)).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Thousands separated by commas before the point.
fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = String::with_capacity(number.len() + digits.len() / 3);
    text.push_str(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

/// Digits behind the point that an amount needs.
fn decimals(nanos: i128) -> usize {
    let text = usd(nanos, 0);
    text.find('.').map_or(0, |point| text.len() - point - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_before_the_point_only() {
        for (number, text) in
            [("0", "0"), ("999", "999"), ("1000", "1,000"), ("-1234567.0123", "-1,234,567.0123")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn terminal_escapes_do_not_reach_the_terminal() {
        assert_eq!(visible("\x1b[2Jx\u{202e}y\r\n"), "[2Jxy");
        assert_eq!(visible("\x07"), "-");
    }
}
