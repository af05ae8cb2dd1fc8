//! What the types do not say of one resource, and the API server can tell before it is stored.
//!
//! Each bound and each rule repeats one of the compiler, so that who writes an object is told at once. What an object
//! says of another only the compiler knows.

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_policy::model::MOST_KEYS;

/// More limits than anybody writes for one grant or budget.
const LIMITS: u32 = 64;

/// One line, with something in it.
const SENTENCE: &str = "^[^[:cntrl:]]*[^[:cntrl:][:space:]][^[:cntrl:]]*$";

/// A rule in CEL about what stands at a path of `spec`, of which it says `self`.
struct Rule {
    at: &'static str,
    rule: &'static str,
    message: &'static str,
    /// The field that is wrong, below the path; empty where the value as a whole is.
    field: &'static str,
}

const GRANT: &[Rule] = &[
    Rule {
        at: "",
        rule: "!has(self.credential) || (has(self.allow) && has(self.allow.methods))",
        message: "a grant with a credential says for which methods, as in [POST]",
        field: ".allow.methods",
    },
    Rule {
        at: "",
        rule: "!has(self.credential) || (has(self.allow) && has(self.allow.paths))",
        message: "a grant with a credential says for which paths, as in [/v1/chat/completions]",
        field: ".allow.paths",
    },
    Rule {
        at: "",
        rule: "has(self.credential) || !has(self.allow) || !has(self.allow.range)",
        message: "without a credential `Range` is passed on as it is: leave this out",
        field: ".allow.range",
    },
    Rule {
        at: "",
        rule: "has(self.credential) || !has(self.allow) || !has(self.allow.actions)",
        message: "actions are told apart only where a credential signs for AWS: leave this out",
        field: ".allow.actions",
    },
];

/// Of the limits of a grant and of a budget.
const OF_LIMITS: &[Rule] = &[
    Rule {
        at: "/limits/items",
        rule: "!has(self.concurrency) || !(has(self.per) || has(self.burst) || has(self.window) || has(self.timezone))",
        message: "concurrency is a number of calls under way at one time: leave out per, burst, window and timezone",
        field: ".concurrency",
    },
    Rule {
        at: "/limits/items",
        rule: "!has(self.burst) || has(self.concurrency) || (has(self.requests) && has(self.per) && self.per in ['second', 'minute', 'hour'])",
        message: "only requests per second, minute or hour have a burst: leave this out",
        field: ".burst",
    },
    Rule {
        at: "/limits/items",
        rule: "!(has(self.window) || has(self.timezone)) || !has(self.requests) || !has(self.per) || !(self.per in ['second', 'minute', 'hour'])",
        message: "requests per second, minute or hour are a rate and have no window: leave out window and timezone",
        field: ".requests",
    },
    Rule {
        at: "/limits/items",
        rule: "!has(self.timezone) || (has(self.window) ? self.window == 'calendar' : !has(self.per) || self.per in ['day', 'week', 'month'])",
        message: "a rolling window knows no timezone: leave this out, or write `window: calendar`",
        field: ".timezone",
    },
];

/// A bound on what stands at a path of `spec`.
type FieldBound = (&'static str, &'static str, Value);

fn bounds(kind: &str) -> Vec<FieldBound> {
    let not_empty = |at| (at, "minItems", json!(1));
    match kind {
        // Two of one name would be the same host twice.
        "Destination" => vec![not_empty("/hosts"), ("/hosts", "x-kubernetes-list-type", json!("set"))],
        "Credential" => vec![
            not_empty("/destinations"),
            ("/wildcardHosts/items", "pattern", json!("^\\*\\.[A-Za-z0-9._-]+$")),
            ("/from", "minItems", json!(1)),
            ("/from", "maxItems", json!(MOST_KEYS)),
            ("/from/items", "required", json!(["alias", "path", "store"])),
            ("/from/properties/fields", "minItems", json!(1)),
            ("/from/items/properties/fields", "minItems", json!(1)),
        ],
        "Grant" => vec![
            not_empty("/callers"),
            ("/limits", "maxItems", json!(LIMITS)),
            ("/assume", "required", json!(["inputTokens", "outputTokens"])),
            ("/defaultOutputCap", "minimum", json!(1)),
            ("/suspended", "pattern", json!(SENTENCE)),
            ("/callerToken/properties/audience", "pattern", json!(SENTENCE)),
            not_empty("/allow/properties/methods"),
            not_empty("/allow/properties/paths"),
            not_empty("/allow/properties/models"),
            not_empty("/allow/properties/classes"),
            not_empty("/allow/properties/actions"),
        ],
        "Budget" => vec![not_empty("/limits"), ("/limits", "maxItems", json!(LIMITS))],
        _ => Vec::new(),
    }
}

/// Adds the bounds and rules of a kind to its schema.
pub(super) fn add(kind: &str, schema: &mut Value) -> anyhow::Result<()> {
    for (at, name, bound) in bounds(kind) {
        place(schema, at)?[name] = bound;
    }
    let rules = match kind {
        "Grant" => [GRANT, OF_LIMITS],
        "Budget" => [&[], OF_LIMITS],
        _ => return Ok(()),
    };
    keep_nulls(place(schema, "")?);
    for Rule { at, rule, message, field } in rules.into_iter().flatten() {
        let mut made = json!({ "rule": rule, "message": message });
        if !field.is_empty() {
            made["fieldPath"] = (*field).into();
        }
        let place = place(schema, at)?;
        match place.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut) {
            Some(rules) => rules.push(made),
            None => place["x-kubernetes-validations"] = json!([made]),
        }
    }
    Ok(())
}

/// Lets an API server keep what is null, which it drops otherwise. What a grant or a budget does not say it does not forbid,
/// so the compiler has to see an empty word, as a template makes one, and refuses the object for it.
fn keep_nulls(schema: &mut Value) {
    if let Some(elements) = schema.get_mut("items") {
        keep_nulls(elements);
    }
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|it| it == name));
    for (name, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
    {
        keep_nulls(property);
        if !is_required(name) {
            property["nullable"] = true.into();
        }
    }
}

/// The schema of what stands at a path of `spec`.
fn place<'a>(schema: &'a mut Value, at: &str) -> anyhow::Result<&'a mut Value> {
    let mut pointer = "/properties/spec".to_owned();
    if !at.is_empty() {
        pointer += "/properties";
        pointer += at;
    }
    schema.pointer_mut(&pointer).with_context(|| format!("the schema has nothing at {pointer}"))
}
