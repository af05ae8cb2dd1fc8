//! `tollgate budget`: how much of budgets is used.

mod ls;

use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct BudgetArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show all budgets, and what is used of them in the running gateway
    Ls(ls::LsArgs),
}

pub(super) fn run(args: &BudgetArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Ls(args) => ls::run(args).map(|()| ExitCode::SUCCESS),
    }
}
