//! `tollgate access diff`: what a change adds and removes, and whether it stays within a boundary.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tollgate_policy::access::{self, Change, Diff, Violation, What};
use tollgate_policy::caller::{Issuer, assumed};
use tollgate_policy::compile::{Environment, compile_boundaries, compile_files};
use tollgate_policy::model::SourceFile;
use tollgate_policy::name::Name;
use tollgate_policy::policy::Policy;

use super::certificates;
use crate::app;
use crate::cli::check::{CheckArgs, Subject};
use crate::cli::{complain, output};
use crate::table::{GREEN, Page, RED, YELLOW, visible};

/// What the shell is told where something could not be read.
const TROUBLE: u8 = 2;

#[derive(Debug, Args)]
#[command(
    after_help = "It exits with 0 if nothing is added, 1 if something is, 2 if something is wrong with the resources.
With --within it exits with 0 if all grants that are new or changed stay within the boundary, and 1 if one goes beyond.

Examples:
  tollgate access diff before after --trust-domain prod.acme
  tollgate access diff before after --config tollgate.yaml --within boundary.yaml
  tollgate access diff after --config tollgate.yaml --within boundary.yaml     # all grants, not only changed ones
  git worktree add -q before main && tollgate access diff before/resources resources --config tollgate.yaml --json"
)]
pub(super) struct DiffArgs {
    /// Resources as they were: a directory or a file
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// Resources as they are to be; with --within alone, OLD is what is looked at
    #[arg(value_name = "NEW", required_unless_present = "within")]
    new: Option<PathBuf>,
    /// A file with boundaries that grants may not go beyond
    #[arg(long, value_name = "FILE")]
    within: Option<PathBuf>,
    /// Settings of the process, which say which callers and names there are
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Without settings: a trust domain that callers may be of
    #[arg(long = "trust-domain", value_name = "NAME")]
    trust_domains: Vec<String>,
    /// Without settings: a cluster whose service accounts may call; the gateway's own first
    #[arg(long = "cluster", value_name = "NAME")]
    clusters: Vec<Name>,
    /// Without settings: an issuer whose tokens prove callers
    #[arg(long = "issuer", value_name = "URL")]
    issuers: Vec<Issuer>,
    /// Without settings: an authority that is the gateway's own
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Print one object, for programs
    #[arg(long)]
    json: bool,
}

/// What was found, for programs.
#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    diff: Diff,
    #[serde(skip_serializing_if = "Option::is_none")]
    beyond: Option<Vec<Violation>>,
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    let done = found(args).and_then(|found| {
        output::print("the difference", |out| match args.json {
            true => output::json(&found, out),
            false => found.write(out, Page::stdout()),
        })?;
        Ok(found.is_refused())
    });
    match done {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(TROUBLE)
        }
    }
}

fn found(args: &DiffArgs) -> anyhow::Result<Found> {
    let subject = |directory: &Path| {
        Subject::of(&CheckArgs {
            config: args.config.clone(),
            resources: Some(directory.to_owned()),
            trust_domains: args.trust_domains.clone(),
            clusters: args.clusters.clone(),
            issuers: args.issuers.clone(),
            names: args.names.clone(),
        })
    };
    let policy = |path: &Path| -> anyhow::Result<Policy> {
        let subject = subject(path)?;
        let files = if path.is_file() { vec![file(path)?] } else { subject.read()?.files };
        let compiled = compile_files(&files, &subject.environment);
        Ok(compiled.map_err(|problems| anyhow!("{}", app::lines(&problems)))?.policy)
    };
    let (old, new) = match &args.new {
        Some(new) => (policy(&args.old)?, policy(new)?),
        None => (Policy::default(), policy(&args.old)?),
    };
    let diff = match &args.new {
        Some(_) => {
            let mut diff = access::diff(&old, &new, Timestamp::now(), &assumed);
            certificates::compare(&old, &new, &mut diff);
            diff
        }
        None => Diff::default(),
    };
    let within = args.within.as_deref();
    let beyond = within.map(|within| beyond((&old, &new), within, &subject(&args.old)?.environment));
    Ok(Found { diff, beyond: beyond.transpose()? })
}

/// What of the grants that are new or changed goes beyond the boundaries of a file.
fn beyond(
    (old, new): (&Policy, &Policy),
    within: &Path,
    environment: &Environment,
) -> anyhow::Result<Vec<Violation>> {
    let boundaries = compile_boundaries(&file(within)?, environment);
    let boundaries = boundaries.map_err(|problems| anyhow!("{}", app::lines(&problems)))?;
    Ok(access::changed(old, new).flat_map(|grant| access::beyond(grant, &boundaries)).collect())
}

fn file(path: &Path) -> anyhow::Result<SourceFile> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(SourceFile { path: path.to_owned(), text })
}

impl Found {
    fn is_refused(&self) -> bool {
        match &self.beyond {
            Some(beyond) => !beyond.is_empty() || self.outside().next().is_some(),
            None => !self.diff.adds.is_empty(),
        }
    }

    /// What is added by a change of a destination, a credential or a store. Boundaries are for grants, so no boundary allows it.
    fn outside(&self) -> impl Iterator<Item = &Change> {
        self.diff.adds.iter().filter(|change| change.grant.is_none() || change.what == What::Host)
    }

    fn write(&self, out: &mut impl Write, page: Page) -> io::Result<()> {
        let Self { diff: Diff { adds, removes }, beyond } = self;
        for (changes, sign, style) in [(adds, "+", YELLOW), (removes, "-", GREEN)] {
            for change in changes {
                let line = format!("{sign} {}", line(change));
                writeln!(out, "{}", page.paint(&line, style))?;
            }
        }
        for Violation { grant, field, words } in beyond.iter().flatten() {
            let line = format!("! grant {grant}: {field}: {}", visible(words));
            writeln!(out, "{}", page.paint(&line, RED))?;
        }
        let outside: Vec<&Change> = beyond.iter().flat_map(|_| self.outside()).collect();
        for change in &outside {
            let line = format!(
                "! {}: no boundary allows a change of a destination, a credential or a store",
                line(change)
            );
            writeln!(out, "{}", page.paint(&line, RED))?;
        }
        let mut counts = format!("{} added, {} removed", adds.len(), removes.len());
        if let Some(beyond) = beyond {
            counts += &format!(", {} beyond the boundary", beyond.len() + outside.len());
        }
        writeln!(out, "{counts}")
    }
}

fn line(change: &Change) -> String {
    format!("{}: {}", change.what.as_str(), visible(&change.words))
}
