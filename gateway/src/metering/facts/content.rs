//! Content for the model: whether it is all in the body.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::body::Draft;
use super::json;

/// Reads one value of a content member, at any depth. Says whether it was something other than `null`.
pub(super) struct Content<'d, 'a, 'de> {
    draft: &'d mut Draft<'a, 'de>,
    at: At,
}

/// Where the value stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// It is the member's own.
    Member,
    /// It is an item of the member's list.
    Item,
    Below,
}

impl<'d, 'a, 'de> Content<'d, 'a, 'de> {
    pub(super) const fn member(draft: &'d mut Draft<'a, 'de>) -> Member<'d, 'a, 'de> {
        Member(Self { draft, at: At::Member })
    }
}

/// A whole content member.
pub(super) struct Member<'d, 'a, 'de>(Content<'d, 'a, 'de>);

impl<'de> DeserializeSeed<'de> for Member<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.deserialize(deserializer).map(|_| ())
    }
}

impl<'de> DeserializeSeed<'de> for Content<'_, '_, 'de> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_, '_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let at = if self.at == At::Member { At::Item } else { At::Below };
        while items.next_element_seed(Content { draft: self.draft, at })?.is_some() {}
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let rules = &self.draft.rules().content;
        let is_item = self.at == At::Item && rules.items_need_one;
        let mut is_whole = !is_item;
        // The member without which this type of content is only a reference, until it is seen.
        let mut missing: Option<&str> = None;
        let mut seen = Vec::new();
        while let Some(name) = members.next_key_seed(json::Str)? {
            let means = rules.member(&name);
            is_whole |= means.identifies;
            if name == "type" {
                let kind = members.next_value_seed(Kind)?;
                missing = self.draft.note_kind(kind.as_deref()).or(missing);
                continue;
            }
            let is_something = if means.is_opaque {
                members.next_value::<IgnoredAny>()?;
                true
            } else {
                members.next_value_seed(Content { draft: self.draft, at: At::Below })?
            };
            self.draft.outside |= is_something && means.refers;
            if is_something && means.completes {
                seen.push(name);
            }
        }
        self.draft.outside |=
            !is_whole || missing.is_some_and(|needed| !seen.iter().any(|name| name == needed));
        Ok(true)
    }
}

impl<'a> Draft<'a, '_> {
    /// Notes the type of a piece of content, and gives the member that it must have to hold all of itself.
    fn note_kind(&mut self, kind: Option<&str>) -> Option<&'a str> {
        let rules = &self.rules().content;
        let kind = kind.unwrap_or_default();
        if rules.plain.iter().any(|plain| **plain == *kind) {
            return None;
        }
        if let Some(needed) = rules.only_with.get(kind) {
            return Some(needed);
        }
        self.outside = true;
        self.unbounded |= rules.is_unbounded(kind);
        None
    }
}

/// A type, or nothing where it is no string.
pub(super) struct Kind;

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Kind {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a type")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
