//! `kind: Grant`, as it is written.

use serde::Deserialize;

use super::field::{List, Money};
use crate::caller::{AccountName, Issuer};
use crate::limit::{Key, Per};
use crate::name::{Name, Reference};
use crate::pattern::{
    ActionPattern, MethodPattern, ModelPattern, OneOrAny, PathPattern, SpiffePattern, SubjectPattern,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct GrantSpec {
    pub(crate) callers: List<CallerSpec>,
    pub(crate) destination: Option<Reference>,
    pub(crate) credential: Option<Reference>,
    pub(crate) caller_token: Option<CallerTokenSpec>,
    pub(crate) allow: Option<AllowSpec>,
    pub(crate) limits: List<LimitSpec>,
    pub(crate) default_output_cap: Option<u64>,
    pub(crate) assume: Option<AssumeSpec>,
    pub(crate) unpriced: Option<UnpricedWord>,
}

/// Exactly one of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CallerSpec {
    pub(crate) spiffe: Option<SpiffePattern>,
    pub(crate) service_account: Option<ServiceAccountSpec>,
    pub(crate) token: Option<TokenSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{namespace: shop, name: web}`"
)]
pub(crate) struct ServiceAccountSpec {
    /// The gateway's own where it is left out.
    pub(crate) cluster: Option<Name>,
    pub(crate) namespace: Option<OneOrAny<Name>>,
    pub(crate) name: Option<OneOrAny<AccountName>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{issuer: \"https://issuer.example\", subject: \"repo:acme/shop:*\"}`"
)]
pub(crate) struct TokenSpec {
    pub(crate) issuer: Option<Issuer>,
    pub(crate) subject: Option<SubjectPattern>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{audience: \"https://api.example.com\"}`"
)]
pub(crate) struct CallerTokenSpec {
    pub(crate) audience: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AllowSpec {
    pub(crate) methods: List<MethodPattern>,
    pub(crate) paths: List<PathPattern>,
    pub(crate) models: List<ModelPattern>,
    pub(crate) classes: List<ClassWord>,
    pub(crate) actions: List<ActionPattern>,
    pub(crate) response_headers: List<ResponseHeader>,
    pub(crate) range: Option<bool>,
}

/// The classes that have to be named: [`crate::dialect::Class::Use`] needs no naming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ClassWord {
    AccountState,
    MintsCredentials,
    Administers,
}

/// The response headers that are withheld unless a grant names them, in any letter case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ResponseHeader(Box<str>);

/// The text is no header that is withheld.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this header is not withheld, so it needs no naming; the ones that are: {}", ResponseHeader::WITHHELD.join(", "))]
pub(crate) struct ResponseHeaderError;

/// Exactly one of the first four.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct LimitSpec {
    pub(crate) requests: Option<u64>,
    pub(crate) tokens: Option<u64>,
    pub(crate) spend: Option<Money>,
    pub(crate) concurrency: Option<u64>,
    pub(crate) per: Option<Per>,
    pub(crate) burst: Option<u32>,
    pub(crate) key: Option<Key>,
    pub(crate) window: Option<WindowWord>,
    pub(crate) timezone: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WindowWord {
    Rolling,
    Calendar,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AssumeSpec {
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum UnpricedWord {
    Deny,
    Dearest,
    Flag,
}

impl ResponseHeader {
    /// They can carry credentials, or send the caller elsewhere.
    const WITHHELD: [&str; 4] = ["set-cookie", "alt-svc", "authentication-info", "refresh"];

    /// In lower case.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ResponseHeader {
    type Error = ResponseHeaderError;

    fn try_from(text: String) -> Result<Self, ResponseHeaderError> {
        let withheld = Self::WITHHELD.into_iter().find(|withheld| withheld.eq_ignore_ascii_case(&text));
        withheld.map(|withheld| Self(withheld.into())).ok_or(ResponseHeaderError)
    }
}
