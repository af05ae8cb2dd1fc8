//! What the Gateway API says of objects in their status, and what stands there already.

use serde_json::{Value, json};

use super::super::claim::HAS_HOST;
use super::super::condition::Condition;
use super::written::BackendSpec;
use super::{CONTROLLER, Written};

/// The Gateway API takes no more entries of routes and backends.
pub(super) const MOST_ENTRIES: usize = 32;

/// Why something is not to be had as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objection {
    /// A word of the Gateway API.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Objection {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Conditions of an object, or of a part of one; `before` is the status, or the part, that had them.
pub(super) fn list(
    generation: i64,
    before: &Value,
    conditions: impl IntoIterator<Item = Condition>,
) -> Value {
    conditions.into_iter().map(|condition| condition.json(generation, before)).collect()
}

/// What the status of an XBackend calls its Gateways, and how an entry refers to one: in 1.6, whose form of the port tells it apart,
/// otherwise than since 1.7.
fn words(backend: &Written<BackendSpec>) -> (&'static str, &'static str) {
    let is_of_1_6 = backend.spec.as_ref().is_ok_and(|spec| spec.port.port.is_some());
    if is_of_1_6 { ("parents", "parentRef") } else { ("ancestors", "ancestorRef") }
}

/// Whether the status of an XBackend has something of ours.
pub(super) fn is_told(backend: &Written<BackendSpec>) -> bool {
    let entries = backend.status[words(backend).0].as_array();
    entries.into_iter().flatten().any(|entry| entry["controllerName"] == CONTROLLER)
}

/// The status of an XBackend that holds this host, if any: an entry for each Gateway that routes lead from.
pub(super) fn of_backend(
    backend: &Written<BackendSpec>,
    gateways: &[Value],
    (accepted, host): (&Condition, Option<&str>),
) -> Value {
    let (member, reference) = words(backend);
    let before = backend.status[member].as_array();
    let entry = |gateway: &Value| {
        let same = |it: &&Value| it[reference] == *gateway && it["controllerName"] == CONTROLLER;
        let had = before.into_iter().flatten().find(same).unwrap_or(&Value::Null);
        let has_host = host.map(|host| Condition::yes(HAS_HOST, "Claimed", host));
        let conditions = list(backend.generation, had, std::iter::once(accepted.clone()).chain(has_host));
        json!({ reference: gateway, "controllerName": CONTROLLER, "conditions": conditions })
    };
    // Where no route leads any more, what was said before is the one place that tells its host.
    let told = before.into_iter().flatten().filter(|it| it["controllerName"] == CONTROLLER);
    let told: Vec<Value> = told.map(|it| it[reference].clone()).collect();
    let gateways = if gateways.is_empty() && host.is_some() { told.as_slice() } else { gateways };
    let others = before.into_iter().flatten().filter(|it| it["controllerName"] != CONTROLLER).cloned();
    let entries: Vec<Value> = others.chain(gateways.iter().map(entry)).take(MOST_ENTRIES).collect();
    json!({ member: entries })
}

/// Whether a status stands there already. Of conditions only ours count: others may have theirs beside them.
pub(in super::super) fn stands(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => wanted.iter().all(|(member, value)| {
            let found = there.get(member).unwrap_or(&Value::Null);
            match (member.as_str(), value.as_array(), found.as_array()) {
                ("conditions", Some(wanted), Some(there)) => {
                    let has = |conditions: &[Value]| conditions.iter().any(|it| it["type"] == HAS_HOST);
                    wanted.iter().all(|it| there.contains(it)) && has(wanted) == has(there)
                }
                // Nothing and an empty list are the same to the API server.
                (_, Some(wanted), None) => wanted.is_empty() && found.is_null(),
                _ => stands(value, found),
            }
        }),
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len()
                && wanted.iter().zip(there).all(|(wanted, there)| stands(wanted, there))
        }
        _ => wanted == there,
    }
}

/// Why a status says that its object is not accepted, or that it leads to nothing.
pub(in super::super) fn refusal(status: &Value) -> Option<&str> {
    let entries = ["parents", "ancestors"].into_iter().filter_map(|list| status[list].as_array()).flatten();
    let ours = entries.filter(|entry| entry["controllerName"] == CONTROLLER);
    let conditions: Vec<&Value> =
        std::iter::once(status).chain(ours).filter_map(|it| it["conditions"].as_array()).flatten().collect();
    let refused = |kind: &str| conditions.iter().find(|it| it["type"] == kind && it["status"] == "False");
    refused("Accepted").or_else(|| refused("ResolvedRefs"))?["message"].as_str()
}
