//! What is denied where resources have problems, and the rest is published all the same.
//!
//! **Invariant:** breaking a resource never lets a call through that the whole model denies: what it might have decided is refused, and
//! falls to no broader grant, wildcard host or other port.
//!
//! Lacks on purpose: the age of resources. Of two that claim one host, where neither holds it, and of two grants that tie, the one that
//! comes first serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Compiled, Compiler, Denied};
use crate::giving_way::giving_way;
use crate::model::{DestinationSpec, GrantSpec, Model, Problem, Resource};
use crate::name::ResourceId;
use crate::pattern::HostPattern;
use crate::policy::Parts;
use crate::resource::{Block, BlockedAt, BlockedHosts, Credential};

/// The resources of each kind that are not in force.
#[derive(Default)]
struct Broken {
    source_pools: BTreeSet<ResourceId>,
    budgets: BTreeSet<ResourceId>,
    destinations: BTreeSet<ResourceId>,
    stores: BTreeSet<ResourceId>,
    credentials: BTreeSet<ResourceId>,
    grants: BTreeSet<ResourceId>,
    /// They approve nothing.
    approvals: BTreeSet<ResourceId>,
}

/// Budgets that are not in force deny what they would limit.
fn break_budgets(
    broken: BTreeSet<ResourceId>,
    parts: &mut Parts,
    problems: &ByResource<'_>,
    denied: &mut Vec<Denied>,
) {
    for id in broken {
        let mut own = problems.get(&*format!("Budget/{id}")).into_iter().flatten().copied();
        let Some(budget) = parts.budgets.get_mut(&id) else { continue };
        if budget.is_broken || !own.all(names_what_is_gone) {
            Arc::make_mut(budget).is_broken = true;
            denied.push(Denied::Budget(id));
        }
    }
}

/// Whether a budget only names something that is not there, or that it may not refer to any more. That is the doing of whoever owns it, and
/// must not deny what else the budget is for; the name still selects, should it be called by it.
fn names_what_is_gone(problem: &Problem) -> bool {
    let selected = ["spec.appliesTo.destinations[", "spec.appliesTo.credentials["];
    selected.iter().any(|list| problem.path().starts_with(list))
}

impl Compiler<'_> {
    /// The policy of what has no problem, and denials for the rest. Nothing comes out where a problem is of no resource that has a
    /// kind and an id.
    pub(super) fn publish(mut self) -> Result<Compiled, Vec<Problem>> {
        self.forget_ties();
        let mut broken = Broken::of(self.model, &self.problems);
        // Of a resource without an id nobody knows what it might have decided.
        if self.model.incomplete || !broken.has_all(&self.problems) {
            return Err(self.problems);
        }
        let by_resource = by_resource(&self.problems);
        let refusing = self.refusing(&broken, &by_resource);
        broken.grants.retain(|id| !refusing.contains(id));
        broken.follow(self.model, &self.parts);
        let mut denied = Vec::new();
        let mut hosts = Vec::new();
        let mut blocks = Vec::new();
        let mut unreadable = BTreeSet::new();
        for resource in self.model.destinations.iter().filter(|it| broken.destinations.contains(&it.id)) {
            self.parts.destinations.remove(&resource.id);
            let (blocked, is_readable) = self.blocked_hosts(resource, &by_resource);
            if !is_readable && !blocked.any_other {
                unreadable.insert(&resource.id);
                blocks.push(self.block_app(&resource.id));
            }
            hosts.push(blocked);
            denied.push(Denied::Destination(resource.id.clone()));
        }
        self.parts.source_pools.retain(|id, _| !broken.source_pools.contains(id));
        self.parts.stores.retain(|id, _| !broken.stores.contains(id));
        self.parts.store_origins.retain(|id, _| !broken.stores.contains(id));
        self.parts.credentials.retain(|id, _| !broken.credentials.contains(id));
        for resource in giving_way(&self.model.grants) {
            let id = &resource.id;
            let destination = resource.spec.destination.as_ref().map(|reference| reference.within(id));
            if let Some(destination) = destination.filter(|it| broken.destinations.contains(it))
                && !broken.grants.contains(id)
            {
                // What it decides is denied by its destination.
                self.parts.grants.remove(id);
                if unreadable.contains(&destination) {
                    blocks.push(Block { at: BlockedAt::Wildcards, ..self.block(resource, &by_resource) });
                }
                continue;
            }
            let compiled = self.parts.grants.get_mut(id).filter(|_| !broken.grants.contains(id));
            let Some(grant) = compiled else {
                self.parts.grants.remove(id);
                let mut block = self.block(resource, &by_resource);
                if matches!(&block.at, BlockedAt::Destination(id) if unreadable.contains(id)) {
                    block.at = BlockedAt::Wildcards;
                }
                blocks.push(block);
                denied.push(Denied::Callers(id.clone()));
                continue;
            };
            let reference = resource.spec.credential.as_ref();
            let credential = reference.map(|reference| reference.within(id));
            if refusing.contains(id) || credential.is_some_and(|it| broken.credentials.contains(&it)) {
                Arc::make_mut(grant).is_broken = true;
                denied.push(Denied::Grant(id.clone()));
            }
        }
        break_budgets(broken.budgets, &mut self.parts, &by_resource, &mut denied);
        let mut warnings = super::approval::warnings(self.model, &self.parts);
        warnings.sort();
        let policy = self.environment.policy(self.parts).denying(hosts, blocks);
        Ok(Compiled { policy, warnings, problems: self.problems, denied })
    }

    /// Takes back ties with grants that are broken besides: what is left of one may match more than was written.
    fn forget_ties(&mut self) {
        let ties: BTreeSet<&Problem> = self.ties.iter().collect();
        let others = self.problems.iter().filter(|problem| !ties.contains(problem));
        let broken: BTreeSet<&str> = others.map(Problem::resource).collect();
        let known = |resource: &&Resource<GrantSpec>| !broken.contains(&*format!("Grant/{}", resource.id));
        let compiled = |resource: &Resource<GrantSpec>| self.parts.grants.get(&resource.id).map(Arc::clone);
        let grants = self.model.grants.iter().filter(known);
        let mut grants: Vec<_> = grants.filter_map(|it| Some((compiled(it)?, &it.source))).collect();
        self.gateways_first(&mut grants);
        let ties = super::tie::ties(&grants);
        let forgotten: BTreeSet<Problem> = std::mem::take(&mut self.ties).into_iter().collect();
        self.problems.retain(|problem| !forgotten.contains(problem));
        self.problems.extend(ties.iter().cloned());
        self.problems.sort();
        self.ties = ties;
    }

    /// The grants with problems that still say exactly what they match: only their key may not be used, or others tie with them.
    fn refusing(&self, broken: &Broken, problems: &ByResource<'_>) -> BTreeSet<ResourceId> {
        let ties: BTreeSet<&Problem> = self.ties.iter().collect();
        let says_all = |id: &&ResourceId| {
            let own = problems.get(&*format!("Grant/{id}")).into_iter().flatten();
            own.copied().all(|problem| problem.path() == "spec.credential" || ties.contains(problem))
                && self.parts.grants.contains_key(*id)
        };
        broken.grants.iter().filter(says_all).cloned().collect()
    }

    /// The hosts that fall to no other, and whether all that were written are known.
    fn blocked_hosts(
        &self,
        resource: &Resource<DestinationSpec>,
        problems: &ByResource<'_>,
    ) -> (BlockedHosts, bool) {
        let written = &resource.spec.hosts;
        let is_own = |(index, _): &(usize, &HostPattern)| !self.unclaimed.contains(&(&resource.id, *index));
        let hosts: Vec<_> = written.iter().filter(is_own).map(|(_, host)| host.clone()).collect();
        let name = format!("Destination/{}", resource.id);
        let is_readable = written.written().is_some_and(|count| {
            (count > 0 || resource.source.is_withheld()) && count == written.values().count()
        }) && !has_problem(problems, &name, |path| path == "spec.hosts");
        // What an app could not say is taken from no other namespace, only from whoever its grants are for.
        let is_apps = self.namespaces.is_some_and(|it| !it.is_gateways(resource.id.namespace()));
        let any_other = !is_readable && !is_apps && !resource.source.yields();
        (BlockedHosts { destination: resource.id.clone(), any_other, hosts }, is_readable)
    }

    /// What an app's callers may have asked of its destination whose hosts are not known, and what now falls to a wildcard.
    fn block_app(&self, destination: &ResourceId) -> Block {
        Block {
            resource: format!("destination {destination}").into(),
            every_caller: false,
            callers: super::own::callers_of(destination.namespace(), &self.environment.home),
            at: BlockedAt::Wildcards,
        }
    }

    /// All that a grant may have decided that is not known whole.
    fn block(&self, resource: &Resource<GrantSpec>, problems: &ByResource<'_>) -> Block {
        let GrantSpec { callers: written, destination, .. } = &resource.spec;
        let mut unreported = Vec::new();
        let mut scope = super::Scope::new(resource, self.namespaces, &mut unreported);
        let mut callers = super::caller::callers(written, self.environment, &mut scope);
        let app = scope.app_namespace();
        let destination = destination.as_ref().map(|reference| reference.within(&resource.id));
        let is_foreign = destination.as_ref().is_some_and(|id| scope.is_foreign(id));
        let name = format!("Grant/{}", resource.id);
        let is_readable = written.written().is_some_and(|count| count > 0 && callers.len() == count)
            && !has_problem(problems, &name, |path| path.starts_with("spec.callers"));
        let is_named = !has_problem(problems, &name, |path| path.starts_with("spec.destination"));
        if let (false, Some(namespace)) = (is_readable, app) {
            callers = super::own::callers_of(namespace, &self.environment.home);
        }
        // One of another namespace that is not there, or that has not agreed, is still no other.
        let is_known = |id: &ResourceId| self.model.destination(id).is_some();
        let is_unlisted = self.namespaces.is_some_and(|it| it.lacks_destinations);
        let at = match destination {
            // Nobody knows its host, which may fall to a wildcard, and the name may be a wrong one.
            Some(id) if is_unlisted && !is_known(&id) => match is_foreign {
                true => BlockedAt::Wildcards,
                false => BlockedAt::Namespace(id.namespace().into()),
            },
            Some(id) if is_foreign || (is_named && is_known(&id)) => BlockedAt::Destination(id),
            _ => BlockedAt::Everywhere,
        };
        Block {
            resource: format!("grant {}", resource.id).into(),
            every_caller: !is_readable && app.is_none(),
            callers,
            at,
        }
    }
}

/// The problems of each resource.
type ByResource<'a> = BTreeMap<&'a str, Vec<&'a Problem>>;

fn by_resource(problems: &[Problem]) -> ByResource<'_> {
    let mut all = ByResource::new();
    for problem in problems {
        all.entry(problem.resource()).or_default().push(problem);
    }
    all
}

/// Whether a problem of the resource is at such a path, or with the whole of it.
fn has_problem(problems: &ByResource<'_>, resource: &str, is_at: impl Fn(&str) -> bool) -> bool {
    let mut problems = problems.get(resource).into_iter().flatten();
    problems.any(|problem| matches!(problem.path(), "" | "spec") || is_at(problem.path()))
}

impl Broken {
    fn of(model: &Model, problems: &[Problem]) -> Self {
        let named: BTreeSet<&str> = problems.iter().map(Problem::resource).collect();
        fn ids<T>(kind: &str, all: &[Resource<T>], named: &BTreeSet<&str>) -> BTreeSet<ResourceId> {
            let ids = all.iter().map(|resource| &resource.id);
            ids.filter(|id| named.contains(&*format!("{kind}/{id}"))).cloned().collect()
        }
        Self {
            source_pools: ids("SourcePool", &model.source_pools, &named),
            budgets: ids("Budget", &model.budgets, &named),
            destinations: ids("Destination", &model.destinations, &named),
            stores: ids("SecretStore", &model.stores, &named),
            credentials: ids("Credential", &model.credentials, &named),
            grants: ids("Grant", &model.grants, &named),
            approvals: ids("Approval", &model.approvals, &named),
        }
    }

    /// Whether every problem is of one of them.
    fn has_all(&self, problems: &[Problem]) -> bool {
        let is_of = |resource: &str, kind: &str, ids: &BTreeSet<ResourceId>| {
            resource
                .strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|id| ids.contains(id))
        };
        // Of two with one id nobody knows which is meant.
        if problems.iter().any(|problem| problem.path() == "metadata.name") {
            return false;
        }
        problems.iter().map(Problem::resource).all(|resource| {
            is_of(resource, "SourcePool", &self.source_pools)
                || is_of(resource, "Budget", &self.budgets)
                || is_of(resource, "Destination", &self.destinations)
                || is_of(resource, "SecretStore", &self.stores)
                || is_of(resource, "Credential", &self.credentials)
                || is_of(resource, "Grant", &self.grants)
                || is_of(resource, "Approval", &self.approvals)
        })
    }

    /// Adds what cannot be in force because of something else that is not: a credential without its store or token endpoint, a
    /// destination without its source pool or client certificate.
    fn follow(&mut self, model: &Model, parts: &Parts) {
        loop {
            let before = self.destinations.len() + self.credentials.len();
            for resource in &model.destinations {
                let compiled = parts.destinations.get(&resource.id);
                let is_whole = |shown: &ResourceId| {
                    parts.credentials.contains_key(shown) && !self.credentials.contains(shown)
                };
                let holds = compiled.is_some_and(|it| it.client_certificate.as_ref().is_none_or(is_whole));
                if !holds {
                    self.destinations.insert(resource.id.clone());
                }
            }
            for resource in &model.credentials {
                if !parts.credentials.get(&resource.id).is_some_and(|compiled| self.lets_work(compiled)) {
                    self.credentials.insert(resource.id.clone());
                }
            }
            if self.destinations.len() + self.credentials.len() == before {
                return;
            }
        }
    }

    fn lets_work(&self, credential: &Credential) -> bool {
        let client = credential.mint.as_ref().and_then(|mint| mint.client_secret());
        let mut secrets = credential.keys.iter().map(|key| &key.from).chain(client);
        let endpoint = credential.mint.as_ref().map(|mint| &mint.endpoint.destination);
        secrets.all(|secret| !self.stores.contains(&secret.store))
            && endpoint.is_none_or(|destination| !self.destinations.contains(destination))
    }
}
