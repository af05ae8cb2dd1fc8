//! A report as a table for a terminal.

use std::io::{self, Write};

use jiff::Timestamp;

use super::{By, Report, ReportTotals, usd};
use crate::ledger::Dimension;
use crate::table::{Column, Cut, Page, Table, counted, grouped, visible};

/// A sum of a line.
struct Sum {
    column: Column,
    value: i128,
    /// Shown whatever is in it; all others only where there is anything.
    always: bool,
    is_money: bool,
}

/// The sums of a line, in the order of their columns.
fn sums(totals: &ReportTotals) -> Vec<Sum> {
    let sum = |column, value| Sum { column, value, always: false, is_money: false };
    let mut sums = vec![
        Sum { always: true, ..sum(Column::number("calls"), totals.calls) },
        sum(Column::number("failed"), totals.failed),
        sum(Column::number("refused"), totals.refused),
    ];
    sums.extend(totals.usage.columns().into_iter().map(|(name, amount)| sum(used(name), amount)));
    sums.push(Sum { always: true, is_money: true, ..sum(Column::number("cost USD"), totals.cost) });
    sums.push(sum(Column::number("estimated").spare(5), totals.estimated));
    sums.push(sum(Column::number("unpriced").spare(6), totals.unpriced));
    sums.push(sum(Column::number("adjustments").spare(7), totals.adjustments));
    sums
}

/// A column of usage.
fn used(name: &'static str) -> Column {
    match name {
        "input" | "output" => Column::number(name),
        "cache_read" => Column::number("cache read").spare(3),
        "cache_write" => Column::number("cache write").spare(4),
        "reasoning" => Column::number(name).spare(2),
        _ => Column::number(name).spare(1),
    }
}

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
    let mut shown: Vec<bool> = sums(&report.total).iter().map(|sum| sum.always).collect();
    for line in &report.lines {
        shown.iter_mut().zip(sums(&line.totals)).for_each(|(shown, sum)| *shown |= sum.value != 0);
    }
    let shown = |totals: &ReportTotals| {
        sums(totals)
            .into_iter()
            .zip(&shown)
            .filter(|(_, shown)| **shown)
            .map(|(sum, _)| sum)
            .collect::<Vec<_>>()
    };
    let decimals = report.lines.iter().map(|line| decimals(line.totals.cost)).fold(2, usize::max);
    let text = |sum: Sum| if sum.is_money { usd(sum.value, decimals) } else { sum.value.to_string() };
    let numbers =
        |totals: &ReportTotals| shown(totals).into_iter().map(|sum| grouped(&text(sum))).collect::<Vec<_>>();
    let by = report.query.by.iter().map(|by| Column::text(by.as_str(), cut(*by)));
    let columns: Vec<Column> = by.chain(shown(&report.total).into_iter().map(|sum| sum.column)).collect();
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
const fn cut(by: By) -> Cut {
    match by {
        By::Hour | By::Day | By::Month | By::Status => Cut::Never,
        By::Dimension(Dimension::Caller) => Cut::Start,
        _ => Cut::End,
    }
}

fn notes(total: &ReportTotals, out: &mut impl Write) -> io::Result<()> {
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
