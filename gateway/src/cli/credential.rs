//! `tollgate credential`: which there are and how they do, and whether one can be had and used.

mod ls;
mod refresh;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct CredentialArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show all credentials, and how their secrets do in the running gateway
    Ls(ls::LsArgs),
    /// Have the running gateway fetch the secret of a credential now
    Refresh(refresh::RefreshArgs),
    /// Fetch the secret of a credential and check that it can be put on a call; prints no value
    Test(test::TestArgs),
}

/// Which gateway is meant.
#[derive(Debug, Args)]
struct Gateway {
    /// Settings of the process; tollgate.yaml unless given
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: CredentialArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Ls(args) => ls::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Refresh(args) => refresh::run(&args),
        Command::Test(args) => test::run(&args),
    }
}
