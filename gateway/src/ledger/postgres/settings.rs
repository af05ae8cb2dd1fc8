//! The store that several replicas share, as `tollgate.yaml` names it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_policy::model::Interval;

/// A PostgreSQL database that several replicas write what was used to. See [many replicas](#many-replicas).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresSettings {
    /// Host and port, as in `ledger.example:5432`. A private address has to be in `egress.privateRanges`.
    pub address: String,
    /// The database. Tollgate makes its tables in the schema `tollgate` there.
    #[serde(default = "tollgate")]
    #[schemars(extend("default" = "tollgate"))]
    pub database: String,
    /// The role to log in as. It owns the schema `tollgate`, or may make it.
    #[serde(default = "tollgate")]
    #[schemars(extend("default" = "tollgate"))]
    pub user: String,
    /// The file with the password of the role. It is read anew for each connection.
    pub password_file: PathBuf,
    /// How the server proves itself.
    #[serde(default)]
    pub tls: PostgresTlsSettings,
    /// How long single calls are kept there, in whole months. Reports keep their sums.
    #[serde(default = "year")]
    #[schemars(extend("default" = "400d"))]
    pub keep: Interval,
}

/// How the server proves itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PostgresTlsSettings {
    /// `none`: without TLS, for a proxy on the same machine that speaks it. Only with a loopback address.
    #[schemars(extend("default" = "required"))]
    pub mode: PostgresTlsMode,
    /// The PEM file with the certificate authorities that verify the server. Without it the system's.
    pub ca_file: Option<PathBuf>,
}

/// Whether TLS is spoken to the server. Where it is, its certificate and name are verified.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PostgresTlsMode {
    /// Always.
    #[default]
    Required,
    /// Never.
    None,
}

fn tollgate() -> String {
    "tollgate".to_owned()
}

const fn year() -> Interval {
    Interval(Duration::from_secs(400 * 86_400))
}

impl PostgresSettings {
    /// Makes the files those of `base`, where they are relative.
    pub(crate) fn based(mut self, base: &Path) -> Self {
        self.password_file = base.join(&self.password_file);
        self.tls.ca_file = self.tls.ca_file.map(|file| base.join(file));
        self
    }

    /// Host and port.
    pub(crate) fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
        let is_host = host.parse::<IpAddr>().is_ok()
            || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (is_host && !host.is_empty()).then_some((host, port))
    }

    /// Fields that cannot be used, with what is wrong.
    pub(crate) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut problems = Vec::new();
        let place = self.host_and_port();
        if place.is_none() {
            problems.push((
                "address",
                "write host and port, as in ledger.example:5432, without user or password",
            ));
        }
        let is_loopback = place.is_some_and(|(host, _)| {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        });
        if self.tls.mode == PostgresTlsMode::None && !is_loopback {
            let what = "without TLS whoever is between can read and change everything: only for a loopback address, as 127.0.0.1:5432";
            problems.push(("tls.mode", what));
        }
        if self.tls.mode == PostgresTlsMode::None && self.tls.ca_file.is_some() {
            problems.push(("tls.caFile", "nothing is verified without TLS: leave this out"));
        }
        for (field, text) in [("database", &self.database), ("user", &self.user)] {
            if text.is_empty() || text.contains('\0') {
                problems.push((field, "a name is needed"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(yaml: &str) -> PostgresSettings {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn an_address_is_host_and_port_and_nothing_that_could_hold_a_password() {
        for (address, read) in [
            ("ledger.example:5432", Some(("ledger.example", 5432))),
            ("10.0.0.1:5433", Some(("10.0.0.1", 5433))),
            ("[::1]:5432", Some(("::1", 5432))),
            ("ledger.example", None),
            ("ledger.example:0", None),
            (":5432", None),
            ("postgres://a:b@ledger.example:5432", None),
            ("a:b@ledger.example:5432", None),
        ] {
            let settings = settings(&format!("{{address: '{address}', passwordFile: p}}"));
            assert_eq!(settings.host_and_port(), read, "{address}");
            assert_eq!(settings.problems().is_empty(), read.is_some(), "{address}");
        }
    }

    #[test]
    fn only_a_server_on_the_same_machine_does_without_tls() {
        let with = |address: &str, tls: &str| {
            let settings = settings(&format!("{{address: '{address}', passwordFile: p, tls: {tls}}}"));
            settings.problems().into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(with("ledger.example:5432", "{mode: none}"), ["tls.mode"]);
        assert_eq!(with("10.0.0.1:5432", "{mode: none}"), ["tls.mode"]);
        assert_eq!(with("127.0.0.1:5432", "{mode: none}"), [""; 0]);
        assert_eq!(with("localhost:5432", "{mode: none, caFile: ca.pem}"), ["tls.caFile"]);
        assert_eq!(with("ledger.example:5432", "{caFile: ca.pem}"), [""; 0]);
    }
}
