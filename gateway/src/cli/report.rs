//! `tollgate report`: who used what, for how much.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::complain;
use crate::app;
use crate::patience;
use crate::report::{Dimension, Query, Report, instant, report};

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// What lines are told apart by, in this order: caller, namespace, service_account, destination, host, grant, credential,
    /// model, model_answered, hour, day, month, reason, status, source, outcome, usage_source
    #[arg(
        long,
        value_name = "DIMENSIONS",
        value_delimiter = ',',
        default_value = "caller,destination,model"
    )]
    by: Vec<Dimension>,
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
    place: Place,
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
pub(super) struct Place {
    /// The data directory; goes before --config
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// Settings of the process, which name the data directory
    #[arg(long, value_name = "FILE", default_value = "tollgate.yaml", env = "TOLLGATE_CONFIG")]
    config: PathBuf,
}

impl Place {
    /// The data directory, and the key of its seals if settings name one.
    pub(super) fn resolve(&self) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
        if let Some(data) = &self.data {
            return Ok((data.clone(), None));
        }
        let settings = app::read_settings(&self.config).with_context(|| {
            format!("{} does not say where the ledger is; --data does too", self.config.display())
        })?;
        Ok((settings.data_dir, settings.ledger.seal_key_file))
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
    let (data_dir, _) = args.place.resolve()?;
    let query = Query { by: args.by, since, until, timezone };
    let report = patience::with("still adding up", complain, || report(&data_dir, query))?;
    write(&report, args.format)
}

/// Prints the whole ledger in a data directory as a table.
pub(super) fn print(data_dir: &Path, by: &[&str]) -> anyhow::Result<()> {
    let by = by.iter().map(|name| name.parse()).collect::<Result<Vec<Dimension>, _>>()?;
    let query = Query { by, since: Timestamp::UNIX_EPOCH, until: Timestamp::now(), timezone: TimeZone::UTC };
    write(&report(data_dir, query)?, Format::Table)
}

fn write(report: &Report, format: Format) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let wrote = match format {
        Format::Table => report.write_table(&mut out),
        Format::Csv => report.write_csv(&mut out),
        Format::Json => report.write_json(&mut out),
    };
    match wrote.and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("writing the report"),
    }
}
