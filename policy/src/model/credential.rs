//! `kind: Credential`, as it is written.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::allowed::AllowedNamespaces;
use super::field::{Interval, List};
use super::from::Froms;
use super::mint::MintSpec;
use crate::name::Reference;
use crate::pattern::HostPattern;

/// One key, or several that do the same: where it is kept, which destinations may get it, and how it is put on a call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["destinations", "from", "inject"]))]
pub(crate) struct CredentialSpec {
    /// The Destinations that the key may go to. It goes nowhere else.
    pub(crate) destinations: List<Reference>,
    /// Where the key is kept. A list of at most 32 is a [key pool](../secrets/README.md#key-pools).
    pub(crate) from: Option<Froms>,
    /// How the key is put on a call.
    pub(crate) inject: Option<Injections>,
    /// How old a value may become before it is read again.
    #[schemars(extend("default" = "5m"))]
    pub(crate) refresh: Option<Interval>,
    /// How long a value is used while its store is out of reach. At least `refresh`. Without it `1h`, or `refresh` if that is
    /// longer.
    pub(crate) max_stale: Option<Interval>,
    /// Fetch the key when the policy is taken, and not with the first call.
    #[schemars(extend("default" = false))]
    pub(crate) prefetch: Option<bool>,
    /// The wildcard hosts that may get this key. See [wildcard hosts](#wildcard-hosts).
    pub(crate) wildcard_hosts: List<HostPattern>,
    /// Do not send the stored secret, but a token that is made of it. See [minted tokens](../secrets/README.md#minted-tokens).
    pub(crate) mint: Option<MintSpec>,
    /// The namespaces whose resources may refer to this one, besides its own: `All`, or some. See [namespaces](#namespaces).
    pub(crate) allowed_namespaces: Option<AllowedNamespaces>,
}

/// One way on a call, or a list of them.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Injections {
    One(Box<InjectSpec>),
    Several(List<InjectSpec>),
}

/// A way on a call: exactly one of the fields, besides `field`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["bearer"]},
    {"required": ["header"]},
    {"required": ["basic"]},
    {"required": ["query"]},
    {"required": ["cookie"]},
    {"required": ["sigv4"]},
    {"required": ["hmac"]},
    {"required": ["clientCertificate"]},
]))]
pub(crate) struct InjectSpec {
    /// The field of the secret that this way takes. Required where the secret has several.
    pub(crate) field: Option<String>,
    /// `Authorization: Bearer KEY`.
    pub(crate) bearer: Option<BearerSpec>,
    /// In a header.
    pub(crate) header: Option<HeaderSpec>,
    /// Basic authentication. The key is the password.
    pub(crate) basic: Option<BasicSpec>,
    /// In a query parameter.
    pub(crate) query: Option<QuerySpec>,
    /// In a cookie.
    pub(crate) cookie: Option<CookieSpec>,
    /// [Signs for AWS](#signatures-for-aws).
    #[serde(rename = "sigv4")]
    pub(crate) sig_v4: Option<SigV4Spec>,
    /// [Signs by a template](#hmac-signatures).
    pub(crate) hmac: Option<HmacSpec>,
    /// [Shows a certificate](#client-certificates).
    pub(crate) client_certificate: Option<ClientCertificateSpec>,
}

/// Nothing more to say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BearerSpec {}

/// A header.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub(crate) struct HeaderSpec {
    /// The name of the header.
    pub(crate) name: Option<String>,
    /// What stands before the key, with its space. Without it nothing.
    pub(crate) prefix: Option<String>,
}

/// Basic authentication.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["username"]))]
pub(crate) struct BasicSpec {
    /// The name of the user.
    pub(crate) username: Option<String>,
}

/// A query parameter.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub(crate) struct QuerySpec {
    /// The name of the parameter.
    pub(crate) name: Option<String>,
}

/// A cookie.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub(crate) struct CookieSpec {
    /// The name of the cookie.
    pub(crate) name: Option<String>,
}

/// Signatures for AWS.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["regions", "services"]))]
pub(crate) struct SigV4Spec {
    /// The field of the secret with the access key id. Required unless the session is minted.
    pub(crate) access_key_id: Option<String>,
    /// The field with the secret access key. Required unless the session is minted.
    pub(crate) secret_access_key: Option<String>,
    /// The field with the session token. Without it none is sent.
    pub(crate) session_token: Option<String>,
    /// The regions that it may sign for.
    pub(crate) regions: List<String>,
    /// The services that it may sign for.
    pub(crate) services: List<String>,
}

/// The fields with the chain and with its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["certificate", "key"]))]
pub(crate) struct ClientCertificateSpec {
    /// The field of the secret with the certificate chain, in PEM.
    pub(crate) certificate: Option<String>,
    /// The field with its key, in PEM.
    pub(crate) key: Option<String>,
}

/// A signature by a template.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["message"]))]
pub(crate) struct HmacSpec {
    /// The digest.
    #[schemars(extend("default" = "sha256"))]
    pub(crate) algorithm: Option<HmacWord>,
    /// The field of the secret that is the key. Required where the secret has several.
    pub(crate) field: Option<String>,
    /// How the key is written.
    #[schemars(extend("default" = "raw"))]
    pub(crate) key_encoding: Option<KeyEncodingWord>,
    /// The template of what is signed.
    pub(crate) message: Option<String>,
    /// How the signature is written.
    #[schemars(extend("default" = "hex"))]
    pub(crate) encoding: Option<SignatureWord>,
    /// The headers that are put on the call: a template for each name.
    pub(crate) headers: BTreeMap<String, String>,
    /// The query parameters that are put on the call: a template for each name.
    pub(crate) query: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum HmacWord {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum KeyEncodingWord {
    Raw,
    Base64,
    Hex,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
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
