//! Limits beside those of grants: budgets after compilation.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::limit::{Limit, Unit};
use crate::name::ResourceId;
use crate::pattern::CallerPattern;

/// Limits that calls are held to beside those of their grants.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Its name.
    pub name: ResourceId,
    /// The calls that it is for; `None`: only those of budgets below it.
    pub applies_to: Option<CallSelector>,
    /// The budget above it.
    pub parent: Option<ResourceId>,
    /// How much, in the order of their ids.
    pub limits: Vec<Limit>,
    /// Percents of an amount that are told once they are used, in their order.
    pub thresholds: Box<[u8]>,
    /// It is told, too, if an amount will be used up before its window ends.
    pub tells_forecast: bool,
    /// For a time amounts are more: as they were written, those among them that are over.
    pub raises: Vec<BudgetRaise>,
    /// It has an error: no call goes out that is held to it.
    pub is_broken: bool,
}

/// A raise as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BudgetRaise {
    /// The id of the limit.
    pub limit: Arc<str>,
    /// What the limit counts.
    pub unit: Unit,
    /// By how much it is more, in the unit's own measure.
    pub amount: u64,
    /// Until then, and no longer.
    pub until: Timestamp,
    /// Who has raised it.
    pub by: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

/// Some calls: all of it holds of them, and `None` of every call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallSelector {
    /// Who makes them.
    pub callers: Option<Vec<CallerPattern>>,
    /// Where they go.
    pub destinations: Option<BTreeSet<ResourceId>>,
    /// The key that is put on them.
    pub credentials: Option<BTreeSet<ResourceId>>,
}

impl Budget {
    /// The callers that it names.
    pub(crate) fn callers(&self) -> &[CallerPattern] {
        let selector = self.applies_to.as_ref();
        selector.and_then(|selector| selector.callers.as_deref()).unwrap_or_default()
    }
}

impl CallSelector {
    /// Whether calls there with this key on them are selected, whoever makes them.
    pub(crate) fn selects(&self, destination: &ResourceId, credential: Option<&ResourceId>) -> bool {
        let is_among = |ids: &Option<BTreeSet<ResourceId>>, id: Option<&ResourceId>| {
            ids.as_ref().is_none_or(|ids| id.is_some_and(|id| ids.contains(id)))
        };
        is_among(&self.destinations, Some(destination)) && is_among(&self.credentials, credential)
    }
}
