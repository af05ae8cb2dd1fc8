//! `tollgate budget ls NAME --by …`: who spent what of one budget in its windows, from the records of the ledger.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use tollgate_policy::caller::Identity;

use super::outcome::shown;
use crate::budgets::BudgetListing;
use crate::cli::complain;
use crate::cli::report::LedgerLocation;
use crate::ledger::{self, ChargedKey, ChargedSum, ChargedSums, ChargedWindow, Dimension, SharedReader};
use crate::slow_notice;
use crate::table::{Column, Cut, Page, Table, visible};

/// What the spending of a budget is told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SplitBy {
    /// Who called
    Caller,
    /// The Kubernetes namespace of the caller
    Namespace,
    /// The destination
    Destination,
    /// The model that was asked for
    Model,
}

/// What was charged to one limit of a budget, for one key, by those that a line is for.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct SpentShare {
    budget: String,
    limit: String,
    key: String,
    /// Whom or what it is for; empty where calls have no such thing.
    by: String,
    unit: String,
    /// Since the window began.
    spent: i64,
    /// Of what all spent for this limit and key.
    percent: f64,
    calls: i64,
}

impl SplitBy {
    const fn dimension(self) -> Dimension {
        match self {
            Self::Caller | Self::Namespace => Dimension::Caller,
            Self::Destination => Dimension::Destination,
            Self::Model => Dimension::Model,
        }
    }

    fn text(self, text: &str) -> String {
        match self {
            Self::Namespace => {
                let id = text.parse::<Identity>().ok();
                id.as_ref().and_then(Identity::namespace).unwrap_or_default().to_owned()
            }
            Self::Caller | Self::Destination | Self::Model => text.to_owned(),
        }
    }
}

/// The shares of the budget that these lines are of.
pub(super) fn shares(
    listed: &[BudgetListing],
    by: SplitBy,
    location: &LedgerLocation,
) -> anyhow::Result<Vec<SpentShare>> {
    let mut windows: BTreeMap<&str, ChargedWindow> = BTreeMap::new();
    for line in listed {
        let Some(since) = line.since else { continue };
        windows.insert(&line.limit, ChargedWindow { limit: line.limit.as_str().into(), since });
    }
    if windows.is_empty() {
        bail!("this budget has no limit over a window: rates and concurrency are not spent");
    }
    let windows: Vec<ChargedWindow> = windows.into_values().collect();
    let (data_dir, shared) = (location.data_dir()?, location.shared()?);
    let sums = slow_notice::with("still reading the records", complain, || match &shared {
        Some(server) => SharedReader::open(server)?.charged(&windows, by.dimension()),
        None => {
            ledger::written(&data_dir);
            ledger::charged(&data_dir, &windows, by.dimension())
        }
    });
    Ok(told(listed, by, &sums.context("the records of the ledger")?))
}

/// The largest share of each limit and key first.
fn told(listed: &[BudgetListing], by: SplitBy, sums: &ChargedSums) -> Vec<SpentShare> {
    let mut merged: BTreeMap<(&str, &str), BTreeMap<String, ChargedSum>> = BTreeMap::new();
    for (ChargedKey { limit, key, text }, sum) in sums {
        merged.entry((limit, key)).or_default().entry(by.text(text)).or_default().add(*sum);
    }
    let mut shares = Vec::new();
    for ((limit, key), parts) in merged {
        let Some(line) = listed.iter().find(|line| line.limit == limit) else { continue };
        let all: i64 = parts.values().fold(0, |sum, part| sum.saturating_add(part.amount));
        let mut parts: Vec<(String, ChargedSum)> = parts.into_iter().collect();
        parts.sort_by(|(one, a), (other, b)| (b.amount, one).cmp(&(a.amount, other)));
        shares.extend(parts.into_iter().map(|(text, part)| SpentShare {
            budget: line.budget.clone(),
            limit: limit.to_owned(),
            key: key.to_owned(),
            by: text,
            unit: line.unit.clone(),
            spent: part.amount,
            percent: if all > 0 { (part.amount as f64 / all as f64 * 1_000.0).round() / 10.0 } else { 0.0 },
            calls: part.calls,
        }));
    }
    shares
}

pub(super) fn write_table(shares: &[SpentShare], out: &mut impl Write, page: Page) -> io::Result<()> {
    if shares.is_empty() {
        return writeln!(out, "Nothing is spent.");
    }
    let mut table = Table::new([
        Column::text("limit", Cut::End),
        Column::text("key", Cut::End),
        Column::text("by", Cut::End),
        Column::text("spent", Cut::Never),
        Column::text("share", Cut::Never),
        Column::number("calls"),
    ]);
    for share in shares {
        let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { visible(text) };
        table.row(vec![
            visible(share.limit.strip_prefix(&format!("budget/{}/", share.budget)).unwrap_or(&share.limit)),
            or_none(&share.key),
            or_none(&share.by),
            shown(&share.unit, u64::try_from(share.spent).unwrap_or_default()),
            format!("{} %", share.percent),
            share.calls.to_string(),
        ]);
    }
    table.write(out, page).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_of_a_namespace_are_one_line_and_the_largest_is_first() {
        let listed = [BudgetListing {
            budget: "team".into(),
            limit: "budget/team/tokens/day/shared".into(),
            unit: "tokens".into(),
            ..BudgetListing::default()
        }];
        let key = |text: &str| ChargedKey {
            limit: "budget/team/tokens/day/shared".into(),
            key: "".into(),
            text: text.into(),
        };
        let sum = |amount, calls| ChargedSum { amount, calls };
        let sums = ChargedSums::from([
            (key("spiffe://prod.acme/ns/shop/sa/web"), sum(30, 1)),
            (key("spiffe://prod.acme/ns/shop/sa/api"), sum(30, 2)),
            (key("spiffe://prod.acme/ns/search/sa/web"), sum(20, 1)),
            (key("jwt:https://ci.example#x"), sum(0, 1)),
        ]);
        let said = |by| {
            let shares = told(&listed, by, &sums).into_iter();
            shares.map(|share| (share.by, share.spent, share.percent, share.calls)).collect::<Vec<_>>()
        };
        assert_eq!(
            said(SplitBy::Namespace),
            [("shop".into(), 60, 75.0, 3), ("search".into(), 20, 25.0, 1), (String::new(), 0, 0.0, 1)]
        );
        assert_eq!(said(SplitBy::Caller)[0].0, "spiffe://prod.acme/ns/shop/sa/api", "of two alike by name");
        let mut table = Vec::new();
        let plain = Page { width: None, colour: false };
        write_table(&told(&listed, SplitBy::Namespace, &sums), &mut table, plain).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(table.contains("tokens/day/shared") && table.contains("75 %"), "{table}");
    }
}
