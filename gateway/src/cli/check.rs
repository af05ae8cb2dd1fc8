//! `tollgate check`: everything that is wrong with a configuration, at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use tollgate_policy::caller::Issuer;
use tollgate_policy::compile::Environment;
use tollgate_policy::consent::Consents;
use tollgate_policy::model::{Problem, SourceFile};
use tollgate_policy::name::Name;

use super::{complain, say};
use crate::app;
use crate::identity::{FileError, IdentityFiles, IssuerStanding};
use crate::interception::CaFiles;
use crate::kubernetes::{GatewayPlace, PersistedObjects};
use crate::preflight;
use crate::settings::{self, Settings};
use crate::snapshot::{ResourceFiles, Snapshot};
use crate::table::counted;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Settings of the process; its resources are checked [default: tollgate.yaml, unless there is a DIRECTORY]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// A directory of resources: instead of the settings' own, or where there are no settings yet
    #[arg(value_name = "DIRECTORY")]
    pub(super) resources: Option<PathBuf>,
    /// With DIRECTORY alone: a trust domain that callers may be of
    #[arg(long = "trust-domain", value_name = "NAME")]
    pub(super) trust_domains: Vec<String>,
    /// With DIRECTORY alone: a cluster whose service accounts may call; the gateway's own first
    #[arg(long = "cluster", value_name = "NAME")]
    pub(super) clusters: Vec<Name>,
    /// With DIRECTORY alone: an issuer whose tokens prove callers
    #[arg(long = "issuer", value_name = "URL")]
    pub(super) issuers: Vec<Issuer>,
    /// With DIRECTORY alone: an authority that is the gateway's own
    #[arg(long = "name", value_name = "HOST")]
    pub(super) names: Vec<String>,
}

/// What was read: resources, and what namespaces agree to.
pub(super) struct Sources {
    pub(super) files: Vec<SourceFile>,
    consents: Consents,
}

/// What is looked at: resources, and the settings where there are some.
pub(super) struct Subject {
    settings: Option<Settings>,
    pub(super) environment: Environment,
    directory: PathBuf,
}

impl Subject {
    pub(super) fn of(args: &CheckArgs) -> anyhow::Result<Self> {
        let CheckArgs { trust_domains, clusters, issuers, names, .. } = args;
        let described =
            !(trust_domains.is_empty() && clusters.is_empty() && issuers.is_empty() && names.is_empty());
        let config = match (&args.config, &args.resources) {
            (Some(config), _) if described => bail!(
                "--trust-domain, --cluster, --issuer and --name are for a DIRECTORY without settings, and {} (--config or \
                 TOLLGATE_CONFIG) has them all: leave out the one or the other",
                config.display()
            ),
            (None, None) if described => {
                bail!("--trust-domain, --cluster, --issuer and --name are for a DIRECTORY, and none is given")
            }
            (Some(config), _) => config.clone(),
            (None, None) => app::SETTINGS.into(),
            (None, Some(directory)) => {
                let environment = Environment {
                    clusters: clusters.clone(),
                    issuers: issuers.clone(),
                    ..app::environment_of(names, trust_domains)?
                };
                return Ok(Self { settings: None, environment, directory: directory.clone() });
            }
        };
        let settings = app::read_settings(&config)?;
        let environment = app::environment(&settings)?;
        let directory = args.resources.clone().unwrap_or_else(|| place(&settings));
        Ok(Self { settings: Some(settings), environment, directory })
    }

    /// What the settings name, for commands that need a gateway's own.
    pub(super) fn of_settings(config: Option<PathBuf>) -> anyhow::Result<(Settings, Self)> {
        let settings = app::read_settings(&config.unwrap_or_else(|| app::SETTINGS.into()))?;
        let environment = app::environment(&settings)?;
        let directory = place(&settings);
        Ok((settings.clone(), Self { settings: Some(settings), environment, directory }))
    }

    pub(super) fn read(&self) -> anyhow::Result<Sources> {
        let sources = match self.persisted() {
            Some(persisted) => persisted.sources(self.place().as_ref()),
            None => {
                let files = ResourceFiles::new(self.directory.clone()).read();
                files.map(|files| (files, Consents::default()))
            }
        };
        let sources = sources.map(|(files, consents)| Sources { files, consents });
        sources.map_err(|error| match &self.settings {
            Some(settings) if self.is_settings_own() => {
                anyhow!("{}", settings.problem("resources", error.to_string()))
            }
            _ => error.into(),
        })
    }

    /// Compiles what was read.
    ///
    /// # Errors
    /// As [`Snapshot::build`].
    pub(super) fn build(&self, sources: &Sources) -> Result<(Snapshot, Vec<Problem>), Vec<Problem>> {
        Snapshot::build((&sources.files, &sources.consents), &self.environment, None)
    }

    /// What the gateway persisted, where the settings name a cluster.
    fn persisted(&self) -> Option<PersistedObjects> {
        let settings = self.settings.as_ref().filter(|_| self.is_settings_own())?;
        settings.resources.directory().is_none().then(|| PersistedObjects::of(&settings.data_dir))
    }

    /// The authority of `interception`, where the settings name one.
    fn interception(&self) -> Result<Option<CaFiles>, Problem> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let base = app::base(&settings.origin.file.path);
        let loaded = settings.interception.as_ref().map(|files| CaFiles::load(files, &base)).transpose();
        loaded.map_err(|error| settings.problem(error.field, error.message))
    }

    /// Where Gateways are served, if any are.
    fn place(&self) -> Option<GatewayPlace> {
        GatewayPlace::of(self.settings.as_ref()?)
    }

    /// Whether it is what the settings name.
    fn is_settings_own(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| place(settings) == self.directory)
    }

    /// What is no error, and still keeps calls from being answered.
    fn warnings(&self, snapshot: &Snapshot, files: &[SourceFile]) -> Vec<String> {
        let settings = self.settings.as_ref();
        let mut warnings = snapshot.refused.clone();
        warnings.extend(preflight::resources(&snapshot.policy, settings));
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

/// Where the resources are that settings name: of a cluster what the gateway last persisted of its objects.
fn place(settings: &Settings) -> PathBuf {
    let persisted = || PersistedObjects::of(&settings.data_dir).path().to_owned();
    settings.resources.directory().map_or_else(persisted, Path::to_owned)
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let subject = Subject::of(args)?;
    let directory = &subject.directory;
    let (mut identity, mut early, mut tokens) = (true, Vec::new(), Vec::new());
    if let Some(settings) = &subject.settings {
        let base = app::base(&settings.origin.file.path);
        let problem = |error: &FileError| settings.problem(&error.field, error.fault.to_string());
        match IdentityFiles::load(settings.identity.clone(), &base, app::home(settings)) {
            Ok(files) => {
                let faults = files
                    .faults()
                    .map(|error| format!("{}; nobody of this trust domain is trusted", problem(error)));
                early.extend(faults);
                let remarks = files.remarks(&settings.names, Timestamp::now()).into_iter();
                early.extend(remarks.map(|(field, said)| settings.problem(&field, said).to_string()));
                tokens = files.trust.tokens().standing(Timestamp::now());
                early.extend(
                    tokens.iter().enumerate().filter_map(|(at, issuer)| unusable_keys(settings, at, issuer)),
                );
            }
            Err(error) => {
                complain(&problem(&error).to_string());
                identity = false;
            }
        }
    }
    let interception = match subject.interception() {
        Ok(interception) => interception,
        Err(problem) => {
            complain(&problem.to_string());
            identity = false;
            None
        }
    };
    if let (Some(files), Some(settings)) = (&interception, &subject.settings) {
        let dated = files.interception.dated();
        let warning = dated.warning(Timestamp::now(), Duration::ZERO);
        early.extend(warning.map(|said| settings.problem(&dated.name, said).to_string()));
    }
    early.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    let sources = subject.read()?;
    let files = &sources.files;
    match subject.build(&sources) {
        Ok((snapshot, warnings)) => {
            let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            warnings.extend(subject.warnings(&snapshot, files));
            let unsigned =
                interception.map(|files| preflight::unsigned(&snapshot.policy, &files.interception));
            warnings.extend(unsigned.unwrap_or_default().iter().map(ToString::to_string));
            warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
            if !identity {
                complain(&format!("{}: {}", directory.display(), counted(1, "problem")));
                return Ok(ExitCode::FAILURE);
            }
            tokens.iter().for_each(|issuer| say(&issuer_line(issuer)));
            if let Some(prices) = prices(&snapshot, &subject.environment) {
                say(&prices);
            }
            say(&summary(directory, files, &snapshot, early.len() + warnings.len()));
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            problems.iter().for_each(|problem| complain(&problem.to_string()));
            let count = problems.len() + usize::from(!identity);
            complain(&format!("{}: {}", directory.display(), counted(count, "problem")));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Why nobody is proven by the tokens of an issuer whose keys are in a file.
fn unusable_keys(settings: &Settings, at: usize, issuer: &IssuerStanding) -> Option<String> {
    let message = format!("{}; nobody is proven by its tokens", issuer.fault.as_deref()?);
    Some(settings.problem(&format!("identity.tokens[{at}].keys.file"), message).to_string())
}

/// Whose tokens prove callers, and where their keys come from.
fn issuer_line(issuer: &IssuerStanding) -> String {
    let IssuerStanding { issuer: name, kind, audience, cluster, keys, .. } = issuer;
    let of = cluster.as_ref().map_or_else(String::new, |cluster| format!(" of cluster {cluster}"));
    let keys = match issuer.age {
        Some(age) => format!("{} as of {} s ago", counted(*keys, "key"), age.as_secs()),
        None => "keys are fetched while it serves (tollgate_token_issuer_keys_age_seconds)".to_owned(),
    };
    format!("tokens of {name} ({}{of}) for `{audience}`: {keys}", kind.as_str())
}

/// How old the prices are that calls are charged at.
fn prices(snapshot: &Snapshot, environment: &Environment) -> Option<String> {
    let table = environment.catalog.prices();
    let http = snapshot.policy.destinations().filter_map(|destination| destination.http());
    let providers = http.map(|http| http.dialect.provider());
    let priced: Vec<&str> = providers.filter(|provider| table.as_of(provider).is_some()).collect();
    let said = || super::prices::as_of(table, priced.iter().copied());
    (!priced.is_empty()).then(|| format!("prices: figures of {} (`tollgate prices ls` shows them)", said()))
}

fn summary(directory: &Path, files: &[SourceFile], snapshot: &Snapshot, warnings: usize) -> String {
    let policy = &snapshot.policy;
    let parts = [
        (files.len(), "file"),
        (policy.destinations().count(), "destination"),
        (policy.stores().count(), "store"),
        (policy.credentials().count(), "credential"),
        (policy.grants().count(), "grant"),
    ];
    let budgets = Some((policy.budgets().count(), "budget")).filter(|(count, _)| *count > 0);
    let with = if warnings == 0 { String::new() } else { format!(", with {}", counted(warnings, "warning")) };
    let parts = parts
        .into_iter()
        .chain(budgets)
        .map(|(count, thing)| counted(count, thing))
        .collect::<Vec<_>>()
        .join(", ");
    format!("{}: {parts}: good{with}", directory.display())
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
            &["--cluster", "local"],
            &["--config", "x.yaml", "--issuer", "https://ci.example"],
        ] {
            let error = subject(line).map(drop).unwrap_err();
            assert!(
                error.starts_with("--trust-domain, --cluster, --issuer and --name are for a DIRECTORY"),
                "{line:?}: {error}"
            );
        }
    }

    #[test]
    fn a_directory_alone_needs_no_settings_and_nothing_at_all_means_the_default_file() {
        let alone = subject(&["res", "--trust-domain", "prod.acme", "--name", "tollgate"]).unwrap();
        assert!(alone.settings.is_none() && alone.directory == Path::new("res"));
        let default = subject(&[]).map(drop).unwrap_err();
        assert!(default.starts_with("tollgate.yaml: "), "{default}");
    }

    const QUICKSTART: [&str; 3] = [
        include_str!("../../../examples/quickstart/resources/grants.yaml"),
        include_str!("../../../examples/quickstart/resources/keys.yaml"),
        include_str!("../../../examples/quickstart/resources/llm.yaml"),
    ];

    fn problems(text: &str) -> Vec<String> {
        let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
        let file = SourceFile { path: "all.yaml".into(), text: text.to_owned() };
        let problems =
            Snapshot::build((&[file], &Consents::default()), &environment, None).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    /// Where the names of fields end.
    fn fields(text: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let code = line.split(" #").next().unwrap_or_default();
            if !code.starts_with('#') {
                let colons =
                    code.match_indices(": ").chain(code.strip_suffix(":\n").map(|code| (code.len(), ":")));
                let is_name = |place: &usize| !code[..*place].ends_with(['"', '\'', ' ']);
                ends.extend(colons.map(|(place, _)| place).filter(is_name).map(|place| start + place));
            }
            start += line.len();
        }
        ends
    }

    #[test]
    fn one_mistyped_field_is_one_problem_whichever_it_is() {
        let text = QUICKSTART.join("---\n");
        assert_eq!(problems(&text), [""; 0]);
        let ends = fields(&text);
        let mut wrong = Vec::new();
        assert!(ends.len() > 60, "{}", ends.len());
        for end in ends {
            let name = text[..end].rsplit(|char: char| !char.is_alphanumeric()).next().unwrap().to_owned();
            let mut broken = text.clone();
            broken.insert(end, 'x');
            let found = problems(&broken);
            if found.len() != 1 {
                wrong.push((name, found));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn one_mistyped_dialect_is_one_problem_as_a_field_and_as_a_word() {
        let text = QUICKSTART.join("---\n");
        for (right, wrong) in [
            ("dialect: openai", "dialct: openai"),
            ("dialect: openai", "provider: openai"),
            ("dialect: openai", "dialect: opnai"),
            ("dialect: openai", "dialect: [openai]"),
            ("dialect: openai", "dialect: 3"),
        ] {
            let found = problems(&text.replacen(right, wrong, 1));
            assert_eq!(found.len(), 1, "{wrong}: {found:#?}");
        }
    }
}
