//! `tollgate budget`: how much of budgets is used, and more of one for a time.

mod edit;
mod in_cluster;
mod ls;
mod outcome;
mod raise;
mod split;

use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct BudgetArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show budgets and what is used of them in the running gateway, or who spent how much of one
    Ls(ls::LsArgs),
    /// Give a budget more for a time: the raise is written where the Budget is, in its file or in the cluster
    Raise(raise::RaiseArgs),
}

pub(super) fn run(args: &BudgetArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Ls(args) => ls::run(args).map(|()| ExitCode::SUCCESS),
        Command::Raise(args) => raise::run(args).map(|()| ExitCode::SUCCESS),
    }
}
