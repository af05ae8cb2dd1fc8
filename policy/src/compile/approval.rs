//! Approvals: which grants their destinations' owners have agreed to.
//!
//! **Invariant:** an approval counts only in the namespace of the destination, and for exactly what the grant amounts to now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Compiler, Scope};
use crate::giving_way::giving_way;
use crate::hash::GrantHash;
use crate::model::{ApprovalSpec, Model, Problem, Resource, guess};
use crate::name::ResourceId;
use crate::policy::Parts;
use crate::resource::{Approval, Grant};

/// Among more grants of a namespace nobody is told which of them an approval may mean: each is compared with each.
const MOST_GUESSED: usize = 64;

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
        let demanding = self.parts.grants.values().filter(|grant| grant.destination.demands_approval);
        for grant in giving_way(demanding) {
            let is_given = is_approved(grant, &self.parts.referred().hash(grant), &given);
            let state = if is_given { Approval::Given } else { Approval::Lacking };
            states.insert(grant.name.clone(), state);
        }
        let approvable = Approvable::of(&self.parts.grants);
        for resource in self.model.approvals.iter().filter(|resource| resource.is_whole) {
            if let Some(given) = read(resource) {
                let why = without_effect(&given, &self.parts, &approvable).map(|(_, message)| message);
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

/// The names of grants, by the namespace that may approve them.
struct Approvable(HashMap<String, Vec<ResourceId>>);

impl Approvable {
    fn of(grants: &BTreeMap<ResourceId, Arc<Grant>>) -> Self {
        let mut names: HashMap<String, Vec<ResourceId>> = HashMap::new();
        for grant in grants.values() {
            names.entry(grant.destination.name.namespace().to_owned()).or_default().push(grant.name.clone());
        }
        Self(names)
    }

    /// Which of them was probably meant.
    fn guess(&self, namespace: &str, name: &ResourceId) -> String {
        match self.0.get(namespace) {
            Some(names) if names.len() <= MOST_GUESSED => {
                guess(name.as_str(), names.iter().map(ResourceId::as_str))
            }
            _ => String::new(),
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
    for resource in giving_way(&model.grants) {
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
    let approvable = Approvable::of(&parts.grants);
    for resource in &model.approvals {
        let why = read(resource).and_then(|given| without_effect(&given, parts, &approvable));
        if let Some((field, message)) = why {
            warnings.push(resource.source.problem(field, message));
        }
    }
    warnings
}

/// Why an approval changes nothing: the field that is to blame, and what would be right.
fn without_effect(
    (namespace, name, hash): &Given<'_>,
    parts: &Parts,
    approvable: &Approvable,
) -> Option<(&'static str, String)> {
    let is_told = |grant: &&Arc<Grant>| {
        [grant.name.namespace(), grant.destination.name.namespace()].contains(namespace)
    };
    let Some(grant) = parts.grants.get(name).filter(is_told) else {
        // The others are none of this namespace's business.
        let guess = approvable.guess(namespace, name);
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
