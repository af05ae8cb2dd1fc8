//! Pieces of JSON reading that the members of a body share.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::price::UNIT_MAX;

/// Reads a member name or a string without copying it where it has no escapes.
pub(super) struct Str;

impl<'de> DeserializeSeed<'de> for Str {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Str {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// How much of a member's name is shown.
pub(super) const NAME_SHOWN: usize = 64;

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
    pub(super) value: Option<&'de RawValue>,
    pub(super) has_members: bool,
}

/// Reads one member of a nested object. `path` names the object in a denial.
pub(super) fn inner<'de>(object: &'de RawValue, path: &str, name: &str) -> Result<Inner<'de>, Denial> {
    let mut search = Search { name, found: Inner { value: None, has_members: false }, is_ambiguous: false };
    let mut deserializer = serde_json::Deserializer::from_str(object.get());
    let read = deserializer.deserialize_map(&mut search);
    if search.is_ambiguous {
        return Err(ambiguous(&format!("{path}.{name}")));
    }
    read.map_err(|_| invalid(path, "must be an object"))?;
    Ok(search.found)
}

struct Search<'a, 'de> {
    name: &'a str,
    found: Inner<'de>,
    is_ambiguous: bool,
}

impl<'de> Visitor<'de> for &mut Search<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key_seed(Str)? {
            let value = members.next_value::<&RawValue>()?;
            self.found.has_members = true;
            if name == self.name {
                self.is_ambiguous |= self.found.value.replace(value).is_some();
            } else if folded(&name).is_some_and(|name| name == self.name) {
                self.is_ambiguous = true;
            }
        }
        Ok(())
    }
}

/// A count, or nothing where it is `null`. `path` names it in a denial.
pub(super) fn count(value: &RawValue, path: &str) -> Result<Option<u64>, Denial> {
    let text = value.get();
    if text == "null" {
        return Ok(None);
    }
    let count = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    let count = count.filter(|count| *count <= UNIT_MAX);
    count.map(Some).ok_or_else(|| invalid(path, "must be a whole number that is not negative, or null"))
}

/// A flag; `null` is none.
pub(super) fn flag(value: &RawValue, path: &str) -> Result<bool, Denial> {
    match value.get() {
        "true" => Ok(true),
        "false" | "null" => Ok(false),
        _ => Err(invalid(path, "must be true or false")),
    }
}

/// A string, or nothing where it is `null`.
pub(super) fn string<'de>(value: &'de RawValue, path: &str) -> Result<Option<Cow<'de, str>>, Denial> {
    if value.get() == "null" {
        return Ok(None);
    }
    // What was read as a value, and has no escape, is what stands between its quotes.
    if let Some(text) = value.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'))
        && memchr::memchr(b'\\', text.as_bytes()).is_none()
    {
        return Ok(Some(Cow::Borrowed(text)));
    }
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    Str.deserialize(&mut deserializer).map(Some).map_err(|_| invalid(path, "must be a string"))
}

/// Whether a value asks for nothing, whatever it is the value of.
pub(super) fn is_nothing(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "false" | "[]" | "{}")
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
