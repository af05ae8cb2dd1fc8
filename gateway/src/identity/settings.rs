//! Where the gateway's own certificate and the trust bundles come from.
//!
//! **Invariant:** each trust domain has one place that its bundle comes from: its file, or else the Workload API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tollgate_policy::caller::TrustDomain;

use super::tokens::{TokenIssuerSettings, problems as token_problems};
use super::workload_api::{UnixSocketText, WorkloadSocket};

/// Where the gateway's own certificate and the trust bundles are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySettings {
    /// The socket of the SPIFFE Workload API, as in `unix:///run/spire/agent.sock`. Without it the variable `SPIFFE_ENDPOINT_SOCKET` names
    /// it, where there is no `certificate`. See [the Workload API](#the-workload-api).
    #[serde(default)]
    #[schemars(with = "UnixSocketText")]
    pub workload_api: Option<WorkloadSocket>,
    /// The gateway's own certificate. Required unless the Workload API gives it one.
    #[serde(default)]
    pub certificate: Option<CertificateFiles>,
    /// The trust domains whose workloads may call with a client certificate, each with its bundle; of `NAME: {}` the Workload API says the
    /// bundle. Required unless `tokens` is there.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, TrustDomainSettings>")]
    pub trust_domains: BTreeMap<TrustDomain, TrustDomainSettings>,
    /// The issuers whose tokens prove callers. See [callers by token](#callers-by-token).
    #[serde(default)]
    pub tokens: Vec<TokenIssuerSettings>,
    /// How far in the future a caller's certificate or token may begin, and how long past its end a token is taken, for clocks that differ:
    /// `0s` to `60s`.
    #[serde(default = "clock_skew", deserialize_with = "crate::settings::pause")]
    #[schemars(with = "crate::settings::PauseText", extend("default" = "5s"))]
    pub clock_skew: Duration,
}

/// The most that `clockSkew` may be.
const MOST_SKEW: Duration = Duration::from_secs(60);

const fn clock_skew() -> Duration {
    Duration::from_secs(5)
}

/// A PEM chain, leaf first, and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// The PEM file with the certificate chain, its own certificate first.
    pub cert_file: PathBuf,
    /// The PEM file with its key: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
}

/// What workloads of a trust domain are verified with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustDomainSettings {
    /// The PEM file with its certificate authorities. Without it the Workload API says them.
    #[serde(default)]
    pub bundle_file: Option<PathBuf>,
    /// A PEM file with revocation lists of these authorities, and beside them the certificates of issuers below these that have lists. Whom
    /// a list names is refused, and everybody of an issuer whose list ended. Without it only lists of the Workload API count.
    #[serde(default)]
    pub crl_file: Option<PathBuf>,
}

/// The variable that names the socket of the Workload API (SPIFFE Workload Endpoint, section 4).
const SOCKET_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// The socket that the environment names, where the settings have neither one nor a certificate of their own.
pub(crate) fn default_socket(settings: &mut Value, environment: impl Fn(&str) -> Option<String>) {
    let Some(identity) = settings.get_mut("identity").and_then(Value::as_object_mut) else { return };
    let has =
        |identity: &Map<String, Value>, field| identity.get(field).is_some_and(|value| !value.is_null());
    if !has(identity, "workloadApi")
        && !has(identity, "certificate")
        && let Some(socket) = environment(SOCKET_VARIABLE)
    {
        identity.insert("workloadApi".to_owned(), Value::String(socket));
    }
}

impl IdentitySettings {
    /// What is wrong with them, by field.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut wrong = |field: String, message: &str| problems.push((field, message.to_owned()));
        if self.clock_skew > MOST_SKEW {
            let message = "at most 60s: a certificate that begins later is not valid yet";
            wrong("identity.clockSkew".to_owned(), message);
        }
        if self.workload_api.is_none() {
            if self.certificate.is_none() {
                let message = "required: `certFile` and `keyFile`, unless `identity.workloadApi` names the socket that the gateway gets \
                               its SVID from, as in `unix:///run/spire/agent.sock`";
                wrong("identity.certificate".to_owned(), message);
            }
            for (domain, _) in self.trust_domains.iter().filter(|(_, one)| one.bundle_file.is_none()) {
                let message = "required, unless `identity.workloadApi` names the socket that says the bundle";
                wrong(bundle_field(domain), message);
            }
        }
        if self.workload_api.is_none() {
            let asks =
                self.tokens.iter().enumerate().filter(|(_, issuer)| issuer.keys.workload_api.is_some());
            problems.extend(asks.map(|(at, _)| {
                let message = "`identity.workloadApi` names no socket that says the keys";
                (format!("identity.tokens[{at}].keys.workloadApi"), message.to_owned())
            }));
        }
        problems.extend(token_problems(&self.tokens));
        problems
    }

    /// The same with paths that count from `base`.
    pub(super) fn based(mut self, base: &Path) -> Self {
        if let Some(files) = &mut self.certificate {
            files.cert_file = base.join(&files.cert_file);
            files.key_file = base.join(&files.key_file);
        }
        for TrustDomainSettings { bundle_file, crl_file } in self.trust_domains.values_mut() {
            *bundle_file = bundle_file.take().map(|file| base.join(file));
            *crl_file = crl_file.take().map(|file| base.join(file));
        }
        self
    }

    /// The socket of the Workload API, where something is wanted of it about certificates.
    pub(super) fn x509_socket(&self) -> Option<&WorkloadSocket> {
        let wants = self.certificate.is_none()
            || self.trust_domains.values().any(|domain| domain.bundle_file.is_none());
        self.workload_api.as_ref().filter(|_| wants)
    }
}

pub(super) fn list_field(domain: &TrustDomain) -> String {
    format!("identity.trustDomains.{domain}.crlFile")
}

pub(super) fn bundle_field(domain: &TrustDomain) -> String {
    format!("identity.trustDomains.{domain}.bundleFile")
}
