//! What callers ask and providers answer.

mod facts;
mod sse;
mod usage;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tollgate_policy::dialect::{Catalog, Endpoint};

pub use self::facts::facts;
pub use self::sse::sse;
pub use self::usage::usage;
use super::catalog;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| catalog::shipped().unwrap_or_default());

/// The endpoints that are tried, all of which the shipped catalog has.
const ENDPOINTS: [(&str, &str); 8] = [
    ("openai", "/v1/chat/completions"),
    ("openai", "/v1/responses"),
    ("anthropic", "/v1/messages"),
    ("openai", "/v1/embeddings"),
    ("openai", "/v1/completions"),
    ("openai", "/v1/images/generations"),
    ("openai", "/v1/audio/speech"),
    ("openai", "/v1/audio/transcriptions"),
];

fn endpoint(which: u8) -> Option<Arc<Endpoint>> {
    let (dialect, path) = ENDPOINTS[usize::from(which) % ENDPOINTS.len()];
    let found = CATALOG.dialect(dialect).and_then(|dialect| dialect.endpoint("POST", path)).cloned();
    assert!(found.is_some(), "{dialect} has no {path}");
    found
}

/// JSON in which no name occurs twice in one object, and every number is whole.
enum Plain {
    Number(serde_json::Number),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
    Other(serde_json::Value),
}

impl Plain {
    /// In one spelling: without space, escapes only where they have to be, members by name.
    fn canonical(&self) -> serde_json::Value {
        match self {
            Self::Number(number) => number.clone().into(),
            Self::List(items) => items.iter().map(Self::canonical).collect(),
            Self::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.clone(), value.canonical()));
                serde_json::Value::Object(members.collect())
            }
            Self::Other(value) => value.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Plain, E> {
        Ok(Plain::Other(serde_json::Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
        Ok(Plain::Other(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Plain, E> {
        Ok(Plain::Other(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
        Ok(Plain::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Plain, E> {
        Ok(Plain::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Plain, E> {
        Err(E::custom("a number that is not whole"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Plain::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Plain, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name that occurs twice"));
            }
        }
        Ok(Plain::Object(map))
    }
}
