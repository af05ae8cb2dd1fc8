//! `tollgate schema`: what settings and resources look like, for editors and for people.

mod table;

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use clap::builder::PossibleValuesParser;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tollgate_policy::model::{boundary_schema, kind_schemas, tidy};

use super::output;
use crate::settings::Settings;

/// Where `init` puts it, and where the first lines of its files say that it is.
pub(super) const FILE: &str = "tollgate.schema.json";
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const SETTINGS: &str = "Settings";
const BOUNDARY: &str = "Boundary";
const KINDS: [&str; 9] = [
    "Destination",
    "SecretStore",
    "Credential",
    "Grant",
    "Budget",
    "Approval",
    "SourcePool",
    BOUNDARY,
    SETTINGS,
];

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate schema > tollgate.schema.json     # an editor finds it by the first line of a YAML file:
                                             #   # yaml-language-server: $schema=tollgate.schema.json
  tollgate schema Grant
  tollgate schema Grant --markdown           # its fields as tables, with types and defaults")]
pub(super) struct SchemaArgs {
    /// A kind of resource, or `Settings` for tollgate.yaml; all of them unless given
    #[arg(value_parser = PossibleValuesParser::new(KINDS), ignore_case = true)]
    kind: Option<String>,
    /// Print tables of fields instead
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let named = args.kind.as_deref();
    // In the spelling of the list, whatever the letters were typed in.
    let kind = named.and_then(|named| KINDS.into_iter().find(|kind| kind.eq_ignore_ascii_case(named)));
    let definitions = Definitions::new();
    if args.markdown {
        let pages = definitions.tables(kind);
        return output::print("the tables", |out| std::io::Write::write_all(out, pages.as_bytes()));
    }
    let schema = kind.map_or_else(|| definitions.whole(), |kind| definitions.only(kind));
    output::print("the schema", |out| output::json(&schema, out))
}

/// The schema of all that is read, with which an editor knows settings and every kind of resource.
pub(super) fn whole() -> Value {
    Definitions::new().whole()
}

/// Every named type of settings and resources, by its name; descriptions have links as on the pages.
pub(super) struct Definitions(Map<String, Value>);

impl Definitions {
    fn new() -> Self {
        let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
        let settings = generator.subschema_for::<Settings>();
        let kinds = kind_schemas(&mut generator);
        let boundary = boundary_schema(&mut generator);
        let mut definitions = generator.take_definitions(true);
        definitions.extend(kinds.map(|(kind, schema)| (kind.to_owned(), schema.to_value())));
        definitions.insert(BOUNDARY.to_owned(), boundary.to_value());
        definitions.entry(SETTINGS).or_insert_with(|| settings.to_value());
        definitions.values_mut().for_each(tidy);
        Self(definitions)
    }

    /// For readers who cannot follow a link.
    pub(super) fn without_links() -> Self {
        let mut definitions = Self::new();
        definitions.0.values_mut().for_each(without_links);
        definitions
    }

    pub(super) const fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    /// One document is of the kind that it names, or else it is settings.
    fn whole(&self) -> Value {
        let kinds = KINDS.into_iter().filter(|kind| *kind != SETTINGS);
        let branch = |kind: &str| {
            json!({
                "if": { "properties": { "kind": { "const": kind } } },
                "then": { "$ref": format!("#/$defs/{kind}") },
            })
        };
        let mut schema = json!({
            "$schema": DRAFT,
            "title": "Tollgate: tollgate.yaml and resources",
            "type": ["object", "null"],
            "if": { "required": ["kind"] },
            "then": {
                "properties": { "kind": { "enum": kinds.clone().collect::<Vec<_>>() } },
                "allOf": kinds.map(branch).collect::<Vec<_>>(),
            },
            "else": { "$ref": format!("#/$defs/{SETTINGS}") },
            "$defs": self.0,
        });
        without_links(&mut schema);
        schema
    }

    /// One kind, with what it is made of.
    fn only(&self, kind: &str) -> Value {
        let mut needed = BTreeSet::new();
        let mut open = vec![kind.to_owned()];
        while let Some(name) = open.pop() {
            references(self.get(&name), &mut |name| {
                if needed.insert(name.to_owned()) {
                    open.push(name.to_owned());
                }
            });
        }
        let definitions: BTreeMap<_, _> = needed.iter().map(|name| (name, self.get(name))).collect();
        let mut schema = self.get(kind).clone();
        if let Some(members) = schema.as_object_mut() {
            members.insert("$schema".to_owned(), Value::from(DRAFT));
            members.insert("$defs".to_owned(), json!(definitions));
        }
        without_links(&mut schema);
        schema
    }
}

fn references(schema: &Value, found: &mut impl FnMut(&str)) {
    match schema {
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        Value::Object(members) => {
            if let Some(name) = members.get("$ref").and_then(referred) {
                found(name);
            }
            members.values().for_each(|member| references(member, found));
        }
        _ => {}
    }
}

fn referred(reference: &Value) -> Option<&str> {
    reference.as_str()?.strip_prefix("#/$defs/")
}

/// Takes links out of descriptions, which lead somewhere only on the pages.
fn without_links(schema: &mut Value) {
    match schema {
        Value::Array(elements) => elements.iter_mut().for_each(without_links),
        Value::Object(members) => {
            members.values_mut().for_each(without_links);
            if let Some(Value::String(text)) = members.get_mut("description") {
                while let Some((before, text_of, after)) = link(text) {
                    *text = format!("{before}{text_of}{after}");
                }
            }
        }
        _ => {}
    }
}

/// The first `[text](address)`: what stands before it, its text, and what follows.
fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("](")?;
    let (_, after) = rest.split_once(')')?;
    let (before, text_of) = before.rsplit_once('[')?;
    Some((before, text_of, after))
}

#[cfg(test)]
mod tests;
