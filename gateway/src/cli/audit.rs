//! `tollgate audit`: what happened to secrets and raised budgets, and whether that was changed since.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tollgate_policy::name::ResourceId;

use super::ledger::{VerifyArgs, verify_at};
use super::report::LedgerLocation;
use super::{complain, output};
use crate::audit::{self, Entry, list};
use crate::report::instant;
use crate::slow_notice;
use crate::table::{Column, Cut, Page, Table, visible};

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that nothing in the audit trail was changed, removed, added or cut off
    #[command(after_help = "Example:
  tollgate audit verify --data /backup/tollgate --seal-key /etc/tollgate/seal.key")]
    Verify(VerifyArgs),
    /// Show what happened to secrets, and which budgets were raised, newest last
    List(ListArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate audit list --credential openai-prod --since 30d")]
struct ListArgs {
    /// Only what is about this credential, or about a store as a whole
    #[arg(long, value_name = "NAME")]
    credential: Option<ResourceId>,
    /// From when on: a date, a time (UTC unless it says), or how long ago (24h, 7d)
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: String,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
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

pub(super) fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify(args) => {
            let data_dir = args.data_dir()?;
            let directory = audit::directory(&data_dir);
            if !directory.is_dir() {
                bail!("there is no audit trail in {}", data_dir.display());
            }
            verify_at(&directory, &args, None)
        }
        Command::List(args) => run_list(&args).map(|()| ExitCode::SUCCESS),
    }
}

fn run_list(args: &ListArgs) -> anyhow::Result<()> {
    let since = instant(&args.since, &TimeZone::UTC, Timestamp::now()).context("--since")?;
    let data_dir = args.location.data_dir()?;
    let credential = args.credential.as_ref().map(ResourceId::as_str);
    let entries =
        slow_notice::with("still reading the audit trail", complain, || list(&data_dir, since, credential))?;
    output::print("the list", |out| match args.format {
        Format::Table => write_table(&entries, out, Page::stdout()),
        Format::Json => output::json(&entries, out),
    })
}

const COLUMNS: [Column; 8] = [
    Column::text("at", Cut::Never),
    Column::text("what", Cut::End),
    Column::text("credential", Cut::End),
    Column::text("secret", Cut::End).spare(1),
    Column::text("version", Cut::Never),
    Column::text("caller", Cut::Start).spare(2),
    Column::text("host", Cut::End).spare(3),
    Column::number("count").spare(4),
];

fn write_table(entries: &[Entry], out: &mut impl Write, page: Page) -> io::Result<()> {
    if entries.is_empty() {
        return writeln!(out, "Nothing happened.");
    }
    let mut table = Table::new(COLUMNS);
    entries.iter().for_each(|entry| table.row(row(entry)));
    table.write(out, page).map(drop)
}

fn row(entry: &Entry) -> Vec<String> {
    let what = match entry.reason.as_str() {
        "" => entry.what.to_string(),
        reason => format!("{}: {reason}", entry.what),
    };
    let version = match (entry.before.as_str(), entry.amount) {
        (_, Some(amount)) => format!("+{amount}"),
        ("", None) => entry.version.clone(),
        (before, None) => format!("{before} -> {}", entry.version),
    };
    let caller = if entry.caller.is_empty() { &entry.by } else { &entry.caller };
    let subject = [&entry.secret, &entry.store, &entry.limit];
    let secret = subject.into_iter().find(|text| !text.is_empty()).unwrap_or(&entry.limit);
    let at = entry.last.unwrap_or(entry.at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let credentials = match entry.alias.as_str() {
        "" => entry.credentials.join(","),
        alias => format!("{} ({alias})", entry.credentials.join(",")),
    };
    let texts = [&what, &credentials, secret, &version, caller, &entry.host];
    let count = entry.count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    std::iter::once(at).chain(texts.map(|text| visible(text))).chain([count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happened_to_which_version_and_why() {
        let text = r#"[
            {"at": "2026-11-01T10:00:00Z", "what": "rotated", "credentials": ["a", "b"], "secret": "bao:x#k", "version": "8", "before": "7"},
            {"at": "2026-11-01T10:00:01Z", "what": "unavailable", "store": "bao", "reason": "sealed"},
            {"at": "2026-11-01T10:01:00Z", "what": "injected", "credentials": ["a"], "alias": "team-a", "secret": "bao:x#k", "version": "8",
             "caller": "spiffe://prod.acme/ns/a/sa/b", "host": "\u001b[2Japi.test", "last": "2026-11-01T10:00:59Z", "count": 12}
        ]"#;
        let entries: Vec<Entry> = serde_json::from_str(text).unwrap();
        let mut out = Vec::new();
        write_table(&entries, &mut out, Page::default()).unwrap();
        let table = String::from_utf8(out).unwrap();
        let line = |number: usize| {
            table
                .lines()
                .nth(number + 2)
                .unwrap()
                .split("  ")
                .map(str::trim)
                .filter(|cell| !["", "-"].contains(cell))
                .collect::<Vec<_>>()
        };
        assert_eq!(line(0), ["2026-11-01T10:00:00Z", "rotated", "a,b", "bao:x#k", "7 -> 8"]);
        assert_eq!(line(1), ["2026-11-01T10:00:01Z", "unavailable: sealed", "bao"]);
        let injected = [
            "2026-11-01T10:00:59Z",
            "injected",
            "a (team-a)",
            "bao:x#k",
            "8",
            "spiffe://prod.acme/ns/a/sa/b",
            "[2Japi.test",
            "12",
        ];
        assert_eq!(line(2), injected);
        let mut out = Vec::new();
        output::json(&entries, &mut out).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Entry>>(&out).unwrap(), entries);
    }
}
