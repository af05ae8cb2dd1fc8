//! Who may call what: grants after compilation.

use std::sync::Arc;

use super::budget::Budget;
use super::caller_index::NamesCallers;
use super::credential::Credential;
use super::destination::Destination;
use crate::dialect::Class;
use crate::limit::{Limit, Unit};
use crate::name::ResourceId;
use crate::pattern::{ActionPattern, CallerPattern, MethodPattern, ModelPattern, PathPattern};
use crate::upgrade::Upgrade;

/// Who may call what, with which key, how much.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its name.
    pub name: ResourceId,
    /// Whom it is for; at least one.
    pub callers: Vec<CallerPattern>,
    /// What may be called.
    pub destination: Arc<Destination>,
    /// The key that is put on the call; `None`: none is.
    pub credential: Option<Arc<Credential>>,
    /// The caller's own token is passed on that is for this audience and no other; `None`: none is.
    pub caller_token: Option<Box<str>>,
    /// Which calls.
    pub allow: Allow,
    /// How much, in the order of their ids; as a caller has the grant, with the limits of `budgets`.
    pub limits: Vec<Limit>,
    /// The budgets that calls by it are held to, by name, as a caller has the grant. As it is written it has none.
    pub budgets: Box<[Arc<Budget>]>,
    /// Output tokens written into a call that names no cap.
    pub default_output_cap: Option<u64>,
    /// What a call that nothing bounds is held at; `None`: it is refused.
    pub assume: Option<Assume>,
    /// What becomes of a model without a price.
    pub unpriced: Unpriced,
    /// Why it refuses every call that it decides, for the caller to read; `None`: it is in force. It still matches, so that no broader grant
    /// decides in its place.
    pub suspended: Option<Box<str>>,
    /// Whether its destination's owners have agreed to it.
    pub approval: Approval,
    /// It says what it matches and cannot be in force: its credential has an error, or another grant ties with it. It refuses every call
    /// that it decides.
    pub is_broken: bool,
}

/// Whether a grant is approved by the owners of its destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Approval {
    /// Its destination demands none.
    #[default]
    NotRequired,
    /// One is there for what it is now.
    Given,
    /// None is. It refuses every call that it decides, and still matches, so that no broader grant decides in its place.
    Lacking,
}

/// Which calls a grant allows. Methods, paths and models are in the order of specificity.
#[derive(Debug, Clone)]
pub struct Allow {
    /// At least one.
    pub methods: Vec<MethodPattern>,
    /// At least one.
    pub paths: Vec<PathPattern>,
    /// Empty: models are not limited.
    pub models: Vec<ModelPattern>,
    /// Classes of endpoints besides [`Class::Use`].
    pub classes: Vec<Class>,
    /// The actions of an AWS service, where its requests name them; only beside a key that signs. Empty: none that is named.
    pub actions: Vec<ActionPattern>,
    /// Response headers that are passed on though they can carry credentials; in lower case.
    pub response_headers: Vec<Box<str>>,
    /// Protocols that a call may go on with; in their order.
    pub upgrades: Vec<Upgrade>,
    /// Whether `Range` and `If-Range` are passed on beside a key: two ranges could split one that is reflected.
    pub range: bool,
}

/// The tokens that a call is held at which nothing bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assume {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
}

/// What becomes of a call to a model without a price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unpriced {
    /// Refused where spend is limited.
    #[default]
    Deny,
    /// Charged as the provider's dearest model.
    Dearest,
    /// Let through, and marked as unpriced.
    Flag,
}

impl Allow {
    /// Whether it leaves nothing out that a request could say.
    pub(crate) fn is_everything(&self) -> bool {
        let Self { methods, paths, models, actions, .. } = self;
        matches!(&**methods, [MethodPattern::Any])
            && matches!(&**paths, [path] if path.is_any())
            && models.is_empty()
            && actions.is_empty()
    }
}

impl Grant {
    /// Whether it limits this unit.
    pub fn limits_unit(&self, unit: Unit) -> bool {
        self.limits.iter().any(|limit| limit.unit == unit)
    }

    /// Whether it limits tokens, of whatever kind, or spend.
    pub fn limits_usage(&self) -> bool {
        self.limits.iter().any(|limit| limit.unit.is_metered())
    }

    /// Whether what the call asks for decides: models are limited, or tokens or spend are.
    pub fn limits_content(&self) -> bool {
        !self.allow.models.is_empty() || self.limits_usage()
    }
}

impl Grant {
    /// The first of its budgets that has an error.
    pub(crate) fn broken_budget(&self) -> Option<&Budget> {
        self.budgets.iter().map(AsRef::as_ref).find(|budget| budget.is_broken)
    }
}

impl NamesCallers for Grant {
    fn callers(&self) -> &[CallerPattern] {
        &self.callers
    }
}
