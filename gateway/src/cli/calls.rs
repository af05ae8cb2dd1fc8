//! `tollgate calls`: how single calls went, by all that their records say.

mod detail;
mod many;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::report::LedgerLocation;
use super::{complain, output};
use crate::ledger::{
    Call, CallLookup, Dimension, LedgerError, RecordId, SharedReader, Wanted, find, written,
};
use crate::report::instant;
use crate::slow_notice;
use crate::table::Page;

/// How often it is looked whether there are new calls.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate calls 01a207d768017b24b761f7d78e801692            # one call, by the x-tollgate-request-id that its caller got
  tollgate calls --caller '*/ns/checkout/*' --status 5xx     # what failed for a namespace
  tollgate calls --reason budget_exhausted --since 1h --format csv
  tollgate calls --destination openai --follow               # as they end")]
pub(super) struct CallsArgs {
    /// Show this call alone, with its attempts, holds, charges and corrections
    #[arg(value_name = "ID", value_parser = id)]
    id: Option<RecordId>,
    #[command(flatten)]
    filter: Filter,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Go on with what ends from now on, at this replica
    #[arg(long, conflicts_with_all = ["id", "until"])]
    follow: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    location: LedgerLocation,
}

/// Which calls. In texts `*` stands for anything; a model is the one asked for or the one that answered.
#[derive(Debug, Args)]
#[group(conflicts_with = "id")]
struct Filter {
    #[command(flatten)]
    texts: TextFilters,
    /// The status that the caller got: 429, or 4xx for all that begin so
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    status: Vec<String>,
    /// From when on it was made: a date, a time (UTC unless it says), or how long ago (90m, 24h, 7d)
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    since: String,
    /// Up to when, which is outside
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
}

/// An option for each dimension.
#[derive(Debug)]
struct TextFilters(Vec<(Dimension, String)>);

impl Args for TextFilters {
    fn augment_args(command: Command) -> Command {
        command.args(Dimension::ALL.map(|dimension| {
            let name = dimension.as_str();
            // Once in a process, which clap wants the names to outlive.
            let flag = name.replace('_', "-").leak();
            Arg::new(name).long(&*flag).value_name("TEXT").help(dimension.help())
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TextFilters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |dimension: Dimension| {
            let text = matches.get_one::<String>(dimension.as_str())?;
            Some((dimension, text.clone()))
        };
        Ok(Self(Dimension::ALL.into_iter().filter_map(text).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: an array of objects; one object a line with --follow, and one alone with an ID
    Json,
    /// For spreadsheets
    Csv,
}

/// An id as it is written, or as a UUID.
pub(super) fn id(text: &str) -> Result<RecordId, String> {
    let digits: String = text.trim().chars().filter(|char| *char != '-').collect();
    digits.to_ascii_lowercase().parse().map_err(|error| format!("{error}, as in x-tollgate-request-id"))
}

fn status(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(['x', 'X']);
    let is_status =
        text.len() == 3 && !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    // No status at all: its caller got none.
    if is_status || text == "0" { Ok(text.to_owned()) } else { Err("a status is like 429 or 4xx".to_owned()) }
}

impl Filter {
    fn wanted(&self, now: Timestamp) -> anyhow::Result<Wanted> {
        let since = instant(&self.since, &TimeZone::UTC, now).context("--since")?;
        let until = match &self.until {
            Some(until) => instant(until, &TimeZone::UTC, now).context("--until")?,
            None => Timestamp::MAX,
        };
        if until <= since {
            bail!("--until {until} is not after --since {since}");
        }
        Ok(Wanted { since, until, texts: self.texts.0.clone(), statuses: self.status.clone() })
    }
}

pub(super) fn run(args: &CallsArgs) -> anyhow::Result<ExitCode> {
    let wanted = args.filter.wanted(Timestamp::now())?;
    let data_dir = args.location.data_dir()?;
    let shared = args.location.shared()?;
    let reading = "still reading the journal";
    if let Some(id) = args.id {
        let call = slow_notice::with(reading, complain, || {
            written(&data_dir);
            // What is under way, and what the database has not got yet, is in the journal alone.
            match (find(&data_dir, id), &shared) {
                (Ok(None) | Err(LedgerError::Missing(_)), Some(server)) => {
                    SharedReader::open(server)?.find(id)
                }
                (found, _) => found,
            }
        })?;
        let Some(call) = call else {
            let counted = "refusals that come in numbers have one record for a minute, without their ids";
            complain(&format!("{}: there is no call {id}; {counted}", data_dir.display()));
            return Ok(ExitCode::FAILURE);
        };
        return one(&call, args.format).map(|()| ExitCode::SUCCESS);
    }
    let most = usize::try_from(args.limit)?;
    if let (Some(server), false) = (&shared, args.follow) {
        let asking = "still asking the database";
        let calls = slow_notice::with(asking, complain, || SharedReader::open(server)?.calls(&wanted, most))?;
        return show(&calls, most, args.format);
    }
    let mut read = CallLookup::new();
    let calls = slow_notice::with(reading, complain, || {
        written(&data_dir);
        read.next(&data_dir, &wanted, most)
    })?;
    if !args.follow {
        return show(&calls, most, args.format);
    }
    let mut followed = many::Followed::new(args.format, Page::stdout());
    let mut out = std::io::stdout().lock();
    let mut new = calls;
    loop {
        match followed.write(&new, &mut out).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            done => done.context("writing the calls")?,
        }
        std::thread::sleep(LOOK_EVERY);
        new = read.next(&data_dir, &wanted, usize::MAX)?;
    }
}

fn show(calls: &[Call], most: usize, format: Format) -> anyhow::Result<ExitCode> {
    print(calls, format)?;
    if calls.len() == most && format == Format::Table {
        complain(&format!("The newest {most}; --limit shows more."));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(calls: &[Call], format: Format) -> anyhow::Result<()> {
    output::print("the calls", |out| match format {
        Format::Table => many::write_table(calls, out, Page::stdout()),
        Format::Json => output::json(&calls.iter().map(many::object).collect::<Vec<_>>(), out),
        Format::Csv => many::write_csv(calls, out),
    })
}

fn one(call: &Call, format: Format) -> anyhow::Result<()> {
    output::print("the call", |out| match format {
        Format::Table => detail::write(call, out, Page::stdout()),
        Format::Json => output::json(&many::object(call), out),
        Format::Csv => many::write_csv(std::slice::from_ref(call), out),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_callers_have_it_in_their_logs() {
        let plain = id("01a207d768017b24b761f7d78e801692").unwrap();
        for written in ["01A207D768017B24B761F7D78E801692", "01a207d7-6801-7b24-b761-f7d78e801692 "] {
            assert_eq!(id(written).unwrap(), plain);
        }
        assert!(id("01a207d7").unwrap_err().contains("32 hex digits"));
    }

    #[test]
    fn a_status_is_three_digits_or_a_class() {
        for good in ["200", "4xx", "50X", "0"] {
            assert!(status(good).is_ok(), "{good}");
        }
        for bad in ["", "20", "xxx", "4x4", "2000", "ok"] {
            assert!(status(bad).is_err(), "{bad}");
        }
    }
}
