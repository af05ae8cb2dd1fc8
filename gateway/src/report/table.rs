//! A report as a table for a terminal.

use std::io::{self, Write};

use jiff::Timestamp;

use super::{Dimension, Report, Totals, usd};
use crate::table::{Column, Cut, Page, Table, counted, grouped, visible};

/// A column of numbers, and what stands in it.
type Sum = (Column, fn(&Totals) -> i128);

/// Shown whatever is in it.
const CALLS: Sum = (Column::number("calls"), |totals| totals.calls);
/// Shown only where there is anything, like those behind the cost.
const BEFORE_COST: [Sum; 13] = [
    (Column::number("failed"), |totals| totals.failed),
    (Column::number("refused"), |totals| totals.refused),
    (Column::number("input"), |totals| totals.input),
    (Column::number("cache read").spare(3), |totals| totals.cache_read),
    (Column::number("cache write").spare(4), |totals| totals.cache_write),
    (Column::number("output"), |totals| totals.output),
    (Column::number("reasoning").spare(2), |totals| totals.reasoning),
    (Column::number("media").spare(1), |totals| totals.media),
    (Column::number("searches").spare(1), |totals| totals.searches),
    (Column::number("sessions").spare(1), |totals| totals.sessions),
    (Column::number("images").spare(1), |totals| totals.images),
    (Column::number("seconds").spare(1), |totals| totals.seconds),
    (Column::number("characters").spare(1), |totals| totals.characters),
];
const AFTER_COST: [Sum; 3] = [
    (Column::number("estimated").spare(5), |totals| totals.estimated),
    (Column::number("unpriced").spare(6), |totals| totals.unpriced),
    (Column::number("adjustments").spare(7), |totals| totals.adjustments),
];

pub(super) fn write(report: &Report, out: &mut impl Write, page: Page) -> io::Result<()> {
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
    // A line may have what the sum of all has not: a correction takes from one day what it adds to another.
    let shown = |(_, value): &Sum| report.lines.iter().any(|line| value(&line.totals) != 0);
    let before: Vec<Sum> = std::iter::once(CALLS).chain(BEFORE_COST.into_iter().filter(shown)).collect();
    let after: Vec<Sum> = AFTER_COST.into_iter().filter(shown).collect();
    let decimals = report.lines.iter().map(|line| decimals(line.totals.cost)).fold(2, usize::max);
    let numbers = |totals: &Totals| {
        let cost = grouped(&usd(totals.cost, decimals));
        let count = |(_, value): &Sum| grouped(&value(totals).to_string());
        before.iter().map(count).chain([cost]).chain(after.iter().map(count)).collect::<Vec<_>>()
    };
    let mut columns: Vec<Column> =
        report.query.by.iter().map(|by| Column::text(by.as_str(), cut(*by))).collect();
    columns.extend(before.iter().map(|(column, _)| *column));
    columns.push(Column::number("cost USD"));
    columns.extend(after.iter().map(|(column, _)| *column));
    let mut table = Table::new(columns);
    for line in &report.lines {
        table.row(line.keys.iter().map(|key| visible(key)).chain(numbers(&line.totals)).collect());
    }
    if !report.query.by.is_empty() {
        let blank = report.query.by.iter().skip(1).map(|_| String::new());
        table.total(std::iter::once("total".to_owned()).chain(blank).chain(numbers(&report.total)).collect());
    }
    let left_out = table.write(out, page)?;
    if !left_out.is_empty() {
        writeln!(out, "No room for: {}. A wider terminal or --format csv has them.", left_out.join(", "))?;
    }
    notes(&report.total, out)
}

/// Where a text gives way on a narrow page.
const fn cut(by: Dimension) -> Cut {
    match by {
        Dimension::Hour | Dimension::Day | Dimension::Month | Dimension::Status => Cut::Never,
        Dimension::Caller => Cut::Start,
        _ => Cut::End,
    }
}

fn notes(total: &Totals, out: &mut impl Write) -> io::Result<()> {
    let of_all = |part: i128| {
        let sent = usize::try_from(total.sent()).unwrap_or_default();
        (grouped(&part.to_string()), counted(sent, "call"))
    };
    // Below zero where calls of an earlier period were corrected in this one.
    if total.estimated > 0 {
        let (estimated, calls) = of_all(total.estimated);
        let cost = grouped(&usd(total.estimated_cost, 2));
        writeln!(
            out,
            "Usage of {estimated} of {calls} was not reported by the provider: {cost} USD of the cost is estimated."
        )?;
    }
    if total.unpriced > 0 {
        let (unpriced, calls) = of_all(total.unpriced);
        let have = if total.unpriced == 1 { "has" } else { "have" };
        writeln!(out, "{unpriced} of {calls} {have} no price: what that cost is not in these sums.")?;
    }
    if total.adjustments != 0 {
        let count = usize::try_from(total.adjustments).unwrap_or_default();
        let are = if count == 1 { "is" } else { "are" };
        writeln!(out, "{} of earlier calls {are} in these sums.", counted(count, "correction"))?;
    }
    Ok(())
}

/// Digits behind the point that an amount needs.
fn decimals(nanos: i128) -> usize {
    let text = usd(nanos, 0);
    text.find('.').map_or(0, |point| text.len() - point - 1)
}
