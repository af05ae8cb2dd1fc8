//! What the gateway says of an object.

use serde_json::{Value, json};

use crate::kubernetes::{ObjectKind, StatusMember};

/// The schema of `status`.
pub(super) fn schema(kind: ObjectKind) -> Value {
    let mut properties = json!({ "conditions": conditions() });
    for member in StatusMember::of(kind) {
        properties[member.word()] = of_member(member);
    }
    json!({
        "type": "object",
        "description": "What the gateway says of it. Only the gateway writes it.",
        "properties": properties,
    })
}

fn of_member(member: StatusMember) -> Value {
    match member {
        StatusMember::ObservedGeneration => json!({
            "type": "integer",
            "format": "int64",
            "description": "The generation of the object that this status is of.",
        }),
        StatusMember::Limits => limits(),
        StatusMember::Hash => json!({
            "type": "string",
            "description": "What the grant compiles to. An Approval names it.",
        }),
        StatusMember::Health => json!({
            "type": "string",
            "description": "How the key does, or the worst of a key pool.",
        }),
        StatusMember::NextRefresh => json!({
            "type": "string",
            "format": "date-time",
            "description": "When the key is read again.",
        }),
        StatusMember::Hosts => json!({
            "type": "array",
            "description": "The hosts that it holds: while it names them they go to no other namespace's app, and of its own namespace's objects to this one before others.",
            "x-kubernetes-list-type": "atomic",
            "items": { "type": "string" },
        }),
    }
}

/// As `metav1.Condition` of Kubernetes has it.
fn conditions() -> Value {
    json!({
        "type": "array",
        "description": "Accepted: it compiles. ResolvedRefs: what it names is there, and may be named. Programmed: calls are decided by it. Approved: its destination's owners agree.",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "description": "What it says something about.",
                },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so." },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one word.",
                },
                "message": { "type": "string", "maxLength": 32768, "description": "Why, in the compiler's own words." },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When `status` changed last.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The generation of the object that this is of.",
                },
            },
        },
    })
}

fn limits() -> Value {
    let amount = |about: &str| json!({ "type": "string", "description": about });
    json!({
        "type": "array",
        "description": "How much of each limit is used. A rate has no such numbers.",
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": amount("The limit."),
                "spent": amount("What was used in the window that runs."),
                "held": amount("What calls under way may still use."),
                "left": amount("What is left for new calls."),
                "reached": {
                    "type": "integer",
                    "format": "int32",
                    "description": "Of a budget: the highest of its thresholds that is reached, in percent.",
                },
                "forecastReached": {
                    "type": "boolean",
                    "description": "Of a budget that tells of a forecast: at this pace all of it is used before its window ends.",
                },
                "resets": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the window ends.",
                },
            },
        },
    })
}
