//! YAML text as JSON values, with the line of everything in it: one pass over the parser's events.
//!
//! **Invariant:** a document is given back only together with every fault of its text; a key that occurs twice is never silently one.
//! What aliases repeat and how deep values are nested is bounded.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput, Tag};
use serde_json::{Map, Number, Value};

use crate::giving_way::giving_way;

/// The most lists and mappings that may stand in one another.
const MAX_DEPTH: usize = 64;
/// The most bytes that the aliases of one document may repeat, as JSON.
const MAX_REPEATED: usize = 1 << 20;
/// The most bytes that the paths of all members and elements of one document may take.
const MAX_PATHS: usize = 16 << 20;

const MEANINGLESS_TAG: &str = "tags such as `!!str` have no meaning here: quote what is text";

/// What a number with a fraction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fractions {
    /// A float: no field takes one, and says so itself.
    Numbers,
    /// Not to be written: money passes through no float.
    Refused,
}

/// What stands between two document markers.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Null where the text is empty or not YAML; otherwise no member of it is null.
    pub(crate) value: Value,
    /// The line of each member and element by its path, as `spec.limits[0].per`; the document's own has the empty path.
    pub(crate) lines: BTreeMap<String, usize>,
    pub(crate) faults: Vec<Fault>,
    /// The members that are null, with their lines.
    pub(crate) nulls: Vec<(String, usize)>,
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
pub(crate) fn read(text: &str, fractions: Fractions) -> Vec<Document> {
    giving_way(split(text)).flat_map(|(line, text)| Reader::read(line, text, fractions)).collect()
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

/// How many lines a text has, by the line ends of YAML (YAML 1.2.2 section 5.4).
fn lines_of(text: &str) -> usize {
    let breaks =
        text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).matches('\r').count() + 1);
    (breaks.sum::<usize>() - usize::from(text.ends_with(['\n', '\r']))).max(1)
}

/// An event, and the line that it begins on.
type Lined<'a> = (Event<'a>, usize);

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    /// Lines of the file before this text.
    offset: usize,
    /// The last line of this text in the file: the parser puts what is wrong at its end on the line behind it.
    last: usize,
    fractions: Fractions,
    document: Document,
    /// What each anchor stands for, and the path that it was written at.
    anchors: BTreeMap<usize, (String, Option<Value>)>,
    /// What aliases have repeated so far, in bytes.
    repeated: usize,
    /// What the paths of this document take so far, in bytes.
    paths: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// The documents of a text in which `---` stands at the beginning if anywhere. One that is not YAML takes the others along.
    fn read(first_line: usize, text: &'a str, fractions: Fractions) -> Vec<Document> {
        let mut reader = Self {
            events: Parser::new_from_str(text),
            offset: first_line - 1,
            last: first_line - 1 + lines_of(text),
            fractions,
            document: Document::default(),
            anchors: BTreeMap::new(),
            repeated: 0,
            paths: 0,
            depth: 0,
        };
        let mut documents = Vec::new();
        loop {
            let fault = match reader.next() {
                Ok((Event::StreamEnd, _)) => return documents,
                Ok((Event::DocumentStart(_), _)) => match reader.document() {
                    Ok(document) => {
                        documents.push(document);
                        continue;
                    }
                    Err(fault) => fault,
                },
                Ok(_) => continue,
                Err(fault) => fault,
            };
            let mut faults: Vec<Fault> = documents.into_iter().flat_map(|document| document.faults).collect();
            faults.append(&mut reader.document.faults);
            faults.push(fault);
            return vec![Document { faults, unreadable: true, ..Document::default() }];
        }
    }

    fn document(&mut self) -> Result<Document, Fault> {
        self.anchors.clear();
        (self.repeated, self.paths) = (0, 0);
        let root = self.next()?;
        self.document.lines.insert(String::new(), root.1);
        self.document.value = self.value(root, "")?.unwrap_or_default();
        Ok(std::mem::take(&mut self.document))
    }

    fn next(&mut self) -> Result<Lined<'a>, Fault> {
        let (line, message) = match self.events.next_event() {
            Some(Ok((event, span))) => return Ok((event, span.start.line() + self.offset)),
            Some(Err(error)) => (error.marker().line(), error.info().to_owned()),
            None => (1, "it ends too early".to_owned()),
        };
        let message = format!("this is not YAML: {message}");
        Err(Fault { line: (line + self.offset).min(self.last), path: String::new(), message })
    }

    fn fault(&mut self, line: usize, path: &str, message: impl Into<String>) {
        self.document.faults.push(Fault { line, path: path.to_owned(), message: message.into() });
    }

    /// Notes where a member or an element stands. A path has those of all it stands in, and names may be long.
    fn place(&mut self, path: &str, line: usize) -> Result<(), Fault> {
        self.paths += path.len();
        if self.paths > MAX_PATHS {
            let message = "there are too many fields with too long names in this document".to_owned();
            return Err(Fault { line, path: String::new(), message });
        }
        self.document.lines.insert(path.to_owned(), line);
        Ok(())
    }

    /// The value that begins with this event, or `None` where there is none: the fault is noted, or it is null.
    fn value(&mut self, (event, line): Lined<'a>, path: &str) -> Result<Option<Value>, Fault> {
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, line, path),
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, scalar(text, style, tag.as_deref(), self.fractions))
            }
            Event::SequenceStart(anchor, tag) => {
                self.descend(1, line, path)?;
                let list = self.sequence(path)?;
                (anchor, collection(list, tag.as_deref()))
            }
            Event::MappingStart(anchor, tag) => {
                self.descend(1, line, path)?;
                let map = self.mapping(path)?;
                (anchor, collection(map, tag.as_deref()))
            }
            _ => return Ok(None),
        };
        let value = value.unwrap_or_else(|message| {
            self.fault(line, path, message);
            None
        });
        if anchor > 0 {
            self.anchors.insert(anchor, (path.to_owned(), value.clone()));
        }
        Ok(value)
    }

    fn descend(&mut self, levels: usize, line: usize, path: &str) -> Result<(), Fault> {
        self.depth += levels;
        if self.depth <= MAX_DEPTH {
            return Ok(());
        }
        let message = format!("lists and mappings stand in one another more than {MAX_DEPTH} deep");
        Err(Fault { line, path: path.to_owned(), message })
    }

    fn sequence(&mut self, path: &str) -> Result<Value, Fault> {
        let mut elements = Vec::new();
        loop {
            let event = self.next()?;
            if event.0 == Event::SequenceEnd {
                self.depth -= 1;
                return Ok(Value::Array(elements));
            }
            let path = format!("{path}[{}]", elements.len());
            let (line, faults) = (event.1, self.document.faults.len());
            self.place(&path, line)?;
            let value = self.value(event, &path)?;
            if value.is_none() && self.document.faults.len() == faults {
                self.fault(line, &path, "this element of the list is empty");
            }
            // It keeps its place in the list even without a value.
            elements.push(value.unwrap_or_default());
        }
    }

    fn mapping(&mut self, path: &str) -> Result<Value, Fault> {
        let aside = format!("{path}.?");
        let (mut members, mut seen) = (Map::new(), BTreeMap::new());
        loop {
            let event = self.next()?;
            if event.0 == Event::MappingEnd {
                self.depth -= 1;
                return Ok(Value::Object(members));
            }
            let line = event.1;
            let name = self.value(event, &aside)?;
            let event = self.next()?;
            let Some(Value::String(name)) = name else {
                self.fault(line, path, "the name of a field is text");
                self.value(event, &aside)?;
                continue;
            };
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if let Some(first) = seen.get(&name) {
                let message = format!("`{name}` stands here a second time; it is already in line {first}");
                self.fault(line, &path, message);
                self.value(event, &aside)?;
                continue;
            }
            let faults = self.document.faults.len();
            self.place(&path, line)?;
            seen.insert(name.clone(), line);
            match self.value(event, &path)? {
                Some(value) => drop(members.insert(name, value)),
                // Null is the same as not there.
                None if self.document.faults.len() == faults => {
                    self.document.lines.remove(&path);
                    self.document.nulls.push((path, line));
                }
                None => {}
            }
        }
    }

    /// What the anchor stands for; what is in it keeps the lines that it was written on.
    fn alias(&mut self, anchor: usize, line: usize, path: &str) -> Result<Option<Value>, Fault> {
        // An alias inside of what its own anchor names comes before that has a value.
        let Some((written, value)) = self.anchors.get(&anchor).cloned() else {
            self.fault(line, path, "this has no value that YAML defines");
            return Ok(None);
        };
        let Some(value) = value else { return Ok(None) };
        let levels = depth(&value);
        self.descend(levels, line, path)?;
        self.depth -= levels;
        self.repeated += value.to_string().len();
        if self.repeated > MAX_REPEATED {
            let message = format!("aliases repeat more than {MAX_REPEATED} bytes of this document");
            return Err(Fault { line, path: path.to_owned(), message });
        }
        let places = self.document.lines.range(written.clone()..);
        let below = places.map_while(|(place, line)| Some((place.strip_prefix(written.as_str())?, *line)));
        let inside = below.filter(|(rest, _)| rest.starts_with(['.', '[']));
        let lines: Vec<_> = inside.map(|(rest, line)| (rest.to_owned(), line)).collect();
        for (rest, line) in lines {
            self.place(&format!("{path}{rest}"), line)?;
        }
        Ok(Some(value))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// A list or mapping with this tag. Those of YAML itself say nothing new of it.
fn collection(value: Value, tag: Option<&Tag>) -> Result<Option<Value>, &'static str> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => Err(MEANINGLESS_TAG),
        _ => Ok(Some(value)),
    }
}

/// A scalar by the core schema (YAML 1.2.2 section 10.3.2); `None`: null.
fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    fractions: Fractions,
) -> Result<Option<Value>, &'static str> {
    let is_text = match tag {
        None => false,
        Some(tag) if tag.is_yaml_core_schema() => match &*tag.suffix {
            "str" => true,
            "int" | "float" | "bool" | "null" => false,
            _ => return Err(MEANINGLESS_TAG),
        },
        Some(_) => return Err(MEANINGLESS_TAG),
    };
    if is_text || style != ScalarStyle::Plain {
        return Ok(Some(Value::from(text)));
    }
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(None),
        "true" | "True" | "TRUE" => return Ok(Some(Value::from(true))),
        "false" | "False" | "FALSE" => return Ok(Some(Value::from(false))),
        _ => {}
    }
    if let Some(whole) = whole_number(&text) {
        return Ok(Some(Value::Number(whole)));
    }
    match float(&text) {
        Some(_) if fractions == Fractions::Refused => {
            Err("a number with a fraction is written in quotes, so that it is read exactly")
        }
        Some(float) => match Number::from_f64(float) {
            Some(number) => Ok(Some(Value::Number(number))),
            None => Err("this is not a finite number"),
        },
        None => Ok(Some(Value::from(text))),
    }
}

fn whole_number(text: &str) -> Option<Number> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let is_number = digits.chars().all(|digit| digit.is_digit(radix));
            return u64::from_str_radix(digits, radix).ok().filter(|_| is_number).map(Number::from);
        }
    }
    let unsigned: Result<u64, _> = text.parse();
    unsigned.map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}

fn float(text: &str) -> Option<f64> {
    match text.strip_prefix(['+', '-']).unwrap_or(text) {
        ".inf" | ".Inf" | ".INF" => Some(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => Some(f64::NAN),
        // Of what Rust reads as one, `inf` and `nan` are text in YAML.
        digits if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') => {
            text.parse().ok()
        }
        _ => None,
    }
}
