//! What does not change while the process runs: `tollgate.yaml` and single settings from the environment.

mod limits;
#[cfg(test)]
mod tests;
mod value;

pub use limits::RequestLimits;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tollgate_policy::model::{Interval, Problem, Source, SourceFile, nearest, read_settings};
use tollgate_policy::target::GatewayName;

pub(crate) use self::value::pause;
use crate::identity::{IdentitySettings, MOST_SKEW};
use crate::telemetry::LogSettings;

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
    /// What is logged, and how; a level alone stands for one with the format left open.
    #[serde(default)]
    pub log: LogSettings,
    /// Bounds on requests.
    #[serde(default)]
    pub limits: RequestLimits,
    /// Where all of this was written.
    #[serde(skip)]
    pub(crate) origin: Origin,
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) file: SourceFile,
    source: Source,
    /// Variables of the environment that are in force, with the place of each.
    overrides: Vec<(&'static str, &'static str)>,
}

/// One listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSettings {
    /// For logs.
    pub name: String,
    /// Address and port; port 0 takes a free one, which the log names.
    #[serde(deserialize_with = "value::address")]
    pub address: SocketAddr,
    /// ALPN protocols in order of preference: `h2`, `http/1.1`.
    #[serde(default = "both")]
    pub protocols: Vec<Protocol>,
    /// What proves callers here stands in the handshake. No setting yet: nothing else proves any.
    #[serde(skip)]
    pub(crate) client_certificate: ClientCertificate,
}

/// Whether the callers of a listener show a certificate when they connect. One that is shown is always verified.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ClientCertificate {
    /// Who shows none is turned away.
    #[default]
    Required,
    /// Who shows none has to prove itself otherwise.
    Optional,
    /// None is asked for.
    None,
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
    #[serde(default = "loopback", deserialize_with = "value::address")]
    pub address: SocketAddr,
    /// Holds the bearer token; made with a random one where it does not exist.
    pub token_file: PathBuf,
}

/// What may be dialled.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressSettings {
    /// Private and loopback ranges that destinations and stores may be in. None unless listed.
    #[serde(default, deserialize_with = "value::ranges")]
    pub private_ranges: Vec<IpNet>,
    /// How the names of destinations are resolved.
    #[serde(default)]
    pub dns: DnsSettings,
}

/// How the names of destinations are resolved.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSettings {
    /// The servers to ask, as addresses with or without a port (53). None: those of `/etc/resolv.conf`, with its search domains.
    #[serde(default, deserialize_with = "value::servers")]
    pub servers: Vec<SocketAddr>,
}

/// The ledger's seal, and how much of it is kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerSettings {
    /// The key that authenticates chain heads; belongs on another disk than `dataDir`. Made where neither it nor seals exist.
    #[serde(default)]
    pub seal_key_file: Option<PathBuf>,
    /// How much of the journal is kept.
    #[serde(default)]
    pub keep: KeepSettings,
}

/// How much of the journal is kept. What a window that was charged, a call under way or the store still needs stays in any case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeepSettings {
    /// Segments that ended longer ago go; 90d.
    pub age: Interval,
    /// While all segments have more bytes than this, the oldest goes; 20 GiB.
    #[serde(deserialize_with = "value::bytes")]
    pub size: usize,
}

impl Default for KeepSettings {
    fn default() -> Self {
        Self { age: Interval(Duration::from_secs(90 * 86_400)), size: 20 << 30 }
    }
}

/// How to stop.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainSettings {
    /// From unready to closed listeners, which may be `0s`; 5s.
    #[serde(deserialize_with = "value::pause")]
    pub delay: Duration,
    /// From closed listeners to cut connections; 600s, as long as the SDKs of LLM providers wait for an answer.
    pub timeout: Interval,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), timeout: Interval(Duration::from_secs(600)) }
    }
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
    ("RUST_LOG", "/log/level"),
    ("TOLLGATE_LOG", "/log/level"),
    ("TOLLGATE_LOG_FORMAT", "/log/format"),
];

impl Settings {
    /// Reads `file`, with overrides from `environment`.
    ///
    /// # Errors
    /// Every problem, with file, line and field.
    pub fn read(file: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let message = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "there is no such file: `tollgate init` makes a first one, --config FILE or TOLLGATE_CONFIG names another".to_owned()
                }
                _ => error.to_string(),
            };
            vec![Problem { file: file.into(), line: 0, field: String::new(), message }]
        })?;
        let file_read = SourceFile { path: file.into(), text };
        let is_set = |(variable, _): &(&str, &str)| environment(variable).is_some();
        let overrides: Vec<_> = OVERRIDES.iter().copied().filter(is_set).collect();
        let (mut settings, source): (Self, Source) =
            read_settings(&file_read, |value| override_from(value, &environment))
                .map_err(|problems| named(problems, &overrides))?;
        settings.origin = Origin { file: file_read, source, overrides };
        let base = file.parent().unwrap_or_else(|| Path::new("."));
        settings.resources = base.join(&settings.resources);
        settings.data_dir = base.join(&settings.data_dir);
        settings.admin.token_file = base.join(&settings.admin.token_file);
        settings.ledger.seal_key_file = settings.ledger.seal_key_file.map(|file| base.join(file));
        settings.checked()
    }

    /// A problem with what is set at `field`, or with what it leads to.
    pub(crate) fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        let Origin { source, overrides, .. } = &self.origin;
        name(source.problem(field, message), overrides)
    }

    fn checked(self) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: &str| problems.push(self.problem(field, message));
        if self.listeners.is_empty() {
            wrong("listeners", "at least one is needed");
        }
        for (index, _) in
            self.listeners.iter().enumerate().filter(|(_, listener)| listener.protocols.is_empty())
        {
            wrong(&format!("listeners[{index}].protocols"), "at least one of h2, http/1.1 is needed");
        }
        if self.identity.trust_domains.is_empty() {
            wrong("identity.trustDomains", "without one nobody can call");
        }
        if self.identity.clock_skew > MOST_SKEW {
            wrong("identity.clockSkew", "at most 60s: a certificate that begins later is not valid yet");
        }
        if !crate::telemetry::is_level(&self.log.level) {
            let levels = "no level (error, warn, info, debug, trace) and no list of directives";
            wrong("log.level", &format!("`{}` is {levels}", self.log.level));
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
        for (field, message) in self.limits.problems() {
            wrong(&format!("limits.{field}"), message);
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
    if let Some(log) = value.get_mut("log").filter(|log| log.is_string()) {
        *log = serde_json::json!({ "level": log.take() });
    }
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
fn named(problems: Vec<Problem>, overrides: &[(&str, &str)]) -> Vec<Problem> {
    problems.into_iter().map(|problem| name(problem, overrides)).collect()
}

fn name(mut problem: Problem, overrides: &[(&str, &str)]) -> Problem {
    let is_at = |(_, place): &&(&str, &str)| place.split('/').skip(1).eq(problem.field.split('.'));
    if let Some((variable, _)) = overrides.iter().rev().find(is_at) {
        problem.message.push_str(&format!(" (set by {variable})"));
    }
    problem
}

/// What to say of variables that look like ours and that nothing reads. What Kubernetes sets for a service called `tollgate…` only
/// looks like it.
pub(crate) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let is_link = |name: &str| {
        name.ends_with("_PORT")
            || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part))
    };
    let known = || OVERRIDES.iter().map(|(variable, _)| *variable).chain(["TOLLGATE_CONFIG"]);
    // Left to the secrets of an environment store.
    let is_secret = |name: &str| name.starts_with("TOLLGATE_SECRET_");
    let unknown = |name: &String| {
        name.starts_with("TOLLGATE_")
            && !known().any(|known| known == name)
            && !is_link(name)
            && !is_secret(name)
    };
    let names: BTreeSet<String> = names.filter(unknown).collect();
    let said = names.iter().map(|name| {
        let ours = known().filter(|known| known.starts_with("TOLLGATE_"));
        let nearest = nearest(name, ours);
        let guess = nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
        format!("nothing reads the variable {name}{guess}")
    });
    said.collect()
}
