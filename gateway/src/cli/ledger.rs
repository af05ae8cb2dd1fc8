//! `tollgate ledger`: checking the ledger, listing its calls, and correcting what was not reported.

mod list;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tollgate_policy::price::NanoUsd;

use super::report::Place;
use super::{complain, say};
use crate::ledger::{Correction, RecordId, Verification, catch_up, settle, verify};
use crate::patience;

#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that nothing in the journal was changed, removed, added or cut off
    Verify(VerifyArgs),
    /// Show single calls with their ids, newest last
    List(list::ListArgs),
    /// Say what a call really used, where that was estimated or presumed
    Settle(SettleArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// The key of the seals; the one that the settings name unless given
    #[arg(long, value_name = "FILE")]
    seal_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SettleArgs {
    /// The id of the record
    id: RecordId,
    /// Tokens read that the provider billed
    #[arg(long)]
    input: u64,
    /// Tokens written that the provider billed
    #[arg(long)]
    output: u64,
    /// What the provider billed, e.g. "0.0125 USD"
    #[arg(long)]
    cost: NanoUsd,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: LedgerArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify(args) => verify_at(&args.data_dir()?, &args),
        Command::List(args) => list::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Settle(args) => run_settle(&args),
    }
}

impl VerifyArgs {
    pub(super) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        self.place.data_dir()
    }
}

/// Checks the chains and seals that are in `directory`.
pub(super) fn verify_at(directory: &Path, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let key = match &args.seal_key {
        Some(key) => Some(key.clone()),
        None => args.place.seal_key()?,
    };
    let Verification { findings, notes, segments, lines, last_seal } =
        patience::with("still reading the journal", complain, || verify(directory, key.as_deref()))?;
    for finding in &findings {
        say(&finding.to_string());
    }
    for note in &notes {
        say(&format!("note: {note}"));
    }
    let sealed = last_seal.map_or_else(String::new, |(number, at)| format!(", last seal {number} of {at}"));
    let verdict = match findings.len() {
        0 => "good".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    say(&format!("{}: {segments} segments, {lines} lines{sealed}: {verdict}", directory.display()));
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_settle(args: &SettleArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.place.data_dir()?;
    let actual = Correction { input: args.input, output: args.output, cost: args.cost };
    let id = patience::with("still reading the journal", complain, || {
        catch_up(&data_dir)?;
        settle(&data_dir, args.id, actual)
    })?;
    say(&format!("{} is corrected by {id}", args.id));
    Ok(ExitCode::SUCCESS)
}
