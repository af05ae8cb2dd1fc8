//! Whether something can come of what is asked at each listener.

use tollgate_policy::model::Problem;
use tollgate_policy::policy::Policy;

use crate::settings::{ListenerKind, Settings};

/// Listeners whose connections or tunnels will be refused, whoever calls.
pub(super) fn idle(policy: &Policy, settings: &Settings) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (index, listener) in settings.listeners.iter().enumerate() {
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
        if listener.kind == ListenerKind::Forward && settings.interception.is_none() {
            let message = "without `interception` https:// calls through this proxy are refused, but for destinations with protocol \
                           tcp or tls; `tollgate ca init` makes an authority";
            warnings.push(settings.problem(&format!("listeners[{index}].kind"), message));
        }
    }
    warnings
}
