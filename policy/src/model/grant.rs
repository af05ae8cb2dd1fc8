//! `kind: Grant`, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{List, Money};
use crate::caller::{AccountName, Issuer};
use crate::limit::{LimitKey, Per, StoreFailure, Unit};
use crate::name::{Name, Reference};
use crate::pattern::{
    ActionPattern, ClaimText, MethodPattern, ModelPattern, OneOrAny, PathPattern, SpiffePattern,
    SubjectPattern,
};
use crate::upgrade::Upgrade;

/// Who may call which destination, with which key, and how much.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["callers", "destination"]))]
pub(crate) struct GrantSpec {
    /// Who may call.
    pub(crate) callers: List<CallerSpec>,
    /// The Destination that they may call.
    pub(crate) destination: Option<Reference>,
    /// The Credential whose key is put on the call. Without one, nothing is put on it.
    pub(crate) credential: Option<Reference>,
    /// Passes on the caller's own token. See [the caller's own token](../gateway/README.md#the-callers-own-token).
    pub(crate) caller_token: Option<CallerTokenSpec>,
    /// What they may call of it. Required with a key.
    pub(crate) allow: Option<AllowSpec>,
    /// How much the callers may use. Without one, as much as they want. See [limits](#limits).
    pub(crate) limits: List<LimitSpec>,
    /// Tokens. Written into a call that names no output cap, where a limit or budget of it counts tokens or spend. Without it the
    /// model's maximum.
    pub(crate) default_output_cap: Option<u64>,
    /// What a call is held at that nothing bounds. Without it such a call is refused with `unbounded_cost`.
    pub(crate) assume: Option<AssumeSpec>,
    /// What becomes of a model without a price. `deny` refuses it where spend is limited, `dearest` charges it as the provider's
    /// dearest model, `flag` lets it through and marks it. Without it `deny`. Only where the dialect knows models.
    pub(crate) unpriced: Option<UnpricedWord>,
    /// Why no call may be made by this grant for now. Calls that it decides are refused, and their callers are told this. It still
    /// comes before broader grants.
    pub(crate) suspended: Option<String>,
}

/// A kind of callers: exactly one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct CallerSpec {
    /// Workloads by SPIFFE id. The trust domain has to be one of the settings.
    pub(crate) spiffe: Option<SpiffePattern>,
    /// Kubernetes service accounts, proven by their tokens. The cluster has to be one of the settings.
    pub(crate) service_account: Option<ServiceAccountSpec>,
    /// Subjects of an issuer of tokens. The issuer has to be one of the settings.
    pub(crate) token: Option<TokenCallerSpec>,
}

/// Kubernetes service accounts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{namespace: shop, name: web}`"
)]
#[schemars(extend("required" = ["namespace", "name"]))]
pub(crate) struct ServiceAccountSpec {
    /// The name of the cluster. Without it the gateway's own.
    pub(crate) cluster: Option<Name>,
    /// The namespace, or `*` for all.
    pub(crate) namespace: Option<OneOrAny<Name>>,
    /// The name of the account, or `*` for all.
    pub(crate) name: Option<OneOrAny<AccountName>>,
}

/// Subjects of an issuer of tokens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{issuer: \"https://issuer.example\", subject: \"repo:acme/shop:*\"}`"
)]
#[schemars(extend("required" = ["issuer", "subject"]))]
pub(crate) struct TokenCallerSpec {
    /// The `iss` of the tokens.
    pub(crate) issuer: Option<Issuer>,
    /// The `sub` of the tokens: exact, or the beginning of one and a `*`.
    pub(crate) subject: Option<SubjectPattern>,
    /// What their tokens say besides, each by its name in `identity.tokens[].claims` of the settings: exact, or the beginning of a text and a
    /// `*`. All of it holds; of a list, one of its texts. Only in a Budget.
    #[schemars(with = "BTreeMap<String, ClaimText>")]
    pub(crate) claims: BTreeMap<Name, ClaimText>,
}

/// The caller's own token.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{audience: \"https://api.example.com\"}`"
)]
#[schemars(extend("required" = ["audience"]))]
pub(crate) struct CallerTokenSpec {
    /// The `aud` that the token has to have to be passed on.
    pub(crate) audience: Option<String>,
}

/// What may be called.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AllowSpec {
    /// The methods that are allowed, `*` for all. Without it all. Required with a key.
    pub(crate) methods: List<MethodPattern>,
    /// The paths that are allowed, by [pattern](#patterns). Without it all. Required with a key.
    pub(crate) paths: List<PathPattern>,
    /// The models that are allowed, by [pattern](#patterns), where the dialect knows models. Without it all.
    pub(crate) models: List<ModelPattern>,
    /// Endpoints of the dialect that read the account, make credentials or administer. They need to be named even if a path
    /// pattern matches.
    pub(crate) classes: List<ClassWord>,
    /// [Actions of AWS services](#actions-of-aws-services).
    pub(crate) actions: List<ActionPattern>,
    /// Answer headers that are withheld otherwise.
    pub(crate) response_headers: List<ResponseHeader>,
    /// Protocols that a call may go on with on its connection. See [WebSocket](../gateway/README.md#websocket). Without it none.
    pub(crate) upgrades: List<Upgrade>,
    /// Pass on `Range` although a key is put on the call.
    #[schemars(extend("default" = false))]
    pub(crate) range: Option<bool>,
}

// Those that have to be named: [`crate::dialect::Class::Use`] needs no naming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
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

/// How much may be used: exactly one of `requests`, `tokens`, `inputTokens`, `outputTokens`, `cachedTokens`, `reasoningTokens`, `spend`,
/// `bytes`, `seconds` and `concurrency`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["requests", "per"]},
    {"required": ["tokens", "per"]},
    {"required": ["inputTokens", "per"]},
    {"required": ["outputTokens", "per"]},
    {"required": ["cachedTokens", "per"]},
    {"required": ["reasoningTokens", "per"]},
    {"required": ["spend", "per"]},
    {"required": ["bytes", "per"]},
    {"required": ["seconds", "per"]},
    {"required": ["concurrency"]},
]))]
pub(crate) struct LimitSpec {
    /// Calls that are sent. For `second`, `minute` and `hour` a rate, of which a `burst` may come at once.
    #[schemars(range(min = 1))]
    pub(crate) requests: Option<u64>,
    /// Input and output tokens together, as the provider bills them.
    #[schemars(range(min = 1))]
    pub(crate) tokens: Option<u64>,
    /// Tokens that models read, those of a prompt cache included.
    #[schemars(range(min = 1))]
    pub(crate) input_tokens: Option<u64>,
    /// Tokens that models write, reasoning included.
    #[schemars(range(min = 1))]
    pub(crate) output_tokens: Option<u64>,
    /// Tokens that models read from the provider's prompt cache. A call is held at all that it may read.
    #[schemars(range(min = 1))]
    pub(crate) cached_tokens: Option<u64>,
    /// Tokens of reasoning, where the provider tells them apart from other output. A call is held at all that it may write.
    #[schemars(range(min = 1))]
    pub(crate) reasoning_tokens: Option<u64>,
    /// What calls cost.
    pub(crate) spend: Option<Money>,
    /// Bytes that pass both ways, where connections are passed through. A connection is cut when they are used up, and with the window in
    /// which it was opened.
    #[schemars(range(min = 1))]
    pub(crate) bytes: Option<u64>,
    /// How long connections are open, all of them together, where they are passed through. They are cut as for `bytes`.
    #[schemars(range(min = 1))]
    pub(crate) seconds: Option<u64>,
    /// Calls under way at one time. It takes only `key` and `onStoreFailure` besides.
    #[schemars(range(min = 1))]
    pub(crate) concurrency: Option<u64>,
    /// The time that the amount is for. Required except for `concurrency`.
    pub(crate) per: Option<Per>,
    /// Where [replicas share limits](../gateway/README.md#limits-of-many-replicas) and their store is gone for longer than the lease: `deny` lets
    /// nothing through, `local` in each replica its even part of the amount. Without it `local` for requests and
    /// concurrency, else `deny`.
    pub(crate) on_store_failure: Option<StoreFailure>,
    /// For requests per second, minute or hour: how many may come at once. Without it a tenth of the amount, at least 1.
    #[schemars(range(min = 1))]
    pub(crate) burst: Option<u32>,
    /// Who shares one count: all callers together, those of a namespace, or one caller by itself.
    #[schemars(extend("default" = "shared"))]
    pub(crate) key: Option<LimitKey>,
    /// For everything else: where the window begins. Without it `calendar` for day, week and month, else `rolling`. A rolling
    /// month has 30 days, a calendar week begins on Monday.
    pub(crate) window: Option<WindowWord>,
    /// The IANA name of the timezone whose midnight a calendar window begins at. Without it UTC.
    pub(crate) timezone: Option<String>,
}

impl LimitSpec {
    /// Each unit, and how much of it is written: it is one of them.
    pub(crate) fn amounts(&self) -> [(Unit, Option<u64>); 10] {
        [
            (Unit::Requests, self.requests),
            (Unit::Tokens, self.tokens),
            (Unit::InputTokens, self.input_tokens),
            (Unit::OutputTokens, self.output_tokens),
            (Unit::CachedTokens, self.cached_tokens),
            (Unit::ReasoningTokens, self.reasoning_tokens),
            (Unit::Spend, self.spend.map(|amount| amount.0.0)),
            (Unit::Bytes, self.bytes),
            (Unit::Seconds, self.seconds),
            (Unit::Concurrency, self.concurrency),
        ]
    }

    /// The units of which an amount is written.
    pub(crate) fn units(&self) -> impl Iterator<Item = Unit> {
        self.amounts().into_iter().filter_map(|(unit, amount)| amount.map(|_| unit))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WindowWord {
    Rolling,
    Calendar,
}

/// What a call is held at that nothing bounds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AssumeSpec {
    /// Tokens that it is taken to read.
    pub(crate) input_tokens: Option<u64>,
    /// Tokens that it is taken to write.
    pub(crate) output_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum UnpricedWord {
    Deny,
    Dearest,
    Flag,
}

impl ResponseHeader {
    /// They can carry credentials, or send the caller elsewhere.
    pub(super) const WITHHELD: [&str; 4] = ["set-cookie", "alt-svc", "authentication-info", "refresh"];

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
