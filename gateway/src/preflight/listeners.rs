//! Whether something can come of what is asked at each listener.

use std::net::SocketAddr;

use ipnet::IpNet;
use tollgate_policy::model::Problem;
use tollgate_policy::policy::Policy;

use crate::settings::{ListenerKind, Settings};

/// More addresses than proxies that one would list by hand.
fn is_wide(range: &IpNet) -> bool {
    range.max_prefix_len() - range.prefix_len() > 8
}

/// Listeners whose connections or tunnels will be refused, whoever calls.
pub(super) fn idle(policy: &Policy, settings: &Settings) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (index, listener) in settings.listeners.iter().enumerate() {
        let is_same = |other: &SocketAddr| *other == listener.address && other.port() != 0;
        let others = settings.listeners.iter().take(index).map(|other| (&*other.name, &other.address));
        let others = others.chain([("admin", &settings.admin.address)]);
        if let Some((name, _)) = others.into_iter().find(|(_, address)| is_same(address)) {
            let message = format!("`{name}` has this address already: the gateway will not start");
            warnings.push(settings.problem(&format!("listeners[{index}].address"), message));
        }
        if let Some(name) = &listener.destination
            && policy.passage_to(name.as_str()).is_err()
        {
            let message = match policy.destinations().any(|destination| destination.name == *name) {
                true => format!(
                    "`{name}` speaks HTTP: connections here are reset; name one with protocol tcp or tls"
                ),
                false => format!("there is no Destination `{name}`: connections here are reset"),
            };
            warnings.push(settings.problem(&format!("listeners[{index}].destination"), message));
        }
        if let Some(proxy) = listener.proxy_protocol.as_ref().filter(|proxy| proxy.spiffe_tlv) {
            for (at, range) in proxy.from.iter().enumerate().filter(|(_, range)| is_wide(range)) {
                let message = format!(
                    "whoever can send from one of the many addresses of {range} can name itself any workload (`spiffeTlv`): list the \
                     addresses of the proxies alone"
                );
                warnings
                    .push(settings.problem(&format!("listeners[{index}].proxyProtocol.from[{at}]"), message));
            }
        }
        if listener.kind == ListenerKind::Forward && settings.interception.is_none() {
            let message = "without `interception` https:// calls through this proxy are refused, but for destinations with protocol \
                           tcp or tls; `tollgate ca init` makes an authority";
            warnings.push(settings.problem(&format!("listeners[{index}].kind"), message));
        }
    }
    warnings
}
