use std::sync::Arc;

use schemars::generate::SchemaSettings;

use super::*;
use crate::compile::{Environment, compile_files};
use crate::dialect::Catalog;
use crate::model::SourceFile;

/// One of everything that has defaults.
fn resources() -> Vec<Value> {
    let resource = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "tollgate.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let key =
        |alias: &str, field: &str| json!({ "alias": alias, "store": "bao", "path": alias, "field": field });
    let hmac = json!({ "hmac": { "message": "{path}", "headers": { "x": "{signature}" } } });
    let vault = |auth: Value| json!({ "vault": { "address": "https://bao:8200", "auth": auth } });
    vec![
        resource("Destination", "api", json!({ "hosts": ["api.example"], "tls": {}, "timeouts": {} })),
        resource(
            "SecretStore",
            "bao",
            vault(json!({ "appRole": { "roleIdFile": "r", "secretIdFile": "s" } })),
        ),
        resource(
            "SecretStore",
            "other",
            vault(json!({ "certificate": { "certFile": "c", "keyFile": "k" } })),
        ),
        resource(
            "Credential",
            "key",
            json!({ "destinations": ["api"], "from": [key("a", "x"), key("b", "x")], "inject": hmac }),
        ),
        resource(
            "Grant",
            "web",
            json!({
                "callers": [{ "spiffe": "spiffe://prod.acme/web" }],
                "destination": "api",
                "credential": "key",
                "allow": { "methods": ["GET"], "paths": ["/**"] },
                "limits": [{ "requests": 10, "per": "day" }],
            }),
        ),
    ]
}

fn compiled(resources: &[Value]) -> String {
    let catalog = "dialect: http\nprovider: http\nplain: true\nendpoints: []\n".to_owned();
    let catalog = SourceFile { path: "catalog.yaml".into(), text: catalog };
    let environment = Environment {
        catalog: Arc::new(Catalog::parse(&[catalog]).unwrap()),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        ..Environment::default()
    };
    // A line for each resource, so that all stand where they stood.
    let text: Vec<String> = resources.iter().map(|resource| format!("---\n{resource}\n")).collect();
    let file = SourceFile { path: "a.yaml".into(), text: text.concat() };
    // Without the lines on which fields stand.
    let is_place = |line: &&str| line.trim_start().starts_with("\"spec.");
    let policy = format!("{:#?}", compile_files(&[file], &environment).unwrap());
    policy.lines().filter(|line| !is_place(line)).collect::<Vec<_>>().join("\n")
}

/// Writes out every default of what is there.
fn fill(value: &mut Value, schema: &Value, definitions: &Map<String, Value>) -> usize {
    let mut filled = 0;
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        filled += fill(value, &definitions[name], definitions);
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        filled += fill(value, choice, definitions);
    }
    match value {
        Value::Object(members) => {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                match (members.get_mut(name), field.get("default")) {
                    (Some(member), _) => filled += fill(member, field, definitions),
                    (None, Some(default)) => {
                        members.insert(name.clone(), default.clone());
                        filled += 1;
                    }
                    (None, None) => {}
                }
            }
        }
        Value::Array(elements) => {
            filled += elements
                .iter_mut()
                .map(|element| fill(element, &schema["items"], definitions))
                .sum::<usize>();
        }
        _ => {}
    }
    filled
}

#[test]
fn a_default_of_the_schema_is_what_is_taken_where_nothing_is_written() {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let kinds = kind_schemas(&mut generator).map(|(kind, schema)| (kind, schema.to_value()));
    let mut definitions = generator.take_definitions(true);
    definitions.values_mut().for_each(tidy);
    let mut written = resources();
    let mut filled = 0;
    for resource in &mut written {
        let kind = kinds.iter().find(|(kind, _)| resource["kind"] == *kind).unwrap();
        filled += fill(resource, &kind.1, &definitions);
    }
    assert!(filled >= 20, "{filled}: {written:#?}");
    let (without, with) = (compiled(&resources()), compiled(&written));
    let differs = |(without, with): &(&str, &str)| without != with;
    assert_eq!(without.lines().zip(with.lines()).find(differs), None);
}

#[test]
fn null_is_not_offered_and_a_field_may_have_any_name() {
    let mut schema = json!({
        "type": "object",
        "properties": {
            "format": { "anyOf": [{ "$ref": "#/$defs/Word" }, { "type": "null" }], "default": null },
            "type": { "type": ["integer", "null"], "format": "uint16", "description": "Of\n two lines." },
            "word": { "oneOf": [{ "const": "a", "description": "A." }, { "enum": ["b", "c"] }] },
        },
    });
    tidy(&mut schema);
    let fields = json!({
        "format": { "$ref": "#/$defs/Word" },
        "type": { "type": "integer", "description": "Of two lines." },
        "word": { "enum": ["a", "b", "c"] },
    });
    assert_eq!(schema["properties"], fields);
}
