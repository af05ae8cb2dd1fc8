use std::path::{Path, PathBuf};

use super::table::{BEGIN, END};
use super::*;

/// What writes the tables anew.
const WRITE: &str = "TOLLGATE_WRITE_TABLES=1 cargo test -p tollgate --lib cli::schema";

fn page(folder: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// A page with its tables as they ought to be.
fn fill(definitions: &Definitions, page: &str) -> String {
    let mut filled = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (table, after) = after.split_once(" -->\n").unwrap();
        let (old, after) = after.split_once(END).unwrap();
        filled += &format!("{before}{BEGIN}{table} -->\n{}{END}", definitions.table(table, old));
        rest = after;
    }
    filled + rest
}

/// The names of the tables that a page has.
fn named(page: &str) -> impl Iterator<Item = String> {
    page.split(BEGIN).skip(1).filter_map(|rest| rest.split(" -->").next()).map(str::to_owned)
}

#[test]
fn the_field_tables_of_the_pages_are_those_of_the_types() {
    let definitions = Definitions::new();
    let mut tables = Vec::new();
    for folder in ["policy", "secrets", "gateway"] {
        let (path, text) = page(folder);
        tables.extend(named(&text));
        let filled = fill(&definitions, &text);
        if std::env::var_os("TOLLGATE_WRITE_TABLES").is_some() {
            std::fs::write(&path, &filled).unwrap();
            continue;
        }
        let wrong = filled.lines().find(|line| !text.contains(*line));
        assert!(
            filled == text,
            "{folder}/README.md is not what the types say: {wrong:?}\nmend it with: {WRITE}"
        );
    }
    let mut all: Vec<_> = named(&definitions.tables(None)).collect();
    tables.sort();
    all.sort();
    assert_eq!(tables, all, "each table is on one page");
}

#[test]
fn every_field_says_what_it_is() {
    let definitions = Definitions::new();
    let mut without = Vec::new();
    for (name, definition) in &definitions.0 {
        let fields = definition.get("properties").and_then(Value::as_object);
        let undescribed = |field: &Value| field.get("description").is_none() && field.get("const").is_none();
        without.extend(
            fields
                .into_iter()
                .flatten()
                .filter(|(_, field)| undescribed(field))
                .map(|(field, _)| format!("{name}.{field}")),
        );
    }
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn what_a_schema_names_as_required_or_as_one_of_several_is_a_field() {
    for (name, definition) in &Definitions::new().0 {
        let alternatives = definition.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let required =
            alternatives.chain([definition]).filter_map(|schema| schema.get("required")?.as_array());
        for field in required.flatten().filter_map(Value::as_str) {
            assert!(definition["properties"].get(field).is_some(), "{name} has no {field}");
        }
    }
}

#[test]
fn a_kind_alone_has_all_that_it_is_made_of_and_nothing_else() {
    let definitions = Definitions::new();
    for kind in KINDS {
        let schema = definitions.only(kind);
        let mut named = BTreeSet::new();
        references(&schema, &mut |name| _ = named.insert(name.to_owned()));
        let given: BTreeSet<String> = schema["$defs"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(named, given, "{kind}");
    }
}

#[test]
fn a_description_in_a_schema_has_no_link() {
    let mut schema = json!({"description": "See [paths](#paths), or [`x`](y.md)."});
    without_links(&mut schema);
    assert_eq!(schema["description"], "See paths, or `x`.");
}

#[test]
fn a_new_field_stands_behind_those_of_its_own_mapping() {
    let old = "| `a` | x |\n| `a.b` | x |\n| `a.b.c` | x |\n| `d[].e` | x |\n| `z` | x |\n";
    let known: Vec<&str> =
        old.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let places = |paths: &[&str]| {
        let mut sorted = paths.to_vec();
        sorted.sort_by_key(|path| table::place(path, &known));
        sorted.join(" ")
    };
    assert_eq!(
        places(&["z", "d[].f", "d[].e", "new", "a.b.k", "a.x", "a.b.c", "a.b", "a"]),
        "a a.b a.b.c a.b.k a.x d[].e d[].f z new"
    );
}
