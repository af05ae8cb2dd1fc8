//! Conditions, as status has them.

use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

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

impl Condition {
    pub(super) fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason, message: message.into() }
    }

    pub(super) fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }

    /// As it stands among the `conditions` of a status or of a part of one: the time of `before` where it held or did not hold before.
    pub(super) fn json(self, generation: i64, before: &Value) -> Value {
        let status = if self.holds { "True" } else { "False" };
        let unchanged = condition(before, self.kind).filter(|before| before["status"] == status);
        let since = unchanged.and_then(|before| before.get("lastTransitionTime")).cloned();
        let now = || Timestamp::now().round(Unit::Second).unwrap_or_default().to_string().into();
        json!({
            "type": self.kind, "status": status, "reason": self.reason,
            "message": bounded(&self.message, LONGEST_MESSAGE),
            "observedGeneration": generation, "lastTransitionTime": since.unwrap_or_else(now),
        })
    }
}

/// A condition of a status, or of a part of one.
pub(super) fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = status.get("conditions")?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").is_some_and(|found| found == kind))
}

/// At most so many bytes.
pub(super) fn bounded(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most.saturating_sub('…'.len_utf8())).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", text.get(..end.unwrap_or_default()).unwrap_or_default())
}
