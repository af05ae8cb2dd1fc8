//! Where a key is read, or each key of a pool, as it is written.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::field::List;
use crate::name::{Name, Reference};

/// The most keys of a pool.
pub const MOST_KEYS: usize = 32;

/// Where a key is kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["store", "path"]))]
pub(crate) struct FromSpec {
    /// The name of this key in records and reports. Required in a list, and only there.
    pub(crate) alias: Option<Name>,
    /// The share of callers that get this key. `0` stands by: it is used only when no other key can be. Only in a list.
    #[schemars(extend("default" = 1))]
    pub(crate) weight: Option<Weight>,
    /// The SecretStore.
    pub(crate) store: Option<Reference>,
    /// The path of the secret in its store. In a `kubernetes` store, the name of the Secret.
    pub(crate) path: Option<String>,
    /// The field of the secret that is the key. Required for `vault`, `age` and `kubernetes`. Elsewhere the whole value of the secret is the
    /// key without it.
    pub(crate) field: Option<String>,
    /// Several fields, instead of `field`. Each has to be used by some way in `inject`.
    pub(crate) fields: List<String>,
    /// A fixed version, in KV version 2 of a vault. Without it the newest.
    pub(crate) version: Option<u64>,
    /// A staging label, in an `aws` store. Without it `AWSCURRENT`.
    pub(crate) stage: Option<String>,
    /// The id of a fixed version, in an `aws` store.
    pub(crate) version_id: Option<String>,
    /// The path is one of an engine of a vault that makes secrets, its mount included.
    #[schemars(extend("default" = false))]
    pub(crate) dynamic: Option<bool>,
}

/// How much of the callers a key gets, against the others; 0: it stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight(pub(crate) u32);

/// One key, or a list of them.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Froms {
    One(Box<FromSpec>),
    Several(List<FromSpec>),
}

impl Froms {
    /// How many keys were written, right or wrong.
    pub(crate) fn written(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Several(list) => list.written().unwrap_or_default(),
        }
    }

    /// Each key that was read, with where it was written.
    pub(crate) fn each(&self) -> Vec<(String, &FromSpec)> {
        match self {
            Self::One(from) => vec![("spec.from".to_owned(), &**from)],
            Self::Several(list) => {
                list.iter().map(|(index, from)| (format!("spec.from[{index}]"), from)).collect()
            }
        }
    }
}

impl Weight {
    pub(super) const HEAVIEST: u32 = 1000;
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl Visitor<'_> for Whole {
            type Value = Weight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 0 to {}", Weight::HEAVIEST)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Weight, E> {
                let weight = u32::try_from(number).ok().filter(|weight| *weight <= Weight::HEAVIEST);
                weight.map(Weight).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }

        deserializer.deserialize_u64(Whole)
    }
}

impl<'de> Deserialize<'de> for Froms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Froms;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("where the key is read, as in `{store: bao, path: llm/openai, field: api_key}`, or a list of that")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Froms, A::Error> {
                FromSpec::deserialize(MapAccessDeserializer::new(members)).map(Box::new).map(Froms::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Froms, A::Error> {
                List::deserialize(SeqAccessDeserializer::new(elements)).map(Froms::Several)
            }
        }

        deserializer.deserialize_any(Either)
    }
}
