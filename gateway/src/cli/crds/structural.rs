//! From JSON Schema to the structural schemas of Kubernetes: no references, one type for each value, and nothing within
//! `anyOf` that is not a bound.
//!
//! A value that may be a mapping or a list, as `spec.from` may, has no type there. Its members and elements are checked
//! all the same, and what else is in it is kept for the compiler to report.

use serde_json::{Map, Value, json};

/// What is taken over as it stands.
const BOUNDS: [&str; 10] = [
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
];

/// Named types, whose references are replaced by what they name.
pub(super) struct Structural<'a> {
    definitions: &'a Map<String, Value>,
}

/// Whether rules in CEL can be about a value: nothing within one without a type is known to them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Known,
    Unknown,
}

impl<'a> Structural<'a> {
    pub(super) const fn new(definitions: &'a Map<String, Value>) -> Self {
        Self { definitions }
    }

    pub(super) fn of(&self, schema: &Value) -> Map<String, Value> {
        self.convert(schema, Rules::Known)
    }

    fn convert(&self, schema: &Value, rules: Rules) -> Map<String, Value> {
        let schema = self.resolved(schema);
        let mut made = match schema.get("anyOf").and_then(Value::as_array) {
            Some(choices) => self.choices(choices),
            None => self.plain(&schema, rules),
        };
        if let Some(text) = description(&schema) {
            made.insert("description".to_owned(), text.into());
        }
        made
    }

    /// With the named type in place of its name. What stands beside the name goes before what the type says.
    fn resolved(&self, schema: &Value) -> Map<String, Value> {
        let mut members = schema.as_object().cloned().unwrap_or_default();
        while let Some(reference) = members.remove("$ref") {
            let name = reference.as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
            let named = name.and_then(|name| self.definitions.get(name)).and_then(Value::as_object);
            for (name, member) in named.into_iter().flatten() {
                members.entry(name.clone()).or_insert_with(|| member.clone());
            }
        }
        if let Some(word) = members.remove("const") {
            members.insert("enum".to_owned(), json!([word]));
        }
        members
    }

    fn plain(&self, schema: &Map<String, Value>, rules: Rules) -> Map<String, Value> {
        let mut made = bounds(schema);
        match form(schema) {
            Some(form) => made.insert("type".to_owned(), form.into()),
            None => made.insert("x-kubernetes-int-or-string".to_owned(), true.into()),
        };
        self.members(schema, rules, &mut made);
        let mut validations = Vec::new();
        if rules == Rules::Known {
            validations.extend(exactly_one(schema));
        }
        if validations.is_empty() {
            if let Some(alternatives) = schema.get("oneOf") {
                made.insert("oneOf".to_owned(), alternatives.clone());
            }
        } else {
            made.remove("minProperties");
            made.remove("maxProperties");
            made.insert("x-kubernetes-validations".to_owned(), validations.into());
        }
        made
    }

    /// Properties, elements and what else is in a value.
    fn members(&self, schema: &Map<String, Value>, rules: Rules, made: &mut Map<String, Value>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let properties: Map<_, _> = properties
                .iter()
                .map(|(name, property)| (name.clone(), self.convert(property, rules).into()))
                .collect();
            made.insert("properties".to_owned(), properties.into());
        }
        for name in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(name).filter(|inner| inner.is_object()) {
                made.insert(name.to_owned(), self.convert(inner, rules).into());
            }
        }
        if let Some(required) = schema.get("required") {
            made.insert("required".to_owned(), required.clone());
        }
        if form(schema).as_deref() == Some("array") {
            // What a manifest says is all there is: nobody else's elements are merged into it.
            made.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
        }
    }

    fn choices(&self, choices: &[Value]) -> Map<String, Value> {
        let choices: Vec<_> = choices.iter().map(|choice| self.resolved(choice)).collect();
        if choices.iter().all(|choice| form(choice).as_deref() == Some("string")) {
            let bounds: Vec<Value> = choices.iter().map(|choice| bounds(choice).into()).collect();
            return object(json!({ "type": "string", "anyOf": bounds }));
        }
        self.mixed(&choices)
    }

    /// A value of one of several types. Each bound says something of values of its own type only.
    fn mixed(&self, choices: &[Map<String, Value>]) -> Map<String, Value> {
        // A bound of texts, of which there is none unless some choice is words.
        let mut made = object(json!({ "x-kubernetes-preserve-unknown-fields": true, "maxLength": 0 }));
        for choice in choices {
            if let Some(words) = choice.get("enum").and_then(Value::as_array) {
                // As a pattern, because an `enum` would be of all types.
                let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
                made.insert("pattern".to_owned(), format!("^({})$", words.join("|")).into());
                made.remove("maxLength");
                continue;
            }
            made.extend(bounds(choice));
            self.members(choice, Rules::Unknown, &mut made);
            made.remove("x-kubernetes-list-type");
            if let Some(alternatives) = choice.get("oneOf") {
                // Of a list any of them would hold; only a list has something in it.
                let is_list = json!({ "not": { "maxItems": 0 } });
                made.insert("anyOf".to_owned(), json!([is_list, { "oneOf": alternatives }]));
            }
        }
        made
    }
}

/// The text of a field, with what it is taken for where it is left out: such values are not filled in.
fn description(schema: &Map<String, Value>) -> Option<String> {
    let text = schema.get("description").and_then(Value::as_str)?;
    let default = match schema.get("default") {
        None => return Some(text.to_owned()),
        Some(Value::String(word)) => word.clone(),
        Some(other) => other.to_string(),
    };
    Some(format!("{text} Without it `{default}`."))
}

fn bounds(schema: &Map<String, Value>) -> Map<String, Value> {
    let mut made = Map::new();
    for name in BOUNDS {
        if let Some(bound) = schema.get(name) {
            made.insert(name.to_owned(), bound.clone());
        }
    }
    // A number with a fraction is none that a field of words and whole numbers can have.
    if let Some(words) = made.get_mut("enum").and_then(Value::as_array_mut) {
        words.retain(|word| !word.is_f64());
    }
    made
}

/// The one type of a value; `None` where it is a word or a whole number.
fn form(schema: &Map<String, Value>) -> Option<String> {
    if let Some(form) = schema.get("type").and_then(Value::as_str) {
        return Some(form.to_owned());
    }
    let words = schema.get("enum").and_then(Value::as_array)?;
    words.iter().all(Value::is_string).then(|| "string".to_owned())
}

/// The rule that one of several fields is there and no other, with a message that names them.
fn exactly_one(schema: &Map<String, Value>) -> Vec<Value> {
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let alternatives: Vec<Vec<String>> = match schema.get("oneOf").and_then(Value::as_array) {
        Some(alternatives) => alternatives.iter().filter_map(|one| one.get("required")).map(names).collect(),
        None if schema.get("maxProperties") == Some(&json!(1)) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            properties.into_iter().flatten().map(|(name, _)| vec![name.clone()]).collect()
        }
        None => return Vec::new(),
    };
    let is_shared = |name: &String| alternatives.iter().filter(|one| one.contains(name)).count() > 1;
    let own: Vec<&String> = alternatives.iter().flatten().filter(|name| !is_shared(name)).collect();
    let mut shared: Vec<&String> = alternatives.iter().flatten().filter(|name| is_shared(name)).collect();
    shared.dedup();
    let has: Vec<String> = own.iter().map(|name| has(name)).collect();
    let rule = format!("[{}].exists_one(is, is)", has.join(", "));
    let message = format!("exactly one of {} is required", listed(&own));
    let mut rules = vec![json!({ "rule": rule, "message": message, "reason": "FieldValueInvalid" })];
    for name in shared {
        let with = alternatives.iter().filter(|one| one.contains(name)).flatten();
        let with: Vec<&String> = with.filter(|other| !is_shared(other)).collect();
        let any: Vec<String> = with.iter().map(|name| self::has(name)).collect();
        rules.push(json!({
            "rule": format!("!({}) || {}", any.join(" || "), self::has(name)),
            "message": format!("{name} is required with {}", listed(&with)),
            "reason": "FieldValueRequired",
            "fieldPath": format!(".{name}"),
        }));
    }
    rules
}

/// The field as CEL names it, where `namespace` is a word of the language.
fn has(name: &str) -> String {
    if name == "namespace" { "has(self.__namespace__)".to_owned() } else { format!("has(self.{name})") }
}

/// `a, b and c`.
fn listed(names: &[&String]) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
