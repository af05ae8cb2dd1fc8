//! `tollgate ledger list`: single calls, and the ids that corrections name.

use std::io::{self, BufWriter, Write};

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::cli::complain;
use crate::cli::report::Place;
use crate::ledger::{Listed, UsageSource, list};
use crate::patience;
use crate::report::table::{visible, widths, write_row};
use crate::report::{instant, usd};

#[derive(Debug, Args)]
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
    place: Place,
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
    let data_dir = args.place.data_dir()?;
    let calls = patience::with("still reading the journal", complain, || list(&data_dir, since, &sources))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let wrote = match args.format {
        Format::Table => write_table(&calls, &mut out),
        Format::Json => write_json(&calls, &mut out),
    };
    match wrote.and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("writing the list"),
    }
}

fn write_table(calls: &[Listed], out: &mut impl Write) -> io::Result<()> {
    if calls.is_empty() {
        return writeln!(out, "No calls.");
    }
    let heading = ["id", "at", "caller", "destination", "key", "model", "tier", "usage_source", "cost USD"];
    let row = |call: &Listed| {
        let key = match call.alias.as_str() {
            "" => call.credential.clone(),
            alias => format!("{}/{alias}", call.credential),
        };
        let texts = [&call.caller, &call.destination, &key, &call.model, &call.tier, &call.usage_source];
        let cost = match call.cost {
            _ if call.unpriced => "unpriced".to_owned(),
            Some(cost) => usd(cost.into(), 2),
            None => "-".to_owned(),
        };
        let mut row = vec![call.id.to_string(), call.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()];
        row.extend(texts.map(|text| visible(text)));
        row.push(cost);
        row
    };
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(calls.iter().map(row));
    let widths = widths(rows.iter());
    rows.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    rows.iter().try_for_each(|row| write_row(out, row, &widths, heading.len() - 1))
}

fn write_json(calls: &[Listed], out: &mut impl Write) -> io::Result<()> {
    let objects: Vec<_> = calls
        .iter()
        .map(|call| {
            json!({
                "id": call.id,
                "at": call.at,
                "caller": call.caller,
                "destination": call.destination,
                "credential": call.credential,
                "alias": call.alias,
                "model": call.model,
                "tier": call.tier,
                "searches": call.searches,
                "images": call.images,
                "unpriced": call.unpriced,
                "usage_source": call.usage_source,
                "cost_nano_usd": call.cost,
                "cost_usd": call.cost.map(|cost| usd(cost.into(), 0)),
            })
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &objects)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RecordId;

    #[test]
    fn a_call_is_shown_with_its_id_and_exact_cost_and_one_without_a_price_is_not_free() {
        let call = Listed {
            id: RecordId::new(),
            at: "2026-11-01T10:00:00Z".parse().unwrap(),
            caller: "spiffe://prod.acme/ns/a/sa/b".into(),
            destination: "openai".into(),
            credential: "openai-team".into(),
            alias: "second".into(),
            model: "\x1b[2Jgpt".into(),
            tier: "priority".into(),
            searches: 2,
            images: 0,
            unpriced: false,
            usage_source: "presumed".into(),
            cost: Some(1_500_000_001),
        };
        let free = Listed { cost: None, model: String::new(), alias: String::new(), ..call.clone() };
        let mut out = Vec::new();
        write_table(&[call.clone(), free.clone()], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[2].starts_with(&call.id.to_string()), "{text}");
        assert!(lines[2].ends_with("[2Jgpt  priority  presumed      1.500000001"), "{text}");
        assert!(lines[3].ends_with("presumed                -"), "{text}");
        let key = |line: &str| line.split_whitespace().nth(4).unwrap().to_owned();
        assert_eq!([key(lines[2]), key(lines[3])], ["openai-team/second", "openai-team"]);
        let mut out = Vec::new();
        write_json(&[call.clone(), free], &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json[0]["id"], call.id.to_string());
        assert_eq!(json[0]["cost_nano_usd"], 1_500_000_001_i64);
        assert_eq!([&json[0]["credential"], &json[0]["alias"]], ["openai-team", "second"]);
        assert_eq!([&json[0]["tier"], &json[0]["searches"]], [&json!("priority"), &json!(2)]);
        assert!(json[1]["cost_usd"].is_null());
    }
}
