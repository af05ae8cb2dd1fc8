use std::path::{Path, PathBuf};

use super::*;

/// What writes the files anew.
const WRITE: &str = "TOLLGATE_WRITE_CRDS=1 cargo test -p tollgate --lib cli::crds";

fn all() -> Vec<(&'static str, Value)> {
    let definitions = Definitions::without_links();
    KINDS.iter().map(|names| (names.kind.plural(), definition(names, &definitions).unwrap())).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tollgate/crds")
}

#[test]
fn the_charts_definitions_are_those_of_the_types() {
    let writes = std::env::var_os("TOLLGATE_WRITE_CRDS").is_some();
    for (plural, definition) in all() {
        let path = folder().join(format!("{plural}.yaml"));
        let text = format!("# Made of the types. To write it anew: {WRITE}\n{}", yaml(&definition).unwrap());
        if writes {
            std::fs::write(&path, &text).unwrap();
            continue;
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "charts/tollgate/crds/{plural}.yaml is not what the types say\nmend it with: {WRITE}"
        );
    }
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut expected: Vec<_> = KINDS.iter().map(|names| format!("{}.yaml", names.kind.plural())).collect();
    expected.sort();
    assert_eq!(files, expected, "each kind has one file, and no other has");
}

/// Calls `see` with every schema, and its path.
fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &Value)) {
    see(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), see);
    }
    for name in ["items", "additionalProperties"] {
        if schema[name].is_object() {
            walk(&schema[name], &format!("{path}[]"), see);
        }
    }
}

#[test]
fn every_field_has_a_type_and_says_what_it_is() {
    let mut wrong = Vec::new();
    for (plural, definition) in all() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(schema, plural, &mut |path, schema| {
            let is_odd = schema["x-kubernetes-preserve-unknown-fields"] == true
                || schema["x-kubernetes-int-or-string"] == true;
            let is_typed = schema["type"].is_string() != is_odd;
            let is_own = !path.contains('.') || path.contains(".spec") || path.contains(".status");
            let is_told = schema["description"].is_string() || path.ends_with("[]");
            if !is_typed || is_own && !is_told || schema.get("$ref").is_some() {
                wrong.push(format!("{path}: {schema}"));
            }
        });
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_filled_in_that_its_author_did_not_write() {
    for (plural, definition) in all() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(schema, plural, &mut |path, schema| assert!(schema.get("default").is_none(), "{path}"));
    }
}

#[test]
fn the_kinds_are_those_that_files_have() {
    let definitions = Definitions::without_links();
    let offered = &definitions.get("Kind")["enum"];
    assert_eq!(*offered, json!(KINDS.map(|names| names.kind.word())));
}
