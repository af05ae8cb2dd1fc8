//! Grants of which neither is the more specific: some call would be decided by chance.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Problem, Source};
use crate::name::ResourceId;
use crate::pattern::{CallerPattern, MethodPattern, ModelPattern, PathPattern};
use crate::resource::Grant;

/// What a grant is compared by. Patterns of one kind that match the same call and are not the same have an order, so only grants
/// that share all four can tie.
type DecidedCall<'a> =
    (&'a ResourceId, &'a CallerPattern, &'a PathPattern, Option<&'a ModelPattern>, &'a MethodPattern);

/// One problem for each pair of grants that tie, at the later of the two.
pub(super) fn ties(grants: &[(Arc<Grant>, &Source)]) -> Vec<Problem> {
    let mut first: HashMap<DecidedCall<'_>, (&ResourceId, &Source)> = HashMap::new();
    let mut reported = BTreeSet::new();
    let mut problems = Vec::new();
    for (grant, source) in grants {
        for call in calls(grant) {
            let (other, place) = *first.entry(call).or_insert((&grant.name, source));
            if other != &grant.name && reported.insert((other, &grant.name)) {
                problems.push(source.problem("spec.callers", message(other, &place.aside(), call)));
            }
        }
    }
    problems
}

fn calls(grant: &Grant) -> impl Iterator<Item = DecidedCall<'_>> {
    let models = || {
        let unlimited = grant.allow.models.is_empty().then_some(None);
        grant.allow.models.iter().map(Some).chain(unlimited)
    };
    let patterns =
        grant.callers.iter().flat_map(|caller| grant.allow.paths.iter().map(move |path| (caller, path)));
    patterns.flat_map(move |(caller, path)| {
        models().flat_map(move |model| {
            grant
                .allow
                .methods
                .iter()
                .map(move |method| (&grant.destination.name, caller, path, model, method))
        })
    })
}

fn message(other: &ResourceId, place: &str, call: DecidedCall<'_>) -> String {
    let (destination, caller, path, model, method) = call;
    let model = model.map_or_else(|| "any model".to_owned(), |model| format!("model {model}"));
    format!(
        "this ties with Grant/{other}{place}: both let {caller} call {method} {path} of {destination} with {model}, \
         and neither is the more specific; make one of them narrower, or join them",
    )
}
