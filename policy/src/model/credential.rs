//! `kind: Credential`, as it is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::field::{Interval, List};
use super::mint::MintSpec;
use crate::name::Name;
use crate::pattern::HostPattern;
use crate::policy::{HmacAlgorithm, KeyEncoding, SignatureEncoding};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CredentialSpec {
    pub(crate) destinations: List<Name>,
    pub(crate) from: Option<Froms>,
    pub(crate) inject: Option<Injections>,
    pub(crate) refresh: Option<Interval>,
    pub(crate) max_stale: Option<Interval>,
    pub(crate) prefetch: Option<bool>,
    pub(crate) wildcard_hosts: List<HostPattern>,
    pub(crate) mint: Option<MintSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct FromSpec {
    /// Of a key in a list, and only there.
    pub(crate) alias: Option<Name>,
    /// The same.
    pub(crate) weight: Option<Weight>,
    pub(crate) store: Option<Name>,
    pub(crate) path: Option<String>,
    pub(crate) field: Option<String>,
    pub(crate) fields: List<String>,
    pub(crate) version: Option<u64>,
    pub(crate) stage: Option<String>,
    pub(crate) version_id: Option<String>,
    pub(crate) dynamic: Option<bool>,
}

/// How much of the callers a key gets, against the others; 0: it stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight(pub(crate) u32);

/// One key, or a list of them.
#[derive(Debug)]
pub(crate) enum Froms {
    One(Box<FromSpec>),
    Several(List<FromSpec>),
}

/// One way on a call, or a list of them.
#[derive(Debug)]
pub(crate) enum Injections {
    One(Box<InjectSpec>),
    Several(List<InjectSpec>),
}

/// Exactly one of the fields, besides `field`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct InjectSpec {
    pub(crate) field: Option<String>,
    pub(crate) bearer: Option<BearerSpec>,
    pub(crate) header: Option<HeaderSpec>,
    pub(crate) basic: Option<BasicSpec>,
    pub(crate) query: Option<QuerySpec>,
    pub(crate) cookie: Option<CookieSpec>,
    #[serde(rename = "sigv4")]
    pub(crate) sig_v4: Option<SigV4Spec>,
    pub(crate) hmac: Option<HmacSpec>,
    pub(crate) client_certificate: Option<ClientCertificateSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BearerSpec {}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct HeaderSpec {
    pub(crate) name: Option<String>,
    pub(crate) prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct BasicSpec {
    pub(crate) username: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct QuerySpec {
    pub(crate) name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CookieSpec {
    pub(crate) name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct SigV4Spec {
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
    pub(crate) session_token: Option<String>,
    pub(crate) regions: List<String>,
    pub(crate) services: List<String>,
}

/// The fields with the chain and with its key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct ClientCertificateSpec {
    pub(crate) certificate: Option<String>,
    pub(crate) key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct HmacSpec {
    pub(crate) algorithm: Option<HmacWord>,
    pub(crate) field: Option<String>,
    pub(crate) key_encoding: Option<KeyEncodingWord>,
    pub(crate) message: Option<String>,
    pub(crate) encoding: Option<SignatureWord>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) query: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum HmacWord {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum KeyEncodingWord {
    Raw,
    Base64,
    Hex,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SignatureWord {
    Hex,
    Base64,
}

impl From<HmacWord> for HmacAlgorithm {
    fn from(word: HmacWord) -> Self {
        match word {
            HmacWord::Sha1 => Self::Sha1,
            HmacWord::Sha256 => Self::Sha256,
            HmacWord::Sha512 => Self::Sha512,
        }
    }
}

impl From<KeyEncodingWord> for KeyEncoding {
    fn from(word: KeyEncodingWord) -> Self {
        match word {
            KeyEncodingWord::Raw => Self::Raw,
            KeyEncodingWord::Base64 => Self::Base64,
            KeyEncodingWord::Hex => Self::Hex,
        }
    }
}

impl From<SignatureWord> for SignatureEncoding {
    fn from(word: SignatureWord) -> Self {
        match word {
            SignatureWord::Hex => Self::Hex,
            SignatureWord::Base64 => Self::Base64,
        }
    }
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
    const HEAVIEST: u32 = 1000;
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

impl<'de> Deserialize<'de> for Injections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Injections;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a way on the call, as in `{bearer: {}}`, or a list of them")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Injections, A::Error> {
                InjectSpec::deserialize(MapAccessDeserializer::new(members))
                    .map(Box::new)
                    .map(Injections::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Injections, A::Error> {
                List::deserialize(SeqAccessDeserializer::new(elements)).map(Injections::Several)
            }
        }

        deserializer.deserialize_any(Either)
    }
}
