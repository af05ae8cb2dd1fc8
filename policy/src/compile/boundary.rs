//! Boundaries: what they name is not looked up, for the resources that are held against them may lack it.

use super::grant::{allowed, assumed, collect, sorted};
use super::{Environment, Scope};
use crate::limit::Owner;
use crate::model::{AllowSpec, BoundarySpec, List, Problem, Resource, SourceFile, read_boundaries};
use crate::resource::{Boundary, Unpriced};

/// Reads the boundaries of a file.
///
/// # Errors
/// Every problem of the file, with line and field.
pub fn compile_boundaries(
    file: &SourceFile,
    environment: &Environment,
) -> Result<Vec<Boundary>, Vec<Problem>> {
    let (resources, mut problems) = read_boundaries(file);
    let boundaries =
        resources.iter().map(|resource| boundary(resource, environment, &mut problems)).collect();
    problems.sort();
    problems.dedup();
    if problems.is_empty() { Ok(boundaries) } else { Err(problems) }
}

fn boundary(
    resource: &Resource<BoundarySpec>,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Boundary {
    let mut scope = Scope::new(resource, None, problems);
    let spec = &resource.spec;
    let callers = sorted(super::caller::callers(&spec.callers, environment, &mut scope));
    scope.at_least_one("spec.destinations", &spec.destinations, "what grants may be for, as in `[openai]`");
    let audience = spec.caller_token.as_ref().and_then(|token| token.audience.as_deref());
    if spec.caller_token.is_some() {
        scope.required("spec.callerToken.audience", audience, "the `aud` of tokens that may be passed on");
    }
    let limits = super::limit::limits((&Owner::Grant(resource.id.clone()), &spec.limits), &mut scope);
    let assume = spec.assume.as_ref().and_then(|assume| assumed(assume, &mut scope));
    let nothing = AllowSpec::default();
    let allow = spec.allow.as_ref().unwrap_or(&nothing);
    let allow = allowed(allow, (allow.methods.written().is_some(), allow.paths.written().is_some()));
    let ids = |list: &List<_>| list.values().map(|reference| scope.id(reference)).collect();
    Boundary {
        name: resource.id.clone(),
        callers,
        destinations: ids(&spec.destinations),
        hosts: spec.hosts.written().map(|_| collect(&spec.hosts)),
        credentials: ids(&spec.credentials),
        caller_token: audience.map(Box::from),
        allow,
        limits,
        default_output_cap: spec.default_output_cap,
        assume,
        unpriced: spec.unpriced.map_or_else(Unpriced::default, Unpriced::from),
    }
}
