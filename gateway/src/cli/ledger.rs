//! `tollgate ledger`: checking and reading the ledger, listing what is left to settle, and correcting what was not reported.

mod cat;
mod list;
mod replicas;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, value_parser};
use tollgate_policy::price::{Item, NanoUsd, UNIT_MAX, Units};

use super::report::LedgerLocation;
use super::{complain, say};
use crate::ledger::{
    Bounded, Correction, LedgerError, PostgresServer, RecordId, SharedReader, Signature, Verification,
    catch_up, settle, verify, verify_shared,
};
use crate::slow_notice;
use crate::table::counted;

#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that nothing in the journal was changed, removed, added or cut off
    #[command(after_help = "Example:
  tollgate ledger verify --data /backup/tollgate --seal-key /etc/tollgate/seal.key")]
    Verify(VerifyArgs),
    /// Print every entry of the journal as one line of JSON
    Cat(cat::CatArgs),
    /// Show single calls with their ids, newest last
    List(list::ListArgs),
    /// Show the replicas that write to the database of several, and which of them left a journal behind
    Replicas(replicas::ReplicasArgs),
    /// Take the whole journal of a data directory into the database of several replicas again
    Replay(replicas::ReplayArgs),
    /// Say what a call really used, where that was estimated or presumed
    Settle(SettleArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    location: LedgerLocation,
    /// The key of the seals; the one that the settings name unless given
    #[arg(long, value_name = "FILE")]
    seal_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate ledger settle 01a207d768017b24b761f7d78e801692 --input 1200 --output 340 --cost \"0.0125 USD\" --note \"invoice of November\"")]
struct SettleArgs {
    /// The id of the call, which its caller was told as x-tollgate-request-id
    #[arg(value_parser = super::calls::id)]
    id: RecordId,
    /// Tokens read that the provider billed, but for those from its cache
    #[arg(long, value_name = "TOKENS", value_parser = tokens())]
    input: u64,
    /// Tokens written that the provider billed, but for those of reasoning
    #[arg(long, value_name = "TOKENS", value_parser = tokens())]
    output: u64,
    /// Tokens read from the provider's prompt cache
    #[arg(long, value_name = "TOKENS", default_value_t = 0, value_parser = tokens())]
    cached: u64,
    /// Tokens of reasoning
    #[arg(long, value_name = "TOKENS", default_value_t = 0, value_parser = tokens())]
    reasoning: u64,
    /// What the provider billed, e.g. "0.0125 USD"
    #[arg(long)]
    cost: NanoUsd,
    /// What the correction is made for; at most 128 bytes, and kept with it
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<Bounded>,
    /// Even where the provider reported the usage, there is none, or it was corrected before; needs --note
    #[arg(long, requires = "note")]
    force: bool,
    #[command(flatten)]
    location: LedgerLocation,
}

/// No more than one unit of one call may count.
fn tokens() -> RangedU64ValueParser<u64> {
    value_parser!(u64).range(..=UNIT_MAX)
}

pub(super) fn run(args: LedgerArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify(args) => {
            verify_at(&args.data_dir()?, &args, args.location.shared_of_settings()?.as_ref())
        }
        Command::Cat(args) => cat::run(&args),
        Command::List(args) => list::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Replicas(args) => replicas::run(&args),
        Command::Replay(args) => replicas::replay_at(&args),
        Command::Settle(args) => run_settle(&args),
    }
}

impl VerifyArgs {
    pub(super) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        self.location.data_dir()
    }
}

/// Checks the chains and seals that are in `directory`, and what the database of several replicas says of them if there is one.
pub(super) fn verify_at(
    directory: &Path,
    args: &VerifyArgs,
    shared: Option<&PostgresServer>,
) -> anyhow::Result<ExitCode> {
    let key = match &args.seal_key {
        Some(key) => Some(key.clone()),
        None => args.location.seal_key()?,
    };
    let verified = slow_notice::with("still reading the journal", complain, || match shared {
        Some(server) => verify_shared(server, directory, key.as_deref()),
        None => verify(directory, key.as_deref()),
    });
    let Verification { findings, notes, segments, entries, last_seal } = verified?;
    for finding in &findings {
        say(&finding.to_string());
    }
    for note in &notes {
        say(&format!("note: {note}"));
    }
    let sealed = last_seal.map_or_else(String::new, |(number, at)| format!(", last seal {number} of {at}"));
    let verdict = match findings.len() {
        0 => "good".to_owned(),
        count => counted(count, "finding"),
    };
    let many = |count, thing| counted(usize::try_from(count).unwrap_or(usize::MAX), thing);
    let (segments, entries) = (many(segments, "segment"), many(entries, "entry"));
    say(&format!("{}: {segments}, {entries}{sealed}: {verdict}", directory.display()));
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_settle(args: &SettleArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.location.data_dir()?;
    let mut units = Units::default();
    let tokens = [
        (Item::Input, args.input),
        (Item::Output, args.output),
        (Item::CacheRead, args.cached),
        (Item::Reasoning, args.reasoning),
    ];
    tokens.into_iter().for_each(|(item, count)| units.set(item, count));
    let actual = Correction { units, cost: args.cost };
    let signature = Signature { by: user(), note: args.note.clone(), force: args.force };
    let id = slow_notice::with("still reading the journal", complain, || {
        catch_up(&data_dir)?;
        settle(&data_dir, args.id, actual, &signature)
    });
    let id = id.map_err(|error| match &error {
        LedgerError::NoRecord(_) => of_another_replica(args).unwrap_or_else(|| error.into()),
        _ => error.into(),
    })?;
    say(&format!("{} is corrected by {id}, in the name of {}", args.id, signature.by));
    Ok(ExitCode::SUCCESS)
}

/// What to do about a call that is not in this data directory, where the database of all replicas knows whose it is.
fn of_another_replica(args: &SettleArgs) -> Option<anyhow::Error> {
    let server = args.location.shared_of_settings().ok()??;
    let replica = SharedReader::open(&server).ok()?.replica_of(args.id).ok()??;
    Some(anyhow!(
        "record {}: replica {replica} made this call: run `ledger settle` there, in its data directory",
        args.id
    ))
}

/// Whom the operating system says that this is.
fn user() -> Bounded {
    let id = nix::unistd::Uid::current();
    let name = nix::unistd::User::from_uid(id).ok().flatten().map(|user| user.name);
    Bounded::new(&name.unwrap_or_else(|| format!("uid {id}")))
}

fn note(text: &str) -> Result<Bounded, String> {
    let note = Bounded::new(text);
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if note.as_str() != text {
        return Err(format!("at most {} bytes of text in one line", Bounded::MAX));
    }
    Ok(note)
}
