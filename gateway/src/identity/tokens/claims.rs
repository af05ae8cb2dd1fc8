//! What a token says beside whom it is about: those claims that the settings name for Budgets.
//!
//! **Invariant:** two readers read the same: of an object with a member twice nothing is taken. What is no text stands for nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tollgate_policy::caller::Claims;
use tollgate_policy::name::Name;
use tollgate_policy::pattern::ClaimText;

use crate::identity::jwt;

/// Where a claim is: its name here, and the keys that lead to it.
pub(super) type ClaimPath = (Name, Vec<String>);

/// The claims at these places of a token that was verified; `None` where it does not say them plainly.
pub(super) fn read(token: &[u8], paths: &[ClaimPath]) -> Option<Claims> {
    if paths.is_empty() {
        return Some(Claims::default());
    }
    let [_, claims, _] = jwt::parts(token)?;
    let claims: ClaimValue = serde_json::from_slice(&jwt::object(claims)?).ok()?;
    let found = paths.iter().flat_map(|(name, keys)| {
        let texts = claims.at(keys).map(ClaimValue::texts).unwrap_or_default();
        texts.into_iter().map(|text| (name.clone(), Box::from(text)))
    });
    Some(found.collect())
}

enum ClaimValue {
    Text(String),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
    /// A number, `true`, `false` or `null`.
    Other,
}

impl ClaimValue {
    fn at(&self, keys: &[String]) -> Option<&Self> {
        keys.iter().try_fold(self, |value, key| match value {
            Self::Object(members) => members.get(key),
            _ => None,
        })
    }

    /// The text, or those in a list, as far as any pattern could match them.
    fn texts(&self) -> Vec<&str> {
        let all = match self {
            Self::Text(text) => vec![text.as_str()],
            Self::List(list) => list
                .iter()
                .filter_map(|one| if let Self::Text(text) = one { Some(&**text) } else { None })
                .collect(),
            Self::Object(_) | Self::Other => Vec::new(),
        };
        all.into_iter().filter(|text| text.len() <= ClaimText::LONGEST).collect()
    }
}

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = ClaimValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON whose objects have each member once")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Text(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Other)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Other)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Other)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Other)
            }

            fn visit_unit<E: Error>(self) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ClaimValue, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(ClaimValue::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ClaimValue, A::Error> {
                let mut object = BTreeMap::new();
                while let Some(key) = members.next_key::<String>()? {
                    if object.contains_key(&key) {
                        return Err(A::Error::custom("a member occurs twice"));
                    }
                    object.insert(key, members.next_value()?);
                }
                Ok(ClaimValue::Object(object))
            }
        }

        deserializer.deserialize_any(Anything)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn read_of(claims: &str) -> Option<Vec<(String, String)>> {
        let paths =
            [("team", &["team"][..]), ("roles", &["realm_access", "roles"]), ("odd", &["https://acme/x.y"])];
        let paths: Vec<ClaimPath> = paths
            .iter()
            .map(|(name, keys)| (name.parse().unwrap(), keys.iter().map(ToString::to_string).collect()))
            .collect();
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let claims = read(token.as_bytes(), &paths)?;
        Some(claims.iter().map(|(name, text)| (name.to_string(), text.to_owned())).collect())
    }

    fn texts(all: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn texts_and_lists_of_them_are_kept_at_the_places_that_are_named_and_nothing_else() {
        let claims = r#"{"team":"payments","realm_access":{"roles":["a","b"]},"https://acme/x.y":"z","sub":"me","other":"w"}"#;
        let all = [("team", "payments"), ("roles", "a"), ("roles", "b"), ("odd", "z")];
        assert_eq!(read_of(claims), texts(&all));
        assert_eq!(read_of("{}"), texts(&[]));
    }

    #[test]
    fn what_is_no_text_stands_for_nothing() {
        for team in [
            "1",
            "1.5",
            "-1",
            "true",
            "null",
            "{}",
            r#"{"team":"payments"}"#,
            "[]",
            "[1,null,[\"payments\"]]",
        ] {
            assert_eq!(read_of(&format!(r#"{{"team":{team}}}"#)), texts(&[]), "{team}");
        }
        assert_eq!(read_of(r#"{"team":["payments",7]}"#), texts(&[("team", "payments")]));
        let huge = "a".repeat(4_000);
        assert_eq!(read_of(&format!(r#"{{"team":["{huge}","b"]}}"#)), texts(&[("team", "b")]));
        assert_eq!(read_of(r#"{"realm_access":["roles"]}"#), texts(&[]), "a key leads into objects alone");
    }

    #[test]
    fn a_member_that_occurs_twice_is_not_plain() {
        for claims in [
            r#"{"team":"a","team":"b"}"#,
            r#"{"team":"a","te\u0061m":"b"}"#,
            r#"{"realm_access":{"roles":["a"],"roles":["b"]}}"#,
            r#"{"realm_access":{"roles":["a"]},"realm_access":{}}"#,
        ] {
            assert_eq!(read_of(claims), None, "{claims}");
        }
    }
}
