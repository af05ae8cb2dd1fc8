//! Fields as tables of Markdown. On the pages they stand between `<!-- fields: … -->` and `<!-- end -->`.

use serde_json::{Map, Value};

use super::{Definitions, SETTINGS, referred};

/// The tables there are: a kind, or a field of one whose fields have a table of their own.
const TABLES: [&str; 12] = [
    "Destination",
    "SecretStore",
    "SecretStore.vault",
    "Credential",
    "Credential.mint",
    "Grant",
    "Grant.limits",
    "Budget",
    "Approval",
    "SourcePool",
    "Boundary",
    SETTINGS,
];
/// Fields of tables whose own fields another field has shown.
const SHOWN: [&str; 2] = ["tokenExchange.client.from", "tokenExchange.client.auth"];
pub(super) const BEGIN: &str = "<!-- fields: ";
pub(super) const END: &str = "<!-- end -->";
const HEAD: &str = "| field | type | default | meaning |\n|---|---|---|---|\n";

/// One field: its path and its line.
struct Row(String, String);

/// Where a field stands among those of before, and whether it is new.
pub(super) fn place(path: &str, known: &[&str]) -> (usize, bool) {
    if let Some(at) = known.iter().position(|known| *known == path) {
        return (at, false);
    }
    let mut parent = path;
    while let Some((above, _)) = parent.rsplit_once('.') {
        let is_within = |known: &&str| {
            known
                .strip_prefix(above)
                .is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'.' | b'[')))
        };
        if let Some(last) = known.iter().rposition(is_within) {
            return (last, true);
        }
        parent = above;
    }
    (usize::MAX, true)
}

impl Definitions {
    /// The tables of one kind, or all.
    pub(super) fn tables(&self, kind: Option<&str>) -> String {
        let of_kind = |table: &&str| kind.is_none_or(|kind| table.split('.').next() == Some(kind));
        let tables = TABLES.into_iter().filter(of_kind);
        let text = tables.map(|table| format!("{BEGIN}{table} -->\n{}{END}\n", self.table(table, "")));
        text.collect::<Vec<_>>().join("\n")
    }

    /// A table, its fields in the order in which `old`, the same table of before, has them, and new ones behind those of the same mapping.
    pub(super) fn table(&self, table: &str, old: &str) -> String {
        let mut rows = Vec::new();
        let mut fields = table.split('.');
        let kind = fields.next().unwrap_or_default();
        let mut schema = self.resolve(self.get(kind));
        let spec = (kind != SETTINGS).then_some("spec");
        for name in spec.into_iter().chain(fields) {
            let field = schema.get("properties").and_then(|fields| fields.get(name));
            schema = self.resolve(field.unwrap_or(&Value::Null));
            if let Some(element) = schema.get("items") {
                schema = self.resolve(element);
            }
        }
        self.rows(&schema, (table, ""), &mut rows);
        let known: Vec<&str> =
            old.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        rows.sort_by_key(|row| place(&row.0, &known));
        rows.into_iter().fold(HEAD.to_owned(), |table, Row(_, line)| table + &line)
    }

    /// What a reference means, with what stands beside it.
    fn resolve(&self, schema: &Value) -> Map<String, Value> {
        let mut members = schema.as_object().cloned().unwrap_or_default();
        if let Some(name) = members.remove("$ref").as_ref().and_then(referred) {
            for (name, member) in self.resolve(self.get(name)) {
                members.entry(name).or_insert(member);
            }
        }
        members
    }

    /// The fields of a mapping and of what is in it, the required ones first.
    fn rows(&self, schema: &Map<String, Value>, (table, prefix): (&str, &str), rows: &mut Vec<Row>) {
        let required = |name: &str| list(schema, "required").any(|required| required == name);
        let fields = schema.get("properties").and_then(Value::as_object);
        let mut fields: Vec<_> = fields.into_iter().flatten().collect();
        fields.sort_by_key(|(name, _)| !required(name));
        for (name, field) in fields {
            let field = self.resolve(field);
            let path = format!("{prefix}{name}");
            if rows.iter().any(|Row(known, _)| *known == path) {
                continue;
            }
            let default = match (required(name), field.get("default")) {
                (true, _) => "required".to_owned(),
                (false, Some(Value::Array(words))) if !words.is_empty() => {
                    format!("`[{}]`", words.iter().map(word).collect::<Vec<_>>().join(", "))
                }
                (false, Some(default)) if !default.is_object() && !default.is_array() => {
                    format!("`{}`", word(default))
                }
                _ => String::new(),
            };
            let meaning = field.get("description").and_then(Value::as_str).unwrap_or_default();
            let line = format!("| `{path}` | {} | {default} | {meaning} |\n", self.words(&field));
            rows.push(Row(path.clone(), line.replace("|  |", "| |")));
            if !TABLES.contains(&format!("{table}.{path}").as_str()) && !SHOWN.contains(&path.as_str()) {
                self.within(&field, (table, &path), rows);
            }
        }
    }

    /// The fields of what a field holds.
    fn within(&self, field: &Map<String, Value>, (table, path): (&str, &str), rows: &mut Vec<Row>) {
        self.rows(field, (table, &format!("{path}.")), rows);
        if let Some(member) = field.get("additionalProperties").filter(|member| member.is_object()) {
            self.within(&self.resolve(member), (table, &format!("{path}.NAME")), rows);
        }
        if let Some(element) = field.get("items") {
            self.within(&self.resolve(element), (table, &format!("{path}[]")), rows);
        }
        for choice in list(field, "anyOf") {
            let choice = self.resolve(choice);
            // One of a kind and a list of it have the same fields.
            if !choice.contains_key("items") {
                self.within(&choice, (table, path), rows);
            }
        }
    }

    /// What a field takes, in words.
    fn words(&self, field: &Map<String, Value>) -> String {
        let word_of = |name: &str| field.get(name).and_then(Value::as_str);
        let number = |name: &str| field.get(name).and_then(Value::as_u64);
        if field.contains_key("enum") {
            let mut words: Vec<String> = Vec::new();
            for value in list(field, "enum").map(|value| format!("`{}`", word(value))) {
                if !words.contains(&value) {
                    words.push(value);
                }
            }
            return words.join(", ");
        }
        match (word_of("type"), word_of("title")) {
            (Some("integer"), _) => match (number("minimum"), number("maximum")) {
                (Some(least), Some(most)) if most < u64::from(u32::MAX) => {
                    format!("whole number, {least} to {most}")
                }
                (Some(least), _) if least > 0 => format!("whole number, at least {least}"),
                _ => "whole number".to_owned(),
            },
            (Some("object"), _) => match field.get("additionalProperties") {
                Some(member) if member.is_object() => {
                    let member = self.words(&self.resolve(member));
                    format!("{member} by name")
                }
                _ if number("maxProperties") == Some(1) => "mapping of one field".to_owned(),
                _ if field.contains_key("properties") => "mapping".to_owned(),
                _ => "`{}`".to_owned(),
            },
            (_, Some(title)) => title.to_owned(),
            (Some("string"), _) => "text".to_owned(),
            (Some("boolean"), _) => "`true`, `false`".to_owned(),
            (Some("array"), _) => {
                let element = self.resolve(field.get("items").unwrap_or(&Value::Null));
                format!("list of {}", plural(&self.words(&element)))
            }
            _ => match field.get("const") {
                Some(only) => format!("`{}`", word(only)),
                None => {
                    let choices = list(field, "anyOf").map(|choice| self.words(&self.resolve(choice)));
                    choices.collect::<Vec<_>>().join(" or ")
                }
            },
        }
    }
}

fn list<'a>(schema: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn plural(words: &str) -> String {
    match words {
        "text" => words.to_owned(),
        _ if words.starts_with('`') => words.to_owned(),
        _ if words.starts_with("whole number") => words.replacen("number", "numbers", 1),
        _ if words.contains("mapping") => words.replace("mapping", "mappings"),
        _ if words.ends_with("address") => format!("{words}es"),
        _ => format!("{words}s"),
    }
}

/// A value as it is written in YAML.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
