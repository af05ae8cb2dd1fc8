//! `kind: Budget`, as it is written.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::allowed::{AllowedNamespaces, SelectorSpec};
use super::field::{Instant, List, Money};
use super::grant::{CallerSpec, LimitSpec};
use crate::limit::{LimitKey, Per, Unit};
use crate::name::{Name, Reference};

/// Limits that calls are held to beside those of their grants.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["limits"]))]
pub(crate) struct BudgetSpec {
    /// The calls that are held to it: `All`, or those of which all that is written holds. Without it only the calls of Budgets that
    /// name it as their `parent`.
    pub(crate) applies_to: Option<AppliesTo>,
    /// The Budget that the same calls are held to besides, as that of an organisation.
    pub(crate) parent: Option<Reference>,
    /// How much these calls may use, all together. See [limits](#limits).
    pub(crate) limits: List<LimitSpec>,
    /// What becomes of a call for which not enough is left. `deny` refuses it. `flag` lets it go on past the amount, and marks its
    /// record. `downgrade` lets it go on past the amount with a cheaper model. See [budgets](#what-becomes-of-a-call).
    #[schemars(extend("default" = "deny"))]
    pub(crate) on_exhausted: Option<OnExhaustedSpec>,
    /// Percents of an amount, 1 to 100, and `forecast`. Once so much of one is spent, or at this pace all of it will be before the window
    /// ends, it is told: see [thresholds](../gateway/README.md#thresholds-of-budgets). Without it 50, 80 and 100;
    /// `[]` is none.
    pub(crate) thresholds: List<ThresholdSpec>,
    /// For a time, amounts are more.
    pub(crate) raises: List<RaiseSpec>,
    /// The namespaces whose Budgets may name this one as their `parent`, besides its own: `All`, or some. See
    /// [namespaces](#namespaces).
    pub(crate) allowed_namespaces: Option<AllowedNamespaces>,
}

/// `All`, or `{destinations: […], …}`.
#[derive(Debug)]
pub(crate) enum AppliesTo {
    All,
    Some(Box<CallSelectorSpec>),
}

/// Some calls: all that is written holds of them. At most one of `callers`, `namespaces` and `namespaceSelector`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct CallSelectorSpec {
    /// They go to one of these Destinations.
    pub(crate) destinations: List<Reference>,
    /// One of these Credentials is put on them.
    pub(crate) credentials: List<Reference>,
    /// They are made by one of these callers.
    pub(crate) callers: List<CallerSpec>,
    /// They are made from one of these namespaces, in whichever trust domain or cluster of the settings.
    pub(crate) namespaces: List<Name>,
    /// They are made from namespaces with such labels, which are read in the cluster.
    pub(crate) namespace_selector: Option<SelectorSpec>,
}

/// `deny`, `flag`, or `{downgrade: MODEL}`.
#[derive(Debug)]
pub(crate) enum OnExhaustedSpec {
    Deny,
    Flag,
    Downgrade(DowngradeSpec),
}

/// A percent, or `forecast`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ThresholdSpec {
    Percent(u64),
    Forecast,
}

/// A cheaper model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["downgrade"]))]
pub(crate) struct DowngradeSpec {
    /// The model that is asked for in place of the caller's, as its provider spells it. The grant has to allow it, and the body to name the
    /// model. Any other call is refused.
    pub(crate) downgrade: Option<String>,
}

/// For a time, one of the amounts is more: exactly one of `requests`, `tokens`, `inputTokens`, `outputTokens`, `cachedTokens`,
/// `reasoningTokens`, `spend`, `bytes`, `seconds` and `concurrency`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["until", "by", "reason"], "oneOf" = [
    {"required": ["requests"]},
    {"required": ["tokens"]},
    {"required": ["inputTokens"]},
    {"required": ["outputTokens"]},
    {"required": ["cachedTokens"]},
    {"required": ["reasoningTokens"]},
    {"required": ["spend"]},
    {"required": ["bytes"]},
    {"required": ["seconds"]},
    {"required": ["concurrency"]},
]))]
pub(crate) struct RaiseSpec {
    /// Calls more.
    #[schemars(range(min = 1))]
    pub(crate) requests: Option<u64>,
    /// Tokens more.
    #[schemars(range(min = 1))]
    pub(crate) tokens: Option<u64>,
    /// Input tokens more.
    #[schemars(range(min = 1))]
    pub(crate) input_tokens: Option<u64>,
    /// Output tokens more.
    #[schemars(range(min = 1))]
    pub(crate) output_tokens: Option<u64>,
    /// Cached tokens more.
    #[schemars(range(min = 1))]
    pub(crate) cached_tokens: Option<u64>,
    /// Reasoning tokens more.
    #[schemars(range(min = 1))]
    pub(crate) reasoning_tokens: Option<u64>,
    /// Money more.
    pub(crate) spend: Option<Money>,
    /// Bytes more.
    #[schemars(range(min = 1))]
    pub(crate) bytes: Option<u64>,
    /// Seconds more.
    #[schemars(range(min = 1))]
    pub(crate) seconds: Option<u64>,
    /// Calls under way more.
    #[schemars(range(min = 1))]
    pub(crate) concurrency: Option<u64>,
    /// Of which limit, where several have this unit.
    pub(crate) per: Option<Per>,
    /// Of which limit, where several have this unit.
    pub(crate) key: Option<LimitKey>,
    /// When it ends, as in `2026-12-31T00:00:00Z`.
    pub(crate) until: Option<Instant>,
    /// Who has raised it.
    pub(crate) by: Option<String>,
    /// Why.
    pub(crate) reason: Option<String>,
}

impl RaiseSpec {
    /// Each unit, and how much of it is written: it is one of them.
    pub(crate) fn amounts(&self) -> [(Unit, Option<u64>); 10] {
        [
            (Unit::Requests, self.requests),
            (Unit::Tokens, self.tokens),
            (Unit::InputTokens, self.input_tokens),
            (Unit::OutputTokens, self.output_tokens),
            (Unit::CachedTokens, self.cached_tokens),
            (Unit::ReasoningTokens, self.reasoning_tokens),
            (Unit::Spend, self.spend.map(|by| by.0.0)),
            (Unit::Bytes, self.bytes),
            (Unit::Seconds, self.seconds),
            (Unit::Concurrency, self.concurrency),
        ]
    }
}

impl<'de> Deserialize<'de> for ThresholdSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl Visitor<'_> for Words {
            type Value = ThresholdSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percent from 1 to 100, or `forecast`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<ThresholdSpec, E> {
                match word {
                    "forecast" => Ok(ThresholdSpec::Forecast),
                    _ => Err(E::unknown_variant(word, &["forecast", "a percent from 1 to 100"])),
                }
            }

            fn visit_u64<E: Error>(self, percent: u64) -> Result<ThresholdSpec, E> {
                Ok(ThresholdSpec::Percent(percent))
            }

            fn visit_i64<E: Error>(self, percent: i64) -> Result<ThresholdSpec, E> {
                // What is below zero is as little a percent as zero is.
                Ok(ThresholdSpec::Percent(u64::try_from(percent).unwrap_or(0)))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

impl<'de> Deserialize<'de> for OnExhaustedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = OnExhaustedSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`deny`, `flag`, or a cheaper model as in `{downgrade: gpt-5-nano}`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<OnExhaustedSpec, E> {
                match word {
                    "deny" => Ok(OnExhaustedSpec::Deny),
                    "flag" => Ok(OnExhaustedSpec::Flag),
                    _ => Err(E::unknown_variant(word, &["deny", "flag", "{downgrade: …}"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<OnExhaustedSpec, A::Error> {
                DowngradeSpec::deserialize(MapAccessDeserializer::new(members))
                    .map(OnExhaustedSpec::Downgrade)
            }
        }

        deserializer.deserialize_any(Words)
    }
}

impl<'de> Deserialize<'de> for AppliesTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = AppliesTo;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`All`, or some calls as in `{destinations: [openai]}` or `{namespaces: [shop]}`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<AppliesTo, E> {
                match word {
                    "All" => Ok(AppliesTo::All),
                    _ => Err(E::unknown_variant(word, &["All", "{destinations: […]}", "{namespaces: […]}"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<AppliesTo, A::Error> {
                CallSelectorSpec::deserialize(MapAccessDeserializer::new(members))
                    .map(|some| AppliesTo::Some(Box::new(some)))
            }
        }

        deserializer.deserialize_any(Words)
    }
}
