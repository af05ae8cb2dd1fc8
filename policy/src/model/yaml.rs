//! YAML text as JSON values, with the line of everything in it.
//!
//! **Invariant:** a document is given back only together with every fault of its text; a key that occurs twice is never silently one.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Number, Value};

/// What stands between two document markers.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Null where the text is empty or not YAML; otherwise no member of it is null.
    pub(crate) value: Value,
    /// The line of each member and element by its path, as `spec.limits[0].per`; the document's own has the empty path.
    pub(crate) lines: BTreeMap<String, usize>,
    pub(crate) faults: Vec<Fault>,
    /// Whether nothing is known of it because it is not YAML.
    pub(crate) unreadable: bool,
}

/// Something in the text that has no value.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) path: String,
    pub(crate) message: String,
}

/// Reads the documents of a file. Each is parsed by itself, so that one that is not YAML hides no other.
pub(crate) fn read(text: &str) -> Vec<Document> {
    split(text).into_iter().map(|(first_line, text)| Reader::read(first_line, text)).collect()
}

/// Cuts at the lines that begin with `---`: at the left margin that is a document marker wherever it stands (YAML 1.2.2 section
/// 9.1.2). Gives the number of each part's first line.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let after = line.strip_prefix("---");
        let is_marker = after.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_marker && at > start {
            parts.push((first, text.get(start..at).unwrap_or_default()));
            (start, first) = (at, index + 1);
        }
        at += line.len();
    }
    parts.push((first, text.get(start..).unwrap_or_default()));
    parts
}

struct Reader {
    document: Document,
    /// Lines of the file before this text.
    offset: usize,
    /// A character that the text does not have: what begins with it is a key that was there before.
    mask: char,
}

impl Reader {
    fn read(first_line: usize, text: &str) -> Document {
        let mask = ('\u{e000}'..='\u{f8ff}').find(|mask| !text.contains(*mask));
        let mut reader =
            Self { document: Document::default(), offset: first_line - 1, mask: mask.unwrap_or('\u{e000}') };
        for node in reader.parse(text.to_owned()) {
            let line = reader.line(&node);
            reader.document.lines.insert(String::new(), line);
            if let Some(value) = reader.value(&node, String::new()) {
                reader.document.value = value;
            }
        }
        reader.document
    }

    /// The parser stops at the first key that occurs twice. Each such key is made unlike all others and the text parsed again, so
    /// that all of them are found, and whatever else there is.
    fn parse(&mut self, mut text: String) -> Vec<MarkedYaml<'static>> {
        let mut repeated = Vec::new();
        loop {
            let error = match MarkedYaml::load_from_str(&text) {
                Ok(nodes) => return nodes,
                Err(error) => error,
            };
            let line = error.marker().line() + self.offset;
            if !error.info().contains("duplicated key") {
                repeated.push((line, format!("this is not YAML: {}", error.info())));
                break;
            }
            repeated.push((line, "this key occurs twice in its mapping".to_owned()));
            let at = text.char_indices().nth(error.marker().index()).map_or(text.len(), |(at, _)| at);
            let quote = text.get(at..).is_some_and(|key| key.starts_with(['"', '\'']));
            let mask = String::from(self.mask).repeat(repeated.len());
            text.insert_str(at + usize::from(quote), &mask);
        }
        self.document.unreadable = true;
        for (line, message) in repeated {
            self.document.faults.push(Fault { line, path: String::new(), message });
        }
        Vec::new()
    }

    fn line(&self, node: &MarkedYaml<'_>) -> usize {
        node.span.start.line() + self.offset
    }

    fn fault(&mut self, node: &MarkedYaml<'_>, path: String, message: &str) -> Option<Value> {
        self.document.faults.push(Fault { line: self.line(node), path, message: message.to_owned() });
        None
    }

    /// The value, or `None` where there is none: the fault is noted, or it is null.
    fn value(&mut self, node: &MarkedYaml<'_>, path: String) -> Option<Value> {
        match &node.data {
            YamlData::Value(scalar) => match scalar {
                Scalar::Null => None,
                Scalar::Boolean(value) => Some(Value::from(*value)),
                Scalar::Integer(value) => Some(Value::from(*value)),
                Scalar::String(value) => Some(Value::from(value.as_ref())),
                Scalar::FloatingPoint(value) => match Number::from_f64(value.into_inner()) {
                    Some(number) => Some(Value::Number(number)),
                    None => self.fault(node, path, "this is not a finite number"),
                },
            },
            YamlData::Sequence(elements) => {
                let elements = elements.iter().enumerate();
                Some(
                    elements
                        .map(|(index, element)| self.element(element, format!("{path}[{index}]")))
                        .collect(),
                )
            }
            YamlData::Mapping(members) => {
                let mut map = Map::new();
                for (key, value) in members {
                    if let Some((key, value)) = self.member(key, value, &path) {
                        map.insert(key, value);
                    }
                }
                Some(Value::Object(map))
            }
            YamlData::Tagged(..) => {
                self.fault(node, path, "tags such as `!!str` have no meaning here: quote what is text")
            }
            _ => self.fault(node, path, "this has no value that YAML defines"),
        }
    }

    /// An element keeps its place in the list even without a value.
    fn element(&mut self, node: &MarkedYaml<'_>, path: String) -> Value {
        let line = self.line(node);
        self.document.lines.insert(path.clone(), line);
        let faults = self.document.faults.len();
        let value = self.value(node, path.clone());
        if value.is_none() && self.document.faults.len() == faults {
            self.fault(node, path, "this element of the list is empty");
        }
        value.unwrap_or_default()
    }

    fn member(
        &mut self,
        key: &MarkedYaml<'_>,
        value: &MarkedYaml<'_>,
        path: &str,
    ) -> Option<(String, Value)> {
        let YamlData::Value(Scalar::String(name)) = &key.data else {
            self.fault(key, path.to_owned(), "the name of a field is text");
            return None;
        };
        let unmasked = name.trim_start_matches(self.mask);
        let path = if path.is_empty() { unmasked.to_owned() } else { format!("{path}.{unmasked}") };
        if unmasked.len() < name.len() {
            let first = self.document.lines.get(&path).copied().unwrap_or_default();
            self.fault(
                key,
                path,
                &format!("`{unmasked}` stands here a second time; it is already in line {first}"),
            );
            return None;
        }
        let line = self.line(key);
        self.document.lines.insert(path.clone(), line);
        let faults = self.document.faults.len();
        let found = self.value(value, path.clone());
        if found.is_none() && self.document.faults.len() == faults {
            // Null is the same as not there.
            self.document.lines.remove(&path);
        }
        found.map(|found| (unmasked.to_owned(), found))
    }
}
