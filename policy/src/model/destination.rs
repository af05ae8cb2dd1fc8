//! `kind: Destination`, as it is written.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::allowed::AllowedNamespaces;
use super::field::{Address, Interval, List, text};
use super::proxy::ProxySpec;
use super::resilience::{CircuitBreakerSpec, OutlierDetectionSpec, RetriesSpec};
use super::verify::VerifySpec;
use crate::name::Reference;
use crate::path::EncodedForm;
use crate::pattern::HostPattern;

/// A service outside, and how to reach it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["hosts"]))]
pub(crate) struct DestinationSpec {
    /// The hosts of the service. Each is exact, or begins with one wildcard label: `*.example.com`. Two destinations cannot have
    /// the same host and port, and a host cannot be one of the gateway's own names.
    pub(crate) hosts: List<HostPattern>,
    /// The port to dial.
    #[schemars(range(min = 1), extend("default" = 443))]
    pub(crate) port: Option<u16>,
    /// What is spoken to the service. `http`: requests, over TLS. `tcp`: connections are passed through as they are. `tls`: so are
    /// connections that begin with TLS, and the server that they name has to be one of `hosts`. See [connections](#connections).
    #[schemars(extend("default" = "http"))]
    pub(crate) protocol: Option<ProtocolWord>,
    /// The version of HTTP to the service. `auto` is HTTP/1.1, and HTTP/2 for gRPC. `2` is HTTP/2 where the service offers it.
    #[schemars(extend("default" = "auto"))]
    pub(crate) http: Option<HttpWord>,
    /// How usage is read and which form errors have: `http`, `openai`, `anthropic` or `google`. `http` and `google` count
    /// requests and bytes. `openai` and `anthropic` also know models, tokens and prices.
    #[schemars(extend("default" = "http"))]
    pub(crate) dialect: Option<String>,
    /// IP addresses to dial. Without them DNS is asked.
    pub(crate) addresses: List<Address>,
    /// The IP addresses that a mesh gives the service, as a ServiceEntry's `addresses`. A tunnel to one of them leads here. They are
    /// never dialled.
    pub(crate) virtual_addresses: List<Address>,
    /// The local IP address that calls leave from. It has to be of the same family as `addresses`. Without it and without `sourcePool`
    /// the system chooses.
    pub(crate) source_address: Option<Address>,
    /// The [SourcePool](#sourcepool) with the local IP addresses that calls leave from.
    #[serde(deserialize_with = "source_pool")]
    #[schemars(with = "Reference")]
    pub(crate) source_pool: Option<Reference>,
    /// An HTTP proxy through which the service is reached. See [through a proxy](#through-a-proxy).
    pub(crate) proxy: Option<ProxySpec>,
    /// How the service is known, and what it is shown.
    pub(crate) tls: Option<TlsSpec>,
    /// How long the service may take.
    pub(crate) timeouts: Option<TimeoutsSpec>,
    /// Forms that paths may have here and that are refused otherwise. See [paths](#paths).
    pub(crate) encoded_path: List<EncodedForm>,
    /// Where in answers a key that comes back is masked. See [keys in answers](#keys-in-answers).
    #[schemars(extend("default" = "all"))]
    pub(crate) scrub: Option<ScrubWord>,
    /// When an endpoint of the service is left alone for a while. See [trouble at the service](#trouble-at-the-service).
    pub(crate) outlier_detection: Option<OutlierDetectionSpec>,
    /// How much of the gateway the service may occupy.
    pub(crate) circuit_breaker: Option<CircuitBreakerSpec>,
    /// How often calls are sent again that may be.
    pub(crate) retries: Option<RetriesSpec>,
    /// The namespaces whose resources may refer to this one, besides its own: `All`, or some. See [namespaces](#namespaces).
    pub(crate) allowed_namespaces: Option<AllowedNamespaces>,
    /// `required`: a grant for this destination permits nothing before an [Approval](#approval) says yes to it. Without it none is
    /// needed.
    pub(crate) approval: Option<ApprovalWord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ApprovalWord {
    Required,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ScrubWord {
    All,
    Headers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ProtocolWord {
    Http,
    Tcp,
    Tls,
    /// No listener leads to it yet.
    #[cfg(test)]
    Postgres,
}

/// `auto`, `1` or `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpWord {
    Auto,
    Http1,
    Http2,
}

/// How the gateway's TLS to a `tcp` service begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum OriginateWord {
    Direct,
    Postgres,
}

/// How the service is known, and what it is shown.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TlsSpec {
    /// Which certificate authorities are trusted to name the service: those of the `system`, or those in a file. Verification cannot be
    /// switched off.
    #[schemars(extend("default" = "system"))]
    pub(crate) verify: Option<VerifySpec>,
    /// The Credential with the [client certificate](#client-certificates) that every connection to the service shows. Without it
    /// none is shown.
    #[serde(deserialize_with = "credential")]
    #[schemars(with = "Reference")]
    pub(crate) client_certificate: Option<Reference>,
    /// For `protocol: tcp`: the gateway speaks TLS to the service, around what callers send plain. `direct`: from the first byte.
    /// `postgres`: after asking for it as PostgreSQL has it. Without it bytes pass as they are.
    pub(crate) originate: Option<OriginateWord>,
}

/// How long the service may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TimeoutsSpec {
    /// For the connection, with the gateway's TLS handshake on it.
    #[schemars(extend("default" = "3s"))]
    pub(crate) connect: Option<Interval>,
    /// From the end of the request to the first byte of the answer. Without it `60s`, or `600s` for `openai` and `anthropic`.
    pub(crate) first_byte: Option<Interval>,
    /// Between two pieces of an answer. Without it `300s`, or `600s` for `openai` and `anthropic`. On a connection that is passed
    /// through, between two bytes of either side: without it `1h`.
    pub(crate) idle: Option<Interval>,
    /// A call altogether, from its first byte here to the last byte of its answer, with all attempts. Without it as long as the other
    /// times let it. An upgraded connection is not cut by it.
    pub(crate) total: Option<Interval>,
    /// For `tcp` and `tls`: how long one connection may last. Without it as long as it is used.
    pub(crate) lifetime: Option<Interval>,
}

fn credential<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Reference>, D::Error> {
    text(deserializer, "the name of a Credential that has the certificate, as in `partner-tls`").map(Some)
}

fn source_pool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Reference>, D::Error> {
    text(deserializer, "the name of a SourcePool, as in `finance-ips`").map(Some)
}

impl<'de> Deserialize<'de> for HttpWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl Visitor<'_> for Words {
            type Value = HttpWord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `1` or `2`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<HttpWord, E> {
                match word {
                    "auto" => Ok(HttpWord::Auto),
                    "1" | "1.1" => Ok(HttpWord::Http1),
                    "2" => Ok(HttpWord::Http2),
                    _ => Err(E::unknown_variant(word, &["auto", "1", "2"])),
                }
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<HttpWord, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<HttpWord, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<HttpWord, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Words)
    }
}
