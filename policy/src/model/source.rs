//! Documents as typed resources, with every fault of a document found in one go.
//!
//! **Invariant:** a field that is in the text and not in the resource has been reported.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::Problem;
use super::yaml::Document;
use crate::pattern::HostPattern;

/// Problems of one document that are told: whatever is read again after each has to have an end.
const MOST_PROBLEMS: usize = 64;
/// The most characters of a problem's path and of its message: names of fields may be as long as an object.
const LONGEST_PATH: usize = 256;
const LONGEST_MESSAGE: usize = 4096;
/// A name of more characters was meant as none that is known.
const LONGEST_NAME: usize = 64;

/// The member of an object that stands in place of its `spec`, and says why nothing is known of that.
pub(super) const UNREADABLE: &str = "unreadable";

/// Where a resource was written.
#[derive(Debug, Clone, Default)]
pub struct Source {
    file: PathBuf,
    /// `Grant/checkout-openai`, or as much of it as is known.
    label: String,
    lines: BTreeMap<String, usize>,
    /// Where fields of no such name were probably meant to stand: they have been reported, and are not missing besides.
    meant: Vec<String>,
    /// The hosts that it is known to hold.
    held_hosts: HashSet<String>,
}

impl Source {
    pub(crate) fn new(file: &Path, label: String, lines: BTreeMap<String, usize>) -> Self {
        Self { file: file.to_owned(), label, lines, ..Self::default() }
    }

    pub(super) fn hold_hosts(&mut self, hosts: HashSet<String>) {
        self.held_hosts = hosts;
    }

    /// Whether this host is one that it is known to hold.
    pub(crate) fn holds(&self, host: &HostPattern) -> bool {
        !self.held_hosts.is_empty() && self.held_hosts.contains(&host.to_string())
    }

    /// Whether something was written there, right or wrong.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.lines.contains_key(path)
    }

    /// Whether it is not to be in force, whatever it says.
    pub(crate) fn is_withheld(&self) -> bool {
        self.is_object() && self.has("withheld") && !self.is_unreadable()
    }

    /// Whether nothing is known of what its `spec` says.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.is_object() && self.has(UNREADABLE)
    }

    /// Whether it claims only what no other has.
    pub(crate) fn yields(&self) -> bool {
        self.is_object() && self.has("withheld.yields")
    }

    /// Whether something was written there, or was probably meant to be: then it is not missing.
    pub(crate) fn claims(&self, path: &str) -> bool {
        let is_in = |meant: &String| {
            path.strip_prefix(meant.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.has(path) || self.meant.iter().any(is_in) || (self.is_unreadable() && path.starts_with("spec."))
    }

    /// `file:line` of the resource itself.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line(""))
    }

    /// ` (file:line)` of the resource itself; nothing of an object, which its id names.
    pub(crate) fn aside(&self) -> String {
        if self.is_object() { String::new() } else { format!(" ({})", self.place()) }
    }

    pub(crate) fn is_object(&self) -> bool {
        self.file.as_os_str().is_empty()
    }

    /// A path as the resource's file means it: relative ones count from that file's directory, those of an object from the root.
    pub(crate) fn resolve(&self, written: &str) -> PathBuf {
        if self.is_object() {
            return Path::new("/").join(written);
        }
        self.file.parent().unwrap_or_else(|| Path::new("")).join(written)
    }

    /// A path as its resource has it, which [`Source::resolve`] has resolved: the same wherever the files are.
    pub(crate) fn unresolve<'a>(&self, resolved: &'a Path) -> &'a Path {
        let directory = self.file.parent().unwrap_or_else(|| Path::new(""));
        resolved.strip_prefix(directory).unwrap_or(resolved)
    }

    /// A problem with what stands at `path`, or with its absence.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        self.problem_at(self.line(path), path, message.into())
    }

    pub(crate) fn problem_at(&self, line: usize, path: &str, mut message: String) -> Problem {
        let path =
            path.char_indices().nth(LONGEST_PATH).map_or(path, |(end, _)| path.get(..end).unwrap_or(path));
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
        }
        let field = match (self.label.is_empty(), path.is_empty()) {
            (false, false) => format!("{}: {path}", self.label),
            (false, true) => self.label.clone(),
            (true, _) => path.to_owned(),
        };
        Problem { file: self.file.clone(), line, field, message }
    }

    /// The line of `path`, or of the nearest thing around it that was written.
    fn line(&self, path: &str) -> usize {
        let mut path = path;
        if self.is_object() {
            return 0;
        }
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None if path.is_empty() => return 1,
                None => path = "",
            }
        }
    }
}

/// Reads `document` as a `T`, all of whose fields may be absent. What does not fit is taken out, reported, and the rest read again.
pub(crate) fn parse<T: DeserializeOwned + Default>(
    document: &Document,
    source: &mut Source,
    problems: &mut Vec<Problem>,
) -> T {
    let mut value = document.value.clone();
    let mut reported: Vec<String> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(parsed) => return parsed,
            Err(error) => error,
        };
        let path = error.path().clone();
        let shown = if path.iter().len() == 0 { String::new() } else { path.to_string() };
        // What serde knows no name for.
        let shown = shown.trim_end_matches(".?").to_owned();
        let message = error.inner().to_string();
        if !follows(&message, &shown, &reported, source) {
            problems.push(source.problem(&shown, reword(&message)));
            if let Some(name) = misspelt(&message) {
                let path = shown
                    .rsplit_once('.')
                    .map_or_else(|| name.clone(), |(parent, _)| format!("{parent}.{name}"));
                source.meant.push(path);
            }
        }
        reported.push(shown);
        if reported.len() == MOST_PROBLEMS && value.get_mut("spec").map(Value::take).is_some() {
            let message =
                format!("so much is wrong with this that only the first {MOST_PROBLEMS} faults are told");
            problems.push(source.problem("spec", message));
            continue;
        }
        // Where an element is needed and cannot be empty, the list around it goes.
        let segments: Vec<&Segment> = path.iter().collect();
        if !(1..=segments.len())
            .rev()
            .any(|end| take_out(&mut value, segments.get(..end).unwrap_or_default()))
        {
            return T::default();
        }
    }
}

/// Whether an error only says that what was reported before has been taken out since.
fn follows(message: &str, path: &str, reported: &[String], source: &Source) -> bool {
    if let Some(rest) = message.strip_prefix("missing field ") {
        let (field, _) = names(rest);
        return source.claims(&if path.is_empty() { field } else { format!("{path}.{field}") });
    }
    let within = |other: &String| {
        let rest = other.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    message.starts_with("invalid type: null") && reported.iter().any(within)
}

/// Removes a member, or empties an element: the elements after it keep their index.
fn take_out(value: &mut Value, path: &[&Segment]) -> bool {
    let Some((last, segments)) = path.split_last() else { return false };
    let mut parent = value;
    for segment in segments {
        let child = match segment {
            Segment::Seq { index } => parent.get_mut(index),
            Segment::Map { key } => parent.get_mut(key),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(child) = child else { return false };
        parent = child;
    }
    match last {
        Segment::Seq { index } => match parent.get_mut(index) {
            Some(element) if !element.is_null() => {
                *element = Value::Null;
                true
            }
            _ => false,
        },
        Segment::Map { key } => parent.as_object_mut().is_some_and(|members| members.remove(key).is_some()),
        Segment::Enum { .. } | Segment::Unknown => false,
    }
}

/// The field that one of no such name was probably meant to be.
fn misspelt(message: &str) -> Option<String> {
    let (field, known) = names(message.strip_prefix("unknown field ")?);
    nearest(&field, known.iter().map(String::as_str)).map(str::to_owned)
}

/// `; did you mean …?` where one of the known names is near.
pub(crate) fn guess<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(written, known).map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

/// Says in a user's words what serde says in a programmer's.
fn reword(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (field, known) = names(rest);
        let guess = guess(&field, known.iter().map(String::as_str));
        return match known.is_empty() {
            true => format!("there is no field `{field}` here: it stays empty, as in `{{}}`"),
            false => format!("there is no field `{field}` here{guess} (known: {})", known.join(", ")),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (found, known) = names(rest);
        let guess = guess(&found, known.iter().map(String::as_str));
        return format!("`{found}` is not known here{guess} (known: {})", known.join(", "));
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("`{}` is required here", names(rest).0);
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        // A number or a boolean that was meant as text.
        Some((found, "a string")) if found.contains('`') => {
            format!("this has to be text in quotes, not {}", describe(found))
        }
        Some((found, expected)) => format!("this has to be {}, not {}", describe(expected), describe(found)),
        None => message.to_owned(),
    }
}

/// The names between backquotes: the first, and the others.
fn names(message: &str) -> (String, Vec<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
    (quoted.next().unwrap_or_default(), quoted.collect())
}

fn describe(what: &str) -> String {
    match what {
        "a string" => "text".to_owned(),
        "a sequence" | "sequence" => "a list".to_owned(),
        "a map" | "map" => "a mapping of fields".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "null" => "empty".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "string or map" => "one word".to_owned(),
        _ if what.starts_with("struct ") => "a mapping of fields".to_owned(),
        _ => match what.split_once(' ') {
            // What is written may be a key that was pasted where its place in a store belongs.
            Some(("string", _)) => "text".to_owned(),
            Some(("integer" | "floating" | "boolean", _)) => {
                format!("the value {}", what.trim_start_matches(|c| c != '`'))
            }
            _ => what.to_owned(),
        },
    }
}

/// The known name that a mistyped one was probably meant to be: at most a third of it differs.
pub fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if written.chars().nth(LONGEST_NAME).is_some() {
        return None;
    }
    let distance = |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), &name.to_lowercase());
    let scored = known.map(|name| (distance(name), name));
    let (distance, name) = scored.min()?;
    (distance * 3 <= written.chars().count().max(3)).then_some(name)
}
