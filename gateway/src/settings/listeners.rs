//! Whether the listeners can be served as they are written, and somebody can call each.

use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_policy::caller::Identity;
use tollgate_policy::pattern::SpiffePattern;

use super::{ClientCertificate, ListenerKind, ListenerSettings, Protocol, Settings, proxy};
use crate::identity::IdentitySettings;

/// That each tunnel of a listener carries another one (double HBONE).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DoubleHboneSettings {
    /// Who may carry the tunnels of others, as SPIFFE patterns: gateways of other networks. Everybody else may carry only its own tunnels. Who calls
    /// is always the workload of the tunnel inside.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub gateways: Vec<SpiffePattern>,
}

impl DoubleHboneSettings {
    /// Whether it may carry the tunnels of others.
    pub(crate) fn lists(&self, opener: &Identity) -> bool {
        match opener {
            Identity::Spiffe(id) => self.gateways.iter().any(|pattern| pattern.matches(id)),
            Identity::Token(_) | Identity::ServiceAccount(_) => false,
        }
    }
}

impl Settings {
    /// Whether somebody can call each listener.
    pub(super) fn check_callers(&self, wrong: &mut impl FnMut(&str, &str)) {
        let IdentitySettings { trust_domains, tokens, .. } = &self.identity;
        let asks = |listener: &ListenerSettings| listener.client_certificate != ClientCertificate::None;
        if trust_domains.is_empty() && (tokens.is_empty() || self.listeners.iter().any(asks)) {
            wrong("identity.trustDomains", "without one nobody can call with a client certificate");
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            if let Some((field, message)) = listener.clear_problem() {
                wrong(&format!("listeners[{index}].{field}"), message);
            }
            if listener.kind == ListenerKind::Hbone && !listener.protocols.contains(&Protocol::H2) {
                wrong(&format!("listeners[{index}].protocols"), "a tunnel comes over `h2`: leave this out");
            }
            if listener.destination.is_some() && listener.kind != ListenerKind::Tcp {
                let field = format!("listeners[{index}].destination");
                wrong(&field, "only a listener of the kind `tcp` has one: leave this out");
            }
            if listener.double_hbone.is_some() && listener.kind != ListenerKind::Hbone {
                let field = format!("listeners[{index}].doubleHbone");
                wrong(&field, "tunnels in tunnels come to a listener of the kind `hbone`: leave this out");
            }
            for (field, message) in proxy::problems(listener) {
                wrong(&format!("listeners[{index}].{field}"), message);
            }
            let asks = listener.client_certificate == ClientCertificate::Required;
            if listener.kind == ListenerKind::Tcp && !asks {
                let field = format!("listeners[{index}].clientCertificate");
                wrong(
                    &field,
                    "nothing in a connection that is passed through says whose it is, but for the certificate of the TLS to the gateway: \
                     leave this out",
                );
                continue;
            }
            if listener.kind == ListenerKind::Hbone && !asks {
                let field = format!("listeners[{index}].clientCertificate");
                wrong(
                    &field,
                    "a tunnel is its workload's by the certificate of its connection: leave this out",
                );
            } else if tokens.is_empty() && listener.client_certificate != ClientCertificate::Required {
                let field = format!("listeners[{index}].clientCertificate");
                wrong(
                    &field,
                    "who shows no certificate needs a token, and `identity.tokens` names no issuer of any",
                );
            }
        }
    }
}
