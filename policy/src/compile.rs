//! From the model to the policy: every name resolved, every rule between resources checked.
//!
//! **Invariant:** every problem comes out, not the first. Where there is one, either no policy comes out, or one that denies whatever
//! the broken resource might have decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::caller::{Issuer, ServiceAccount, SpiffeId, TrustDomain};
use crate::consent::Consents;
use crate::dialect::Catalog;
use crate::model::{CredentialSpec, List, Model, Problem, Resource, Source, SourceFile, Spec, nearest};
use crate::name::{Name, Reference, ResourceId};
use crate::pattern::HostPattern;
use crate::policy::{Parts, Policy};
use crate::resource::Grant;
use crate::target::GatewayName;

mod approval;
mod boundary;
mod broken;
mod budget;
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
mod namespaces;
mod own;
mod place;
mod placement;
mod proxy;
mod raise;
mod resilience;
mod source_pool;
mod store;
mod tie;
mod verify;
mod warning;

pub use boundary::compile_boundaries;

#[cfg(test)]
mod tests;

use namespaces::Namespaces;

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
    /// The claims of their tokens that are kept, by the names that Budgets have for them.
    pub claims: Vec<(Issuer, Name)>,
    /// The clusters whose service accounts a listener proves, the gateway's own first.
    pub clusters: Vec<Name>,
    /// The `aud` of tokens that prove callers to the gateway. None of them is passed on.
    pub audiences: Vec<String>,
    /// The files and directories that are the gateway's own, with the setting that names each; a path may be there in several forms.
    pub own_files: Vec<(String, PathBuf)>,
    /// The cluster that the gateway is in.
    pub home: HomeCluster,
}

/// The cluster that the gateway is in, whose namespaces have owners of their own. What is not known of it nothing may rely on.
#[derive(Debug, Clone, Default)]
pub struct HomeCluster {
    /// The namespace that the gateway runs in. Its resources are the platform's: only they may name any caller, read the gateway's files
    /// and environment, and log in as the gateway; and paths under the gateway's own names mean its destinations.
    pub gateway_namespace: Option<Name>,
    /// The trust domain of the cluster's workloads, `spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`: one of [`Environment::trust_domains`].
    pub trust_domain: Option<TrustDomain>,
    /// The name of the cluster among [`Environment::clusters`].
    pub name: Option<Name>,
}

impl HomeCluster {
    /// Whether two proven identities are one workload of this cluster: `spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`, and the service account of
    /// that namespace and name.
    #[must_use]
    pub fn is_one_workload(&self, id: &SpiffeId, account: &ServiceAccount) -> bool {
        let is_home = self.trust_domain.as_ref() == Some(id.trust_domain())
            && self.name.as_ref().is_some_and(|name| name.as_str() == account.cluster());
        let path = id.path().strip_prefix("/ns/").and_then(|rest| rest.strip_prefix(account.namespace()));
        is_home && path.and_then(|rest| rest.strip_prefix("/sa/")) == Some(account.name())
    }
}

impl Environment {
    fn policy(&self, parts: Parts) -> Policy {
        let namespace =
            self.home.gateway_namespace.as_ref().map_or(ResourceId::DEFAULT_NAMESPACE, Name::as_str);
        Policy::new(parts, self.gateway_names.clone(), namespace)
    }
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
    /// The calls that are held to this budget; where some of it cannot be read, all that it may mean.
    Budget(ResourceId),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination(id) => write!(f, "Destination/{id}"),
            Self::Grant(id) => write!(f, "Grant/{id}"),
            Self::Callers(id) => write!(f, "callers of Grant/{id}"),
            Self::Budget(id) => write!(f, "calls held to Budget/{id}"),
        }
    }
}

/// Reads and compiles resource files. Problems of both steps come out together, by file and line; where there is one, no policy does.
pub fn compile_files(files: &[SourceFile], environment: &Environment) -> Result<Compiled, Vec<Problem>> {
    let (model, problems) = Model::read_all(files);
    let compiler = Compiler::new(&model, environment, problems).run();
    if compiler.problems.is_empty() { Ok(compiler.whole()) } else { Err(compiler.problems) }
}

/// The same of a cluster, where each namespace has an owner of its own: a resource with problems denies what it might have decided, and the
/// rest is in force.
///
/// What is in another namespace than the resource that refers to it has to have agreed to that, by `consents` or itself. What is not in
/// [`HomeCluster::gateway_namespace`] names callers of its own namespace alone, and uses nothing of the gateway's.
/// Resources are in the order of `files` and their documents: of two that claim one host, and of two grants that tie, the first serves,
/// and before it what is in the gateway's namespace. Between these comes who is known to hold the host ([`SourceFile::object`]). Earlier
/// policies are not asked: every gateway of a cluster is to come to the same.
///
/// # Errors
/// All problems, where one is of no resource that has a kind and an id.
pub fn compile_each(
    files: &[SourceFile],
    environment: &Environment,
    consents: &Consents,
) -> Result<Compiled, Vec<Problem>> {
    let (model, problems) = Model::read_all(files);
    let namespaces = Namespaces::new(&model, environment, consents);
    let mut compiler = Compiler::new(&model, environment, problems);
    compiler.namespaces = Some(&namespaces);
    let compiler = compiler.run();
    if compiler.problems.is_empty() { Ok(compiler.whole()) } else { compiler.publish() }
}

struct Compiler<'a> {
    model: &'a Model,
    environment: &'a Environment,
    parts: Parts,
    problems: Vec<Problem>,
    /// Those of them that say that two grants tie.
    ties: Vec<Problem>,
    /// Who owns what, in a cluster. `None`: one author owns all.
    namespaces: Option<&'a Namespaces<'a>>,
    /// The namespace that each host belongs to, in a cluster.
    hosts: HashMap<&'a HostPattern, &'a str>,
    /// The namespace whose app keeps a host that the gateway's namespace has meanwhile.
    kept: HashMap<&'a HostPattern, &'a str>,
    /// The hosts that destinations name and that are not theirs, by index.
    unclaimed: BTreeSet<(&'a ResourceId, usize)>,
}

/// A resource under compilation: where its problems go.
struct Scope<'a> {
    kind: &'static str,
    owner: &'a ResourceId,
    source: &'a Source,
    namespaces: Option<&'a Namespaces<'a>>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Scope<'a> {
    fn new<T: Spec>(
        resource: &'a Resource<T>,
        namespaces: Option<&'a Namespaces<'a>>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { kind: T::KIND, owner: &resource.id, source: &resource.source, namespaces, problems }
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
        // Of one that may not be referred to from here, nothing is told.
        if !self.has_consent(CredentialSpec::KIND, &credential.id) {
            return;
        }
        let named = credential.spec.destinations.values();
        let bound: Vec<ResourceId> = named.map(|reference| reference.within(&credential.id)).collect();
        // What of the list could not be read has been reported, and may be the one.
        let is_readable = credential.spec.destinations.written() == Some(bound.len());
        if !is_readable || bound.contains(destination) {
            return;
        }
        let name = &credential.id;
        let bound = bound.iter().map(ResourceId::as_str).collect::<Vec<_>>().join(", ");
        let message = match self.is_foreign(name) {
            true => {
                format!("`{name}` may not be {done} to `{destination}`: its owner has not bound it to that")
            }
            false => format!("`{name}` may not be {done} to `{destination}`: it is bound to {bound}"),
        };
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
    fn resolve<T, U: Spec>(
        &mut self,
        (path, reference): (&str, &Reference),
        known: (&[Resource<U>], bool),
        compiled: &BTreeMap<ResourceId, Arc<T>>,
    ) -> Option<Arc<T>> {
        let (known, incomplete) = known;
        let (name, kind) = (&self.id(reference), U::KIND);
        let is_there = compiled.contains_key(name) || known.iter().any(|resource| resource.id == *name);
        if self.is_foreign(name) && !(is_there && self.has_consent(kind, name)) {
            self.refuse_reference(path, kind, name);
            return None;
        }
        if !incomplete && !is_there {
            // Only its own namespace is told of.
            let known: Vec<_> = known.iter().filter(|resource| !self.is_foreign(&resource.id)).collect();
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
        let mut parts = Parts::default();
        parts.catalog = Arc::clone(&environment.catalog);
        Self {
            model,
            environment,
            parts,
            problems,
            ties: Vec::new(),
            namespaces: None,
            hosts: HashMap::new(),
            kept: HashMap::new(),
            unclaimed: BTreeSet::new(),
        }
    }

    fn run(mut self) -> Self {
        self.source_pools();
        self.destinations();
        self.stores();
        self.credentials();
        self.check_bound();
        self.check_certificates();
        self.grants();
        self.budgets();
        self.approvals();
        self.problems.sort();
        self.problems.dedup();
        self
    }

    /// Of grants that tie the first serves: what the gateway's namespace says of an app's callers holds before what the app says itself.
    fn gateways_first(&self, grants: &mut [(Arc<Grant>, &Source)]) {
        let Some(namespaces) = self.namespaces else { return };
        grants.sort_by_key(|(grant, _)| !namespaces.is_gateways(grant.name.namespace()));
    }

    /// The policy where there is no problem.
    fn whole(self) -> Compiled {
        let mut warnings = warning::warnings(self.model, &self.parts);
        warnings.extend(approval::warnings(self.model, &self.parts));
        warnings.sort();
        let policy = self.environment.policy(self.parts);
        Compiled { policy, warnings, problems: Vec::new(), denied: Vec::new() }
    }
}
