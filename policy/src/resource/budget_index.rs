//! Which budgets the calls of a caller are held to: worked out once for a caller, so that a call pays nothing for those that are not its own.
//!
//! **Invariant:** a budget that has an error is found for all calls that it might have limited.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::budget::{Budget, CallSelector};
use super::caller_index::{CallerIndex, NamesCallers};
use super::destination::{Destination, Protocol};
use super::grant::Grant;
use crate::caller::Caller;
use crate::limit::Unit;
use crate::map::Map;
use crate::name::ResourceId;
use crate::pattern::CallerPattern;

/// A budget that selects calls, with those above it.
#[derive(Debug)]
struct BudgetChain {
    selector: CallSelector,
    budgets: Vec<Arc<Budget>>,
}

/// All budgets, by the calls that they are for.
#[derive(Debug, Default)]
pub(crate) struct BudgetIndex {
    of_some: CallerIndex<BudgetChain>,
    of_all: ChainsOfAll,
    /// Grants as some callers have them, by the addresses of the grant and of the budgets. All these live as long as the policy.
    held: Mutex<HeldGrants>,
}

/// Callers may have tokens with ever other claims: what no caller has any more is forgotten.
#[derive(Debug, Default)]
struct HeldGrants {
    grants: Map<Box<[usize]>, Weak<Grant>>,
    /// At so many it is looked for those that are gone.
    full: usize,
}

/// So many grants are kept without a look.
const FEW: usize = 1_024;

/// Those that name no callers.
#[derive(Debug, Default)]
struct ChainsOfAll {
    by_destination: Map<ResourceId, Vec<Arc<BudgetChain>>>,
    by_credential: Map<ResourceId, Vec<Arc<BudgetChain>>>,
    anywhere: Vec<Arc<BudgetChain>>,
}

impl BudgetChain {
    fn selects(&self, grant: &Grant) -> bool {
        let credential = grant.credential.as_ref().map(|credential| &credential.name);
        self.selector.selects(&grant.destination.name, credential)
    }
}

impl NamesCallers for BudgetChain {
    fn callers(&self) -> &[CallerPattern] {
        self.selector.callers.as_deref().unwrap_or_default()
    }
}

impl ChainsOfAll {
    fn add(&mut self, chain: BudgetChain) {
        let chain = Arc::new(chain);
        let (index, ids) = match (&chain.selector.destinations, &chain.selector.credentials) {
            (Some(ids), _) => (&mut self.by_destination, ids),
            (None, Some(ids)) => (&mut self.by_credential, ids),
            (None, None) => return self.anywhere.push(chain),
        };
        for id in ids {
            index.entry(id.clone()).or_default().push(Arc::clone(&chain));
        }
    }

    fn of<'a>(&'a self, grant: &Grant) -> impl Iterator<Item = &'a Arc<BudgetChain>> {
        let credential = grant.credential.as_ref().and_then(|it| self.by_credential.get(&it.name));
        let chains = self.by_destination.get(&grant.destination.name).into_iter().chain(credential);
        chains.flatten().chain(&self.anywhere)
    }
}

impl BudgetIndex {
    pub(crate) fn new(budgets: &BTreeMap<ResourceId, Arc<Budget>>) -> Self {
        let (mut of_some, mut of_all) = (Vec::new(), ChainsOfAll::default());
        for budget in budgets.values() {
            let Some(selector) = budget.applies_to.clone() else { continue };
            let chain = BudgetChain { selector, budgets: lineage(budget, budgets) };
            match chain.selector.callers {
                Some(_) => of_some.push(Arc::new(chain)),
                None => of_all.add(chain),
            }
        }
        Self { of_some: CallerIndex::new(of_some), of_all, held: Mutex::default() }
    }

    /// The grants of this caller with the limits of the budgets that calls by them are held to.
    pub(crate) fn hold<'a>(&self, caller: &Caller, grants: impl Iterator<Item = &'a mut Arc<Grant>>) {
        let named: Vec<&Arc<BudgetChain>> = self.of_some.naming(caller).map(|(chain, _)| chain).collect();
        for grant in grants {
            let all = named.iter().copied().chain(self.of_all.of(grant));
            let chains = all.filter(|chain| chain.selects(grant));
            let budgets: BTreeMap<&ResourceId, &Arc<Budget>> =
                chains.flat_map(|chain| &chain.budgets).map(|budget| (&budget.name, budget)).collect();
            if !budgets.is_empty() {
                *grant = self.held(grant, budgets.into_values().collect());
            }
        }
    }

    /// One grant for all callers of whom calls by it are held to the same: what counts their calls is found by its address.
    fn held(&self, grant: &Arc<Grant>, budgets: Vec<&Arc<Budget>>) -> Arc<Grant> {
        let addresses = budgets.iter().map(|budget| Arc::as_ptr(budget).addr());
        let key: Box<[usize]> = std::iter::once(Arc::as_ptr(grant).addr()).chain(addresses).collect();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grant) = held.grants.get(&key).and_then(Weak::upgrade) {
            return grant;
        }
        if held.grants.len() >= held.full.max(FEW) {
            held.grants.retain(|_, grant| grant.strong_count() > 0);
            held.full = held.grants.len() * 2;
        }
        let mut made = Grant::clone(grant);
        let limits = budgets.iter().flat_map(|budget| &budget.limits);
        made.limits.extend(limits.filter(|it| is_counted(it.unit, &grant.destination)).cloned());
        made.limits.sort_by(|one, other| one.id.cmp(&other.id));
        made.budgets = budgets.into_iter().map(Arc::clone).collect();
        let made = Arc::new(made);
        held.grants.insert(key, Arc::downgrade(&made));
        made
    }
}

/// A budget and those above it, as far as they are there: one without its parent has an error.
fn lineage(budget: &Arc<Budget>, all: &BTreeMap<ResourceId, Arc<Budget>>) -> Vec<Arc<Budget>> {
    let mut lineage = vec![Arc::clone(budget)];
    let mut above = budget.parent.as_ref();
    while let Some(parent) = above.and_then(|id| all.get(id)) {
        if lineage.iter().any(|known| known.name == parent.name) {
            break;
        }
        above = parent.parent.as_ref();
        lineage.push(Arc::clone(parent));
    }
    lineage
}

/// Whether calls of this destination use any of it.
fn is_counted(unit: Unit, destination: &Destination) -> bool {
    match unit {
        Unit::Requests | Unit::Concurrency => true,
        Unit::Bytes | Unit::Seconds => !matches!(destination.protocol, Protocol::Http(_)),
        Unit::Tokens
        | Unit::InputTokens
        | Unit::OutputTokens
        | Unit::CachedTokens
        | Unit::ReasoningTokens
        | Unit::Spend => destination.http().is_some_and(|http| !http.dialect.is_plain()),
    }
}

#[cfg(test)]
mod tests;
