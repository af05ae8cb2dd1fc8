//! From the model to the policy: every name resolved, every rule between resources checked.
//!
//! **Invariant:** every problem comes out, not the first. Where there is one, either no policy comes out, or one that denies whatever
//! the broken resource might have decided.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::caller::{Issuer, TrustDomain};
use crate::dialect::Catalog;
use crate::model::{CredentialSpec, List, Model, Problem, Resource, Source, SourceFile, nearest};
use crate::name::{Name, Reference, ResourceId};
use crate::policy::{Parts, Policy};
use crate::target::GatewayName;

mod approval;
mod boundary;
mod broken;
mod caller;
mod certificate;
mod credential;
mod destination;
mod from;
mod grant;
mod hmac;
mod inject;
mod limit;
mod mint;
mod place;
mod placement;
mod store;
mod tie;
mod warning;

pub use boundary::compile_boundaries;

#[cfg(test)]
mod tests;

/// What a policy is compiled for: what stands outside of the resources.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The dialects and prices that there are.
    pub catalog: Arc<Catalog>,
    /// The authorities that are the gateway's own.
    pub gateway_names: Vec<GatewayName>,
    /// The trust domains that there is a bundle for.
    pub trust_domains: Vec<TrustDomain>,
    /// The issuers whose tokens a listener takes as proof.
    pub issuers: Vec<Issuer>,
    /// The clusters whose service accounts a listener proves, the gateway's own first.
    pub clusters: Vec<Name>,
    /// The files and directories that are the gateway's own, with the setting that names each; a path may be there in several forms.
    pub own_files: Vec<(String, PathBuf)>,
}

/// A policy, and what is to be said of it.
#[derive(Debug)]
pub struct Compiled {
    /// What may be called.
    pub policy: Policy,
    /// What its author may not have meant, though it is no error. Where there are problems, only what is to be said of approvals.
    pub warnings: Vec<Problem>,
    /// What is wrong with resources that are not in force.
    pub problems: Vec<Problem>,
    /// What is denied because of the problems.
    pub denied: Vec<Denied>,
}

/// What is denied because a resource, or one that it depends on, has a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// All calls of this destination; where its hosts cannot be read, also of every host that it may have.
    Destination(ResourceId),
    /// The calls that this grant decides.
    Grant(ResourceId),
    /// All calls that the callers of this grant make of its destination; where some of it cannot be read, all that it may mean.
    Callers(ResourceId),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination(id) => write!(f, "Destination/{id}"),
            Self::Grant(id) => write!(f, "Grant/{id}"),
            Self::Callers(id) => write!(f, "callers of Grant/{id}"),
        }
    }
}

/// Reads and compiles resource files. Problems of both steps come out together, by file and line; where there is one, no policy does.
pub fn compile_files(files: &[SourceFile], environment: &Environment) -> Result<Compiled, Vec<Problem>> {
    let (model, problems) = Model::read_all(files);
    let compiler = Compiler::new(&model, environment, problems).run();
    if compiler.problems.is_empty() { Ok(compiler.whole()) } else { Err(compiler.problems) }
}

/// The same, where a resource with problems denies what it might have decided, and the rest is in force.
///
/// Resources are in the order of `files` and their documents: of two that claim one host, and of two grants that tie, the first serves.
/// A problem is returned as an error only where it is of no resource that has a kind and an id.
pub fn compile_each(files: &[SourceFile], environment: &Environment) -> Result<Compiled, Vec<Problem>> {
    let (model, problems) = Model::read_all(files);
    let compiler = Compiler::new(&model, environment, problems).run();
    if compiler.problems.is_empty() { Ok(compiler.whole()) } else { compiler.publish() }
}

struct Compiler<'a> {
    model: &'a Model,
    environment: &'a Environment,
    parts: Parts,
    problems: Vec<Problem>,
    /// Those of them that say that two grants tie.
    ties: Vec<Problem>,
}

/// A resource under compilation: where its problems go.
struct Scope<'a> {
    owner: &'a ResourceId,
    source: &'a Source,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Scope<'a> {
    fn new<T>(resource: &'a Resource<T>, problems: &'a mut Vec<Problem>) -> Self {
        Self { owner: &resource.id, source: &resource.source, problems }
    }

    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(self.source.problem(path, message));
    }

    /// The value, whose absence is a problem. What was written and could not be read has been reported already.
    fn required<T>(&mut self, path: &str, value: Option<T>, what: &str) -> Option<T> {
        if value.is_none() && !self.source.claims(path) {
            self.problem(path, format!("this is required: {what}"));
        }
        value
    }

    /// A list that has to be there and have something in it.
    fn at_least_one<T>(&mut self, path: &str, list: &List<T>, what: &str) {
        self.required(path, list.written(), what);
        if list.written() == Some(0) {
            self.problem(path, format!("this cannot be empty: {what}"));
        }
    }

    /// The one of several fields that is written: `path` is what they are in, and has been seen to.
    fn exactly_one<T, const N: usize>(&mut self, path: &str, fields: [(&str, Option<T>); N]) -> Option<T> {
        let names = fields.each_ref().map(|(name, _)| *name).join(", ");
        let is_written = |name: &str| self.source.has(&format!("{path}.{name}"));
        let count = fields.iter().filter(|(name, _)| is_written(name)).count();
        if count != 1 {
            let is_meant = |(name, _): &(&str, Option<T>)| self.source.claims(&format!("{path}.{name}"));
            if self.source.has(path) && (count > 1 || !fields.iter().any(is_meant)) {
                let found = if count == 0 { "none is there" } else { "several are there" };
                self.problem(path, format!("exactly one of {names} is required, and {found}"));
            }
            return None;
        }
        fields.into_iter().find_map(|(_, value)| value)
    }

    /// A key goes only where its owner says. `done` is what is to be done with it there.
    fn check_binding(
        &mut self,
        (path, done): (&str, &str),
        destination: &ResourceId,
        credential: &Resource<CredentialSpec>,
    ) {
        let named = credential.spec.destinations.values();
        let bound: Vec<ResourceId> = named.map(|reference| reference.within(&credential.id)).collect();
        // What of the list could not be read has been reported, and may be the one.
        let is_readable = credential.spec.destinations.written() == Some(bound.len());
        if !is_readable || bound.contains(destination) {
            return;
        }
        let name = &credential.id;
        let bound = bound.iter().map(ResourceId::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("`{name}` may not be {done} to `{destination}`: it is bound to {bound}");
        self.problem(path, message);
    }

    /// What a reference means, in the resource where it was written.
    fn id(&self, reference: &Reference) -> ResourceId {
        reference.within(self.owner)
    }

    /// What is referred to. `known` are all that are written, `compiled` those of them without a problem.
    ///
    /// Every reference is followed here and nowhere else: where another namespace has to agree to be referred to, it is asked here.
    /// Whoever writes a directory of files owns all namespaces in it.
    fn resolve<T, U>(
        &mut self,
        (path, kind, reference): (&str, &str, &Reference),
        known: (&[Resource<U>], bool),
        compiled: &BTreeMap<ResourceId, Arc<T>>,
    ) -> Option<Arc<T>> {
        let (known, incomplete) = known;
        let name = &self.id(reference);
        if !incomplete && !compiled.contains_key(name) && !known.iter().any(|resource| resource.id == *name) {
            let names = || known.iter().map(|resource| resource.id.as_str());
            let message = match (nearest(name.as_str(), names()), names().next()) {
                (Some(nearest), _) => format!("there is no {kind} `{name}`; did you mean `{nearest}`?"),
                (None, Some(_)) => {
                    let shown = names().take(10).collect::<Vec<_>>().join(", ");
                    let more = if known.len() > 10 { ", …" } else { "" };
                    format!("there is no {kind} `{name}`; there are {shown}{more}")
                }
                (None, None) => format!("there is no {kind} `{name}`, nor any other"),
            };
            self.problem(path, message);
        }
        compiled.get(name).cloned()
    }
}

impl<'a> Compiler<'a> {
    fn new(model: &'a Model, environment: &'a Environment, problems: Vec<Problem>) -> Self {
        let parts = Parts { catalog: Arc::clone(&environment.catalog), ..Parts::default() };
        Self { model, environment, parts, problems, ties: Vec::new() }
    }

    fn run(mut self) -> Self {
        self.destinations();
        self.stores();
        self.credentials();
        self.check_bound();
        self.check_certificates();
        self.grants();
        self.approvals();
        self.problems.sort();
        self.problems.dedup();
        self
    }

    /// The policy where there is no problem.
    fn whole(self) -> Compiled {
        let mut warnings = warning::warnings(self.model, &self.parts);
        warnings.extend(approval::warnings(self.model, &self.parts));
        warnings.sort();
        let policy = Policy::new(self.parts, self.environment.gateway_names.clone());
        Compiled { policy, warnings, problems: Vec::new(), denied: Vec::new() }
    }
}
