//! Texts that stand for all texts: of each class of texts that a set of patterns cannot tell apart, at least one.
//!
//! Patterns over segments are automata that read a segment at a time. All of them are run side by side, and each state that they can be in
//! together is visited once. So what is decided by these patterns alone is known for every text there is when it is known for these.
//!
//! **Invariant:** for any text there is one in the result that the same patterns match. There may be several of one class.

use std::collections::{BTreeSet, HashSet, VecDeque};

/// A pattern over texts that are cut at slashes: literals, `*` for one segment, `**` for all that follows.
#[derive(Debug, Clone)]
pub(super) struct Template {
    segments: Vec<Box<str>>,
    /// It is compared with texts in lower case.
    is_lenient: bool,
}

/// Which texts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// No segment is empty, and there may be none at all: SPIFFE ids and service accounts.
    Names,
    /// There is a segment at least, and the last one may be empty: paths of requests.
    Paths,
}

impl Template {
    /// What follows the first slash, cut at the others; no segments where there is no slash.
    pub(super) fn new(text: &str) -> Self {
        let segments = text.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/'));
        Self { segments: segments.map(Box::from).collect(), is_lenient: false }
    }

    /// The same, for texts that are compared in lower case.
    pub(super) fn lenient(text: &str) -> Self {
        Self { is_lenient: true, ..Self::new(text) }
    }

    /// What becomes of it when it reads a segment: it goes on, takes all that may follow, or fails.
    fn read(&self, depth: usize, segment: &str) -> Advance {
        match self.segments.get(depth).map(AsRef::as_ref) {
            Some("**") => Advance::Rest,
            Some("*") if !segment.is_empty() => Advance::On,
            Some(literal) if literal != "*" && self.is_literal(literal, segment) => Advance::On,
            _ => Advance::Fail,
        }
    }

    fn is_literal(&self, literal: &str, segment: &str) -> bool {
        if self.is_lenient { segment.to_ascii_lowercase() == literal } else { segment == literal }
    }
}

enum Advance {
    On,
    Rest,
    Fail,
}

/// Where all templates are after the same segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    depth: usize,
    /// Those that go on.
    open: Vec<usize>,
    /// Those that take whatever follows.
    rest: Vec<usize>,
}

/// Texts of every class, each with a slash before every segment.
pub(super) fn segmented(templates: &[Template], alphabet: Alphabet) -> Vec<String> {
    let mut texts = Vec::new();
    let start = State { depth: 0, open: (0..templates.len()).collect(), rest: Vec::new() };
    let mut seen = HashSet::from([start.clone()]);
    let mut queue = VecDeque::from([(start, String::new())]);
    while let Some((state, text)) = queue.pop_front() {
        if alphabet == Alphabet::Paths {
            texts.push(format!("{text}/"));
        }
        if alphabet == Alphabet::Names || state.depth > 0 {
            texts.push(text.clone());
        }
        // Once none goes on, what follows makes no difference.
        if state.open.is_empty() {
            continue;
        }
        for segment in segments(templates, &state) {
            let next = state.after(templates, &segment);
            if seen.insert(next.clone()) {
                queue.push_back((next, format!("{text}/{segment}")));
            }
        }
    }
    texts
}

impl State {
    fn after(&self, templates: &[Template], segment: &str) -> Self {
        let mut next = Self { depth: self.depth + 1, open: Vec::new(), rest: self.rest.clone() };
        for index in &self.open {
            match templates[*index].read(self.depth, segment) {
                Advance::On => next.open.push(*index),
                Advance::Rest => next.rest.push(*index),
                Advance::Fail => {}
            }
        }
        next.rest.sort_unstable();
        next
    }
}

/// The segments that some template tells from others here, and one that none does.
fn segments(templates: &[Template], state: &State) -> BTreeSet<String> {
    let mut segments = BTreeSet::new();
    for index in &state.open {
        let template = &templates[*index];
        let Some(segment) = template.segments.get(state.depth) else { continue };
        if matches!(&**segment, "*" | "**") {
            continue;
        }
        // An empty segment within a path is one only where a template has it.
        segments.insert(segment.to_string());
        if template.is_lenient {
            segments.insert(segment.to_ascii_uppercase());
        }
    }
    let fresh = fresh("", segments.iter().map(String::as_str));
    segments.insert(fresh);
    segments
}

/// Texts of every class of patterns that are exact, or the beginning of a text: `known` are these texts, and those that begin so.
pub(super) fn beginnings<'a>(known: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let known: BTreeSet<&str> = known.chain([""]).collect();
    let longer = known.iter().map(|text| fresh(text, known.iter().copied()));
    let mut texts: BTreeSet<String> = longer.collect();
    texts.extend(known.iter().filter(|text| !text.is_empty()).map(|text| (*text).to_owned()));
    texts
}

/// A text that begins so and goes on as no known one does, in letters of any case.
pub(super) fn fresh<'a>(beginning: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<String> = known.map(str::to_ascii_lowercase).collect();
    let is_free = |text: &String| {
        let text = text.to_ascii_lowercase();
        !known.iter().any(|known| known.starts_with(&text))
    };
    let letters = ('a'..='z').map(|letter| format!("{beginning}{letter}"));
    let any = std::iter::once(format!("{beginning}x")).chain(letters).find(is_free);
    // Of three letters there are more than texts that anybody writes.
    let more = || {
        let numbers = (0_u64..).map(|number| format!("{beginning}x{number}x"));
        numbers.into_iter().find(is_free).unwrap_or_default()
    };
    any.unwrap_or_else(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(templates: &[&str]) -> Vec<String> {
        let templates: Vec<Template> = templates.iter().map(|text| Template::new(text)).collect();
        segmented(&templates, Alphabet::Paths)
    }

    #[test]
    fn every_class_of_paths_has_a_text() {
        let found = texts(&["/v1/*/content", "/v1/files/**", "/v1/files/a"]);
        for path in [
            "/v1/files/a",
            "/v1/files/content",
            "/v1/x/content",
            "/v1/files/x",
            "/v1/files/",
            "/v1/files/a/x",
            "/",
            "/x",
            "/v1",
        ] {
            assert!(found.iter().any(|text| text == path), "{path}: {found:?}");
        }
    }

    #[test]
    fn a_fresh_text_is_the_beginning_of_no_known_one() {
        let known = ["x", "xylophone", "A"];
        let text = fresh("", known.into_iter());
        assert!(!known.iter().any(|known| known.to_ascii_lowercase().starts_with(&text)), "{text}");
        let all: Vec<String> = ('a'..='z').map(String::from).collect();
        assert_eq!(fresh("", all.iter().map(String::as_str)), "x0x");
    }

    #[test]
    fn every_class_of_beginnings_has_a_text() {
        let found = beginnings(["gpt-5", "gpt-5-mini", "gpt-"].into_iter());
        assert!(["gpt-5", "gpt-5-mini", "gpt-"].iter().all(|text| found.contains(*text)));
        let is_in =
            |text: &&String, begins: &str, not: &str| text.starts_with(begins) && !text.starts_with(not);
        assert!(found.iter().any(|text| is_in(&text, "gpt-5", "gpt-5-mini") && text != "gpt-5"));
        assert!(found.iter().any(|text| is_in(&text, "gpt-", "gpt-5") && text != "gpt-"));
        assert!(found.iter().any(|text| !text.starts_with("gpt-")));
    }
}
