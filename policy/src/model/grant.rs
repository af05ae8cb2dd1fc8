//! `kind: Grant`, as it is written.

use serde::Deserialize;

use super::field::{List, Money};
use crate::dialect::Class;
use crate::limit::{Key, Per};
use crate::name::Name;
use crate::pattern::{MethodPattern, ModelPattern, PathPattern, SpiffePattern};
use crate::policy::Unpriced;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct GrantSpec {
    pub(crate) callers: List<CallerSpec>,
    pub(crate) destination: Option<Name>,
    pub(crate) credential: Option<Name>,
    pub(crate) allow: Option<AllowSpec>,
    pub(crate) limits: List<LimitSpec>,
    pub(crate) default_output_cap: Option<u64>,
    pub(crate) assume: Option<AssumeSpec>,
    pub(crate) unpriced: Option<UnpricedWord>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CallerSpec {
    pub(crate) spiffe: Option<SpiffePattern>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AllowSpec {
    pub(crate) methods: List<MethodPattern>,
    pub(crate) paths: List<PathPattern>,
    pub(crate) models: List<ModelPattern>,
    pub(crate) classes: List<ClassWord>,
    pub(crate) response_headers: List<ResponseHeader>,
}

/// The classes that have to be named: [`Class::Use`] needs no naming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ClassWord {
    AccountState,
    MintsCredentials,
    Administers,
}

/// The response headers that are withheld unless a grant names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ResponseHeader {
    #[serde(alias = "Set-Cookie")]
    SetCookie,
    #[serde(alias = "Alt-Svc")]
    AltSvc,
    #[serde(alias = "Authentication-Info")]
    AuthenticationInfo,
    #[serde(alias = "Refresh")]
    Refresh,
}

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

impl From<ClassWord> for Class {
    fn from(word: ClassWord) -> Self {
        match word {
            ClassWord::AccountState => Self::AccountState,
            ClassWord::MintsCredentials => Self::MintsCredentials,
            ClassWord::Administers => Self::Administers,
        }
    }
}

impl ResponseHeader {
    /// In lower case.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SetCookie => "set-cookie",
            Self::AltSvc => "alt-svc",
            Self::AuthenticationInfo => "authentication-info",
            Self::Refresh => "refresh",
        }
    }
}

impl From<UnpricedWord> for Unpriced {
    fn from(word: UnpricedWord) -> Self {
        match word {
            UnpricedWord::Deny => Self::Deny,
            UnpricedWord::Dearest => Self::Dearest,
            UnpricedWord::Flag => Self::Flag,
        }
    }
}
