//! What does not change while the process runs: `tollgate.yaml` and single settings from the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tollgate_policy::model::{Interval, Problem, SourceFile, read_settings};
use tollgate_policy::target::GatewayName;

use crate::identity::IdentitySettings;

/// `tollgate.yaml`. Relative paths count from the directory of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Sockets that workloads call.
    pub listeners: Vec<ListenerSettings>,
    /// Authorities that are the gateway's own.
    #[serde(default)]
    pub names: Vec<GatewayName>,
    /// Own certificate and the bundles of the trust domains that may call.
    pub identity: IdentitySettings,
    /// The directory of resources.
    pub resources: PathBuf,
    /// Journal and store. One process at a time.
    pub data_dir: PathBuf,
    /// Health, metrics, snapshot.
    pub admin: AdminSettings,
    /// What may be dialled.
    #[serde(default)]
    pub egress: EgressSettings,
    /// The ledger's seal.
    #[serde(default)]
    pub ledger: LedgerSettings,
    /// How to stop.
    #[serde(default)]
    pub drain: DrainSettings,
    /// Cores of the data plane; all that the process may use unless given.
    #[serde(default)]
    pub cores: Option<usize>,
    /// A level, or directives as in `RUST_LOG`.
    #[serde(default = "info")]
    pub log: String,
    /// Bounds on requests.
    #[serde(default)]
    pub limits: RequestLimits,
}

/// One listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSettings {
    /// For logs.
    pub name: String,
    /// Address and port; port 0 takes a free one, which the log names.
    pub address: SocketAddr,
    /// ALPN protocols in order of preference: `h2`, `http/1.1`.
    #[serde(default = "both")]
    pub protocols: Vec<Protocol>,
}

/// A protocol that ALPN offers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
}

impl Protocol {
    /// The ALPN protocol id (RFC 7301, IANA registry).
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Http11 => b"http/1.1",
        }
    }
}

/// The admin port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminSettings {
    /// Loopback unless told otherwise.
    #[serde(default = "loopback")]
    pub address: SocketAddr,
    /// Holds the bearer token; made with a random one where it does not exist.
    pub token_file: PathBuf,
}

/// What may be dialled.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressSettings {
    /// Private and loopback ranges that destinations and stores may be in. None unless listed.
    #[serde(default)]
    pub private_ranges: Vec<IpNet>,
}

/// The ledger's seal.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerSettings {
    /// The key that authenticates chain heads; belongs on another disk than `dataDir`. Made where neither it nor seals exist.
    #[serde(default)]
    pub seal_key_file: Option<PathBuf>,
}

/// How to stop.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainSettings {
    /// From unready to closed listeners; 5s.
    pub delay: Interval,
    /// From closed listeners to cut connections; 300s.
    pub timeout: Interval,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self { delay: Interval(Duration::from_secs(5)), timeout: Interval(Duration::from_secs(300)) }
    }
}

/// Bounds on requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Most bytes of a body that a dialect reads before it is sent; 32 MiB.
    pub body_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { body_bytes: 32 << 20 }
    }
}

fn info() -> String {
    "info".into()
}

fn both() -> Vec<Protocol> {
    vec![Protocol::H2, Protocol::Http11]
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9441))
}

/// Settings that the environment may override: variable, place.
const OVERRIDES: &[(&str, &str)] = &[
    ("TOLLGATE_RESOURCES", "/resources"),
    ("TOLLGATE_DATA_DIR", "/dataDir"),
    ("TOLLGATE_ADMIN_ADDRESS", "/admin/address"),
    ("TOLLGATE_ADMIN_TOKEN_FILE", "/admin/tokenFile"),
    ("TOLLGATE_LEDGER_SEAL_KEY_FILE", "/ledger/sealKeyFile"),
    ("TOLLGATE_DRAIN_DELAY", "/drain/delay"),
    ("TOLLGATE_DRAIN_TIMEOUT", "/drain/timeout"),
    ("TOLLGATE_CORES", "/cores"),
    // The later one wins.
    ("RUST_LOG", "/log"),
    ("TOLLGATE_LOG", "/log"),
];

impl Settings {
    /// Reads `file`, with overrides from `environment`.
    ///
    /// # Errors
    /// Every problem, with file, line and field.
    pub fn read(file: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            vec![Problem { file: file.into(), line: 1, field: String::new(), message: error.to_string() }]
        })?;
        let source = SourceFile { path: file.into(), text };
        let mut settings: Self = read_settings(&source, |value| override_from(value, &environment))
            .map_err(|problems| named(problems, &environment))?;
        let base = file.parent().unwrap_or_else(|| Path::new("."));
        settings.resources = base.join(&settings.resources);
        settings.data_dir = base.join(&settings.data_dir);
        settings.admin.token_file = base.join(&settings.admin.token_file);
        settings.ledger.seal_key_file = settings.ledger.seal_key_file.map(|file| base.join(file));
        settings.checked(&source).map_err(|problems| named(problems, &environment))
    }

    fn checked(self, source: &SourceFile) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: &str| problems.push(problem(source, field, message));
        if self.listeners.is_empty() {
            wrong("listeners", "at least one is needed");
        }
        if self.listeners.iter().any(|listener| listener.protocols.is_empty()) {
            wrong("listeners.protocols", "at least one of h2, http/1.1 is needed");
        }
        if self.identity.trust_domains.is_empty() {
            wrong("identity.trustDomains", "without one nobody can call");
        }
        if !crate::telemetry::is_level(&self.log) {
            let levels = "no level (error, warn, info, debug, trace) and no list of directives";
            wrong("log", &format!("`{}` is {levels}", self.log));
        }
        if self.cores == Some(0) {
            wrong("cores", "at least 1");
        }
        if let Some(key) = &self.ledger.seal_key_file
            && key.starts_with(&self.data_dir)
        {
            wrong(
                "ledger.sealKeyFile",
                "must not lie in dataDir: whoever can cut the journal could forge its seal",
            );
        }
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }

    /// Cores of the data plane.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

fn override_from(value: &mut Value, environment: &impl Fn(&str) -> Option<String>) {
    for (variable, place) in OVERRIDES {
        let Some(text) = environment(variable) else { continue };
        let mut at = &mut *value;
        for key in place.split('/').skip(1) {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            let Value::Object(map) = at else { break };
            at = map.entry(key).or_insert(Value::Null);
        }
        *at = match text.parse::<u64>() {
            Ok(number) if *place == "/cores" => Value::from(number),
            _ => Value::String(text),
        };
    }
}

/// Says of each problem whether the environment brought it.
fn named(problems: Vec<Problem>, environment: &impl Fn(&str) -> Option<String>) -> Vec<Problem> {
    let name = |mut problem: Problem| {
        let is_at = |place: &str| place.split('/').skip(1).eq(problem.field.split('.'));
        let set = |(variable, place): &&(&str, &str)| is_at(place) && environment(variable).is_some();
        if let Some((variable, _)) = OVERRIDES.iter().rev().find(set) {
            problem.message.push_str(&format!(" (set by {variable})"));
        }
        problem
    };
    problems.into_iter().map(name).collect()
}

/// At the first line on which the last part of `field` is written.
fn problem(source: &SourceFile, field: &str, message: &str) -> Problem {
    let key = format!("{}:", field.rsplit('.').next().unwrap_or_default());
    let line = source.text.lines().position(|line| line.contains(&key)).map_or(1, |at| at + 1);
    Problem { file: source.path.clone(), line, field: field.into(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
listeners: [{name: mesh, address: '127.0.0.1:0'}]
identity: {certificate: {certFile: a, keyFile: b}, trustDomains: {prod.acme: {bundleFile: c}}}
resources: res
dataDir: data
admin: {tokenFile: token}
";

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tollgate.yaml");
        std::fs::write(&file, text).unwrap();
        let find = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string());
        Settings::read(&file, find).map_err(|problems| {
            problems.iter().map(|p| format!("{}: {}: {}", p.line, p.field, p.message)).collect()
        })
    }

    #[test]
    fn defaults_are_those_of_the_documentation_and_the_environment_overrides_single_settings() {
        let plain = read(GOOD, &[]).unwrap();
        assert_eq!((plain.drain.delay.0.as_secs(), plain.drain.timeout.0.as_secs()), (5, 300));
        assert!(plain.admin.address.ip().is_loopback());
        let over =
            read(GOOD, &[("TOLLGATE_CORES", "3"), ("TOLLGATE_DRAIN_DELAY", "1s"), ("RUST_LOG", "debug")])
                .unwrap();
        assert_eq!((over.cores(), over.drain.delay.0.as_secs(), over.log.as_str()), (3, 1, "debug"));
    }

    #[test]
    fn a_misspelt_setting_is_named_with_its_line() {
        let problems = read(&GOOD.replace("dataDir", "dataDirectory"), &[]).unwrap_err();
        assert!(problems.iter().any(|p| p.starts_with("5:") && p.contains("dataDirectory")), "{problems:?}");
    }

    #[test]
    fn a_name_that_is_no_authority_is_named_with_its_line() {
        let problems = read(&format!("{GOOD}names: ['https://tollgate']\n"), &[]).unwrap_err();
        assert!(problems[0].starts_with("7: names[0]: `https://tollgate`"), "{problems:?}");
    }

    #[test]
    fn a_problem_that_the_environment_brought_names_its_variable() {
        let problems = read(GOOD, &[("TOLLGATE_CORES", "many"), ("TOLLGATE_LOG", "info")]).unwrap_err();
        assert!(problems[0].ends_with("(set by TOLLGATE_CORES)"), "{problems:?}");
        let problems = read(GOOD, &[("RUST_LOG", "loud")]).unwrap_err();
        assert!(
            problems[0].contains("log: `loud`") && problems[0].ends_with("(set by RUST_LOG)"),
            "{problems:?}"
        );
    }

    #[test]
    fn what_contradicts_itself_is_named_with_the_line_of_its_field() {
        let problems = read(&format!("{GOOD}cores: 0\nlog: 'loud'\n"), &[]).unwrap_err();
        assert!(problems.iter().any(|p| p.starts_with("7: cores:")), "{problems:?}");
        assert!(problems.iter().any(|p| p.starts_with("8: log:")), "{problems:?}");
    }

    #[test]
    fn a_seal_key_inside_the_data_directory_is_refused() {
        let problems = read(&format!("{GOOD}ledger: {{sealKeyFile: data/seal.key}}\n"), &[]).unwrap_err();
        assert!(problems[0].contains("sealKeyFile"), "{problems:?}");
    }
}
