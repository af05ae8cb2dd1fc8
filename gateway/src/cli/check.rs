//! `tollgate check`: everything that is wrong with a configuration, at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use tollgate_policy::compile::Environment;
use tollgate_policy::model::{Problem, SourceFile};

use super::{complain, say};
use crate::app;
use crate::identity::{FileError, IdentityFiles};
use crate::preflight;
use crate::settings::{self, Settings};
use crate::snapshot::{ResourceFiles, Snapshot};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Settings of the process; its resources are checked [default: tollgate.yaml, unless there is a DIRECTORY]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// A directory of resources: instead of the settings' own, or where there are no settings yet
    #[arg(value_name = "DIRECTORY")]
    resources: Option<PathBuf>,
    /// With DIRECTORY alone: a trust domain that callers may be of
    #[arg(long = "trust-domain", value_name = "NAME")]
    trust_domains: Vec<String>,
    /// With DIRECTORY alone: an authority that is the gateway's own
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

/// What is looked at: resources, and the settings where there are some.
pub(super) struct Subject {
    settings: Option<Settings>,
    pub(super) environment: Environment,
    directory: PathBuf,
}

impl Subject {
    pub(super) fn of(args: &CheckArgs) -> anyhow::Result<Self> {
        let described = !args.trust_domains.is_empty() || !args.names.is_empty();
        let config = match (&args.config, &args.resources) {
            (Some(config), _) if described => bail!(
                "--trust-domain and --name are for a DIRECTORY without settings, and {} (--config or TOLLGATE_CONFIG) has both: \
                 leave out the one or the other",
                config.display()
            ),
            (None, None) if described => {
                bail!("--trust-domain and --name are for a DIRECTORY, and none is given")
            }
            (Some(config), _) => config.clone(),
            (None, None) => app::SETTINGS.into(),
            (None, Some(directory)) => {
                let environment = app::environment_of(&args.names, &args.trust_domains)?;
                return Ok(Self { settings: None, environment, directory: directory.clone() });
            }
        };
        let settings = app::read_settings(&config)?;
        let environment = app::environment(&settings)?;
        let directory = args.resources.clone().unwrap_or_else(|| settings.resources.clone());
        Ok(Self { settings: Some(settings), environment, directory })
    }

    /// What the settings name, for commands that need a gateway's own.
    pub(super) fn of_settings(config: Option<PathBuf>) -> anyhow::Result<(Settings, Self)> {
        let settings = app::read_settings(&config.unwrap_or_else(|| app::SETTINGS.into()))?;
        let environment = app::environment(&settings)?;
        let directory = settings.resources.clone();
        Ok((settings.clone(), Self { settings: Some(settings), environment, directory }))
    }

    pub(super) fn read(&self) -> anyhow::Result<Vec<SourceFile>> {
        let files = ResourceFiles::new(self.directory.clone()).read();
        files.map_err(|error| match &self.settings {
            Some(settings) if settings.resources == self.directory => {
                anyhow!("{}", settings.problem("resources", error.to_string()))
            }
            _ => error.into(),
        })
    }

    /// What is no error, and still keeps calls from being answered.
    fn warnings(&self, snapshot: &Snapshot, files: &[SourceFile]) -> Vec<String> {
        let settings = self.settings.as_ref();
        let mut warnings = preflight::resources(&snapshot.policy, settings);
        warnings.extend(preflight::authorities(snapshot, Timestamp::now()));
        warnings.extend(self.settings.iter().flat_map(preflight::places));
        let mut said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        said.extend(preflight::nothing(&snapshot.policy, files, &self.directory, settings));
        if self.settings.is_some() {
            said.extend(settings::unknown_variables(app::variables()));
        }
        said
    }
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let subject = Subject::of(args)?;
    let directory = &subject.directory;
    let (mut identity, mut early) = (true, Vec::new());
    if let Some(settings) = &subject.settings {
        let base = app::base(&settings.origin.file.path);
        let problem = |error: &FileError| settings.problem(&error.field, error.fault.to_string());
        match IdentityFiles::load(settings.identity.clone(), &base) {
            Ok(files) => {
                let faults = files
                    .faults()
                    .map(|error| format!("{}; nobody of this trust domain is trusted", problem(error)));
                early.extend(faults);
                let remarks = files.remarks(&settings.names, Timestamp::now()).into_iter();
                early.extend(remarks.map(|(field, said)| settings.problem(&field, said).to_string()));
            }
            Err(error) => {
                complain(&problem(&error).to_string());
                identity = false;
            }
        }
    }
    early.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    let files = subject.read()?;
    match Snapshot::build(&files, &subject.environment, None) {
        Ok((snapshot, warnings)) => {
            let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            warnings.extend(subject.warnings(&snapshot, &files));
            warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
            say(&summary(directory, &files, &snapshot, early.len() + warnings.len()));
            Ok(if identity { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(problems) => {
            report(&problems, directory);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn summary(directory: &Path, files: &[SourceFile], snapshot: &Snapshot, warnings: usize) -> String {
    let policy = &snapshot.policy;
    format!(
        "{}: {} files, {} destinations, {} stores, {} credentials, {} grants: good{}",
        directory.display(),
        files.len(),
        policy.destinations().count(),
        policy.stores().count(),
        policy.credentials().count(),
        policy.grants().count(),
        match warnings {
            0 => String::new(),
            1 => ", with 1 warning".to_owned(),
            many => format!(", with {many} warnings"),
        },
    )
}

fn report(problems: &[Problem], directory: &Path) {
    problems.iter().for_each(|problem| complain(&problem.to_string()));
    let many = if problems.len() == 1 { "problem" } else { "problems" };
    complain(&format!("{}: {} {many}", directory.display(), problems.len()));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CheckArgs,
    }

    fn subject(line: &[&str]) -> Result<Subject, String> {
        let line = Line::try_parse_from(std::iter::once("check").chain(line.iter().copied())).unwrap();
        Subject::of(&line.args).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn flags_that_would_be_ignored_are_refused() {
        for line in [
            &["--config", "x.yaml", "--trust-domain", "prod.acme"][..],
            &["--config", "x.yaml", "res", "--name", "tollgate"],
            &["--trust-domain", "prod.acme"],
        ] {
            let error = subject(line).map(drop).unwrap_err();
            assert!(error.starts_with("--trust-domain and --name are for a DIRECTORY"), "{line:?}: {error}");
        }
    }

    #[test]
    fn a_directory_alone_needs_no_settings_and_nothing_at_all_means_the_default_file() {
        let alone = subject(&["res", "--trust-domain", "prod.acme", "--name", "tollgate"]).unwrap();
        assert!(alone.settings.is_none() && alone.directory == Path::new("res"));
        let default = subject(&[]).map(drop).unwrap_err();
        assert!(default.starts_with("tollgate.yaml: "), "{default}");
    }
}
