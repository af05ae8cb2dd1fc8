//! `tollgate check`: everything that is wrong with a configuration, at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tollgate_policy::compile::Environment;
use tollgate_policy::model::Problem;

use super::{complain, say};
use crate::app;
use crate::identity::IdentityFiles;
use crate::snapshot::{ResourceFiles, Snapshot};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Settings of the process; its resources are checked
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG", required_unless_present = "resources")]
    config: Option<PathBuf>,
    /// A directory of resources, where there are no settings yet
    #[arg(value_name = "DIRECTORY")]
    resources: Option<PathBuf>,
    /// With DIRECTORY alone: a trust domain that callers may be of
    #[arg(long = "trust-domain", value_name = "NAME")]
    trust_domains: Vec<String>,
    /// With DIRECTORY alone: an authority that is the gateway's own
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (environment, directory) = subject(args)?;
    let mut identity = true;
    if let Some(config) = &args.config {
        let settings = app::read_settings(config)?;
        if let Err(error) = IdentityFiles::load(settings.identity, &app::base(config)) {
            complain(&format!("{}: identity: {error}", config.display()));
            identity = false;
        }
    }
    let files = ResourceFiles::new(directory.clone()).read()?;
    match Snapshot::build(&files, &environment, None) {
        Ok((snapshot, warnings)) => {
            warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
            let policy = &snapshot.policy;
            say(&format!(
                "{}: {} files, {} destinations, {} stores, {} credentials, {} grants: good{}",
                directory.display(),
                files.len(),
                policy.destinations().count(),
                policy.stores().count(),
                policy.credentials().count(),
                policy.grants().count(),
                if warnings.is_empty() {
                    String::new()
                } else {
                    format!(", with {} warnings", warnings.len())
                },
            ));
            Ok(if identity { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(problems) => {
            report(&problems, &directory);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What to compile against: the settings' environment, or the one that the flags describe.
pub(super) fn subject(args: &CheckArgs) -> anyhow::Result<(Environment, PathBuf)> {
    let Some(config) = &args.config else {
        let directory = args.resources.clone().unwrap_or_else(|| ".".into());
        return Ok((app::environment_of(&args.names, &args.trust_domains)?, directory));
    };
    let settings = app::read_settings(config)?;
    let environment = app::environment(&settings)?;
    Ok((environment, args.resources.clone().unwrap_or(settings.resources)))
}

fn report(problems: &[Problem], directory: &Path) {
    problems.iter().for_each(|problem| complain(&problem.to_string()));
    let many = if problems.len() == 1 { "problem" } else { "problems" };
    complain(&format!("{}: {} {many}", directory.display(), problems.len()));
}
