//! Credentials: bound to destinations whose hosts their owner knows, and put where they cannot break the message.

use std::sync::Arc;

use super::mint::{LONGEST_USE, mint};
use super::store::check_reference;
use super::{Compiler, Scope, inject};
use crate::model::{CredentialSpec, FromSpec, Froms, Interval, Model, Resource, Weight};
use crate::name::Name;
use crate::pattern::HostPattern;
use crate::policy::{Credential, Destination, Injection, Key, KvVersion, Parts, SecretRef, Store, StoreKind};

/// How old a value may become: 5 min before it is read again, 1 h while its store is out of reach.
const REFRESH: Interval = Interval(std::time::Duration::from_secs(300));
const MAX_STALE: Interval = Interval(std::time::Duration::from_secs(3600));
/// Keys of a pool, and the most that one may weigh.
const KEYS: usize = 32;

impl Compiler<'_> {
    pub(super) fn credentials(&mut self) {
        for resource in &self.model.credentials {
            if let Some(credential) = self.credential(resource) {
                self.parts.credentials.insert(resource.name.clone(), Arc::new(credential));
            }
        }
    }

    fn credential(&mut self, resource: &Resource<CredentialSpec>) -> Option<Credential> {
        let spec = &resource.spec;
        let mut scope = Scope { source: &resource.source, problems: &mut self.problems };
        let known = (self.model.destinations.as_slice(), self.model.incomplete);
        scope.at_least_one(
            "spec.destinations",
            &spec.destinations,
            "the destinations that the key may be sent to",
        );
        let mut destinations = Vec::new();
        for (index, name) in spec.destinations.iter() {
            let path = format!("spec.destinations[{index}]");
            let found = scope.resolve((&path, "Destination", name), known, &self.parts.destinations);
            if let Some(destination) = found {
                destinations.push((path, destination));
            }
        }
        let keys = keys(spec, (self.model, &self.parts), &mut scope);
        check_leased(spec, &mut scope);
        let inject = inject::ways(spec, keys.as_deref().unwrap_or_default(), &mut scope);
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
        let minted =
            spec.mint.as_ref().map(|written| mint((&resource.name, spec), written, known, &mut scope));
        let (refresh, max_stale) = match minted {
            Some(_) => (LONGEST_USE, LONGEST_USE),
            None => (refresh, max_stale),
        };
        let (name, inject) = (resource.name.clone(), inject?);
        let mint = match minted {
            Some(mint) => Some(Arc::new(mint?)),
            None => None,
        };
        let prefetch = spec.prefetch.unwrap_or(false);
        Some(Credential { name, destinations, keys: keys?, inject, refresh, max_stale, prefetch, mint })
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

/// Every key, if none has a problem.
fn keys(spec: &CredentialSpec, (model, parts): (&Model, &Parts), scope: &mut Scope<'_>) -> Option<Vec<Key>> {
    let what = "where the key is read, as in `{store: bao, path: llm/openai, field: api_key}`";
    let froms = scope.required("spec.from", spec.from.as_ref(), what)?;
    let written = froms.each();
    if let Froms::Several(list) = froms {
        scope.at_least_one("spec.from", list, what);
        check_pool(&written, list.written().unwrap_or_default(), scope);
    }
    let mut keys: Vec<Key> = Vec::with_capacity(written.len());
    let before = scope.problems.len();
    for (at, from) in &written {
        if let Froms::One(_) = froms {
            check_alone((at, from), scope);
        }
        let store = from.store.as_ref().and_then(|name| {
            let known = (model.stores.as_slice(), model.incomplete);
            scope.resolve((&format!("{at}.store"), "SecretStore", name), known, &parts.stores)
        });
        let secret = secret_ref((at, from), store.as_deref(), scope);
        if let Some(secret) = secret {
            if keys.iter().any(|known| known.from == secret) {
                scope.problem(at, "another key of this list is read in the same place");
            }
            keys.push(Key {
                alias: from.alias.clone(),
                weight: from.weight.map_or(1, |Weight(weight)| weight),
                from: secret,
            });
        }
    }
    let complete = scope.problems.len() == before && keys.len() == froms.written();
    complete.then_some(keys).filter(|keys| !keys.is_empty())
}

/// A list of keys is told apart by aliases, and shares the callers by weights.
fn check_pool(written: &[(String, &FromSpec)], count: usize, scope: &mut Scope<'_>) {
    if count > KEYS {
        scope.problem("spec.from", format!("a credential has at most {KEYS} keys"));
    }
    let mut aliases: Vec<&Name> = Vec::with_capacity(written.len());
    for (at, from) in written {
        let path = format!("{at}.alias");
        let what = "a name for this key of the list, which records and reports have";
        if let Some(alias) = scope.required(&path, from.alias.as_ref(), what) {
            if aliases.contains(&alias) {
                scope.problem(&path, format!("another key of this list is called `{alias}` already"));
            }
            aliases.push(alias);
        }
    }
    let stands_by = |(_, from): &(String, &FromSpec)| from.weight == Some(Weight(0));
    if !written.is_empty() && written.iter().all(stands_by) {
        scope.problem("spec.from", "every key has weight 0 and stands by, so none would be in use");
    }
}

/// What only tells keys of a list apart is nothing to say of a single one.
pub(super) fn check_alone((at, from): (&str, &FromSpec), scope: &mut Scope<'_>) {
    for (field, is_written) in [("alias", from.alias.is_some()), ("weight", from.weight.is_some())] {
        if is_written {
            scope.problem(&format!("{at}.{field}"), "only the keys of a list have this; here is one key");
        }
    }
}

/// `at` is where `from` was written, which others than `spec.from` are too.
pub(super) fn secret_ref(
    (at, from): (&str, &FromSpec),
    store: Option<&Store>,
    scope: &mut Scope<'_>,
) -> Option<SecretRef> {
    let field = |field: &str| format!("{at}.{field}");
    let name = scope.required(&field("store"), from.store.clone(), "the SecretStore that has the key");
    let path = scope.required(&field("path"), from.path.clone(), "the path of the key in its store");
    if let Some(path) = &path {
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && !segment.bytes().any(|b| b.is_ascii_control() || b"\\?#%".contains(&b))
        };
        if !path.split('/').all(segment) {
            let message =
                "a path is relative to the store, without `.`, `..`, empty segments, or any of \\ ? # %";
            scope.problem(&field("path"), message);
        }
    }
    let kind = store.map(|store| &store.kind);
    let fields = fields((at, from), kind, scope);
    if from.version == Some(0) {
        scope.problem(&field("version"), "versions count from 1; leave it out for the newest");
    }
    if from.version.is_some() && kind.is_some_and(|kind| !matches!(kind, StoreKind::Vault(_))) {
        scope.problem(&field("version"), "only a Vault store has versions");
    }
    let dynamic = from.dynamic.unwrap_or_default();
    match kind {
        Some(kind) if dynamic => check_dynamic((at, from), kind, scope),
        Some(StoreKind::Vault(vault)) if vault.kv == KvVersion::V1 && from.version.is_some() => {
            let message = "this store has `kvVersion: 1`, and only version 2 of the KV engine keeps versions";
            scope.problem(&field("version"), message);
        }
        _ => {}
    }
    if let Some(kind) = kind {
        check_reference((at, from), kind, scope);
    }
    Some(SecretRef {
        store: name?,
        path: path?,
        fields: fields?,
        version: from.version,
        stage: from.stage.clone(),
        version_id: from.version_id.clone(),
        dynamic,
    })
}

fn check_dynamic((at, from): (&str, &FromSpec), kind: &StoreKind, scope: &mut Scope<'_>) {
    if !matches!(kind, StoreKind::Vault(_)) {
        scope.problem(&format!("{at}.dynamic"), "only a Vault store has engines that make secrets");
        return;
    }
    if from.path.as_ref().is_some_and(|path| !path.contains('/')) {
        let message =
            "the path of a dynamic secret begins with the engine's mount, as in `database/creds/ROLE`";
        scope.problem(&format!("{at}.path"), message);
    }
    if from.version.is_some() {
        scope.problem(&format!("{at}.version"), "a dynamic secret has no versions");
    }
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

/// The fields of `field` or `fields`.
fn fields(
    (at, from): (&str, &FromSpec),
    kind: Option<&StoreKind>,
    scope: &mut Scope<'_>,
) -> Option<Vec<String>> {
    let (one, several) = (format!("{at}.field"), format!("{at}.fields"));
    if scope.source.has(&one) && scope.source.has(&several) {
        scope.problem(&several, "`field` names one field, `fields` several: one of both is enough");
    }
    let Some(written) = from.fields.written() else {
        if matches!(kind, Some(StoreKind::Vault(_) | StoreKind::Age { .. })) {
            let what = "a secret of this store has fields, and one is the key";
            scope.required(&one, from.field.as_ref(), what);
        }
        if from.field.as_ref().is_some_and(String::is_empty) {
            scope.problem(&one, "a field needs a name");
        }
        return Some(from.field.iter().cloned().collect());
    };
    if written == 0 {
        scope.problem(&several, "this cannot be empty: the fields that are the key");
    }
    let mut fields: Vec<String> = Vec::with_capacity(written);
    for (index, field) in from.fields.iter() {
        let path = format!("{several}[{index}]");
        if field.is_empty() {
            scope.problem(&path, "a field needs a name");
        } else if fields.contains(field) {
            scope.problem(&path, format!("`{field}` is named twice"));
        }
        fields.push(field.clone());
    }
    Some(fields)
}
