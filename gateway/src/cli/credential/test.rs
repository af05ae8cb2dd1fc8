//! `tollgate credential test`: does what a first call would do, up to the call itself, and says how far it came.
//!
//! **Invariant:** it prints no value and nothing that was made from one; it writes nothing and takes no lock, uses up nothing that the
//! gateway logs in with, and gives back what it was lent, so that a running gateway does not notice it.

mod advice;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use tokio::runtime::Builder;
use tollgate_policy::model::{Interval, nearest};
use tollgate_policy::policy::{Credential, Key, Policy, SecretId, StoreKind, VaultAuth};
use tollgate_secrets::{CredentialStatus, Failure, Observer, Secret, Secrets, Version, VersionKey};

use self::advice::{help, step};
use super::Gateway;
use crate::app;
use crate::cli::check::Subject;
use crate::cli::say;
use crate::credentials;
use crate::injection;
use crate::memory;
use crate::preflight;
use crate::upstream::{self, DialRules};
use crate::version_key;

/// How long stores may take to take back what they lent.
const GIVE_BACK: Duration = Duration::from_secs(5);
/// The exit code where nothing failed, and something was not tried.
const UNTRIED: u8 = 2;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate credential test openai-prod
  tollgate credential test --all")]
pub(super) struct TestArgs {
    /// The credential
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// Every credential
    #[arg(long)]
    all: bool,
    /// How long one may take, e.g. 20s
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    timeout: Interval,
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    memory::keep_private().context("switching core dumps off")?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (settings, subject) = Subject::of_settings(args.gateway.config.clone())?;
    let (snapshot, _) =
        subject.build(&subject.read()?).map_err(|problems| anyhow!("{}", app::lines(&problems)))?;
    let policy = &snapshot.policy;
    let credentials = chosen(policy, args)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let rules = DialRules::new(settings.egress.private_ranges);
    let known = version_key::known(&settings.data_dir);
    let is_comparable = known.is_some();
    let secrets = Secrets::observed(
        runtime.handle().clone(),
        Arc::new(move |ip| rules.allows(ip)),
        Observer::nobody(),
        Arc::new(|_, _| Ok(())),
        known.unwrap_or_else(VersionKey::random),
    );
    secrets.apply(policy);
    let (mut failed, mut untried) = (0, 0);
    for (credential, at) in credentials.into_iter().flat_map(|c| (0..c.keys.len()).map(move |at| (c, at))) {
        let Some(key) = credential.keys.get(at) else { continue };
        if unwraps(policy, credential, key) {
            unwrapping(credential, key).iter().for_each(|line| say(line));
            untried += 1;
            continue;
        }
        let before = mints(&secrets);
        let got = runtime.block_on(async {
            let got = tokio::time::timeout(args.timeout.0, secrets.get(credential, at)).await;
            got.map_or(Err(Failure::Timeout), |got| got.map_err(|error| error.failure()))
        });
        let mut report = TestReport::of(policy, (credential, key), got, mints(&secrets) > before);
        report.complete(&secrets, (credential, key), is_comparable);
        report.lines().iter().for_each(|line| say(line));
        failed += usize::from(!report.is_good());
    }
    // A lease of a database is a user there, and a login at a vault a token.
    runtime.block_on(secrets.close(GIVE_BACK));
    Ok(match (failed, untried) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(UNTRIED),
        _ => ExitCode::FAILURE,
    })
}

/// How often token endpoints were asked.
fn mints(secrets: &Secrets) -> u64 {
    secrets.issuers().iter().map(|issuer| issuer.mints).sum()
}

/// Whether a login for it would show a wrapping token to a vault, which can be done once.
fn unwraps(policy: &Policy, credential: &Credential, key: &Key) -> bool {
    let client = credential.mint.as_ref().and_then(|mint| mint.client_secret());
    std::iter::once(&key.from).chain(client).any(|secret| {
        let store = policy.store(secret.store.as_str()).map(|store| &store.kind);
        let Some(StoreKind::Vault(vault)) = store else { return false };
        matches!(&vault.auth, VaultAuth::AppRole { secret_id: SecretId::Wrapped(_), .. })
    })
}

/// What is said where a login would use up the gateway's own.
fn unwrapping(credential: &Credential, key: &Key) -> [String; 3] {
    let what = "not tried: the wrapping token of wrappedSecretIdFile can be used once, by the gateway itself";
    let help = "see how it does in the running gateway: tollgate credential ls";
    [heading(credential, key), line("SKIP", Step::Login.as_str(), what), line("", "help", help)]
}

fn chosen<'a>(policy: &'a Policy, args: &TestArgs) -> anyhow::Result<Vec<&'a Arc<Credential>>> {
    let mut all: Vec<_> = policy.credentials().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(name) = &args.name else {
        if all.is_empty() {
            bail!("there are no credentials");
        }
        return Ok(all);
    };
    if let Some(credential) = all.iter().find(|credential| credential.name.as_str() == name) {
        return Ok(vec![credential]);
    }
    let guess = nearest(name, all.iter().map(|credential| credential.name.as_str()));
    let guess = guess.map_or_else(String::new, |guess| format!("; did you mean {guess}?"));
    bail!("there is no credential `{name}`{guess}")
}

/// What a first call does, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Store,
    Login,
    Secret,
    Value,
    Mint,
    Form,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Login => "login",
            Self::Secret => "secret",
            Self::Value => "value",
            Self::Mint => "mint",
            Self::Form => "form",
        }
    }
}

/// How the test of one credential went.
#[derive(Debug)]
struct TestReport {
    heading: String,
    /// What was done, with what came of it.
    done: Vec<(Step, String)>,
    version: Option<Version>,
    /// Whether the gateway, which has the key of its data directory, calls it by the same name.
    comparable: bool,
    destinations: Vec<String>,
    failed: Option<Failed>,
}

/// Where it ended, what is wrong, and what would help.
#[derive(Debug)]
struct Failed {
    step: Step,
    what: String,
    help: String,
}

impl Failed {
    /// With what is wrong with a file, which says what would help.
    fn naming(self, file: Option<String>) -> Self {
        let Some(file) = file else { return self };
        match file.rsplit_once("): ") {
            Some((what, help)) => Self { what: format!("{what})"), help: help.to_owned(), ..self },
            None => Self { what: file, ..self },
        }
    }
}

impl TestReport {
    fn of(
        policy: &Policy,
        (credential, key): (&Credential, &Key),
        got: Result<Arc<Secret>, Failure>,
        asked: bool,
    ) -> Self {
        let store = policy.store(key.from.store.as_str()).map(|store| &store.kind);
        let mut done = steps((credential, key), store);
        let fit = got.as_ref().map_err(|failure| {
            let failed = failed((credential, key), *failure, asked);
            match store.filter(|_| failed.step < Step::Mint) {
                Some(store) => failed.naming(preflight::files::of_reference(store, &key.from.path)),
                None => failed,
            }
        });
        let fit = fit.and_then(|secret| form(credential, secret, Timestamp::now()));
        let failed = match fit {
            Ok(form) => {
                done.push((Step::Form, form));
                None
            }
            Err(failed) => {
                done.retain(|(step, _)| *step < failed.step);
                Some(failed)
            }
        };
        let hosts: BTreeSet<String> =
            credential.destinations.iter().flat_map(|d| d.hosts.iter().map(ToString::to_string)).collect();
        Self {
            heading: heading(credential, key),
            done,
            version: got.ok().map(|secret| secret.version().clone()),
            comparable: true,
            destinations: hosts.into_iter().collect(),
            failed,
        }
    }

    /// Adds what the token endpoint said, and whether the gateway calls the version by this name.
    fn complete(&mut self, secrets: &Secrets, (credential, key): (&Credential, &Key), comparable: bool) {
        self.comparable = comparable;
        let Some(failed) = self.failed.as_mut().filter(|failed| failed.step == Step::Mint) else { return };
        let status = secrets.status();
        let is_this =
            |status: &&CredentialStatus| status.credential == credential.name && status.alias == key.alias;
        if let Some(said) = status.iter().find(is_this).and_then(|status| status.said.as_deref()) {
            failed.what.push_str(&format!(" (it says: {said})"));
        }
    }

    const fn is_good(&self) -> bool {
        self.failed.is_none()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.heading.clone()];
        lines.extend(self.done.iter().map(|(step, text)| line("ok", step.as_str(), text)));
        if let Some(version) = &self.version {
            let alone = version.is_digest() && !self.comparable;
            let note = if alone {
                " (of this test alone: there is no version.key in dataDir that can be read)"
            } else {
                ""
            };
            lines.push(line("ok", "version", &format!("{version}{note}")));
        }
        match &self.failed {
            Some(Failed { step, what, help }) => {
                lines.push(line("FAILED", step.as_str(), what));
                lines.push(line("", "help", help));
            }
            None => lines.push(line("ok", "goes to", &self.destinations.join(", "))),
        }
        lines
    }
}

/// What failed where there is no secret. `asked`: the token endpoint was, so that its store did its part.
fn failed((credential, key): (&Credential, &Key), failure: Failure, asked: bool) -> Failed {
    let endpoint = credential.mint.as_ref().map(|mint| &mint.endpoint).filter(|_| asked);
    let Some(endpoint) = endpoint else {
        let what = match failure {
            Failure::FieldMissing => missing(&key.from.fields),
            failure => failure.to_string(),
        };
        return Failed { step: step(failure), what, help: help(failure).to_owned() };
    };
    let destination = &endpoint.destination;
    let help = match failure {
        Failure::Timeout | Failure::Unreachable(_) => format!(
            "check hosts, port and addresses of the Destination {destination}, and that it can be reached from here"
        ),
        Failure::Tls(_) => {
            format!(
                "check tls.verify of the Destination {destination}, and that its certificate has its host's name"
            )
        }
        Failure::AddressRefused => {
            format!("list the range of the Destination {destination} in egress.privateRanges of the settings")
        }
        Failure::Status(status) if (300..400).contains(&status) => {
            format!(
                "the Destination {destination} redirects, which is never followed: name in mint the path that it leads to"
            )
        }
        Failure::Status(_) => {
            format!(
                "look at the log of the Destination {destination}; is the path in mint a token endpoint's?"
            )
        }
        failure => help(failure).to_owned(),
    };
    Failed { step: Step::Mint, what: format!("{endpoint}: {failure}"), help }
}

/// Which field of the secret is not there, as far as that is known.
fn missing(fields: &[String]) -> String {
    match fields {
        [] => "the secret has several fields or none, and the Credential names none".to_owned(),
        [field] => format!("the secret has no field `{field}`"),
        fields => format!("the secret does not have all of the fields {}", fields.join(", ")),
    }
}

/// How the secret is used as the credential says, or why it cannot be.
fn form(credential: &Credential, secret: &Secret, now: Timestamp) -> Result<String, Failed> {
    let failed = |what: String, help: &str| Failed { step: Step::Form, what, help: help.to_owned() };
    if credential.client_certificate().is_some() {
        let help = "store the chain in PEM, its own certificate first, and the key of that in PEM, without a passphrase";
        upstream::fits(credential, secret).map_err(|what| failed(what.to_owned(), help))?;
        return match upstream::ends(credential, secret) {
            Some(end) if end < now => {
                let help = "have it issued again, and store the new chain and key";
                Err(failed(format!("the certificate expired on {end}"), help))
            }
            Some(end) => Ok(format!("chain and key belong together, until {end}")),
            None => Ok("chain and key belong together".to_owned()),
        };
    }
    if !injection::fits(credential, secret) {
        let what = "the value has bytes that cannot be put on a call this way";
        let help = "store it again in the encoding that inject names, without line breaks and other control characters";
        return Err(failed(what.to_owned(), help));
    }
    Ok(format!("can be put on a call as {}", credentials::inject(&credential.inject)))
}

fn heading(credential: &Credential, key: &Key) -> String {
    let (name, reference) = (&credential.name, credential.reference(key));
    key.alias
        .as_ref()
        .map_or_else(|| format!("{name}: {reference}"), |alias| format!("{name} {alias}: {reference}"))
}

fn line(mark: &str, what: &str, text: &str) -> String {
    format!("  {mark:<6}  {what:<7}  {text}")
}

/// What is done for this credential before its secret is there, each as it reads when it went well.
fn steps((credential, key): (&Credential, &Key), store: Option<&StoreKind>) -> Vec<(Step, String)> {
    let mut steps = Vec::new();
    match store {
        Some(StoreKind::File { root }) => {
            steps.push((Step::Store, format!("{} can be read", root.display())));
        }
        Some(StoreKind::Age { file, identity_file }) => {
            steps.push((Step::Store, format!("{} can be read", file.display())));
            steps.push((Step::Login, format!("{} decrypts it", identity_file.display())));
        }
        Some(StoreKind::Vault(vault)) => {
            let method = match &vault.auth {
                VaultAuth::Token { .. } => "the token file",
                VaultAuth::AppRole { .. } => "AppRole",
                VaultAuth::Kubernetes(_) => "Kubernetes",
                VaultAuth::Jwt(_) => "the JWT",
                VaultAuth::JwtSvid { .. } => "the gateway's own JWT-SVID",
                VaultAuth::Certificate { .. } => "the certificate",
            };
            steps.push((Step::Store, format!("{} answers", vault.address)));
            steps.push((Step::Login, format!("logged in with {method}")));
        }
        Some(StoreKind::Aws(aws)) => {
            steps.push((Step::Store, format!("AWS Secrets Manager in {} answers", aws.region)));
            steps.push((Step::Login, "logged in".to_owned()));
        }
        Some(StoreKind::Env { prefix }) => {
            steps.push((Step::Store, format!("variables {prefix}… can be read")));
        }
        Some(StoreKind::Kubernetes) => {
            steps.push((
                Step::Store,
                format!("Secrets of namespace {} can be read", key.from.store.namespace()),
            ));
        }
        Some(StoreKind::Svid { .. }) => {
            steps.push((Step::Store, "the gateway has an identity of its own".to_owned()));
        }
        None => {}
    }
    steps.push((Step::Secret, format!("{} is there and may be read", key.from.path)));
    steps.push((
        Step::Value,
        match &*key.from.fields {
            [] => "it has a usable value".to_owned(),
            [field] => format!("its field {field} has a usable value"),
            fields => format!("its fields {} have usable values", fields.join(", ")),
        },
    ));
    if let Some(mint) = &credential.mint {
        steps.push((Step::Mint, format!("{} made a token of it", mint.endpoint)));
    }
    steps
}
