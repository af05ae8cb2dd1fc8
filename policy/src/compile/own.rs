//! What a resource says of its own namespace: whom it lets in, and, where that is an app's, what is not the app's to use.
//!
//! **Invariant:** no resource of an app's namespace reads the gateway's disk or environment, logs in as the gateway, or chooses the
//! address that calls leave from.

use super::{HomeCluster, Scope};
use crate::model::{
    AllowedNamespaces, DestinationSpec, List, OperatorWord, SelectorSpec, SomeNamespacesSpec, StoreSpec,
    VerifySpec,
};
use crate::pattern::{CallerPattern, OneOrAny, ServiceAccountPattern};

const PATH: &str = "spec.allowedNamespaces";

/// Whether `allowedNamespaces` says exactly one thing.
pub(super) fn check_allowed(allowed: Option<&AllowedNamespaces>, scope: &mut Scope<'_>) {
    let Some(AllowedNamespaces::Some(SomeNamespacesSpec { names, selector })) = allowed else { return };
    scope
        .exactly_one(PATH, [("names", names.written().map(drop)), ("selector", selector.as_ref().map(drop))]);
    if names.written() == Some(0) {
        scope.problem(&format!("{PATH}.names"), "this list is empty: leave `allowedNamespaces` out");
    }
    if let Some(selector) = selector {
        check_selector(&format!("{PATH}.selector"), selector, scope);
    }
}

pub(super) fn check_selector(path: &str, selector: &SelectorSpec, scope: &mut Scope<'_>) {
    let expressions = &selector.match_expressions;
    let is_written =
        |field: &str, has_some: bool| has_some || scope.source.claims(&format!("{path}.{field}"));
    if !is_written("matchLabels", !selector.match_labels.is_empty())
        && !is_written("matchExpressions", expressions.written().is_some_and(|count| count > 0))
    {
        scope.problem(
            path,
            "an empty selector would be every namespace: say what their labels are, or write `All` instead",
        );
    }
    for (index, requirement) in expressions.iter() {
        let at = format!("{path}.matchExpressions[{index}]");
        scope.required(&format!("{at}.key"), requirement.key.as_ref(), "the key of a label");
        let what = "one of In, NotIn, Exists, DoesNotExist";
        let operator = scope.required(&format!("{at}.operator"), requirement.operator, what);
        let values = requirement.values.written().unwrap_or_default();
        let message = match operator {
            Some(OperatorWord::In | OperatorWord::NotIn) if values == 0 => {
                "this operator compares with values"
            }
            Some(OperatorWord::Exists | OperatorWord::DoesNotExist) if values > 0 => {
                "this operator compares with no values: leave them out"
            }
            _ => continue,
        };
        scope.problem(&format!("{at}.values"), message);
    }
}

/// Whether each of `allowedPaths` is the beginning of paths.
pub(super) fn check_allowed_paths(paths: &List<String>, scope: &mut Scope<'_>) {
    for (index, path) in paths.iter() {
        let rest = path.replace("{namespace}", "x");
        let is_segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && !segment.bytes().any(|b| b.is_ascii_control() || b"\\?#%{}*".contains(&b))
        };
        if !rest.split('/').all(is_segment) {
            let message = "a path is relative to the store, as in `teams/{namespace}`: what is below it is meant too, without `*`";
            scope.problem(&format!("spec.allowedPaths[{index}]"), message);
        }
    }
    if paths.written() == Some(0) {
        scope.problem("spec.allowedPaths", "this list is empty: leave it out, or say what is shown");
    }
}

/// What an app's namespace says of callers, it says of callers of that namespace, whoever vouches for others.
pub(super) fn check_caller(
    path: &str,
    caller: &CallerPattern,
    home: &HomeCluster,
    scope: &mut Scope<'_>,
) -> bool {
    let Some(namespace) = scope.app_namespace() else { return true };
    let (field, is_own) = match caller {
        CallerPattern::Spiffe(pattern) => {
            let is_home = home.trust_domain.as_ref() == Some(pattern.trust_domain());
            ("spiffe", is_home && pattern.is_in_namespace(namespace))
        }
        CallerPattern::ServiceAccount(pattern) => {
            let is_home = home.name.as_ref() == Some(pattern.cluster());
            ("serviceAccount", is_home && pattern.is_in_namespace(namespace))
        }
        CallerPattern::Token(_) => ("token", false),
    };
    if !is_own {
        let example = match &home.trust_domain {
            Some(domain) => format!(", as `spiffe://{domain}/ns/{namespace}/sa/*`"),
            None => String::new(),
        };
        let kind = scope.kind;
        let message = format!(
            "a {kind} of the namespace `{namespace}` is for callers of that namespace{example}: only one of the gateway's own namespace names others"
        );
        scope.problem(&format!("{path}.{field}"), message);
    }
    is_own
}

/// All callers that a grant of an app's namespace may name.
pub(super) fn callers_of(namespace: &str, home: &HomeCluster) -> Vec<CallerPattern> {
    let spiffe = home.trust_domain.as_ref().and_then(|domain| {
        format!("spiffe://{domain}/ns/{namespace}/sa/**").parse().ok().map(CallerPattern::Spiffe)
    });
    let account = home.name.as_ref().and_then(|cluster| {
        let namespace = OneOrAny::One(namespace.parse().ok()?);
        let pattern = ServiceAccountPattern::new(cluster.clone(), namespace, OneOrAny::Any);
        Some(CallerPattern::ServiceAccount(pattern))
    });
    spiffe.into_iter().chain(account).collect()
}

/// A destination of an app's namespace uses no file and no address of the gateway's.
pub(super) fn check_destination(spec: &DestinationSpec, scope: &mut Scope<'_>) {
    if scope.app_namespace().is_none() {
        return;
    }
    if spec.source_address.is_some() {
        let message = "others are let in by the address that they come from, so only a Destination of the gateway's namespace chooses it: leave this out";
        scope.problem("spec.sourceAddress", message);
    }
    if matches!(spec.tls.as_ref().and_then(|tls| tls.verify.as_ref()), Some(VerifySpec::Bundle(_))) {
        let message = "this file would be the gateway's own, so only a Destination of its namespace names one: the system's authorities verify this one";
        scope.problem("spec.tls.verify", message);
    }
}

/// A store of an app's namespace brings its own login. What would log in with a file of the gateway's, or as whoever the gateway is,
/// does not.
pub(super) fn check_store(spec: &StoreSpec, scope: &mut Scope<'_>) {
    if scope.app_namespace().is_none() {
        return;
    }
    // Kubernetes Secrets are the namespace's own.
    let StoreSpec {
        file,
        age,
        vault,
        aws,
        env,
        kubernetes: _,
        svid,
        allowed_namespaces: _,
        allowed_paths: _,
    } = spec;
    let refused = [
        ("file", file.is_some(), "reads the gateway's own disk"),
        ("age", age.is_some(), "reads the gateway's own disk"),
        ("env", env.is_some(), "reads the gateway's own environment"),
        ("svid", svid.is_some(), "shows who the gateway is"),
        ("vault", vault.is_some(), "logs in with files of the gateway's, whichever way of `auth` it takes"),
        ("aws", aws.is_some(), "logs in as the gateway, or with files of the gateway's"),
    ];
    for (kind, _, why) in refused.into_iter().filter(|(_, is_written, _)| *is_written) {
        let message = format!(
            "a `{kind}` store {why}, so only a SecretStore of the gateway's namespace is one: refer to one there that has this namespace \
             in its `allowedNamespaces`",
        );
        scope.problem(&format!("spec.{kind}"), message);
    }
}
