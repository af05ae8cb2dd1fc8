//! A body that is a form (`multipart/form-data`, RFC 7578), such as the ones that files are sent in.
//!
//! **Invariant:** a field that decides anything is found where every reader of forms finds it, or the form is refused: no text before the
//! first part, line ends that are CRLF, names in quotes without escapes, and none of such a field's forms as a file or a list.
//!
//! Deliberately absent: any look into files, and edits. A form is sent as it came.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memmem;
use serde_json::{Value, json};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Member, RequestRules};

use super::{Marks, ReadBody, body, is_utf8_charset, json, only};

/// RFC 2046, section 5.1.1.
const BOUNDARY_MAX: usize = 70;
/// The longest head of a part, and the longest value of a field that is read.
const TEXT_MAX: usize = 64 * 1024;

/// What separates the parts of a form; `None` where the body says that it is something else.
pub(super) fn boundary(headers: &HeaderMap) -> Option<Result<String, Denial>> {
    let kind = only(headers, &CONTENT_TYPE)?;
    let (essence, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let is_boundary = |parameter: &str| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().to_owned())
    };
    // Another parameter could be another boundary, or another spelling of names, to another reader.
    if parameters.split(';').any(|one| is_boundary(one).is_none() && !is_utf8_charset(one.trim())) {
        return Some(Err(two_ways()));
    }
    let mut values = parameters.split(';').filter_map(is_boundary);
    let value = values.next().filter(|_| values.next().is_none()).unwrap_or_default();
    let value = value.as_str();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    let is_one = (1..=BOUNDARY_MAX).contains(&value.len()) && value.bytes().all(is_plain);
    Some(if is_one { Ok(value.to_owned()) } else { Err(invalid("its content type names no boundary")) })
}

/// Reads the fields of a form as the members of the same names that a JSON body would have.
pub(super) fn read(rules: &RequestRules, boundary: &str, form: &[u8]) -> Result<ReadBody, Denial> {
    let mut members: Vec<String> = Vec::new();
    let mut parts = Parts::begin(boundary, form)?;
    while let Some(part) = parts.next()? {
        members.extend(part.member(rules)?);
    }
    let text = format!("{{{}}}", members.join(","));
    let mut read = body::read(rules, text.as_bytes())?;
    read.facts.body_bytes = form.len() as u64;
    Ok(ReadBody { marks: Marks::default(), ..read })
}

/// The parts of a form, one after the other.
struct Parts<'a> {
    delimiter: Vec<u8>,
    rest: &'a [u8],
}

struct FormPart<'a> {
    name: &'a str,
    is_file: bool,
    value: &'a [u8],
}

impl<'a> Parts<'a> {
    fn begin(boundary: &str, form: &'a [u8]) -> Result<Self, Denial> {
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        let rest =
            form.strip_prefix(&delimiter[2..]).ok_or_else(|| invalid("it does not begin with a part"))?;
        Ok(Self { delimiter, rest })
    }

    fn next(&mut self) -> Result<Option<FormPart<'a>>, Denial> {
        if let Some(after) = self.rest.strip_prefix(b"--") {
            let is_end = after.is_empty() || after == b"\r\n";
            return if is_end { Ok(None) } else { Err(invalid("something follows its last part")) };
        }
        let rest =
            self.rest.strip_prefix(b"\r\n").ok_or_else(|| invalid("a line with its boundary goes on"))?;
        let head_end = memmem::find(rest.get(..TEXT_MAX).unwrap_or(rest), b"\r\n\r\n");
        let head_end = head_end.ok_or_else(|| invalid("a part has no head"))?;
        let (head, content) = (&rest[..head_end], &rest[head_end + 4..]);
        let end =
            memmem::find(content, &self.delimiter).ok_or_else(|| invalid("its last part does not end"))?;
        self.rest = &content[end + self.delimiter.len()..];
        let (name, is_file) = named(head)?;
        Ok(Some(FormPart { name, is_file, value: &content[..end] }))
    }
}

/// The name that the head of a part gives it, and whether it is a file.
fn named(head: &[u8]) -> Result<(&str, bool), Denial> {
    let head = str::from_utf8(head).map_err(|_| invalid("the head of a part is not UTF-8"))?;
    let (mut found, mut has_charset) = (None, false);
    for line in head.split("\r\n") {
        let (field, value) =
            line.split_once(':').ok_or_else(|| invalid("the head of a part is malformed"))?;
        let is_token =
            !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_token || value.contains(['\r', '\n', '\0']) {
            return Err(invalid("the head of a part is malformed"));
        }
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            return Err(invalid("a part has a transfer encoding"));
        }
        if field.eq_ignore_ascii_case("content-type") {
            has_charset = value.split(';').skip(1).any(|one| !is_utf8_charset(one.trim()));
        }
        if field.eq_ignore_ascii_case("content-disposition") && found.replace(value.trim()).is_some() {
            return Err(invalid("a part has two names"));
        }
    }
    let disposition = found.ok_or_else(|| invalid("a part has no name"))?;
    let parameters = disposition.strip_prefix("form-data;").map(str::trim_start);
    let quoted = parameters.and_then(|parameters| parameters.strip_prefix("name=\"")?.split_once('"'));
    let (name, others) = quoted.ok_or_else(|| invalid("a part does not begin with its name in quotes"))?;
    let is_file = is_file(others)?;
    if name.contains('\\') || name.eq_ignore_ascii_case("_charset_") || (has_charset && !is_file) {
        return Err(two_ways());
    }
    Ok((name, is_file))
}

/// Whether what follows a part's name is the name of a file, in one form or in both (`filename`, `filename*`). Anything else could be
/// a second name to some reader.
fn is_file(parameters: &str) -> Result<bool, Denial> {
    let mut rest = parameters.trim_start();
    let is_file = !rest.is_empty();
    while !rest.is_empty() {
        let parameter = rest.strip_prefix(';').map(str::trim_start).ok_or_else(two_ways)?;
        let (name, value) = parameter.split_once('=').ok_or_else(two_ways)?;
        if !matches!(name, "filename" | "filename*") {
            return Err(two_ways());
        }
        let end = match value.strip_prefix('"') {
            Some(text) => 2 + text.find('"').ok_or_else(two_ways)?,
            None => value.find(';').unwrap_or(value.len()),
        };
        let (value, next) = value.split_at(end);
        if value.contains('\\') {
            return Err(two_ways());
        }
        rest = next.trim_start();
    }
    Ok(is_file)
}

fn two_ways() -> Denial {
    invalid("the name of a part could be read in two ways")
}

impl FormPart<'_> {
    /// The field as a member of a JSON object; `None` where it is of no interest.
    fn member(&self, rules: &RequestRules) -> Result<Option<String>, Denial> {
        // Some readers take what a bracket follows as a list, or as an object.
        let plain = self.name.split_once('[').map_or(self.name, |(plain, _)| plain);
        let folded = json::folded(plain);
        let known = rules.member(folded.as_deref().unwrap_or(plain));
        let Some(member) = known else { return Ok(Some(format!("{}:null", json!(plain)))) };
        if !member.is_deciding() {
            return Ok(None);
        }
        if self.is_file || plain != self.name || folded.is_some() {
            return Err(json::ambiguous(plain));
        }
        let value = Some(self.value).filter(|value| value.len() <= TEXT_MAX);
        let text = value.and_then(|value| str::from_utf8(value).ok());
        let text = text.ok_or_else(|| json::invalid(self.name, "must be a short text in UTF-8"))?;
        let value = match member {
            Member::Stream => Value::from(text.eq_ignore_ascii_case("true") || text == "1"),
            Member::Choices | Member::Cap if text.is_empty() => Value::Null,
            Member::Choices | Member::Cap => {
                let number: Option<u64> = text.parse().ok();
                number.map(Value::from).ok_or_else(|| json::invalid(self.name, "must be a whole number"))?
            }
            _ => Value::from(text),
        };
        Ok(Some(format!("{}:{value}", json!(self.name))))
    }
}

fn invalid(what: &str) -> Denial {
    Denial::new(Reason::BodyInvalid, format!("the body must be a form that is read in one way only: {what}"))
}

#[cfg(test)]
mod tests;
