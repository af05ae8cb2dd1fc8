//! JSON Schema (draft 2020-12) of what a user writes, made of the types that are read.
//!
//! **Invariant:** what a schema accepts has only fields that are read. What one resource says of another is not in it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::field::{Address, Instant, Interval, List, MOST_ELEMENTS, Money};
use super::from::Weight;
use super::grant::ResponseHeader;
use super::verify::BundleSpec;
use super::{
    AllowedNamespaces, AppliesTo, ApprovalSpec, BoundarySpec, BudgetSpec, CallSelectorSpec, CredentialSpec,
    DestinationSpec, DowngradeSpec, GrantSpec, HttpWord, OnExhaustedSpec, ResourceDocument,
    SomeNamespacesSpec, SourcePoolSpec, StoreSpec, ThresholdSpec, VerifySpec,
};
use crate::caller::{AccountName, Issuer};
use crate::hash::GrantHash;
use crate::name::{Name, Reference};
use crate::pattern::{
    ActionPattern, ClaimText, HostPattern, MethodPattern, ModelPattern, OneOrAny, PathPattern, SpiffePattern,
    SubjectPattern,
};

/// The name of every kind of resource, with the schema of a whole document of that kind.
pub fn kind_schemas(generator: &mut SchemaGenerator) -> [(&'static str, Schema); 7] {
    [
        ("Destination", document::<DestinationSpec>("Destination", generator)),
        ("SecretStore", document::<StoreSpec>("SecretStore", generator)),
        ("Credential", document::<CredentialSpec>("Credential", generator)),
        ("Grant", document::<GrantSpec>("Grant", generator)),
        ("Approval", document::<ApprovalSpec>("Approval", generator)),
        ("SourcePool", document::<SourcePoolSpec>("SourcePool", generator)),
        ("Budget", document::<BudgetSpec>("Budget", generator)),
    ]
}

/// The schema of a whole boundary, which is no resource.
pub fn boundary_schema(generator: &mut SchemaGenerator) -> Schema {
    document::<BoundarySpec>("Boundary", generator)
}

fn document<T: JsonSchema + Default>(kind: &str, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = ResourceDocument::<T>::json_schema(generator);
    schema.insert("title".to_owned(), Value::from(kind));
    schema.remove("description");
    if let Some(member) = schema.pointer_mut("/properties/kind") {
        *member = json!({ "const": kind });
    }
    schema
}

/// Makes a generated schema plain: null is the same as not there and is not offered, words are an `enum`, a description is one line.
pub fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(elements) => elements.iter_mut().for_each(tidy),
        Value::Object(members) => {
            members.values_mut().for_each(tidy);
            tidy_object(members);
        }
        _ => {}
    }
}

fn tidy_object(members: &mut Map<String, Value>) {
    let is_null = |value: &Value| value.is_null() || *value == json!({ "type": "null" });
    // What is no text or null is a field of that name.
    members.retain(|name, value| {
        !(name == "default" && value.is_null() || name == "format" && value.is_string())
    });
    for name in ["type", "enum", "anyOf"] {
        let Some(Value::Array(choices)) = members.get_mut(name) else { continue };
        choices.retain(|choice| !is_null(choice) && choice != "null");
        let [only] = choices.as_mut_slice() else { continue };
        match (name, only.take()) {
            ("anyOf", Value::Object(only)) => {
                members.remove(name);
                for (name, value) in only {
                    members.entry(name).or_insert(value);
                }
            }
            ("type", only) => {
                members.insert(name.to_owned(), only);
            }
            (_, word) => *only = word,
        }
    }
    if let Some(words) = members.get("oneOf").and_then(Value::as_array).and_then(|choices| words(choices)) {
        members.remove("oneOf");
        members.insert("enum".to_owned(), Value::Array(words));
    }
    if let Some(Value::String(text)) = members.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

/// The words that are chosen from, where all choices are words.
fn words(choices: &[Value]) -> Option<Vec<Value>> {
    let mut words = Vec::new();
    for choice in choices {
        match (choice.get("const"), choice.get("enum").and_then(Value::as_array)) {
            (Some(word), _) => words.push(word.clone()),
            (None, several) => words.extend_from_slice(several?),
        }
    }
    Some(words)
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Vec::<T>::json_schema(generator);
        schema.insert("maxItems".to_owned(), MOST_ELEMENTS.into());
        schema
    }
}

/// Types that have a form of their own: what a table of fields calls them, and what a schema says of them.
#[macro_export]
macro_rules! schema_forms {
    ($($type:ty: $title:literal, $schema:tt;)*) => {$(
        impl ::schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                let mut schema = ::schemars::json_schema!($schema);
                schema.insert("title".to_owned(), $title.into());
                schema
            }
        }
    )*};
}

schema_forms! {
    Name: "name", {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"};
    Reference: "reference", {"type": "string", "pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"};
    AccountName: "name", {"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"};
    HostPattern: "host", {"type": "string", "pattern": "^(\\[[0-9A-Fa-f:.]+\\]|(\\*\\.)?[A-Za-z0-9._-]+)$"};
    MethodPattern: "method", {"type": "string", "pattern": "^(\\*|[A-Z_-]{1,32})$"};
    PathPattern: "path pattern", {"type": "string", "pattern": "^/"};
    ModelPattern: "model pattern", {"type": "string", "pattern": "^([!-)+-~]{1,128}|[!-)+-~]{0,128}\\*)$"};
    ActionPattern: "action pattern", {"type": "string", "pattern": "^([A-Za-z0-9]{1,128}|[A-Za-z0-9]{0,128}\\*)$"};
    SpiffePattern: "SPIFFE pattern", {"type": "string", "maxLength": 2048, "pattern": "^spiffe://[a-z0-9._-]{1,255}(/|$)"};
    ClaimText: "claim pattern", {"type": "string", "pattern": "^([^*]{1,255}|[^*]{0,255}\\*)$"};
    SubjectPattern: "subject pattern", {"type": "string", "pattern": "^([^*]{1,255}|[^*]{0,255}\\*)$"};
    GrantHash: "hash", {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"};
    Issuer: "issuer", {"type": "string", "pattern": "^[A-Za-z0-9._~:/@%-]{1,512}$"};
    Interval: "duration", {"type": "string", "pattern": "^0*[1-9][0-9]*(ms|s|m|h|d)$"};
    Money: "money", {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?\\s+USD$"};
    Instant: "instant", {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]"};
    ThresholdSpec: "threshold", {"anyOf": [{"const": "forecast"}, {"type": "integer", "minimum": 1, "maximum": 100}]};
    Address: "IP address", {"type": "string", "pattern": "^[0-9A-Fa-f:.]+$"};
    Weight: "whole number", {"type": "integer", "minimum": 0, "maximum": (Self::HEAVIEST)};
    HttpWord: "version", {"enum": ["auto", 1, 1.1, 2, "1", "1.1", "2"]};
    ResponseHeader: "header", {"enum": (Self::WITHHELD)};
}

impl<T: JsonSchema> JsonSchema for OneOrAny<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = T::json_schema(generator);
        json_schema!({ "anyOf": [one, { "const": "*" }] })
    }
}

impl JsonSchema for VerifySpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "VerifySpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let bundle = generator.subschema_for::<BundleSpec>();
        json_schema!({ "anyOf": [{ "const": "system" }, bundle] })
    }
}

impl JsonSchema for AllowedNamespaces {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AllowedNamespaces".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let some = generator.subschema_for::<SomeNamespacesSpec>();
        json_schema!({ "anyOf": [{ "const": "All" }, some] })
    }
}

impl JsonSchema for OnExhaustedSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OnExhausted".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let downgrade = generator.subschema_for::<DowngradeSpec>();
        json_schema!({ "anyOf": [{ "enum": ["deny", "flag"] }, downgrade] })
    }
}

impl JsonSchema for AppliesTo {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AppliesTo".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let some = generator.subschema_for::<CallSelectorSpec>();
        json_schema!({ "anyOf": [{ "const": "All" }, some] })
    }
}

#[cfg(test)]
mod tests;
