//! Pieces of JSON reading that the members of a body share. A value is the text of it.

use std::borrow::Cow;

use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::price::UNIT_MAX;

use super::reader::Reader;

/// A name as a reader that ignores letter case would take it; `None` where it is that already.
///
/// Beside ASCII letters, the two other characters that Unicode folds to ASCII are folded: U+017F to `s`, U+212A to `k`.
pub(super) fn folded(name: &str) -> Option<String> {
    let is_folded = name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    let fold = |character| match character {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    (!is_folded).then(|| name.chars().map(fold).collect())
}

/// One member of an object: its value, which may occur once, and what is around it.
pub(super) struct Inner<'de> {
    pub(super) value: Option<&'de str>,
    pub(super) has_members: bool,
}

/// Reads one member of a nested object. `path` names the object in a denial.
pub(super) fn inner<'de>(object: &'de str, path: &str, name: &str) -> Result<Inner<'de>, Denial> {
    let mut found = Inner { value: None, has_members: false };
    let mut is_ambiguous = false;
    let read = Reader::new(object).members(|reader, member| {
        let value = reader.value()?;
        found.has_members = true;
        if member == name {
            is_ambiguous |= found.value.replace(value).is_some();
        } else if folded(&member).is_some_and(|member| member == name) {
            is_ambiguous = true;
        }
        Ok(())
    });
    if is_ambiguous {
        return Err(ambiguous(&format!("{path}.{name}")));
    }
    read.map_err(|_| invalid(path, "must be an object"))?;
    Ok(found)
}

/// A count, or nothing where it is `null`. `path` names it in a denial.
pub(super) fn count(value: &str, path: &str) -> Result<Option<u64>, Denial> {
    if value == "null" {
        return Ok(None);
    }
    let count = if value.bytes().all(|byte| byte.is_ascii_digit()) { value.parse().ok() } else { None };
    let count = count.filter(|count| *count <= UNIT_MAX);
    count.map(Some).ok_or_else(|| invalid(path, "must be a whole number that is not negative, or null"))
}

/// A flag; `null` is none.
pub(super) fn flag(value: &str, path: &str) -> Result<bool, Denial> {
    match value {
        "true" => Ok(true),
        "false" | "null" => Ok(false),
        _ => Err(invalid(path, "must be true or false")),
    }
}

/// A string, or nothing where it is `null`.
pub(super) fn string<'de>(value: &'de str, path: &str) -> Result<Option<Cow<'de, str>>, Denial> {
    if value == "null" {
        return Ok(None);
    }
    Reader::new(value).string().map(Some).map_err(|_| invalid(path, "must be a string"))
}

/// Whether a value asks for nothing, whatever it is the value of.
pub(super) fn is_nothing(value: &str) -> bool {
    matches!(value, "null" | "false" | "[]" | "{}")
}

pub(super) fn ambiguous(path: &str) -> Denial {
    let detail = format!(
        "`{path}` must stand in the body once, in lower case: two readers could take it for two values"
    );
    Denial::new(Reason::AmbiguousBody, detail)
}

pub(super) fn invalid(path: &str, what: &str) -> Denial {
    Denial::new(Reason::BodyInvalid, format!("`{path}` {what}"))
}
