//! What tools cost that a request names.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::price::NanoUsd;

/// What tools cost by their `type`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolRules {
    members: Vec<Box<str>>,
    call_cap: Option<Box<str>>,
    /// A tool without a `type`.
    pub untyped: Option<ToolRule>,
    types: BTreeMap<Box<str>, ToolRule>,
    /// Members of a tool that change nothing about its cost.
    known: Vec<Box<str>>,
}

/// What one type of tool costs. One that brings content or is a pass of its own is a loop: after each use, the model reads its whole
/// context again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolRule {
    /// It brings content that is not in the body.
    pub outside: bool,
    /// It brings none, and the model goes on after it all the same.
    pub pass: bool,
    /// What the provider charges for each use.
    pub fee: Option<NanoUsdText>,
    /// It is used once at most.
    pub once: bool,
    /// Its member that caps its uses.
    pub cap: Option<Box<str>>,
    /// The model may be run this often for it, whatever the cap on its uses: the provider's own bound.
    pub runs: Option<u64>,
    /// It multiplies the cost without a bound.
    pub unbounded: bool,
    /// It names a model beside the one that was checked.
    pub other_models: bool,
    /// Its member that is a list of tools.
    pub contains: Option<Box<str>>,
    /// Where this member has this value, the caller runs it, and it costs nothing beside its tokens.
    pub by_caller: Option<(Box<str>, Box<str>)>,
}

/// An amount such as `0.01 USD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NanoUsdText(pub NanoUsd);

impl TryFrom<String> for NanoUsdText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{text:?}: {error}"))
    }
}

impl ToolRule {
    /// Whether the provider runs the model again after each use.
    pub const fn is_loop(&self) -> bool {
        self.outside || self.pass || self.fee.is_some() || self.runs.is_some()
    }
}

impl ToolRules {
    /// Whether some type of tool has a member of this name that caps its uses.
    pub fn is_cap(&self, name: &str) -> bool {
        self.rules().any(|rule| rule.cap.as_deref() == Some(name))
    }

    /// Whether some type of tool is run by the caller depending on a member of this name.
    pub fn is_runner(&self, name: &str) -> bool {
        self.rules().any(|rule| rule.by_caller.as_ref().is_some_and(|(member, _)| **member == *name))
    }

    /// Whether some type of tool has a member of this name that is a list of tools.
    pub fn is_container(&self, name: &str) -> bool {
        self.rules().any(|rule| rule.contains.as_deref() == Some(name))
    }

    /// Whether a tool may have a member of this name without any change to its cost.
    pub fn is_known(&self, name: &str) -> bool {
        self.known.iter().any(|known| **known == *name)
    }

    /// The rule for a tool of this type; `None` where nothing is known of it.
    pub fn rule(&self, kind: Option<&str>) -> Option<&ToolRule> {
        self.rule_and_name(kind).map(|(_, rule)| rule)
    }

    /// The same, with the name of the type in the catalog.
    pub fn rule_and_name(&self, kind: Option<&str>) -> Option<(&str, &ToolRule)> {
        let Some(kind) = kind else { return self.untyped.as_ref().map(|rule| ("", rule)) };
        let exact = self.types.get_key_value(kind);
        let by_prefix = || self.types.iter().find(|(name, _)| name.ends_with('*') && matches(name, kind));
        exact.or_else(by_prefix).map(|(name, rule)| (name.trim_end_matches(['*', '_']), rule))
    }

    /// All types and what they cost, in order of their names; one that ends in `*` is a prefix.
    pub fn types(&self) -> impl Iterator<Item = (&str, &ToolRule)> {
        self.types.iter().map(|(name, rule)| (&**name, rule))
    }

    /// The member of the body that caps the uses of all tools that have no cap of their own.
    pub fn call_cap(&self) -> &[Box<str>] {
        self.call_cap.as_slice()
    }

    pub(super) fn members(&self) -> &[Box<str>] {
        &self.members
    }

    fn rules(&self) -> impl Iterator<Item = &ToolRule> {
        self.untyped.iter().chain(self.types.values())
    }
}

/// Whether a name in the catalog, which is a prefix where it ends in `*`, is that of this type.
pub(super) fn matches(name: &str, kind: &str) -> bool {
    name.strip_suffix('*').map_or(name == kind, |prefix| kind.starts_with(prefix))
}
