//! One member of a JSON object, and nothing else of it.
//!
//! **Invariant:** no member but the wanted one is copied out of the buffer it was parsed from. A member that occurs
//! twice is refused: two readers could disagree on which one counts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::secret::Hidden;

/// The string under `field`, or, when none is named, the only member that the object has.
pub(super) fn pick(object: &[u8], field: Option<&str>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut json = serde_json::Deserializer::from_slice(object);
    let mut flaw = None;
    let picked = Pick { field, flaw: &mut flaw }.deserialize(&mut json);
    match (flaw, picked) {
        (Some(flaw), _) => Err(flaw),
        (None, Ok(Some(value))) if json.end().is_ok() => Ok(value),
        (None, Ok(None)) if json.end().is_ok() => Err(Failure::FieldMissing),
        (None, _) => Err(Failure::Malformed("it is not a JSON object")),
    }
}

struct Pick<'a> {
    field: Option<&'a str>,
    /// What is wrong, where it is not the JSON itself.
    flaw: &'a mut Option<Failure>,
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<Zeroizing<Vec<u8>>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<Zeroizing<Vec<u8>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
        let mut picked = None;
        while let Some(name) = members.next_key::<String>()? {
            if self.field.is_some_and(|field| field != name) {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            if picked.is_some() {
                let twice = Failure::Malformed("the field occurs twice");
                *self.flaw = Some(if self.field.is_some() { twice } else { Failure::FieldMissing });
                return Err(M::Error::custom("ambiguous"));
            }
            let value = members.next_value::<Hidden>().inspect_err(|_| {
                *self.flaw = Some(Failure::Malformed("the field is not a string"));
            })?;
            picked = Some(value.into_inner());
        }
        Ok(picked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(object: &str, field: Option<&str>) -> Result<String, Failure> {
        pick(object.as_bytes(), field).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn the_named_field_is_taken_whatever_else_is_there() {
        let object = r#"{"a": {"b": [1, "x"]}, "api_key": "sk-\u0031", "z": null}"#;
        assert_eq!(picked(object, Some("api_key")), Ok("sk-1".into()));
    }

    #[test]
    fn without_a_name_the_only_field_is_taken() {
        assert_eq!(picked(r#"{"k": "v"}"#, None), Ok("v".into()));
        assert_eq!(picked(r#"{"k": "v", "l": "w"}"#, None), Err(Failure::FieldMissing));
        assert_eq!(picked("{}", None), Err(Failure::FieldMissing));
    }

    #[test]
    fn a_missing_field_is_told_from_a_malformed_object() {
        assert_eq!(picked(r#"{"k": "v"}"#, Some("l")), Err(Failure::FieldMissing));
        for text in ["", "[]", r#""k""#, r#"{"k": "v""#, r#"{"k": "v"} x"#] {
            assert!(matches!(picked(text, Some("k")), Err(Failure::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_field_that_occurs_twice_or_is_no_string_is_refused() {
        assert_eq!(
            picked(r#"{"k": "v", "\u006b": "w"}"#, Some("k")),
            Err(Failure::Malformed("the field occurs twice"))
        );
        assert_eq!(picked(r#"{"k": 7}"#, Some("k")), Err(Failure::Malformed("the field is not a string")));
    }
}
