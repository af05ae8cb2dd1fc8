//! What an HTTPRoute says: the two ways to lead to an XBackend that there are.
//!
//! By host: the hostname is the backend's own, and every path is meant. By path: the hostname is the gateway's, and the first segment,
//! which is taken off, names the backend. Which paths and methods may be called is a grant's to say.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::kind::{EXPERIMENTAL_GROUP, GATEWAY_GROUP, ObjectKind};
use super::condition::Objection;
use super::written::{BackendRef, BackendSpec, RouteMatch, RouteRule, RouteSpec};
use super::{GatewayWorld, Written};

/// What is to be said of a route.
pub(super) struct RouteVerdict {
    /// Whether it can be had as it is written.
    pub(super) accepted: Result<(), Objection>,
    /// Whether its backends are known.
    pub(super) resolved: Result<(), Objection>,
    /// Those that it leads to.
    pub(super) backends: BTreeSet<(Arc<str>, Arc<str>)>,
}

pub(super) fn judged(
    written: &Written<RouteSpec>,
    route: &RouteSpec,
    world: &GatewayWorld<'_>,
) -> RouteVerdict {
    let mut verdict = RouteVerdict { accepted: Ok(()), resolved: Ok(()), backends: BTreeSet::new() };
    if route.rules.is_empty() {
        verdict.accepted = Err(unsupported("`spec.rules`: a rule has to name an XBackend"));
    }
    for (index, rule) in route.rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        let backend = match backend(&at, rule, &written.namespace, world) {
            Ok(backend) => backend,
            Err(RuleFault::Value(refused)) => {
                verdict.accepted = verdict.accepted.and(Err(refused));
                continue;
            }
            Err(RuleFault::Reference(refused)) => {
                verdict.resolved = verdict.resolved.and(Err(refused));
                continue;
            }
        };
        match leads(&at, rule, route, backend, world) {
            Ok(()) => drop(verdict.backends.insert(backend.id())),
            Err(refused) => verdict.accepted = verdict.accepted.and(Err(refused)),
        }
    }
    if verdict.accepted.is_err() {
        verdict.backends.clear();
    }
    verdict
}

enum RuleFault {
    /// Something that is not served.
    Value(Objection),
    /// A backend that is not known.
    Reference(Objection),
}

fn unsupported(message: impl Into<String>) -> Objection {
    Objection::new("UnsupportedValue", message)
}

/// The one backend of a rule.
fn backend<'a>(
    at: &str,
    rule: &RouteRule,
    namespace: &str,
    world: &'a GatewayWorld<'_>,
) -> Result<&'a Written<BackendSpec>, RuleFault> {
    if let Some(other) = rule.others.keys().next() {
        return Err(RuleFault::Value(unsupported(format!("`{at}.{other}` is not served"))));
    }
    let [reference] = rule.backend_refs.as_slice() else {
        let message = format!("`{at}.backendRefs` has to name one XBackend");
        return Err(RuleFault::Value(unsupported(message)));
    };
    let BackendRef { group, kind, namespace: other, name, port, weight, filters } = reference;
    let at = format!("{at}.backendRefs[0]");
    let kind = (group.as_deref().unwrap_or(""), kind.as_deref().unwrap_or("Service"));
    let is_backend = kind == (EXPERIMENTAL_GROUP, ObjectKind::Backend.word());
    if let Some(other) = other.as_deref().filter(|other| *other != namespace) {
        let from = (GATEWAY_GROUP, ObjectKind::HttpRoute.word(), namespace);
        let message = match (is_backend, world.permits(from, (kind.0, kind.1, name), other)) {
            // GEP-4894: no ReferenceGrant permits more.
            (true, _) => format!("`{at}.namespace`: an XBackend has to be in the namespace of its route"),
            (false, false) => {
                format!("`{at}.namespace`: no ReferenceGrant of `{other}` permits this reference")
            }
            (false, true) => String::new(),
        };
        if !message.is_empty() {
            return Err(RuleFault::Reference(Objection::new("RefNotPermitted", message)));
        }
    }
    if !is_backend {
        let message = format!("`{at}`: kind `{}`: only an XBackend leads outside of the cluster", kind.1);
        return Err(RuleFault::Reference(Objection::new("InvalidKind", message)));
    }
    if port.is_some() || weight.is_some_and(|weight| weight < 1) || !filters.is_empty() {
        let message =
            format!("`{at}`: an XBackend has its port itself, a weight of at least 1, and no filters");
        return Err(RuleFault::Value(unsupported(message)));
    }
    let found = world.backends.iter().find(|it| *it.namespace == *namespace && *it.name == **name);
    found.ok_or_else(|| {
        RuleFault::Reference(Objection::new(
            "BackendNotFound",
            format!("`{at}`: there is no XBackend `{name}`"),
        ))
    })
}

/// Whether a rule leads to its backend in one of the two ways.
fn leads(
    at: &str,
    rule: &RouteRule,
    route: &RouteSpec,
    backend: &Written<BackendSpec>,
    world: &GatewayWorld<'_>,
) -> Result<(), Objection> {
    let path = match rule.matches.as_slice() {
        [] => "/",
        [one] => prefix(one).ok_or_else(|| by_grant(at))?,
        _ => return Err(by_grant(at)),
    };
    let external = backend.spec.as_ref().ok().and_then(|spec| spec.external_hostname.as_ref());
    let host = external.map_or("", |external| external.hostname.as_str());
    if path == "/" {
        let is_its = |name: &String| name.eq_ignore_ascii_case(host);
        if route.hostnames.is_empty() || !route.hostnames.iter().all(is_its) {
            return Err(unsupported(format!(
                "`spec.hostnames` has to be the backend's own, `{host}`, where `{at}` matches every path"
            )));
        }
        if !rule.filters.is_empty() {
            return Err(unsupported(format!(
                "`{at}.filters`: no filter is served where the route is by host"
            )));
        }
        return Ok(());
    }
    let segment = segment(backend, &world.place.home);
    if path.trim_end_matches('/') != format!("/{segment}")
        || !route.hostnames.iter().all(|name| world.place.has_name(name))
    {
        return Err(unsupported(format!(
            "`{at}.matches`: a path below a name of the gateway's own has to be `/{segment}`, which is the backend's"
        )));
    }
    let takes_off = json!([{
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
    }]);
    if Value::Array(rule.filters.clone()) != takes_off {
        return Err(unsupported(format!(
            "`{at}.filters` has to be one URLRewrite that replaces the prefix by `/`: the backend is called without its segment"
        )));
    }
    Ok(())
}

fn by_grant(at: &str) -> Objection {
    unsupported(format!(
        "`{at}.matches` has to be one path prefix and nothing else: what may be called is said by a Grant (spec.allow)"
    ))
}

/// The path prefix that is all that is matched.
fn prefix(matched: &RouteMatch) -> Option<&str> {
    if !matched.others.is_empty() {
        return None;
    }
    let Some(path) = &matched.path else { return Some("/") };
    let is_prefix = path.kind.as_deref().unwrap_or("PathPrefix") == "PathPrefix";
    is_prefix.then(|| path.value.as_deref().unwrap_or("/"))
}

/// The first segment of a path that names the backend as a destination.
fn segment(backend: &Written<BackendSpec>, home: &str) -> String {
    let Written { namespace, name, .. } = backend;
    if **namespace == *home { name.to_string() } else { format!("{name}.{namespace}") }
}
