//! `kind: Credential`, as it is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::field::{Interval, List};
use super::from::Froms;
use super::mint::MintSpec;
use crate::name::Reference;
use crate::pattern::HostPattern;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CredentialSpec {
    pub(crate) destinations: List<Reference>,
    pub(crate) from: Option<Froms>,
    pub(crate) inject: Option<Injections>,
    pub(crate) refresh: Option<Interval>,
    pub(crate) max_stale: Option<Interval>,
    pub(crate) prefetch: Option<bool>,
    pub(crate) wildcard_hosts: List<HostPattern>,
    pub(crate) mint: Option<MintSpec>,
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
