//! Which certificate authorities speak for somebody, as it is written.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `system`, or `{caFile: path}`.
#[derive(Debug)]
pub(crate) enum VerifySpec {
    System,
    Bundle(BundleSpec),
}

/// Certificate authorities in a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["caFile"]))]
pub(crate) struct BundleSpec {
    /// A PEM file with the certificate authorities.
    pub(crate) ca_file: Option<String>,
}

impl<'de> Deserialize<'de> for VerifySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = VerifySpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`system` or `{caFile: path}`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<VerifySpec, E> {
                match word {
                    "system" => Ok(VerifySpec::System),
                    _ => Err(E::unknown_variant(word, &["system", "{caFile: path}"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<VerifySpec, A::Error> {
                BundleSpec::deserialize(MapAccessDeserializer::new(members)).map(VerifySpec::Bundle)
            }
        }

        deserializer.deserialize_any(Words)
    }
}
