//! An object of a cluster as a document: JSON that an API server has taken, where nothing stands on a line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::source::UNREADABLE;
use super::yaml::{Document, Fault};

/// The longest path that is noted: none of a resource comes near it, and each is kept beside every member below it.
const LONGEST_PATH: usize = 1024;

/// What is read of an object whose `spec` cannot be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    metadata: Value,
}

/// The document of an object. What is written is known by its path, as of a file; its line is 0.
pub(crate) fn read(text: &str) -> Document {
    let mut document = Document { lines: BTreeMap::from([(String::new(), 0)]), ..Document::default() };
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            if let Some(message) = value.as_object_mut().and_then(|members| members.remove(UNREADABLE)) {
                without_spec(&mut document, message.as_str().unwrap_or_default().to_owned());
            }
            note(&mut value, "", &mut document);
            document.value = value;
        }
        // Deeper than serde_json goes, which no schema of a cluster can forbid: it is known whose spec that is.
        Err(error) => match serde_json::from_str::<Head>(text) {
            Ok(Head { api_version, kind, metadata }) => {
                document.value = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
                note(&mut document.value.clone(), "", &mut document);
                let message = match error.to_string().starts_with("recursion limit exceeded") {
                    true => "this is nested more than a hundred levels deep, and nothing of a resource is: leave that out".to_owned(),
                    false => format!("this cannot be read: {error}"),
                };
                without_spec(&mut document, message);
            }
            Err(_) => {
                document.unreadable = true;
                let message = format!("this is not JSON: {error}");
                document.faults.push(Fault { line: 0, path: String::new(), message });
            }
        },
    }
    document
}

/// Its `spec` was written, and nothing of it is known.
fn without_spec(document: &mut Document, message: String) {
    document.lines.extend(["spec", UNREADABLE].map(|path| (path.to_owned(), 0)));
    document.faults.push(Fault { line: 0, path: "spec".to_owned(), message });
}

/// Notes the members and elements below `path`, as deep as the parser lets them be, and takes members out that are null.
fn note(value: &mut Value, path: &str, document: &mut Document) {
    match value {
        // There is no field of such a name, which is said anyway.
        _ if path.len() > LONGEST_PATH => {}
        Value::Array(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                let path = format!("{path}[{index}]");
                document.lines.insert(path.clone(), 0);
                if element.is_null() {
                    let message = "this element of the list is empty".to_owned();
                    document.faults.push(Fault { line: 0, path, message });
                } else {
                    note(element, &path, document);
                }
            }
        }
        Value::Object(members) => members.retain(|name, member| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if member.is_null() {
                document.nulls.push((path, 0));
                return false;
            }
            document.lines.insert(path.clone(), 0);
            note(member, &path, document);
            true
        }),
        _ => {}
    }
}
