//! `tollgate ledger list`: calls, and the ids that corrections name.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::cli::report::LedgerLocation;
use crate::cli::{complain, output};
use crate::ledger::{Call, UsageSource, list, written};
use crate::report::{instant, usd};
use crate::slow_notice;
use crate::table::{Column, Cut, Page, Table, visible};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate ledger list --presumed --since 30d    # what a crash left to settle

`tollgate calls` shows all that is known of calls.")]
pub(super) struct ListArgs {
    /// Only calls whose usage was estimated and not corrected since
    #[arg(long)]
    estimated: bool,
    /// Only calls whose usage was presumed after a crash and not corrected since
    #[arg(long)]
    presumed: bool,
    /// From when on: a date, a time (UTC unless it says), or how long ago (24h, 7d)
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: String,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    location: LedgerLocation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: an array of objects
    Json,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let since = instant(&args.since, &TimeZone::UTC, Timestamp::now()).context("--since")?;
    let asked = [(args.estimated, UsageSource::Estimated), (args.presumed, UsageSource::Presumed)];
    let sources: Vec<_> = asked.into_iter().filter(|(asked, _)| *asked).map(|(_, source)| source).collect();
    let (data_dir, shared) = (args.location.data_dir()?, args.location.shared()?);
    let calls = slow_notice::with("still reading the journal", complain, || {
        written(&data_dir);
        list(&data_dir, shared.as_ref(), since, &sources)
    })?;
    output::print("the list", |out| match args.format {
        Format::Table => write_table(&calls, out, Page::stdout()),
        Format::Json => output::json(&calls.iter().map(object).collect::<Vec<_>>(), out),
    })
}

/// The model asked for; where none was, the one that answered.
fn model(call: &Call) -> &str {
    let asked = call.text("model");
    if asked.is_empty() { call.text("model_answered") } else { asked }
}

fn write_table(calls: &[Call], out: &mut impl Write, page: Page) -> io::Result<()> {
    if calls.is_empty() {
        return writeln!(out, "No calls.");
    }
    let mut table = Table::new([
        Column::text("id", Cut::Never),
        Column::text("at", Cut::Never).spare(1),
        Column::text("caller", Cut::Start),
        Column::text("destination", Cut::End).spare(2),
        Column::text("key", Cut::End).spare(4),
        Column::text("model", Cut::End).spare(3),
        Column::text("usage_source", Cut::Never),
        Column::number("cost USD"),
    ]);
    for call in calls {
        let key = match call.text("alias") {
            "" => call.text("credential").to_owned(),
            alias => format!("{}/{alias}", call.text("credential")),
        };
        let texts =
            [call.text("caller"), call.text("destination"), &key, model(call), call.text("usage_source")];
        let cost = match call.number("cost") {
            Some(cost) => usd(cost.into(), 2),
            None if call.is_unpriced() => "unpriced".to_owned(),
            None => "-".to_owned(),
        };
        let mut row = vec![call.id.to_string(), call.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()];
        row.extend(texts.map(visible));
        row.push(cost);
        table.row(row);
    }
    table.write(out, page).map(drop)
}

fn object(call: &Call) -> serde_json::Value {
    json!({
        "id": call.id,
        "at": call.at,
        "caller": call.text("caller"),
        "destination": call.text("destination"),
        "credential": call.text("credential"),
        "alias": call.text("alias"),
        "model": model(call),
        "tier": call.text("tier"),
        "usage_source": call.text("usage_source"),
        "unpriced": call.is_unpriced(),
        "cost_nano_usd": call.number("cost"),
        "cost_usd": call.number("cost").map(|cost| usd(cost.into(), 0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RecordId;

    fn call(record: &serde_json::Value) -> Call {
        Call {
            id: RecordId::new(),
            at: "2026-11-01T10:00:00Z".parse().unwrap(),
            record: record.as_object().cloned(),
            original: None,
            corrections: Vec::new(),
            hold: None,
        }
    }

    #[test]
    fn a_call_is_shown_with_its_id_and_exact_cost_and_one_without_a_price_is_not_free() {
        let priced = call(&json!({
            "caller": "spiffe://prod.acme/ns/a/sa/b", "destination": "openai", "credential": "openai-team", "alias": "second",
            "model": "\u{1b}[2Jgpt", "usage_source": "presumed", "cost": 1_500_000_001,
        }));
        let free = call(&json!({
            "caller": "spiffe://prod.acme/ns/a/sa/b", "destination": "openai", "credential": "openai-team",
            "model_answered": "gpt", "usage_source": "presumed",
        }));
        let mut out = Vec::new();
        write_table(&[priced.clone(), free.clone()], &mut out, Page::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[2].starts_with(&priced.id.to_string()), "{text}");
        assert!(lines[2].ends_with("[2Jgpt  presumed      1.500000001"), "{text}");
        assert!(lines[3].ends_with("presumed                -"), "{text}");
        let key = |line: &str| line.split_whitespace().nth(4).unwrap().to_owned();
        assert_eq!([key(lines[2]), key(lines[3])], ["openai-team/second", "openai-team"]);
        let json = [object(&priced), object(&free)];
        assert_eq!(json[0]["id"], priced.id.to_string());
        assert_eq!(
            (&json[0]["cost_nano_usd"], &json[0]["cost_usd"]),
            (&1_500_000_001_i64.into(), &"1.500000001".into())
        );
        assert_eq!((&json[1]["cost_nano_usd"], &json[1]["model"]), (&serde_json::Value::Null, &"gpt".into()));
    }
}
