//! Some members of a JSON object, and nothing else of it.
//!
//! **Invariant:** no member but the wanted ones is copied out of the buffer it was parsed from. A member that occurs
//! twice is refused: two readers could disagree on which one counts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::value::{Field, Hidden, Value};

/// All of `value`, or the members of the JSON object that it is.
pub(super) fn of(value: Zeroizing<Vec<u8>>, fields: &[String]) -> Result<Value, Failure> {
    if fields.is_empty() { Ok(value.into()) } else { pick(&value, fields) }
}

/// The strings under `fields`, in that order; or, when none is named, the only member that the object has.
pub(super) fn pick(object: &[u8], fields: &[String]) -> Result<Value, Failure> {
    let mut json = serde_json::Deserializer::from_slice(object);
    let mut flaw = None;
    let picked = Pick { fields, flaw: &mut flaw }.deserialize(&mut json);
    match (flaw, picked) {
        (Some(flaw), _) => Err(flaw),
        (None, Ok(Some(value))) if json.end().is_ok() => Ok(value),
        (None, Ok(None)) if json.end().is_ok() => Err(Failure::FieldMissing),
        (None, _) => Err(Failure::Malformed("it is not a JSON object")),
    }
}

struct Pick<'a> {
    fields: &'a [String],
    /// What is wrong, where it is not the JSON itself.
    flaw: &'a mut Option<Failure>,
}

impl Pick<'_> {
    /// Which of the wanted fields this is.
    fn place(&self, name: &str) -> Option<usize> {
        if self.fields.is_empty() { Some(0) } else { self.fields.iter().position(|field| field == name) }
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
        let mut picked: Vec<Option<Field>> = Vec::new();
        picked.resize_with(self.fields.len().max(1), || None);
        while let Some(name) = members.next_key::<String>()? {
            let Some(slot) = self.place(&name).and_then(|place| picked.get_mut(place)) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if slot.is_some() {
                let twice = Failure::Malformed("the field occurs twice");
                *self.flaw = Some(if self.fields.is_empty() { Failure::FieldMissing } else { twice });
                return Err(M::Error::custom("ambiguous"));
            }
            let value = members.next_value::<Hidden>().inspect_err(|_| {
                *self.flaw = Some(Failure::Malformed("the field is not a string"));
            })?;
            *slot = Some((name.into(), value.into_inner()));
        }
        Ok(picked.into_iter().collect::<Option<Vec<_>>>().map(Value::of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(object: &str, field: Option<&str>) -> Result<String, Failure> {
        let fields: Vec<String> = field.into_iter().map(Into::into).collect();
        pick(object.as_bytes(), &fields).map(|value| value.texts().concat())
    }

    #[test]
    fn the_named_field_is_taken_whatever_else_is_there() {
        let object = r#"{"a": {"b": [1, "x"]}, "api_key": "sk-\u0031", "z": null}"#;
        assert_eq!(picked(object, Some("api_key")), Ok("sk-1".into()));
    }

    #[test]
    fn several_fields_come_in_the_order_of_their_names_and_all_or_none() {
        let object = br#"{"b": "2", "c": 3, "a": "1"}"#;
        let named =
            |names: &[&str]| pick(object, &names.iter().map(|name| (*name).into()).collect::<Vec<_>>());
        assert_eq!(named(&["a", "b"]).unwrap().texts(), ["1", "2"]);
        assert_eq!(named(&["a", "d"]).err(), Some(Failure::FieldMissing));
        assert_eq!(named(&["a", "c"]).err(), Some(Failure::Malformed("the field is not a string")));
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
