//! `kind: Destination`, as it is written.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::field::{Address, Interval, List, text};
use crate::name::Reference;
use crate::path::EncodedForm;
use crate::pattern::HostPattern;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct DestinationSpec {
    pub(crate) hosts: List<HostPattern>,
    pub(crate) port: Option<u16>,
    /// `http`; naming another is an error.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) http: Option<HttpWord>,
    pub(crate) dialect: Option<String>,
    pub(crate) addresses: List<Address>,
    pub(crate) source_address: Option<Address>,
    pub(crate) tls: Option<TlsSpec>,
    pub(crate) timeouts: Option<TimeoutsSpec>,
    pub(crate) encoded_path: List<EncodedForm>,
    pub(crate) scrub: Option<ScrubWord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ScrubWord {
    All,
    Headers,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Protocol {
    Http,
}

/// `auto`, `1` or `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpWord {
    Auto,
    Http1,
    Http2,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TlsSpec {
    pub(crate) verify: Option<VerifySpec>,
    #[serde(deserialize_with = "credential")]
    pub(crate) client_certificate: Option<Reference>,
}

/// `system`, or `{caFile: path}`.
#[derive(Debug)]
pub(crate) enum VerifySpec {
    System,
    Bundle(BundleSpec),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct BundleSpec {
    pub(crate) ca_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TimeoutsSpec {
    pub(crate) connect: Option<Interval>,
    pub(crate) first_byte: Option<Interval>,
    pub(crate) idle: Option<Interval>,
}

fn credential<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Reference>, D::Error> {
    text(deserializer, "the name of a Credential that has the certificate, as in `partner-tls`").map(Some)
}

impl<'de> Deserialize<'de> for HttpWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl Visitor<'_> for Words {
            type Value = HttpWord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `1` or `2`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<HttpWord, E> {
                match word {
                    "auto" => Ok(HttpWord::Auto),
                    "1" | "1.1" => Ok(HttpWord::Http1),
                    "2" => Ok(HttpWord::Http2),
                    _ => Err(E::unknown_variant(word, &["auto", "1", "2"])),
                }
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<HttpWord, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<HttpWord, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<HttpWord, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Words)
    }
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
