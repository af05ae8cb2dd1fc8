//! The calls that stand for all calls of some callers to some host: of each class that two policies cannot tell apart, at least one.
//!
//! **Invariant:** what decides a call is in here: path, method, endpoint, model with its price, actions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::classes::{Alphabet, Template, beginnings, fresh, segmented};
use crate::caller::{Claims, Identity, ServiceAccount, SpiffeId};
use crate::decision::Actions;
use crate::dialect::{Bearing, Catalog, Class};
use crate::limit::Unit;
use crate::pattern::{
    ActionPattern, CallerPattern, ClaimPattern, HostPattern, MethodPattern, ModelPattern, PathPattern,
};
use crate::policy::{Grant, HttpDestination};

/// A request, but for what its body says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestClass {
    pub(super) method: String,
    pub(super) path: String,
}

/// Callers of every class. Claims only select budgets, and a caller is held to all that it is selected for: so it is enough to know of each
/// set of claims that is asked for, and of none.
pub(super) fn callers<'a>(patterns: impl Iterator<Item = &'a CallerPattern>) -> Vec<(Identity, Claims)> {
    // The part that is literal always, and the patterns of what follows.
    let mut spiffe: BTreeMap<String, Vec<Template>> = BTreeMap::new();
    let mut accounts: Vec<Template> = Vec::new();
    let mut subjects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut claims: BTreeMap<String, BTreeSet<&[ClaimPattern]>> = BTreeMap::new();
    for pattern in patterns {
        let text = pattern.of_identities().to_string();
        match pattern {
            CallerPattern::Spiffe(pattern) => {
                let domain = format!("{}{}", SpiffeId::SCHEME, pattern.trust_domain());
                let path = Template::new(text.get(domain.len()..).unwrap_or_default());
                spiffe.entry(domain).or_default().push(path);
            }
            CallerPattern::ServiceAccount(_) => {
                let parts = text.strip_prefix(ServiceAccount::SCHEME).unwrap_or_default();
                accounts.push(Template::new(&format!("/{parts}")));
            }
            CallerPattern::Token(_) => {
                let (issuer, subject) = text.split_once('#').unwrap_or((&text, ""));
                let asked = claims.entry(format!("{issuer}#")).or_default();
                asked.insert(pattern.claims());
                let subject = subject.strip_suffix('*').unwrap_or(subject);
                subjects.entry(issuer.to_owned()).or_default().push(subject.to_owned());
            }
        }
    }
    let mut texts = Vec::new();
    for (domain, templates) in spiffe {
        let paths = segmented(&templates, Alphabet::Names);
        texts.extend(paths.into_iter().map(|path| format!("{domain}{path}")));
    }
    let accounts = segmented(&accounts, Alphabet::Names).into_iter();
    texts.extend(
        accounts.filter_map(|path| Some(format!("{}{}", ServiceAccount::SCHEME, path.strip_prefix('/')?))),
    );
    for (issuer, known) in subjects {
        let subjects = beginnings(known.iter().map(String::as_str));
        texts.extend(subjects.into_iter().map(|subject| format!("{issuer}#{subject}")));
    }
    // What is too long to be an identity is none.
    let identities = texts.iter().filter_map(|text| Some((text, text.parse::<Identity>().ok()?)));
    let with_claims = identities.flat_map(|(text, id)| {
        let issuer = text.split_inclusive('#').next().unwrap_or_default();
        let asked = claims.get(issuer).into_iter().flatten().filter(|asked| !asked.is_empty());
        let some = asked.map(|asked| asked.iter().map(ClaimPattern::example).collect());
        std::iter::once(Claims::default()).chain(some).map(move |claims| (id.clone(), claims))
    });
    with_claims.collect()
}

/// A host that a pattern stands for, and no other of these.
pub(super) fn host<'a>(pattern: &HostPattern, others: impl Iterator<Item = &'a HostPattern>) -> String {
    match pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => {
            let hosts: Vec<String> = others.map(ToString::to_string).collect();
            let label = fresh("", hosts.iter().filter_map(|host| host.split('.').next()));
            format!("{label}.{suffix}")
        }
    }
}

/// Requests of every class.
pub(super) fn requests(grants: &[&Arc<Grant>], destinations: &[&Arc<HttpDestination>]) -> Vec<RequestClass> {
    let endpoints = || destinations.iter().flat_map(|http| http.dialect.endpoints());
    let paths: BTreeSet<&PathPattern> = grants.iter().flat_map(|grant| &grant.allow.paths).collect();
    let methods: BTreeSet<&MethodPattern> = grants.iter().flat_map(|grant| &grant.allow.methods).collect();
    let mut templates: Vec<Template> = paths.iter().map(|path| Template::new(&path.to_string())).collect();
    for endpoint in endpoints() {
        templates.push(Template::new(&endpoint.path));
        if endpoint.class != Class::Use {
            templates.push(Template::lenient(endpoint.path.trim_end_matches('/')));
        }
    }
    let mut texts = segmented(&templates, Alphabet::Paths);
    texts.extend(paths.iter().filter(|path| path.is_exact()).map(ToString::to_string));
    let named = methods.iter().filter_map(|method| match method {
        MethodPattern::Exact(method) => Some(&**method),
        MethodPattern::Any => None,
    });
    let mut words: BTreeSet<String> = named.map(str::to_owned).collect();
    words.extend(endpoints().map(|endpoint| endpoint.method.to_string()).filter(|method| method != "*"));
    let other = ["POST", "GET", "PUT"].into_iter().map(str::to_owned).find(|word| !words.contains(word));
    words.insert(other.unwrap_or_else(|| fresh("", words.iter().map(String::as_str)).to_ascii_uppercase()));
    let mut seen = BTreeSet::new();
    let mut requests = Vec::new();
    for path in texts {
        let matched: Vec<bool> = paths.iter().map(|pattern| pattern.matches(&path)).collect();
        for method in &words {
            let allowed: Vec<bool> = methods.iter().map(|pattern| pattern.matches(method)).collect();
            let known = destinations.iter().map(|http| http.dialect.endpoint(method, &path));
            let known: Vec<Option<Bearing>> =
                known.map(|endpoint| endpoint.map(|endpoint| endpoint.bearing())).collect();
            if seen.insert((matched.clone(), allowed, known)) {
                requests.push(RequestClass { method: method.clone(), path: path.clone() });
            }
        }
    }
    requests
}

/// Models of every class, and none.
pub(super) fn models(
    grants: &[&Arc<Grant>],
    destinations: &[&Arc<HttpDestination>],
    (catalog, now): (&Catalog, Timestamp),
) -> Vec<Option<Arc<str>>> {
    let patterns: BTreeSet<&ModelPattern> = grants.iter().flat_map(|grant| &grant.allow.models).collect();
    let providers: BTreeSet<&str> = destinations.iter().map(|http| http.dialect.provider()).collect();
    let known: Vec<&str> =
        patterns.iter().map(|(ModelPattern::Exact(text) | ModelPattern::Prefix(text))| &**text).collect();
    let mut texts = beginnings(known.iter().copied());
    if grants.iter().any(|grant| grant.limits_unit(Unit::Spend)) {
        texts.extend(providers.iter().flat_map(|provider| catalog.prices().spellings(provider, &known)));
    }
    let mut seen = BTreeSet::new();
    let mut models = vec![None];
    for text in texts {
        let matched: Vec<bool> = patterns.iter().map(|pattern| pattern.matches(&text)).collect();
        let priced = providers.iter().map(|provider| catalog.prices().price(provider, &text, now).is_some());
        if seen.insert((matched, priced.collect::<Vec<bool>>())) {
            models.push(Some(text.into()));
        }
    }
    models
}

/// Sets of actions of every class: each that a list tells from others, and those that are named together.
pub(super) fn actions(grants: &[&Arc<Grant>]) -> Vec<Actions> {
    let lists: Vec<&[ActionPattern]> = grants.iter().map(|grant| &*grant.allow.actions).collect();
    if !grants.iter().any(|grant| grant.credential.as_ref().is_some_and(|key| key.sigv4().is_some())) {
        return vec![Actions::default()];
    }
    let known = lists.iter().flat_map(|list| list.iter());
    let known: Vec<&str> =
        known.map(|(ActionPattern::Exact(text) | ActionPattern::Prefix(text))| &**text).collect();
    let mut texts = beginnings(known.iter().copied());
    // What is not plain, `*` alone stands for.
    texts.extend(known.iter().map(|text| format!("{text}-")));
    let listed = |text: &str| -> Vec<bool> {
        lists.iter().map(|list| list.iter().any(|pattern| pattern.matches(text))).collect()
    };
    // Who lists all of several: every set of lists that some single actions leave, each found once.
    let mut found: BTreeMap<Vec<bool>, BTreeSet<String>> = BTreeMap::new();
    for text in texts {
        found.entry(listed(&text)).or_insert_with(|| BTreeSet::from([text]));
    }
    let single = found.clone();
    let mut open: Vec<Vec<bool>> = found.keys().cloned().collect();
    while let Some(by) = open.pop() {
        for (other, names) in &single {
            let both: Vec<bool> = by.iter().zip(other).map(|(one, other)| *one && *other).collect();
            if !found.contains_key(&both) {
                let together = found.get(&by).into_iter().flatten().chain(names).cloned().collect();
                found.insert(both.clone(), together);
                open.push(both);
            }
        }
    }
    let sets =
        found.into_values().filter_map(|names| Actions::of(names.iter().map(|name| Arc::from(&**name))).ok());
    std::iter::once(Actions::default()).chain(sets).collect()
}
