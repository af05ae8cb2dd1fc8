//! Proxies in front of a listener that say who really connected.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ClientCertificate, ListenerKind, ListenerSettings, schema, value};

/// Who is believed when it says who really connected (PROXY protocol, version 2).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyProtocolSettings {
    /// The proxies' addresses. Every connection of theirs has to begin with a header; one from elsewhere is closed.
    #[serde(deserialize_with = "value::ranges")]
    #[schemars(with = "Vec<schema::RangeText>", length(min = 1))]
    pub from: Vec<IpNet>,
    /// Whether these proxies have verified the workload, and say its SPIFFE id in TLV `0xD0`, as Istio's ztunnel does. What comes behind the
    /// header is then HTTP without TLS, or with `kind: tcp` the connection that is passed through. Whoever can send from one of these addresses is every workload of `identity.trustDomains`.
    #[serde(default)]
    pub spiffe_tlv: bool,
}

impl ProxyProtocolSettings {
    /// Whether a peer is one of the proxies.
    pub(crate) fn lists(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.from.iter().any(|range| range.contains(&peer))
    }
}

/// What is wrong with what a listener says of proxies, by field.
pub(super) fn problems(listener: &ListenerSettings) -> Vec<(&'static str, &'static str)> {
    let Some(proxy) = &listener.proxy_protocol else { return Vec::new() };
    let mut problems = Vec::new();
    if proxy.from.is_empty() {
        problems.push(("proxyProtocol.from", "at least one range is needed, as in 10.0.0.0/8"));
    }
    if proxy.spiffe_tlv && !matches!(listener.kind, ListenerKind::Http | ListenerKind::Tcp) {
        let message = "what comes behind a header that names the workload is its HTTP or its connection: only with `kind: http` or \
                       `kind: tcp`";
        problems.push(("proxyProtocol.spiffeTlv", message));
    }
    if proxy.spiffe_tlv && listener.client_certificate != ClientCertificate::Required {
        let message = "the proxy has verified the workload, and what comes is not TLS: leave this out";
        problems.push(("clientCertificate", message));
    }
    problems
}
