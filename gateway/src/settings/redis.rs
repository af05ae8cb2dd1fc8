//! The store that replicas share limits in.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tollgate_policy::model::Interval;

use super::{schema, value};

/// Redis or Valkey, where replicas share limits.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisSettings {
    /// The server, as `host:port`. Of several the first that answers is used: name more than one only of one server, of the
    /// sentinels, or of the nodes of a cluster.
    #[schemars(with = "Vec<schema::HostPortText>", length(min = 1))]
    pub addresses: Vec<HostAndPort>,
    /// The name of the primary that the sentinels at `addresses` watch. Without it `addresses` are the server's own.
    #[serde(default)]
    pub sentinel: Option<String>,
    /// Whether `addresses` are those of nodes of a Redis Cluster. All keys are on one of them, to which each other one leads.
    #[serde(default)]
    pub cluster: bool,
    /// Speak TLS. `{}` trusts the certificate authorities of the system.
    #[serde(default)]
    pub tls: Option<RedisTls>,
    /// The user to log in as. Without it the default one.
    #[serde(default)]
    pub username: Option<String>,
    /// The file with the password. It is read for each connection.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// What the names of all keys begin with. Gateways with the same one share limits.
    #[serde(default = "prefix")]
    #[schemars(extend("default" = "tollgate"))]
    pub prefix: String,
    /// How long a replica goes on with what it has when the store is gone. After the store has lost something, nothing new is granted for so
    /// long. The same in all replicas.
    #[serde(default = "lease")]
    #[schemars(extend("default" = "10s"))]
    pub lease: Interval,
    /// How many copies of the primary have to have what it was told before it counts as answered. Without it 1 with `sentinel` or
    /// `cluster`, else 0.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub acknowledged_by: Option<u32>,
    /// How long a call waits at most for the store, where this replica has nothing left. It may be `0s`.
    #[serde(default = "wait", deserialize_with = "value::pause")]
    #[schemars(with = "schema::PauseText", extend("default" = "250ms"))]
    pub wait: Duration,
}

/// How the store proves who it is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RedisTls {
    /// The certificate authorities that its certificate is verified with.
    pub ca_file: Option<PathBuf>,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAndPort {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

const LEASE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const MOST_COPIES: u32 = 16;
const LONGEST_WAIT: Duration = Duration::from_secs(5);

fn prefix() -> String {
    "tollgate".to_owned()
}

fn lease() -> Interval {
    Interval(Duration::from_secs(10))
}

fn wait() -> Duration {
    Duration::from_millis(250)
}

impl RedisSettings {
    pub(super) fn based(self, base: &Path) -> Self {
        let tls = self.tls.map(|tls| RedisTls { ca_file: tls.ca_file.map(|file| base.join(file)) });
        Self { tls, password_file: self.password_file.map(|file| base.join(file)), ..self }
    }

    /// How many copies have to acknowledge what the primary was told.
    pub(crate) fn copies(&self) -> u32 {
        self.acknowledged_by.unwrap_or_else(|| u32::from(self.sentinel.is_some() || self.cluster))
    }

    /// What the names of all keys begin with. A cluster keeps them on one node, as they have the tag in braces.
    pub(crate) fn memory_key(&self) -> String {
        format!("{0}:{{{0}}}", self.prefix)
    }

    /// Fields that are out of bounds, with what is wrong.
    pub(super) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut problems = Vec::new();
        let mut wrong = |wrong: bool, field, message| {
            if wrong {
                problems.push((field, message));
            }
        };
        let is_plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        wrong(self.addresses.is_empty(), "redis.addresses", "at least one is needed");
        wrong(!is_plain(&self.prefix), "redis.prefix", "letters, digits, `.`, `_` and `-`");
        wrong(
            self.sentinel.as_deref().is_some_and(str::is_empty),
            "redis.sentinel",
            "name the primary, or leave it out",
        );
        wrong(
            self.cluster && self.sentinel.is_some(),
            "redis.cluster",
            "the nodes of a cluster watch each other: leave `sentinel` out",
        );
        wrong(
            self.username.is_some() && self.password_file.is_none(),
            "redis.username",
            "a user without a password proves nothing: name its `passwordFile`",
        );
        let is_loopback = |address: &HostAndPort| {
            address.host == "localhost" || address.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        wrong(
            self.tls.is_none() && self.password_file.is_some() && !self.addresses.iter().all(is_loopback),
            "redis.tls",
            "without TLS the password can be read on the way: write `tls: {}`, or use a loopback address",
        );
        let has_authority = self.tls.as_ref().is_none_or(|tls| tls.ca_file.is_some());
        wrong(
            (self.sentinel.is_some() || self.cluster) && self.password_file.is_some() && !has_authority,
            "redis.tls.caFile",
            "a sentinel or a node may name any server: with a password, name the authority that the primary's certificate is of",
        );
        wrong(!LEASE.contains(&self.lease.0), "redis.lease", "from 1s to 5m");
        wrong(self.copies() > MOST_COPIES, "redis.acknowledgedBy", "at most 16");
        wrong(self.wait > LONGEST_WAIT, "redis.wait", "at most 5s");
        problems
    }
}

impl<'de> Deserialize<'de> for HostAndPort {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = value::written(value)?;
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let is_host =
                !bare.is_empty() && !bare.contains(['/', '@', ' ']) && (bare == host) != bare.contains(':');
            let port = port.parse().ok().filter(|port| *port > 0)?;
            is_host.then(|| Self { host: bare.to_owned(), port })
        });
        parsed.ok_or_else(|| value::refuse(&text, "write host and port, as in redis.tollgate.svc:6379"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RedisSettings, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in
            [("redis:6379", "redis", 6379), ("[::1]:1", "::1", 1), ("10.0.0.1:80", "10.0.0.1", 80)]
        {
            let settings = read(&format!(r#"{{"addresses": ["{text}"]}}"#)).unwrap();
            assert_eq!(settings.addresses, [HostAndPort { host: host.to_owned(), port }]);
            assert!(settings.problems().is_empty());
        }
        for text in
            ["redis", ":6379", "redis:0", "redis:99999", "rediss://a:1", "u:p@host:1", "::1:6379", "[a]:1"]
        {
            let error = read(&format!(r#"{{"addresses": ["{text}"]}}"#)).unwrap_err().to_string();
            assert!(error.contains("redis.tollgate.svc:6379"), "{error}");
        }
    }

    #[test]
    fn a_copy_has_to_acknowledge_where_sentinels_may_make_it_the_primary() {
        for (more, copies) in [
            ("", 0),
            (r#", "sentinel": "main""#, 1),
            (r#", "cluster": true"#, 1),
            (r#", "cluster": true, "acknowledgedBy": 0"#, 0),
            (r#", "acknowledgedBy": 2"#, 2),
            (r#", "sentinel": "main", "acknowledgedBy": 0"#, 0),
        ] {
            let settings = read(&format!(r#"{{"addresses": ["redis:6379"]{more}}}"#)).unwrap();
            assert_eq!(settings.copies(), copies, "{more}");
        }
    }

    #[test]
    fn what_a_sentinel_or_a_node_names_is_verified_by_an_authority_of_ones_own() {
        let both = r#"{"addresses": ["a:1"], "sentinel": "main", "cluster": true}"#;
        let wrong: Vec<_> = read(both).unwrap().problems().into_iter().map(|(field, _)| field).collect();
        assert_eq!(wrong, ["redis.cluster"]);
        for way in [r#""sentinel": "main""#, r#""cluster": true"#] {
            authority_is_asked_for(way);
        }
    }

    fn authority_is_asked_for(way: &str) {
        let with = |tls: &str| {
            let text = format!(r#"{{"addresses": ["a:1"], {way}, "passwordFile": "p", "tls": {tls}}}"#);
            read(&text).unwrap().problems().into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(with("{}"), ["redis.tls.caFile"]);
        assert!(with(r#"{"caFile": "ca.pem"}"#).is_empty());
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let text = r#"{"addresses": [], "prefix": "a b", "sentinel": "", "username": "u", "lease": "500ms", "acknowledgedBy": 17, "wait": "6s"}"#;
        let fields: Vec<_> = read(text).unwrap().problems().into_iter().map(|(field, _)| field).collect();
        let all = ["addresses", "prefix", "sentinel", "username", "lease", "acknowledgedBy", "wait"]
            .map(|field| format!("redis.{field}"));
        assert_eq!(fields, all);
    }
}
