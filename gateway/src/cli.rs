//! The command line.

mod access;
mod admin;
mod audit;
mod authority;
mod budget;
mod ca;
mod calls;
mod check;
mod crds;
mod credential;
mod demo;
mod explain;
mod init;
mod ledger;
mod output;
mod prices;
mod report;
mod schema;
mod secret;
mod serve;
mod shell;
mod source;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::table::{Page, RED, YELLOW};

/// Managed egress gateway with credential hiding.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a first set-up that works, for one machine
    Init(init::InitArgs),
    /// Serve until SIGTERM
    Serve(serve::ServeArgs),
    /// Compile a configuration without starting anything
    #[command(after_help = "Examples:
  tollgate check
  tollgate check resources --trust-domain prod.acme --name tollgate")]
    Check(check::CheckArgs),
    /// Say which grant decides a call, or why it is refused
    Explain(explain::ExplainArgs),
    /// Who may call what, what a change adds to that, and consent to it
    Access(access::AccessArgs),
    /// How single calls went
    Calls(calls::CallsArgs),
    /// Who used what, for how much
    Report(report::ReportArgs),
    /// How much of budgets is used
    Budget(budget::BudgetArgs),
    /// What models cost, by the catalog
    Prices(prices::PricesArgs),
    /// Look after credentials
    Credential(credential::CredentialArgs),
    /// See whether calls can leave from their source addresses
    Source(source::SourceArgs),
    /// Keep secrets in an age-encrypted file
    Secret(secret::SecretArgs),
    /// Make the authority that lets a proxy read https:// requests
    Ca(ca::CaArgs),
    /// Look after the ledger
    Ledger(ledger::LedgerArgs),
    /// Look after the audit trail of what happened to secrets
    Audit(audit::AuditArgs),
    /// Show the main job on embedded defaults
    Demo(demo::DemoArgs),
    /// Print the JSON Schema of settings and resources
    Schema(schema::SchemaArgs),
    /// Print the CustomResourceDefinitions of all kinds of resources
    Crds(crds::CrdsArgs),
    /// Print the completions of a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual
    Man(shell::ManArgs),
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Init(args) => init::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Access(args) => access::run(&args),
        Command::Calls(args) => calls::run(&args),
        Command::Report(args) => report::run(args).map(|()| ExitCode::SUCCESS),
        Command::Budget(args) => budget::run(&args),
        Command::Prices(args) => prices::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Credential(args) => credential::run(args),
        Command::Source(args) => source::run(&args),
        Command::Secret(args) => secret::run(args).map(|()| ExitCode::SUCCESS),
        Command::Ca(args) => ca::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Ledger(args) => ledger::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Schema(args) => schema::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Crds(args) => crds::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => shell::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => shell::man(&args).map(|()| ExitCode::SUCCESS),
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

/// Writes a line to standard error. On a terminal the words `error` and `warning` at its start are coloured.
pub(crate) fn complain(line: &str) {
    let stderr = std::io::stderr();
    let colour = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
    let page = Page { width: None, colour };
    let word = [("error", RED), ("warning", YELLOW)];
    let word = word.into_iter().find(|(word, _)| line.starts_with(&format!("{word}: ")));
    let _ = match word {
        Some((word, style)) => {
            writeln!(
                stderr.lock(),
                "{}{}",
                page.paint(word, style),
                line.strip_prefix(word).unwrap_or_default()
            )
        }
        None => writeln!(stderr.lock(), "{line}"),
    };
}
