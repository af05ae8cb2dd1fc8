//! The command line.

mod audit;
mod calls;
mod check;
mod credential;
mod demo;
mod explain;
mod ledger;
mod output;
mod report;
mod secret;
mod serve;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Managed egress gateway with credential hiding.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM
    Serve(serve::ServeArgs),
    /// Compile a configuration without starting anything
    Check(check::CheckArgs),
    /// Say which grant decides a call, or why it is refused
    Explain(explain::ExplainArgs),
    /// How single calls went
    Calls(calls::CallsArgs),
    /// Who used what, for how much
    Report(report::ReportArgs),
    /// Look after credentials
    Credential(credential::CredentialArgs),
    /// Keep secrets in an age-encrypted file
    Secret(secret::SecretArgs),
    /// Look after the ledger
    Ledger(ledger::LedgerArgs),
    /// Look after the audit trail of what happened to secrets
    Audit(audit::AuditArgs),
    /// Show the main job on embedded defaults
    Demo(demo::DemoArgs),
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Calls(args) => calls::run(&args),
        Command::Report(args) => report::run(args).map(|()| ExitCode::SUCCESS),
        Command::Credential(args) => credential::run(args),
        Command::Secret(args) => secret::run(args).map(|()| ExitCode::SUCCESS),
        Command::Ledger(args) => ledger::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Writes a line to standard output. A reader that has gone away is no error of ours.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes a line to standard error.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
