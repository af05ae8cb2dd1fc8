//! `tollgate ledger cat`: the journal as JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::report::LedgerLocation;
use crate::cli::{complain, output};
use crate::ledger::{Printed, Unprinted, written};
use crate::report::instant;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate ledger cat --since 1h | jq -c 'select(.record.status == 429).record | {at, caller, reason}'
  tollgate ledger cat /backup/tollgate/journal/*.journal | jq -s 'map(.record.cost // 0) | add'

It works beside a running gateway. What is torn or damaged is said on standard error, with its place; damage is also its exit code.")]
pub(super) struct CatArgs {
    /// Segments of a journal or of an audit trail; all that counts of the journal unless given
    #[arg(value_name = "FILE", conflicts_with = "data")]
    files: Vec<PathBuf>,
    /// From when on: a date, a time (UTC unless it says), or how long ago (24h, 7d); everything unless given
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    #[command(flatten)]
    location: LedgerLocation,
}

pub(super) fn run(args: &CatArgs) -> anyhow::Result<ExitCode> {
    let since = match &args.since {
        Some(since) => instant(since, &TimeZone::UTC, Timestamp::now()).context("--since")?,
        None => Timestamp::MIN,
    };
    let segments = if args.files.is_empty() {
        let data_dir = args.location.data_dir()?;
        written(&data_dir);
        Printed::journal(&data_dir, since)?
    } else {
        args.files.iter().cloned().map(Printed::file).collect()
    };
    let mut unprinted = Vec::new();
    output::print("the journal", |out| {
        segments.iter().try_for_each(|segment| segment.write(since, out, &mut unprinted))
    })?;
    let mut code = ExitCode::SUCCESS;
    for unprinted in unprinted {
        let what = match unprinted {
            Unprinted::Torn(what) => what,
            Unprinted::Damaged(what) => {
                code = ExitCode::FAILURE;
                what
            }
        };
        complain(&what);
    }
    Ok(code)
}
