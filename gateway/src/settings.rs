//! What does not change while the process runs: `tollgate.yaml` and single settings from the environment.

mod alerts;
mod limits;
mod listeners;
mod proxy;
mod redis;
mod resources;
mod schema;
#[cfg(test)]
mod tests;
mod value;

pub use alerts::{AlertSettings, WebhookSettings};
pub(crate) use limits::INLINE_FIELDS;
pub use limits::RequestLimits;
pub use listeners::DoubleHboneSettings;
pub use proxy::ProxyProtocolSettings;
pub use redis::{HostAndPort, RedisSettings};
pub(crate) use resources::KubernetesSettings;
pub use resources::ResourceSettings;
pub(crate) use schema::{PauseText, SizeText};

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tollgate_policy::model::{Interval, Problem, Source, SourceFile, nearest, read_settings};
use tollgate_policy::name::ResourceId;
use tollgate_policy::target::GatewayName;

pub(crate) use self::value::pause;
use crate::identity::{IdentitySettings, default_socket};
use crate::interception::InterceptionSettings;
use crate::ledger::PostgresSettings;
use crate::otlp::TelemetrySettings;
use crate::telemetry::LogSettings;

/// `tollgate.yaml`. Relative paths count from the directory of the file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The sockets that workloads call.
    pub listeners: Vec<ListenerSettings>,
    /// The host names that are the gateway's own. Under these the first path segment names the destination.
    #[serde(default)]
    #[schemars(with = "Vec<schema::HostText>")]
    pub names: Vec<GatewayName>,
    /// The gateway's own certificate, and who may call.
    pub identity: IdentitySettings,
    /// The authority that lets a [proxy](#forward-proxy) read `https://` requests. Without it such a tunnel is refused.
    #[serde(default)]
    pub interception: Option<InterceptionSettings>,
    /// The directory of resources, or `kubernetes` for the [objects of a cluster](#in-a-cluster).
    #[schemars(schema_with = "resources::schema")]
    pub resources: ResourceSettings,
    /// The directory of journal, store and audit trail. One process at a time uses it.
    pub data_dir: PathBuf,
    /// The [admin port](#the-admin-port).
    pub admin: AdminSettings,
    /// What may be dialled.
    #[serde(default)]
    pub egress: EgressSettings,
    /// The ledger's seal, how much of it is kept, and where it goes.
    #[serde(default)]
    pub ledger: LedgerSettings,
    /// How to stop.
    #[serde(default)]
    pub drain: DrainSettings,
    /// How many cores serve calls. Without it all that the process may use.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub cores: Option<usize>,
    /// What is logged, and how. `log: debug` is short for `log: {level: debug}`.
    #[serde(default)]
    #[schemars(schema_with = "schema::log")]
    pub log: LogSettings,
    /// Bounds on requests, and on what one caller may occupy.
    #[serde(default)]
    pub limits: RequestLimits,
    /// Where traces, metrics and logs go, and who is told of traces.
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    /// Who is told of what happens to budgets.
    #[serde(default)]
    pub alerts: AlertSettings,
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
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSettings {
    /// The name of the listener in logs.
    pub name: String,
    /// What is spoken there: `http`; `hbone` for the [tunnels of an ambient mesh](#tunnels-of-a-mesh); `forward` for programs that have
    /// the gateway as their [proxy](#forward-proxy); `tcp` for [connections](#connections) that are passed through.
    #[serde(default)]
    #[schemars(extend("default" = "http"))]
    pub kind: ListenerKind,
    /// For `tcp`: the Destination that connections go to, as `name` or `namespace/name`. Without it, the one whose server the caller's
    /// own TLS names, inside the TLS to the gateway.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub destination: Option<ResourceId>,
    /// IP address and port. Port 0 takes a free port, which the log names.
    #[serde(deserialize_with = "value::address")]
    #[schemars(with = "schema::SocketText")]
    pub address: SocketAddr,
    /// What TLS offers, in order of preference. For `hbone` that is always `h2`, for `tcp` nothing.
    #[serde(default = "both")]
    #[schemars(length(min = 1), extend("default" = ["h2", "http/1.1"]))]
    pub protocols: Vec<Protocol>,
    /// Whether callers show a client certificate here. One that is shown is always verified. `optional` and `none` need `identity.tokens`.
    #[serde(default)]
    #[schemars(extend("default" = "required"))]
    pub client_certificate: ClientCertificate,
    /// Proxies in front of the listener that say who really connected. See [behind a proxy](#behind-a-proxy).
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocolSettings>,
    /// For `hbone`: each tunnel here carries another one, as they come from another network of the mesh. See
    /// [tunnels of other networks](#tunnels-of-other-networks).
    #[serde(default)]
    pub double_hbone: Option<DoubleHboneSettings>,
    /// `none`: without TLS, for programs that speak to their proxy only in the clear. Only with `kind: forward`, on a loopback address.
    #[serde(default)]
    #[schemars(extend("default" = "required"))]
    pub tls: TlsMode,
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ListenerKind {
    /// Requests.
    #[default]
    Http,
    /// Tunnels, with requests in them or connections that are passed through.
    Hbone,
    /// Requests and tunnels of whoever has the gateway as its proxy.
    Forward,
    /// Connections that are passed through.
    Tcp,
}

/// Whether a listener speaks TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// Always.
    #[default]
    Required,
    /// Never: what a caller shows there can be read on the way.
    None,
}

/// Whether the callers of a listener show a certificate when they connect. One that is shown is always verified.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientCertificate {
    /// Who shows none is turned away.
    #[default]
    Required,
    /// Who shows none has to prove itself otherwise.
    Optional,
    /// None is asked for.
    None,
}

/// A protocol that ALPN offers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum Protocol {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
}

impl ListenerSettings {
    /// Why it cannot do without TLS. A token is all that a caller can show there, and who reads it on the way is that caller.
    fn clear_problem(&self) -> Option<(&'static str, &'static str)> {
        if self.tls == TlsMode::Required {
            None
        } else if self.kind != ListenerKind::Forward {
            Some(("tls", "only `kind: forward` may do without TLS: leave this out"))
        } else if !self.address.ip().is_loopback() {
            Some((
                "tls",
                "without TLS a caller's token can be read on the way: use a loopback address, as 127.0.0.1, or leave this out",
            ))
        } else if self.client_certificate != ClientCertificate::None {
            Some(("clientCertificate", "without TLS nobody can show one: write `clientCertificate: none`"))
        } else {
            None
        }
    }
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
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminSettings {
    /// IP address and port of the [admin port](#the-admin-port).
    #[serde(default = "loopback", deserialize_with = "value::address")]
    #[schemars(with = "schema::SocketText", extend("default" = "127.0.0.1:9441"))]
    pub address: SocketAddr,
    /// The file with the token of the admin port. The gateway makes it with a random token if it is not there.
    pub token_file: PathBuf,
}

/// What may be dialled.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressSettings {
    /// Private and loopback ranges that destinations and stores may be in. Without it none.
    #[serde(default, deserialize_with = "value::ranges")]
    #[schemars(with = "Vec<schema::RangeText>")]
    pub private_ranges: Vec<IpNet>,
    /// Ranges of the gateway's own zone. Of several addresses of a host, those in them are dialled first, and others where none of
    /// these answers. Without it no address is nearer than another.
    #[serde(default, deserialize_with = "value::ranges")]
    #[schemars(with = "Vec<schema::RangeText>")]
    pub zone_ranges: Vec<IpNet>,
    /// How the names of destinations are resolved.
    #[serde(default)]
    pub dns: DnsSettings,
}

/// How the names of destinations are resolved.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSettings {
    /// DNS servers to ask, as IP addresses with or without a port. Without it those of `/etc/resolv.conf`, with its search domains.
    #[serde(default, deserialize_with = "value::servers")]
    #[schemars(with = "Vec<schema::ServerText>")]
    pub servers: Vec<SocketAddr>,
}

/// The ledger's seal, how much of it is kept, and where it goes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerSettings {
    /// The file with the key that seals the journal and the audit trail. It belongs on another disk than `dataDir`. The gateway makes it
    /// if neither it nor seals are there. Without it nothing is sealed.
    #[serde(default)]
    pub seal_key_file: Option<PathBuf>,
    /// How much of the journal is kept.
    #[serde(default)]
    pub keep: KeepSettings,
    /// What this replica is called in `ledger.postgres` and in what commands say of it. Without it the host name.
    #[serde(default)]
    pub replica: Option<String>,
    /// The database that the ledgers of [many replicas](#many-replicas) go to as well. Without it reports see this replica alone.
    #[serde(default)]
    pub postgres: Option<PostgresSettings>,
}

impl LedgerSettings {
    /// Makes the files those of `base`, where they are relative.
    fn based(mut self, base: &Path) -> Self {
        self.seal_key_file = self.seal_key_file.map(|file| base.join(file));
        self.postgres = self.postgres.map(|postgres| postgres.based(base));
        self
    }

    /// Fields that cannot be used, with what is wrong.
    fn problems(&self, data_dir: &Path) -> Vec<(String, &'static str)> {
        let mut problems = Vec::new();
        if self.seal_key_file.as_ref().is_some_and(|key| key.starts_with(data_dir)) {
            let message = "must not lie in dataDir: whoever can cut the journal could forge its seal";
            problems.push(("sealKeyFile".to_owned(), message));
        }
        let is_name =
            |name: &String| !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control);
        if !self.replica.as_ref().is_none_or(is_name) {
            problems.push(("replica".to_owned(), "a name of 1 to 128 bytes in one line"));
        }
        let postgres = self.postgres.iter().flat_map(PostgresSettings::problems);
        problems.extend(postgres.map(|(field, message)| (format!("postgres.{field}"), message)));
        problems
    }
}

/// How much of the journal is kept. What a window that was charged, a call under way or the store still needs stays in any case.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeepSettings {
    /// Segments of the journal that ended longer ago go.
    #[schemars(extend("default" = "90d"))]
    pub age: Interval,
    /// While all segments take more, the oldest goes. What a charged window, a call under way or the store still needs stays, whatever
    /// `size` says. Reports keep their sums. `tollgate ledger verify` says how many segments went.
    #[serde(deserialize_with = "value::bytes")]
    #[schemars(with = "SizeText", extend("default" = "20 GiB"))]
    pub size: usize,
}

impl Default for KeepSettings {
    fn default() -> Self {
        Self { age: Interval(Duration::from_secs(90 * 86_400)), size: 20 << 30 }
    }
}

/// How to stop.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainSettings {
    /// On SIGTERM: from unready to closed listeners. It may be `0s`.
    #[serde(deserialize_with = "value::pause")]
    #[schemars(with = "PauseText", extend("default" = "5s"))]
    pub delay: Duration,
    /// From closed listeners to cut connections. As long as the SDKs of LLM providers wait for an answer.
    #[schemars(extend("default" = "600s"))]
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
    ("TOLLGATE_LEDGER_REPLICA", "/ledger/replica"),
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
        let (mut settings, source): (Self, Source) = read_settings(&file_read, |value| {
            override_from(value, &environment);
            default_socket(value, &environment);
        })
        .map_err(|problems| named(problems, &overrides))?;
        settings.origin = Origin { file: file_read, source, overrides };
        let base = file.parent().unwrap_or_else(|| Path::new("."));
        settings.resources = settings.resources.within(base);
        settings.data_dir = base.join(&settings.data_dir);
        settings.admin.token_file = base.join(&settings.admin.token_file);
        settings.ledger = settings.ledger.based(base);
        settings.telemetry = settings.telemetry.based(base);
        settings.alerts = settings.alerts.based(base);
        settings.limits.redis = settings.limits.redis.map(|redis| redis.based(base));
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
        self.check_callers(&mut wrong);
        if !crate::telemetry::is_level(&self.log.level) {
            let levels = "no level (error, warn, info, debug, trace) and no list of directives";
            wrong("log.level", &format!("`{}` is {levels}", self.log.level));
        }
        if self.cores == Some(0) {
            wrong("cores", "at least 1");
        }
        for (field, message) in self.ledger.problems(&self.data_dir) {
            wrong(&format!("ledger.{field}"), message);
        }
        for (field, message) in self.identity.problems() {
            wrong(&field, &message);
        }
        if let Some((field, message)) = self.resources.problem() {
            wrong(field, message);
        }
        for (part, problems) in [("limits", self.limits.problems()), ("alerts", self.alerts.problems())] {
            for (field, message) in problems {
                wrong(&format!("{part}.{field}"), message);
            }
        }
        for (field, message) in self.telemetry.problems() {
            wrong(&format!("telemetry.{field}"), &message);
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
