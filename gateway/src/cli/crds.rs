//! `tollgate crds`: the CustomResourceDefinitions of every kind, made of the types that files are read with.
//!
//! **Invariant:** what a CustomResourceDefinition refuses the compiler refuses too, but for the few bounds that
//! [`rules`] names, which keep its rules within what an API server spends on them.
//!
//! Deliberately lacks: defaults. What an object leaves out is not written into it, so that it stays what its author
//! wrote, and means the same as a file.

mod columns;
mod rules;
mod status;
mod structural;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};
use tollgate_policy::consent::GROUP;

use self::columns::PrinterColumn;
use self::structural::Structural;
use super::output;
use super::schema::Definitions;
use crate::kubernetes::{ObjectKind, VERSION};

/// `kubectl get tollgate` lists them all.
const CATEGORY: &str = "tollgate";

/// What Kubernetes calls a kind beside its name.
struct Names {
    kind: ObjectKind,
    short: &'static str,
    columns: &'static [PrinterColumn],
}

const KINDS: [Names; 7] = [
    Names { kind: ObjectKind::Destination, short: "tgd", columns: columns::DESTINATION },
    Names { kind: ObjectKind::SecretStore, short: "tgs", columns: columns::STORE },
    Names { kind: ObjectKind::Credential, short: "tgc", columns: columns::CREDENTIAL },
    Names { kind: ObjectKind::Grant, short: "tgg", columns: columns::GRANT },
    Names { kind: ObjectKind::Approval, short: "tga", columns: columns::APPROVAL },
    Names { kind: ObjectKind::SourcePool, short: "tgp", columns: columns::SOURCE_POOL },
    Names { kind: ObjectKind::Budget, short: "tgb", columns: columns::BUDGET },
];

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate crds | kubectl apply --server-side -f -
  tollgate crds Grant")]
pub(super) struct CrdsArgs {
    /// A kind of resource; all of them unless given
    #[arg(value_parser = PossibleValuesParser::new(KINDS.map(|names| names.kind.word())), ignore_case = true)]
    kind: Option<String>,
}

pub(super) fn run(args: &CrdsArgs) -> anyhow::Result<()> {
    let is_asked =
        |names: &&Names| args.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(names.kind.word()));
    let definitions = Definitions::without_links();
    let mut pages = String::new();
    for names in KINDS.iter().filter(is_asked) {
        pages += "---\n";
        pages += &yaml(&definition(names, &definitions)?)?;
    }
    output::print("the definitions", |out| std::io::Write::write_all(out, pages.as_bytes()))
}

fn yaml(definition: &Value) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(definition)?)
}

/// The CustomResourceDefinition of a kind.
fn definition(names: &Names, definitions: &Definitions) -> anyhow::Result<Value> {
    let (kind, plural) = (names.kind.word(), names.kind.plural());
    let mut schema = schema(names.kind, definitions);
    rules::add(kind, &mut schema)?;
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{GROUP}") },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [names.short],
                "categories": [CATEGORY],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": names.columns.iter().map(PrinterColumn::json).collect::<Vec<_>>(),
                "schema": { "openAPIV3Schema": schema },
            }],
        },
    }))
}

/// The schema of an object of this kind: what is written of it, and what the gateway says of it.
fn schema(kind: ObjectKind, definitions: &Definitions) -> Value {
    let document = definitions.get(kind.word());
    let spec = document.pointer("/properties/spec").unwrap_or(&Value::Null);
    let mut spec = Structural::new(definitions.all()).of(spec);
    // The type's own words, which say what the kind is.
    let about = spec_type(spec_reference(document), definitions);
    spec.insert("description".to_owned(), about.clone());
    json!({
        "type": "object",
        "description": about,
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object", "properties": { "name": name(definitions) } },
            "spec": spec,
            "status": status::schema(kind),
        },
    })
}

fn spec_reference(document: &Value) -> &str {
    let reference = document.pointer("/properties/spec/$ref").and_then(Value::as_str);
    reference.and_then(|reference| reference.strip_prefix("#/$defs/")).unwrap_or_default()
}

fn spec_type(name: &str, definitions: &Definitions) -> Value {
    definitions.get(name).get("description").cloned().unwrap_or_default()
}

/// Names of objects may be longer than those that resources have.
fn name(definitions: &Definitions) -> Map<String, Value> {
    let written = definitions.get("Metadata").pointer("/properties/name").cloned().unwrap_or_default();
    Structural::new(definitions.all()).of(&written)
}

#[cfg(test)]
mod tests;
