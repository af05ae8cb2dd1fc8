//! `tollgate budget ls`: from the running gateway, or else from the resources and what the ledger has recorded.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anstyle::Style;
use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::Policy;

use super::outcome::shown;
use super::split::{self, SplitBy};
use crate::app;
use crate::budgets::{self, BudgetListing};
use crate::cli::admin;
use crate::cli::check::Subject;
use crate::cli::report::LedgerLocation;
use crate::cli::{complain, output};
use crate::ledger;
use crate::quota::{LimitUsage, Quota};
use crate::settings::Settings;
use crate::table::{Column, Cut, Page, Table, YELLOW, visible};

/// From here on a share of a budget is tinted.
const MUCH: f64 = 80.0;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate budget ls --format json
  tollgate budget ls team --by caller        # who spent how much of it since its windows began")]
pub(super) struct LsArgs {
    /// This Budget alone
    #[arg(value_name = "NAME")]
    budget: Option<ResourceId>,
    /// Show instead who spent how much of it since its windows began, from the records of the ledger
    #[arg(long, value_enum, requires = "budget", value_name = "WHAT")]
    by: Option<SplitBy>,
    /// Settings of the process; tollgate.yaml unless given
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Where the gateway's admin port listens, where the settings leave the port to the system
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: an array of objects
    Json,
}

pub(super) fn run(args: &LsArgs) -> anyhow::Result<()> {
    let mut listed = listed(args)?;
    if let Some(budget) = &args.budget {
        listed.retain(|line| line.budget == budget.as_str());
        if listed.is_empty() {
            bail!("there is no Budget {budget}");
        }
    }
    if let Some(by) = args.by {
        let shares = split::shares(&listed, by, &LedgerLocation::of_settings(args.config.clone()))?;
        return output::print("the shares", |out| match args.format {
            Format::Table => split::write_table(&shares, out, Page::stdout()),
            Format::Json => output::json(&shares, out),
        });
    }
    output::print("the list", |out| match args.format {
        Format::Table => write_table(&listed, out, Page::stdout()),
        Format::Json => output::json(&listed, out),
    })
}

fn listed(args: &LsArgs) -> anyhow::Result<Vec<BudgetListing>> {
    let (settings, subject) = Subject::of_settings(args.config.clone())?;
    let address = args.admin.unwrap_or(settings.admin.address);
    if let Some(body) = admin::get(address, &settings.admin.token_file, "/debug/budgets")? {
        return serde_json::from_slice(&body)
            .with_context(|| format!("the gateway at {address} is of another version"));
    }
    let chosen = if address.port() == 0 { ", whose port the system chose (--admin names it)" } else { "" };
    let (snapshot, _) =
        subject.build(&subject.read()?).map_err(|problems| anyhow!("{}", app::lines(&problems)))?;
    let now = Timestamp::now();
    let usage = recorded(&settings, &snapshot.policy, now)?;
    let said = match (&usage, &settings.limits.redis) {
        (None, _) => "this is what the resources alone say, because there is no ledger here",
        (Some(_), None) => "what is spent is as of the last record",
        (Some(_), Some(_)) => "what is spent is as of the last record, and of this replica alone",
    };
    complain(&format!("note: no gateway answers at {address}{chosen}; {said}"));
    Ok(budgets::of(&snapshot.policy, usage.as_deref(), now))
}

/// What the ledger of the settings says was spent; `None` where there is none.
fn recorded(settings: &Settings, policy: &Policy, now: Timestamp) -> anyhow::Result<Option<Vec<LimitUsage>>> {
    let data_dir = &settings.data_dir;
    let failed = || format!("the ledger in {}", data_dir.display());
    ledger::catch_up(data_dir).with_context(failed)?;
    let Some(charges) = ledger::recorded_balances(data_dir).with_context(failed)? else { return Ok(None) };
    let quota = Quota::new();
    quota.restore(charges, policy);
    Ok(Some(quota.usage(now)))
}

const COLUMNS: [Column; 11] = [
    Column::text("budget", Cut::End),
    Column::text("parent", Cut::End).spare(5),
    Column::text("limit", Cut::End),
    Column::text("key", Cut::End),
    Column::text("amount", Cut::Never),
    Column::text("spent", Cut::Never),
    Column::text("held", Cut::Never).spare(3),
    Column::text("left", Cut::Never),
    Column::text("used", Cut::Never).tinted(tint),
    Column::text("forecast", Cut::Never).spare(2),
    Column::text("resets", Cut::Never).spare(4),
];

fn tint(used: &str) -> Option<Style> {
    let percent: Option<f64> = used.strip_suffix(" %").and_then(|number| number.parse().ok());
    percent.is_some_and(|percent| percent >= MUCH).then_some(YELLOW)
}

fn write_table(listed: &[BudgetListing], out: &mut impl Write, page: Page) -> io::Result<()> {
    if listed.is_empty() {
        return writeln!(out, "No budgets.");
    }
    let mut table = Table::new(COLUMNS);
    listed.iter().for_each(|line| table.row(row(line)));
    table.write(out, page).map(drop)
}

fn row(line: &BudgetListing) -> Vec<String> {
    let none = || "-".to_owned();
    let amount = |amount: Option<u64>| amount.map_or_else(none, |amount| shown(&line.unit, amount));
    let raised = line.raised_until.map(|until| format!(" (raised until {until:.0})")).unwrap_or_default();
    vec![
        visible(&line.budget),
        line.parent.as_deref().map_or_else(none, visible),
        visible(line.limit.strip_prefix(&format!("budget/{}/", line.budget)).unwrap_or(&line.limit)),
        if line.key.is_empty() { none() } else { visible(&line.key) },
        format!("{}{raised}", shown(&line.unit, line.amount)),
        amount(line.spent),
        amount(line.held),
        amount(line.left),
        line.percent.map_or_else(none, |percent| format!("{percent} %")),
        amount(line.forecast),
        line.resets.map_or_else(none, |resets| format!("{resets:.0}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_left_and_where_it_leads() {
        let line = BudgetListing {
            budget: "team".into(),
            parent: Some("organisation".into()),
            limit: "budget/team/spend/month/shared".into(),
            unit: "nano-usd".into(),
            amount: 5_000_000_000,
            spent: Some(4_000_000_000),
            held: Some(500_000_000),
            left: Some(500_000_000),
            percent: Some(90.0),
            forecast: Some(8_000_000_000),
            resets: Some("2026-08-01T00:00:00Z".parse().unwrap()),
            ..BudgetListing::default()
        };
        let cells = row(&line).join("|");
        assert_eq!(
            cells,
            "team|organisation|spend/month/shared|-|5 USD|4 USD|0.5 USD|0.5 USD|90 %|8 USD|2026-08-01T00:00:00Z"
        );
        assert!(tint("90 %").is_some() && tint("79.9 %").is_none() && tint("-").is_none());
        let unknown = BudgetListing {
            budget: "team".into(),
            unit: "tokens".into(),
            amount: 7,
            ..BudgetListing::default()
        };
        assert_eq!(row(&unknown).join("|"), "team|-|-|-|7|-|-|-|-|-|-");
    }
}
