//! What a request body says about its cost, and the edits that make the answer measurable.
//!
//! **Invariant:** the body is read as every strict reader reads it, or refused: UTF-8 JSON, no content encoding, and
//! no member that decides anything occurs twice or in another letter case. What the catalog does not know makes the
//! bound larger, never smaller. Nothing of the body is quoted in a denial.
//!
//! Deliberately absent: a tree of the document. The body is read once, and edited by splicing bytes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::Endpoint;

mod body;
mod content;
mod draft;
mod form;
mod json;
mod pdf;
mod picture;
mod query;
mod surrogate;
mod tools;

pub(super) use query::{check as check_query, of_session};

/// A body that was read.
#[derive(Debug)]
pub struct ReadBody {
    /// What decides and bounds.
    pub facts: Facts,
    marks: Marks,
    obstacle: Option<Denial>,
}

/// Where the body is edited. Offsets count bytes of the body that was read.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// After the opening brace, and whether members follow.
    opening: usize,
    has_members: bool,
    usage: UsageMark,
    cap: CapMark,
    /// Where the model's name stands, with its quotes.
    model: Option<Range<usize>>,
}

/// How the option that forces usage is set.
#[derive(Debug, Default)]
enum UsageMark {
    /// It needs none: no stream, no such option, or the caller asks for usage already.
    #[default]
    Leave,
    /// As a new first member of the body.
    Insert(String),
    /// In place of these bytes.
    Replace(Range<usize>, String),
}

/// How an output cap is written.
#[derive(Debug, Default)]
enum CapMark {
    /// The body names one, or the endpoint has none.
    #[default]
    Leave,
    /// As a new first member of this name.
    Insert(Box<str>),
    /// In place of a `null`.
    Replace(Range<usize>),
}

/// What is changed in a body before it is sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edits(Vec<(Range<usize>, String)>);

/// Reads the body of a call to this endpoint.
///
/// Refuses with `unsupported_encoding`, `unsupported_media_type`, `ambiguous_body` or `body_invalid`. An endpoint whose
/// body the catalog knows nothing of gives facts that name nothing but its size.
pub fn read(endpoint: &Endpoint, headers: &HeaderMap, body: &[u8]) -> Result<ReadBody, Denial> {
    if !endpoint.has_facts() {
        return Ok(ReadBody::unread(Facts { body_bytes: body.len() as u64, ..Facts::default() }));
    }
    check_encoding(headers)?;
    if endpoint.request.may_be_form
        && let Some(boundary) = form::boundary(headers)
    {
        return form::read(&endpoint.request, &boundary?, body);
    }
    check_media_type(headers)?;
    body::read(&endpoint.request, body)
}

impl ReadBody {
    /// A body that nothing asks about: there is nothing to edit in it.
    pub fn unread(facts: Facts) -> Self {
        Self { facts, marks: Marks::default(), obstacle: None }
    }

    /// Refuses what a limit on models, tokens or spend cannot be held over: `deferred_cost` for work that is billed
    /// later, `model_not_allowed` for models beside the one that was checked. To be asked where there is such a limit.
    pub fn within_limits(&self) -> Result<(), Denial> {
        self.obstacle.clone().map_or(Ok(()), Err)
    }

    /// What decides, and what may be edited.
    pub(super) fn into_parts(self) -> (Facts, Marks) {
        (self.facts, self.marks)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn hides_usage(&self) -> bool {
        self.marks.hides_usage()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn edits(&self, output_cap: Option<u64>, model: Option<&str>) -> Edits {
        self.marks.edits(output_cap, model)
    }
}

impl Marks {
    /// Whether the answer will have an event of usage that the caller did not ask for.
    pub(super) fn hides_usage(&self) -> bool {
        !matches!(self.usage, UsageMark::Leave)
    }

    /// Whether the model stands in the body, where it can be changed.
    pub(super) fn names_model(&self) -> bool {
        self.model.is_some()
    }

    /// What to change: usage is forced, the cap (tokens for each choice) is written where the body names none, and `model` in place of the
    /// one that it names.
    pub(super) fn edits(&self, output_cap: Option<u64>, model: Option<&str>) -> Edits {
        let mut inserted = Vec::new();
        let mut edits = Vec::new();
        match &self.usage {
            UsageMark::Leave => {}
            UsageMark::Insert(member) => inserted.push(member.clone()),
            UsageMark::Replace(range, value) => edits.push((range.clone(), value.clone())),
        }
        match (&self.cap, output_cap) {
            (CapMark::Insert(name), Some(cap)) => inserted.push(format!("\"{name}\":{cap}")),
            (CapMark::Replace(range), Some(cap)) => edits.push((range.clone(), cap.to_string())),
            _ => {}
        }
        if let (Some(range), Some(model)) = (&self.model, model) {
            edits.push((range.clone(), serde_json::Value::from(model).to_string()));
        }
        if !inserted.is_empty() {
            let comma = if self.has_members { "," } else { "" };
            let opening = self.opening;
            edits.push((opening..opening, inserted.join(",") + comma));
        }
        edits.sort_by_key(|(range, _)| range.start);
        Edits(edits)
    }
}

impl Edits {
    /// Whether the body is sent as it came.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The body with the edits made. They must be those of this very body.
pub fn apply(edits: &Edits, body: Bytes) -> Bytes {
    if edits.is_empty() {
        return body;
    }
    let added: usize = edits.0.iter().map(|(_, text)| text.len()).sum();
    let mut edited = BytesMut::with_capacity(body.len() + added);
    let mut at = 0;
    for (range, text) in &edits.0 {
        edited.extend_from_slice(body.get(at..range.start).unwrap_or_default());
        edited.extend_from_slice(text.as_bytes());
        at = range.end;
    }
    edited.extend_from_slice(body.get(at..).unwrap_or_default());
    edited.freeze()
}

pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Denial> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(Denial::new(Reason::UnsupportedEncoding, "the request body must be sent without a content encoding"))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Denial> {
    let is_json = only(headers, &CONTENT_TYPE).is_some_and(|value| {
        if value == "application/json" {
            return true;
        }
        let mut parts = value.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        media_type.eq_ignore_ascii_case("application/json") && parts.all(is_utf8_charset)
    });
    if is_json {
        return Ok(());
    }
    Err(Denial::new(Reason::UnsupportedMediaType, "the content type must be application/json, in UTF-8"))
}

fn is_utf8_charset(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return parameter.is_empty() };
    let value = value.trim_matches('"');
    name.eq_ignore_ascii_case("charset")
        && (value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8"))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests;
