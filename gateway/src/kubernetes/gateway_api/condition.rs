//! Conditions as the Gateway API words them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::written::Backend;
use super::{CONTROLLER, Written};

/// Kubernetes takes no longer ones (metav1.Condition).
const LONGEST_MESSAGE: usize = 32_768;

/// The Gateway API takes no more entries of routes and backends.
pub(super) const MOST_ENTRIES: usize = 32;

/// What is said of an object, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Why something is not to be had as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// A word of the Gateway API.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Condition {
    pub(super) fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason, message: message.into() }
    }

    pub(super) fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }
}

/// An object's generation, and the status it has now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported<'a> {
    pub(super) generation: i64,
    pub(super) status: &'a Value,
}

/// Conditions of one object, or of a part of it, which keep the time of their last change.
pub(super) struct Conditions<'a> {
    generation: i64,
    before: &'a Value,
    conditions: Vec<Value>,
}

impl<'a> Conditions<'a> {
    /// Those of the object itself.
    pub(super) fn new(reported: Reported<'a>) -> Self {
        Self::of_part(reported.generation, &reported.status["conditions"])
    }

    /// Those of a part, which had these before.
    pub(super) fn of_part(generation: i64, before: &'a Value) -> Self {
        Self { generation, before, conditions: Vec::new() }
    }

    pub(super) fn with(mut self, conditions: impl IntoIterator<Item = Condition>) -> Self {
        for condition in conditions {
            let Condition { kind, holds, reason, message } = condition;
            let status = if holds { "True" } else { "False" };
            let before = self.before.as_array().into_iter().flatten().find(|it| it["type"] == kind);
            let unchanged = before.filter(|it| it["status"] == status);
            let since = unchanged.and_then(|it| it["lastTransitionTime"].as_str()).map(ToOwned::to_owned);
            let mut message = message;
            if message.len() > LONGEST_MESSAGE {
                message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
            }
            self.conditions.push(json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "observedGeneration": self.generation,
                "lastTransitionTime": since.unwrap_or_else(now),
            }));
        }
        self
    }

    pub(super) fn list(self) -> Value {
        Value::Array(self.conditions)
    }

    /// A status that has nothing else.
    pub(super) fn status(self) -> Value {
        json!({ "conditions": self.list() })
    }
}

fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

/// What the status of an XBackend calls its Gateways, and how an entry refers to one: in 1.6, whose form of the port tells it apart,
/// otherwise than since 1.7.
fn words(backend: &Written<Backend>) -> (&'static str, &'static str) {
    let is_of_1_6 = backend.spec.as_ref().is_ok_and(|spec| spec.port.port.is_some());
    if is_of_1_6 { ("parents", "parentRef") } else { ("ancestors", "ancestorRef") }
}

/// Whether the status of an XBackend has something of ours.
pub(super) fn is_told(backend: &Written<Backend>) -> bool {
    let entries = backend.status[words(backend).0].as_array();
    entries.into_iter().flatten().any(|entry| entry["controllerName"] == CONTROLLER)
}

/// The status of an XBackend: an entry for each Gateway that routes lead from.
pub(super) fn of_backend(backend: &Written<Backend>, gateways: &[Value], accepted: &Condition) -> Value {
    let (list, reference) = words(backend);
    let before = backend.status[list].as_array();
    let entry = |gateway: &Value| {
        let same = |it: &&Value| it[reference] == *gateway && it["controllerName"] == CONTROLLER;
        let had = before.into_iter().flatten().find(same).map_or(&Value::Null, |it| &it["conditions"]);
        let conditions = Conditions::of_part(backend.generation, had).with([accepted.clone()]);
        json!({ reference: gateway, "controllerName": CONTROLLER, "conditions": conditions.list() })
    };
    let others = before.into_iter().flatten().filter(|it| it["controllerName"] != CONTROLLER).cloned();
    let entries: Vec<Value> = others.chain(gateways.iter().map(entry)).take(MOST_ENTRIES).collect();
    json!({ list: entries })
}

/// Whether a status stands there already. Of conditions only ours count: others may have theirs beside them.
pub(in super::super) fn stands(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => wanted.iter().all(|(member, value)| {
            let found = there.get(member).unwrap_or(&Value::Null);
            match (member.as_str(), value.as_array(), found.as_array()) {
                ("conditions", Some(wanted), Some(there)) => wanted.iter().all(|it| there.contains(it)),
                // Nothing and an empty list are the same to the API server.
                (_, Some(wanted), None) => wanted.is_empty() && found.is_null(),
                _ => stands(value, found),
            }
        }),
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| stands(wanted, there))
        }
        _ => wanted == there,
    }
}

/// Why a status says that its object is not accepted, or that it leads to nothing.
pub(in super::super) fn refusal(status: &Value) -> Option<&str> {
    let entries = ["parents", "ancestors"].into_iter().filter_map(|list| status[list].as_array()).flatten();
    let ours = entries.filter(|entry| entry["controllerName"] == CONTROLLER);
    let conditions: Vec<&Value> = std::iter::once(status)
        .chain(ours)
        .filter_map(|it| it["conditions"].as_array())
        .flatten()
        .collect();
    let refused = |kind: &str| conditions.iter().find(|it| it["type"] == kind && it["status"] == "False");
    refused("Accepted").or_else(|| refused("ResolvedRefs"))?["message"].as_str()
}
