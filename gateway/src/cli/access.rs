//! `tollgate access`: who may call what, what a change adds to that, and consent to it.

mod approve;
mod certificates;
mod diff;
mod list;

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use tollgate_policy::policy::{Approval, Grant, Policy};

use super::check::{CheckArgs, Subject};
use crate::app;

#[derive(Debug, Args)]
pub(super) struct AccessArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who may call what, with which key, how much
    List(list::ListArgs),
    /// Say what a change of resources adds and removes; for reviews and for CI
    Diff(diff::DiffArgs),
    /// Write the Approval of a grant as it is now
    Approve(approve::ApproveArgs),
}

pub(super) fn run(args: &AccessArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List(args) => list::run(args).map(|()| ExitCode::SUCCESS),
        Command::Diff(args) => Ok(diff::run(args)),
        Command::Approve(args) => approve::run(args).map(|()| ExitCode::SUCCESS),
    }
}

/// The policy that resources are compiled to, wherever the files are that they name.
fn policy(args: &CheckArgs) -> anyhow::Result<Policy> {
    let subject = Subject::of(args)?;
    let built = subject.build(&subject.read()?);
    Ok(built.map_err(|problems| anyhow!("{}", app::lines(&problems)))?.0.policy)
}

/// Whether calls of a grant go out, in a word or two.
fn state(grant: &Grant) -> &'static str {
    match (&grant.suspended, grant.approval) {
        // Its object has errors, which `check` and its status say.
        _ if grant.is_broken => "broken",
        (Some(_), _) => "suspended",
        (None, Approval::Lacking) => "not approved",
        (None, Approval::Given) => "approved",
        (None, Approval::NotRequired) => "in force",
    }
}
