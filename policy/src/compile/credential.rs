//! Credentials: bound to destinations whose hosts their owner knows, and put where they cannot break the message.

use std::sync::Arc;

use super::from::keys;
use super::mint::{LONGEST_USE, mint};
use super::own::check_allowed;
use super::{Compiler, Scope, inject};
use crate::giving_way::giving_way;
use crate::model::{CredentialSpec, Froms, Interval, Resource};
use crate::pattern::HostPattern;
use crate::policy::Parts;
use crate::resource::{Credential, Destination, Inject, Injection, Key, StoreKind, Svid};

/// How old a value may become: 5 min before it is read again, 1 h while its store is out of reach.
const REFRESH: Interval = Interval(std::time::Duration::from_secs(300));
const MAX_STALE: Interval = Interval(std::time::Duration::from_secs(3600));

impl Compiler<'_> {
    pub(super) fn credentials(&mut self) {
        for resource in giving_way(&self.model.credentials) {
            if let Some(credential) = self.credential(resource) {
                self.parts.credentials.insert(resource.id.clone(), Arc::new(credential));
            }
        }
    }

    fn credential(&mut self, resource: &Resource<CredentialSpec>) -> Option<Credential> {
        let spec = &resource.spec;
        let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
        let known = (self.model.destinations.as_slice(), self.model.incomplete);
        scope.at_least_one(
            "spec.destinations",
            &spec.destinations,
            "the destinations that the key may be sent to",
        );
        let mut destinations = Vec::new();
        for (index, name) in spec.destinations.iter() {
            let path = format!("spec.destinations[{index}]");
            let found = scope.resolve((&path, name), known, &self.parts.destinations);
            if let Some(destination) = found {
                destinations.push((path, destination));
            }
        }
        let keys = keys(spec, (self.model, &self.parts), &mut scope);
        check_leased(spec, &mut scope);
        check_allowed(spec.allowed_namespaces.as_ref(), &mut scope);
        let inject = inject::ways(spec, keys.as_deref().unwrap_or_default(), &mut scope);
        let ways = inject.as_deref().unwrap_or_default();
        check_own_key(spec, keys.as_deref().unwrap_or_default(), ways, (&self.parts, &mut scope));
        if inject.as_ref().is_none_or(|ways| ways.iter().any(Injection::is_reusable)) {
            destinations.iter().for_each(|(path, to)| check_hosts(spec, path, to, &mut scope));
        }
        let destinations: Vec<_> = destinations.into_iter().map(|(_, destination)| destination).collect();
        check_wildcards(spec, &destinations, &mut scope);
        let Interval(refresh) = spec.refresh.unwrap_or(REFRESH);
        let Interval(max_stale) = spec.max_stale.unwrap_or_else(|| Interval(MAX_STALE.0.max(refresh)));
        if max_stale < refresh {
            let message = format!(
                "this is below `refresh` ({}): a value would be too old before it is renewed",
                Interval(refresh)
            );
            scope.problem("spec.maxStale", message);
        }
        let known = (self.model, &self.parts);
        let minted = spec.mint.as_ref().map(|written| mint((&resource.id, spec), written, known, &mut scope));
        let (refresh, max_stale) = match minted {
            Some(_) => (LONGEST_USE, LONGEST_USE),
            None => (refresh, max_stale),
        };
        let (name, inject) = (resource.id.clone(), inject?);
        let mint = match minted {
            Some(mint) => Some(Arc::new(mint?)),
            None => None,
        };
        let prefetch = spec.prefetch.unwrap_or(false);
        Some(Credential { name, destinations, keys: keys?, inject, refresh, max_stale, prefetch, mint })
    }
}

/// The key of the gateway's own certificate proves who it is to a TLS peer, and is sent nowhere.
fn check_own_key(
    spec: &CredentialSpec,
    keys: &[Key],
    ways: &[Injection],
    (parts, scope): (&Parts, &mut Scope<'_>),
) {
    let is_own = |key: &Key| {
        let store = parts.stores.get(&key.from.store);
        let is_svid = store.is_some_and(|store| matches!(store.kind, StoreKind::Svid { .. }));
        is_svid && Svid::at(&key.from.path) == Some(Svid::X509)
    };
    let is_shown = |way: &Injection| matches!(way.way, Inject::ClientCertificate { .. });
    if keys.iter().any(is_own) && (spec.mint.is_some() || !ways.iter().all(is_shown)) {
        let message = "the gateway's own certificate and key go on no call: `clientCertificate` is the only way to show them";
        scope.problem("spec.inject", message);
    }
}

/// A wildcard host may be anybody's, so the owner of the key has to have named it.
fn check_hosts(spec: &CredentialSpec, path: &str, destination: &Destination, scope: &mut Scope<'_>) {
    for host in destination.hosts.iter().filter(|host| host.is_wildcard()) {
        if !spec.wildcard_hosts.values().any(|listed| listed == host) {
            let name = &destination.name;
            let message = format!(
                "the key would go to any host of `{host}` (Destination/{name}): bind it to exact hosts, or list `{host}` in `wildcardHosts`",
            );
            scope.problem(path, message);
        }
    }
}

fn check_wildcards(spec: &CredentialSpec, destinations: &[Arc<Destination>], scope: &mut Scope<'_>) {
    for (index, host) in spec.wildcard_hosts.iter() {
        let path = format!("spec.wildcardHosts[{index}]");
        match host {
            HostPattern::Exact(_) => {
                scope.problem(&path, format!("`{host}` is no wildcard, so it needs no listing"));
            }
            HostPattern::Wildcard(parent) if is_shared(parent) => {
                let message = format!(
                    "anybody can get a host in `{host}`: `{parent}` is a public suffix or has some below it"
                );
                scope.problem(&path, message);
            }
            HostPattern::Wildcard(_) => {
                let is_used = destinations.iter().any(|destination| destination.hosts.contains(host));
                if !is_used && destinations.len() == spec.destinations.values().count() {
                    scope.problem(&path, format!("no destination of this credential has the host `{host}`"));
                }
            }
        }
    }
}

/// Whether strangers can have names directly below: a public suffix, the private section included, or the parent of some.
fn is_shared(parent: &str) -> bool {
    /// Suffixes of the list lie directly below these (`s3.amazonaws.com`), which a look-up of the parent does not show.
    const PARENTS: [&str; 2] = ["amazonaws.com", "amazonaws.com.cn"];
    let is_suffix = |name: &str| psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix == name);
    let any_child = format!("any.{parent}");
    is_suffix(parent) || is_suffix(&any_child) || PARENTS.contains(&parent)
}

/// A leased secret lives by its lease: what says otherwise would be read and do nothing.
fn check_leased(spec: &CredentialSpec, scope: &mut Scope<'_>) {
    // With `mint` it is no leased secret; both are reported there.
    let froms = spec.from.as_ref().map(Froms::each).unwrap_or_default();
    let is_leased = !froms.is_empty() && froms.iter().all(|(_, from)| from.dynamic == Some(true));
    if spec.mint.is_some() || !is_leased {
        return;
    }
    for (path, is_written) in
        [("spec.refresh", spec.refresh.is_some()), ("spec.maxStale", spec.max_stale.is_some())]
    {
        if is_written {
            scope.problem(path, "a dynamic secret is renewed and replaced as its lease says");
        }
    }
}
