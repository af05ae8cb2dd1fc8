//! An object of a cluster as a document: JSON that an API server has taken, where nothing stands on a line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::yaml::{Document, Fault};

/// The document of an object. What is written is known by its path, as of a file; its line is 0.
pub(crate) fn read(text: &str) -> Document {
    let mut document = Document { lines: BTreeMap::from([(String::new(), 0)]), ..Document::default() };
    match serde_json::from_str(text) {
        Ok(mut value) => {
            note(&mut value, "", &mut document);
            document.value = value;
        }
        Err(error) => {
            document.unreadable = true;
            let message = format!("this is not JSON: {error}");
            document.faults.push(Fault { line: 0, path: String::new(), message });
        }
    }
    document
}

/// Notes the members and elements below `path`, as deep as the parser lets them be, and takes members out that are null.
fn note(value: &mut Value, path: &str, document: &mut Document) {
    match value {
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
