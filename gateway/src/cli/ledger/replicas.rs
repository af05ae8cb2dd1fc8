//! `tollgate ledger replicas` and `replay`: who writes to the database of several replicas, and taking in what one left behind.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::report::{LedgerLocation, server};
use crate::cli::{complain, output, say};
use crate::ledger::{PostgresServer, ReplicaState, SharedReader, forget, replay};
use crate::settings::Settings;
use crate::slow_notice;
use crate::table::{Column, Cut, GREEN, Page, RED, Table, counted, visible};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate ledger replicas --format json | jq '.[] | select(.state == \"left behind\")'
  tollgate ledger replicas --forget gateway-7d9f

A replica that is left behind was last seen a while ago and did not end in order. Its journal may have calls that the database
has not: `tollgate ledger replay --data DIRECTORY` takes them in from its volume. Where that is lost for good, `--forget` says so:
of the limits that replicas share it then counts for what the database has of it.")]
pub(super) struct ReplicasArgs {
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Say that a replica which was left behind is gone for good, with its volume; by its name or its id
    #[arg(long, value_name = "REPLICA")]
    forget: Option<String>,
    /// Settings of the process; tollgate.yaml unless given
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate ledger replay --data /mnt/volume-of-a-pod-that-is-gone

Calls that the database has count once. It works beside a running gateway.")]
pub(super) struct ReplayArgs {
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

pub(super) fn run(args: &ReplicasArgs) -> anyhow::Result<ExitCode> {
    let location = LedgerLocation::of_settings(args.config.clone());
    let server = named(&location.own_settings()?)?;
    let asking = "still asking the database";
    if let Some(which) = &args.forget {
        let by = super::user();
        let gone = slow_notice::with(asking, complain, || forget(&server, which, by.as_str()))?;
        say(&format!("{} ({}) is gone for good, in the name of {by}", visible(&gone.name), gone.id));
        return Ok(ExitCode::SUCCESS);
    }
    let replicas = slow_notice::with(asking, complain, || SharedReader::open(&server)?.replicas())?;
    output::print("the replicas", |out| match args.format {
        Format::Table => write_table(&replicas, out, Page::stdout()),
        Format::Json => output::json(&replicas.iter().map(object).collect::<Vec<_>>(), out),
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn replay_at(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let settings = args.location.own_settings().context("the settings name the database")?;
    let (server, data_dir) = (named(&settings)?, args.location.data_dir()?);
    let replayed = slow_notice::with("still taking in the journal", complain, || {
        replay(&server, &data_dir, settings.ledger.replica.as_deref())
    })?;
    let place = data_dir.display();
    if replayed.presumed > 0 {
        let calls = counted(usize::try_from(replayed.presumed).unwrap_or(usize::MAX), "call");
        say(&format!("{place}: {calls} left open: each is recorded at what it held, as presumed"));
    }
    if replayed.is_served {
        say(&format!(
            "note: a gateway has {place}, or had it within the last minute: calls that are open there may be under way, and stay so"
        ));
    }
    say(&format!("{place}: {} taken in that the database had not", counted(replayed.new, "record")));
    Ok(ExitCode::SUCCESS)
}

fn named(settings: &Settings) -> anyhow::Result<PostgresServer> {
    match server(settings) {
        Some(server) => Ok(server),
        None => bail!(
            "{}",
            settings.problem("ledger.postgres", "it is not set: this replica has its ledger to itself")
        ),
    }
}

fn write_table(replicas: &[ReplicaState], out: &mut impl Write, page: Page) -> io::Result<()> {
    if replicas.is_empty() {
        return writeln!(out, "No replicas.");
    }
    let tint = |cell: &str| match cell {
        "there" => Some(GREEN),
        "left behind" => Some(RED),
        _ => None,
    };
    let mut table = Table::new([
        Column::text("replica", Cut::End),
        Column::text("state", Cut::Never).tinted(tint),
        Column::text("last seen (UTC)", Cut::Never),
        Column::number("waiting bytes"),
        Column::text("first seen (UTC)", Cut::Never).spare(1),
        Column::text("id", Cut::Never).spare(2),
    ]);
    let time = |at: jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    for replica in replicas {
        table.row(vec![
            visible(&replica.name),
            replica.word().to_owned(),
            time(replica.last_seen),
            replica.waiting.to_string(),
            time(replica.first_seen),
            replica.id.to_string(),
        ]);
    }
    table.write(out, page).map(drop)
}

fn object(replica: &ReplicaState) -> Value {
    json!({
        "id": replica.id, "name": replica.name, "state": replica.word(), "first_seen": replica.first_seen,
        "last_seen": replica.last_seen, "waiting_bytes": replica.waiting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RecordId;

    fn replica(silent: i64, waiting: u64, ended: bool) -> ReplicaState {
        let at = "2026-11-01T10:00:00Z".parse().unwrap();
        let name = "gateway-0\u{1b}[2J".to_owned();
        let (id, is_forgotten) = (RecordId::new(), false);
        ReplicaState { id, name, first_seen: at, last_seen: at, silent, waiting, ended, is_forgotten }
    }

    #[test]
    fn a_replica_is_left_behind_when_it_is_silent_and_may_have_what_nobody_else_has() {
        for (silent, waiting, ended, word) in [
            (5, 0, false, "there"),
            (5, 900, false, "there"),
            (600, 0, false, "left behind"),
            (600, 900, true, "left behind"),
            (600, 0, true, "ended"),
        ] {
            assert_eq!(replica(silent, waiting, ended).word(), word, "{silent} {waiting} {ended}");
        }
    }

    #[test]
    fn the_table_shows_what_waits_and_no_control_characters_of_a_name() {
        let mut out = Vec::new();
        write_table(&[replica(600, 900, false)], &mut out, Page::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("left behind") && text.contains("900") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(object(&replica(600, 900, false))["state"], "left behind");
    }
}
