//! Whether the listeners can be served as they are written, and somebody can call each.

use super::{ClientCertificate, ListenerKind, ListenerSettings, Protocol, Settings, proxy};
use crate::identity::IdentitySettings;

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
