//! Whether the authority of `interception` can sign for the hosts that there are.

use tollgate_policy::model::Problem;
use tollgate_policy::policy::Policy;

use crate::interception::Interception;

/// Hosts whose tunnels will be refused, because the name constraints of the authority forbid a certificate for them.
pub(crate) fn unsigned(policy: &Policy, interception: &Interception) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for destination in policy.destinations().filter(|destination| destination.http().is_some()) {
        for (index, host) in destination.hosts.iter().enumerate() {
            let host = host.to_string();
            if !interception.permits_name(&host) {
                let message = format!(
                    "the authority of `interception` may not sign for `{host}` (name constraints): https:// calls of it through a \
                     proxy are refused"
                );
                warnings.push(destination.origin.problem(&format!("spec.hosts[{index}]"), message));
            }
        }
    }
    warnings
}
