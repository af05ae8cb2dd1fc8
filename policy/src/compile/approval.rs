//! Approvals: which grants their destinations' owners have agreed to.
//!
//! **Invariant:** an approval counts only in the namespace of the destination, and for exactly what the grant amounts to now.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{Compiler, Scope};
use crate::hash::GrantHash;
use crate::model::{ApprovalSpec, Model, Problem, Resource, guess};
use crate::name::ResourceId;
use crate::policy::Parts;
use crate::resource::{Approval, Grant};

/// What an approval says: the namespace that it is in, the grant, the hash.
type Given<'a> = (&'a str, ResourceId, &'a GrantHash);

impl Compiler<'_> {
    pub(super) fn approvals(&mut self) {
        let mut given = HashSet::new();
        for resource in &self.model.approvals {
            let spec = &resource.spec;
            let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
            scope.required(
                "spec.grant",
                spec.grant.as_ref(),
                "the Grant that is approved, as `namespace/name`",
            );
            let what = "the hash of the grant, which `tollgate access approve` writes";
            scope.required("spec.hash", spec.hash.as_ref(), what);
            if resource.is_whole {
                given.extend(read(resource));
            }
        }
        let mut states: BTreeMap<ResourceId, Approval> = BTreeMap::new();
        for grant in self.parts.grants.values().filter(|grant| grant.destination.demands_approval) {
            let is_given = is_approved(grant, &self.parts.referred().hash(grant), &given);
            let state = if is_given { Approval::Given } else { Approval::Lacking };
            states.insert(grant.name.clone(), state);
        }
        for resource in self.model.approvals.iter().filter(|resource| resource.is_whole) {
            if let Some(given) = read(resource) {
                let why = without_effect(&given, &self.parts).map(|(_, message)| message);
                self.parts.approvals.insert(resource.id.clone(), why);
            }
        }
        for (id, state) in states {
            if let Some(grant) = self.parts.grants.get_mut(&id) {
                Arc::make_mut(grant).approval = state;
            }
        }
    }
}

fn read(resource: &Resource<ApprovalSpec>) -> Option<Given<'_>> {
    let grant = resource.spec.grant.as_ref()?.within(&resource.id);
    Some((resource.id.namespace(), grant, resource.spec.hash.as_ref()?))
}

fn is_approved(grant: &Grant, hash: &GrantHash, given: &HashSet<Given<'_>>) -> bool {
    given.contains(&(grant.destination.name.namespace(), grant.name.clone(), hash))
}

/// Grants that wait for an approval, and approvals without effect.
pub(super) fn warnings(model: &Model, parts: &Parts) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for resource in &model.grants {
        let Some(grant) = parts.grants.get(&resource.id) else { continue };
        if grant.approval == Approval::Lacking {
            let (destination, hash) = (&grant.destination.name, parts.referred().hash(grant));
            let message = format!(
                "this is not approved, and refuses every call that it decides: Destination/{destination} demands an Approval in the \
                 namespace `{}`, for {hash} (`tollgate access approve {}` writes it)",
                destination.namespace(),
                resource.id,
            );
            warnings.push(resource.source.problem("spec.destination", message));
        }
    }
    for resource in &model.approvals {
        if let Some((field, message)) = read(resource).and_then(|given| without_effect(&given, parts)) {
            warnings.push(resource.source.problem(field, message));
        }
    }
    warnings
}

/// Why an approval changes nothing: the field that is to blame, and what would be right.
fn without_effect((namespace, name, hash): &Given<'_>, parts: &Parts) -> Option<(&'static str, String)> {
    let is_told = |grant: &&Arc<Grant>| {
        [grant.name.namespace(), grant.destination.name.namespace()].contains(namespace)
    };
    let Some(grant) = parts.grants.get(name).filter(is_told) else {
        // The others are none of this namespace's business.
        let own = parts.grants.values().filter(|grant| grant.destination.name.namespace() == *namespace);
        let guess = guess(name.as_str(), own.map(|grant| grant.name.as_str()));
        return Some((
            "spec.grant",
            format!("this approves nothing: there is no Grant `{name}` in force{guess}"),
        ));
    };
    let destination = &grant.destination.name;
    if !grant.destination.demands_approval {
        let message = format!(
            "this has no effect: Destination/{destination}, which `{name}` is for, demands no approval"
        );
        return Some(("spec.grant", message));
    }
    if destination.namespace() != *namespace {
        let message = format!(
            "this has no effect: Grant/{name} is for Destination/{destination}, so its Approval has to be in the namespace `{}`",
            destination.namespace(),
        );
        return Some(("", message));
    }
    let now = parts.referred().hash(grant);
    (now != **hash).then(|| {
        let message = format!(
            "this has no effect: Grant/{name} is not what was approved, and is now {now} (`tollgate access approve {name}` says what that is)",
        );
        ("spec.hash", message)
    })
}
