//! `tollgate report`: who used what, for how much.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{complain, output};
use crate::app;
use crate::ledger::{PostgresServer, ReplicaState, ReportStore, catch_up};
use crate::report::{By, Query, Report, instant, report};
use crate::settings::Settings;
use crate::slow_notice;
use crate::table::{Page, visible};
use crate::upstream::DialRules;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate report --by day --since 30d
  tollgate report --by namespace,model --since 2026-11-01 --until 2026-12-01 --timezone Europe/Berlin --format csv")]
pub(super) struct ReportArgs {
    #[arg(
        long,
        help = format!("What lines are told apart by, in this order: {}", By::names()),
        value_name = "DIMENSIONS",
        value_delimiter = ',',
        default_value = "caller,destination,model"
    )]
    by: Vec<By>,
    /// From when on: a date, a time, or how long ago (24h, 7d)
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: String,
    /// Up to when, which is outside; now unless given
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Whose days and hours, e.g. Europe/Berlin
    #[arg(long, value_name = "NAME", default_value = "UTC")]
    timezone: String,
    #[command(flatten)]
    location: LedgerLocation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For spreadsheets
    Csv,
    /// For programs: an array of objects
    Json,
}

/// Where the ledger is.
#[derive(Debug, Args)]
pub(super) struct LedgerLocation {
    /// The data directory, instead of that of the settings
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// Settings of the process, which name the data directory; tollgate.yaml unless given
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
}

impl LedgerLocation {
    /// That of settings.
    pub(super) const fn of_settings(config: Option<PathBuf>) -> Self {
        Self { data: None, config }
    }

    fn settings(&self) -> &Path {
        self.config.as_deref().unwrap_or_else(|| Path::new(app::SETTINGS))
    }

    /// The data directory.
    pub(super) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let settings = app::read_settings(self.settings())
            .context("the settings (--config) say where the ledger is, or --data does")?;
        Ok(settings.data_dir)
    }

    /// What settings say of this replica.
    pub(super) fn own_settings(&self) -> anyhow::Result<Settings> {
        app::read_settings(self.settings())
    }

    /// The database of several replicas, if settings name one and no data directory is given: who names that asks for one replica.
    pub(super) fn shared(&self) -> anyhow::Result<Option<PostgresServer>> {
        if self.data.is_some() {
            return Ok(None);
        }
        Ok(server(&app::read_settings(self.settings())?))
    }

    /// The database of several replicas, if settings name one. Beside a data directory that is given, settings that are not may be missing.
    pub(super) fn shared_of_settings(&self) -> anyhow::Result<Option<PostgresServer>> {
        if self.data.is_some() && self.config.is_none() && !self.settings().exists() {
            return Ok(None);
        }
        Ok(server(&self.own_settings()?))
    }

    /// The key of the seals, if settings name one. Beside a data directory that is given, settings that are not may be missing.
    pub(super) fn seal_key(&self) -> anyhow::Result<Option<PathBuf>> {
        if self.data.is_some() && self.config.is_none() && !self.settings().exists() {
            return Ok(None);
        }
        let settings = app::read_settings(self.settings())
            .context("the settings (--config) say what the seal key is, or --seal-key does")?;
        Ok(settings.ledger.seal_key_file)
    }
}

/// The database that settings name.
pub(super) fn server(settings: &Settings) -> Option<PostgresServer> {
    let rules = DialRules::new(settings.egress.private_ranges.clone());
    let postgres = settings.ledger.postgres.clone()?;
    Some(PostgresServer::new(postgres, Arc::new(move |address| rules.allows(address))))
}

/// Says which replicas are gone, whose journals may have calls that are nowhere else.
fn complain_of(left_behind: &[ReplicaState]) {
    for replica in left_behind {
        let (name, last) = (visible(&replica.name), replica.last_seen.strftime("%Y-%m-%dT%H:%M:%SZ"));
        complain(&format!(
            "warning: replica {name} was last seen at {last} and did not end in order: what its journal still has is missing \
             here; `tollgate ledger replicas` says more"
        ));
    }
}

pub(super) fn run(args: ReportArgs) -> anyhow::Result<()> {
    let timezone = TimeZone::get(&args.timezone).with_context(|| format!("--timezone {}", args.timezone))?;
    let now = Timestamp::now();
    let since = instant(&args.since, &timezone, now).context("--since")?;
    let until = match &args.until {
        Some(until) => instant(until, &timezone, now).context("--until")?,
        None => now,
    };
    if until <= since {
        bail!("--until {until} is not after --since {since}");
    }
    let data_dir = args.location.data_dir()?;
    let query = Query { by: args.by, since, until, timezone };
    let shared = args.location.shared()?;
    let (report, left_behind) = slow_notice::with("still adding up", complain, || {
        // Where that cannot be done, what the store has not is read from the journal each time.
        let caught_up = catch_up(&data_dir);
        let mut store = match &shared {
            Some(server) => ReportStore::shared(server, &data_dir)?,
            None => ReportStore::own(&data_dir).map_err(|error| caught_up.err().unwrap_or(error))?,
        };
        let left_behind = store.left_behind()?;
        report(&mut store, query).map(|report| (report, left_behind))
    })?;
    complain_of(&left_behind);
    write(&report, args.format)
}

/// Prints the whole ledger in a data directory as a table.
pub(super) fn print(data_dir: &Path, by: &[&str]) -> anyhow::Result<()> {
    let by = by.iter().map(|name| name.parse()).collect::<Result<Vec<By>, _>>()?;
    let query = Query { by, since: Timestamp::UNIX_EPOCH, until: Timestamp::now(), timezone: TimeZone::UTC };
    write(&report(&mut ReportStore::own(data_dir)?, query)?, Format::Table)
}

fn write(report: &Report, format: Format) -> anyhow::Result<()> {
    output::print("the report", |out| match format {
        Format::Table => report.write_table(out, Page::stdout()),
        Format::Csv => report.write_csv(out),
        Format::Json => report.write_json(out),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_that_is_given_leaves_the_seal_key_to_the_settings() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("tollgate.yaml");
        let settings = "
listeners: [{name: mesh, address: '127.0.0.1:0'}]
identity: {certificate: {certFile: a, keyFile: b}, trustDomains: {prod.acme: {bundleFile: c}}}
resources: res
dataDir: data
admin: {tokenFile: token}
ledger: {sealKeyFile: keys/seal.key}
";
        std::fs::write(&config, settings).unwrap();
        let place = LedgerLocation { data: Some("/elsewhere".into()), config: Some(config) };
        assert_eq!(place.data_dir().unwrap(), Path::new("/elsewhere"));
        assert_eq!(place.seal_key().unwrap(), Some(directory.path().join("keys/seal.key")));
        let place = LedgerLocation { data: None, ..place };
        assert_eq!(place.data_dir().unwrap(), directory.path().join("data"));

        let config = Some(directory.path().join("missing.yaml"));
        let place = LedgerLocation { data: Some("/elsewhere".into()), config };
        assert!(place.data_dir().is_ok());
        assert!(place.seal_key().is_err(), "settings that are named are read");
    }
}
