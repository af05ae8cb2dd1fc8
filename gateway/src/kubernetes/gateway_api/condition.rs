//! Conditions as the Gateway API words them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::written::Backend;
use super::{CONTROLLER, Written};

/// Kubernetes takes no longer ones (metav1.Condition).
const LONGEST_MESSAGE: usize = 32_768;

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

/// The status of an XBackend: an entry for each Gateway that routes lead from. In 1.7 these are its `ancestors`, in 1.6 its `parents`.
pub(super) fn of_backend(backend: &Written<Backend>, gateways: &[Value], accepted: &Condition) -> Value {
    let is_of_1_6 = backend.status.get("parents").is_some();
    let (list, reference) = if is_of_1_6 { ("parents", "parentRef") } else { ("ancestors", "ancestorRef") };
    let before = backend.status[list].as_array();
    let entry = |gateway: &Value| {
        let same = |it: &&Value| it[reference] == *gateway && it["controllerName"] == CONTROLLER;
        let had = before.into_iter().flatten().find(same).map_or(&Value::Null, |it| &it["conditions"]);
        let conditions = Conditions::of_part(backend.generation, had).with([accepted.clone()]);
        json!({ reference: gateway, "controllerName": CONTROLLER, "conditions": conditions.list() })
    };
    let others = before.into_iter().flatten().filter(|it| it["controllerName"] != CONTROLLER).cloned();
    let entries: Vec<Value> = others.chain(gateways.iter().map(entry)).collect();
    json!({ list: entries })
}
