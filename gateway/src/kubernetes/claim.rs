//! The hosts that an object holds, as its status says it: what decides between those that name one host is in the objects themselves, so
//! that every replica comes to the same.

use serde_json::Value;

use super::condition::condition;
use super::kind::{CONTROLLER, ObjectKind};

/// The member of a Destination's status.
pub(super) const HOSTS: &str = "hosts";
/// The condition of an XBackend whose message is its host: it has no such member.
pub(super) const HAS_HOST: &str = "tollgate.dev/HasHost";

/// The hosts that the status of an object says that it holds.
pub(super) fn held_hosts(kind: ObjectKind, status: &Value) -> Vec<String> {
    match kind {
        ObjectKind::Destination => {
            let hosts = status[HOSTS].as_array().into_iter().flatten();
            hosts.filter_map(Value::as_str).map(str::to_owned).collect()
        }
        ObjectKind::Backend => {
            let lists = ["parents", "ancestors"].into_iter().filter_map(|list| status[list].as_array());
            let ours = lists.flatten().filter(|entry| entry["controllerName"] == CONTROLLER);
            let has = ours.filter_map(|entry| condition(entry, HAS_HOST)).filter(|it| it["status"] == "True");
            let mut hosts: Vec<String> =
                has.filter_map(|it| it["message"].as_str()).map(str::to_owned).collect();
            hosts.sort_unstable();
            hosts.dedup();
            hosts
        }
        _ => Vec::new(),
    }
}
