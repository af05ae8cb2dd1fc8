//! Grants of which neither is the more specific: some call would be decided by chance.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::giving_way::giving_way;
use crate::model::{Problem, Source};
use crate::name::ResourceId;
use crate::pattern::{CallerPattern, MethodPattern, ModelPattern, PathPattern};
use crate::resource::Grant;

/// What a grant allows a caller, to be looked up. A product of the lists would be as large as its author likes.
struct AllowedCalls<'a> {
    grant: &'a Grant,
    source: &'a Source,
    paths: HashSet<&'a PathPattern>,
    /// `None`: any model.
    models: HashSet<Option<&'a ModelPattern>>,
    methods: HashSet<&'a MethodPattern>,
}

/// A call that two grants allow by the same patterns.
type SharedCall<'a> = (&'a PathPattern, Option<&'a ModelPattern>, &'a MethodPattern);

/// Problems of grants that tie with an earlier one: for each caller the first such pair.
///
/// Patterns of one kind that match the same call and are not the same have an order, so only grants that share all of a call's patterns
/// can tie.
pub(super) fn ties(grants: &[(Arc<Grant>, &Source)]) -> Vec<Problem> {
    let all: Vec<AllowedCalls<'_>> =
        giving_way(grants).map(|(grant, source)| AllowedCalls::of(grant, source)).collect();
    let mut by_caller: HashMap<(&ResourceId, &CallerPattern), Vec<&AllowedCalls<'_>>> = HashMap::new();
    let mut reported = BTreeSet::new();
    let mut problems = Vec::new();
    for allowed in giving_way(&all) {
        let AllowedCalls { grant, source, .. } = allowed;
        for caller in &grant.callers {
            let known = by_caller.entry((&grant.destination.name, caller)).or_default();
            let others = known.iter().filter(|other| other.grant.name != grant.name);
            let mut tied = others.filter_map(|other| Some((other, allowed.shared(other)?)));
            if let Some((other, call)) = tied.next()
                && reported.insert((&other.grant.name, &grant.name))
            {
                let other = other.named_to(&grant.name);
                problems.push(source.problem("spec.callers", message(&other, grant, caller, call)));
            }
            known.push(allowed);
        }
    }
    problems
}

impl<'a> AllowedCalls<'a> {
    fn of(grant: &'a Grant, source: &'a Source) -> Self {
        let allow = &grant.allow;
        let any = allow.models.is_empty().then_some(None);
        Self {
            grant,
            source,
            paths: allow.paths.iter().collect(),
            models: allow.models.iter().map(Some).chain(any).collect(),
            methods: allow.methods.iter().collect(),
        }
    }

    /// What it is called in what is said to the owner of `told`, who may not be allowed to know of what other namespaces have.
    fn named_to(&self, told: &ResourceId) -> String {
        if self.source.is_object() && self.grant.name.namespace() != told.namespace() {
            return "a grant of another namespace".to_owned();
        }
        format!("Grant/{}{}", self.grant.name, self.source.aside())
    }

    /// The first call of this grant that the other one allows too.
    fn shared(&self, other: &AllowedCalls<'_>) -> Option<SharedCall<'a>> {
        let allow = &self.grant.allow;
        let any = allow.models.is_empty().then_some(None);
        let path = allow.paths.iter().find(|path| other.paths.contains(path))?;
        let model = allow.models.iter().map(Some).chain(any).find(|model| other.models.contains(model))?;
        let method = allow.methods.iter().find(|method| other.methods.contains(method))?;
        Some((path, model, method))
    }
}

fn message(
    other: &str,
    grant: &Grant,
    caller: &CallerPattern,
    (path, model, method): SharedCall<'_>,
) -> String {
    let destination = &grant.destination.name;
    let model = model.map_or_else(|| "any model".to_owned(), |model| format!("model {model}"));
    format!(
        "this ties with {other}: both let {caller} call {method} {path} of {destination} with {model}, and neither is \
         the more specific; make one of them narrower, or join them"
    )
}
