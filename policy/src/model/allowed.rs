//! `allowedNamespaces`: whose resources may refer to one in another namespace.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::field::List;
use crate::name::Name;

/// `All`, or `{names: […]}`, or `{selector: {…}}`.
#[derive(Debug)]
pub(crate) enum AllowedNamespaces {
    All,
    Some(SomeNamespacesSpec),
}

/// Some namespaces: exactly one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct SomeNamespacesSpec {
    /// Their names.
    pub(crate) names: List<Name>,
    /// Those with such labels, which are read in the cluster.
    pub(crate) selector: Option<SelectorSpec>,
}

/// Labels, as Kubernetes selects by them: all that is written has to hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct SelectorSpec {
    /// Labels that a namespace has, by their keys.
    pub(crate) match_labels: BTreeMap<String, String>,
    /// What holds of its labels.
    pub(crate) match_expressions: List<RequirementSpec>,
}

/// What holds of one label.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["key", "operator"]))]
pub(crate) struct RequirementSpec {
    /// The key of the label.
    pub(crate) key: Option<String>,
    /// `In` and `NotIn` compare with `values`, `Exists` and `DoesNotExist` have none.
    pub(crate) operator: Option<OperatorWord>,
    /// The values of `In` and `NotIn`.
    pub(crate) values: List<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum OperatorWord {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl<'de> Deserialize<'de> for AllowedNamespaces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = AllowedNamespaces;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`All`, or namespaces as in `{names: [shop]}` or `{selector: {matchLabels: {team: shop}}}`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<AllowedNamespaces, E> {
                match word {
                    "All" => Ok(AllowedNamespaces::All),
                    _ => Err(E::unknown_variant(word, &["All", "{names: […]}", "{selector: {…}}"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<AllowedNamespaces, A::Error> {
                SomeNamespacesSpec::deserialize(MapAccessDeserializer::new(members))
                    .map(AllowedNamespaces::Some)
            }
        }

        deserializer.deserialize_any(Words)
    }
}
