//! Whom a grant or a budget is for. Callers that nothing proves are a problem: it would be for nobody.

use super::own::check_caller;
use super::{Environment, Scope};
use crate::caller::{Issuer, TrustDomain};
use crate::model::{CallerSpec, List, ServiceAccountSpec, TokenCallerSpec};
use crate::name::Name;
use crate::pattern::{CallerPattern, ClaimPattern, ServiceAccountPattern, SpiffePattern, TokenPattern};

const NO_CLUSTER: &str = "no listener proves service accounts: name in the settings the cluster whose tokens are taken, as in `identity.tokens: [{kind: kubernetes, …}]`, and give a listener `clientCertificate: optional`";
const NO_ISSUER: &str = "no listener takes tokens: name their issuer in the settings, as in `identity.tokens: [{kind: oidc, …}]`, and give a listener `clientCertificate: optional`";

pub(super) fn callers(
    list: &List<CallerSpec>,
    environment: &Environment,
    scope: &mut Scope<'_>,
) -> Vec<CallerPattern> {
    let what = "whom the grant is for, as in `[{spiffe: \"spiffe://prod.acme/ns/web/sa/*\"}]`";
    scope.at_least_one("spec.callers", list, what);
    for (index, _) in list.iter() {
        if scope.source.has(&format!("spec.callers[{index}].token.claims")) {
            let message = "claims select calls for Budgets: who may call is said by `subject` alone";
            scope.problem(&format!("spec.callers[{index}].token.claims"), message);
        }
    }
    let named = named("spec.callers", list, environment, scope);
    named.iter().map(|pattern| pattern.of_identities().into_owned()).collect()
}

/// The callers of a list, which stands at `at`.
pub(super) fn named(
    at: &str,
    list: &List<CallerSpec>,
    environment: &Environment,
    scope: &mut Scope<'_>,
) -> Vec<CallerPattern> {
    let mut callers = Vec::new();
    for (index, caller) in list.iter() {
        let path = format!("{at}[{index}]");
        let CallerSpec { spiffe: id, service_account: account, token } = caller;
        let is_other =
            ["serviceAccount", "token"].iter().any(|kind| scope.source.has(&format!("{path}.{kind}")));
        if !is_other {
            let what = "a SPIFFE ID, in whose path `*` is one segment and a trailing `**` one or more";
            scope.required(&format!("{path}.spiffe"), id.as_ref(), what);
        }
        let id = id.as_ref().map(|id| spiffe(&path, id, environment, scope));
        let account =
            account.as_ref().and_then(|account| service_account(&path, account, environment, scope));
        let token = token.as_ref().and_then(|token| self::token(&path, token, environment, scope));
        let pattern = match is_other {
            true => scope.exactly_one(&path, [("spiffe", id), ("serviceAccount", account), ("token", token)]),
            false => id,
        };
        callers.extend(pattern.filter(|caller| check_caller(&path, caller, &environment.home, scope)));
    }
    callers
}

fn spiffe(
    path: &str,
    pattern: &SpiffePattern,
    environment: &Environment,
    scope: &mut Scope<'_>,
) -> CallerPattern {
    let (domain, domains) = (pattern.trust_domain(), &environment.trust_domains);
    if !domains.contains(domain) {
        let known = known(domains.iter().map(TrustDomain::as_str));
        let message =
            format!("there is no trust bundle for `{domain}`, so nobody can be this caller (known: {known})");
        scope.problem(&format!("{path}.spiffe"), message);
    }
    CallerPattern::Spiffe(pattern.clone())
}

fn service_account(
    path: &str,
    written: &ServiceAccountSpec,
    environment: &Environment,
    scope: &mut Scope<'_>,
) -> Option<CallerPattern> {
    let path = format!("{path}.serviceAccount");
    let clusters = &environment.clusters;
    let Some(own) = clusters.first() else {
        scope.problem(&path, NO_CLUSTER);
        return None;
    };
    let cluster = written.cluster.as_ref().unwrap_or(own);
    if !clusters.contains(cluster) {
        let known = known(clusters.iter().map(Name::as_str));
        let message = format!(
            "no listener proves service accounts of `{cluster}`, so nobody can be this caller (known: {known})"
        );
        scope.problem(&format!("{path}.cluster"), message);
    }
    let namespace = scope.required(
        &format!("{path}.namespace"),
        written.namespace.as_ref(),
        "a namespace, or `*` for all",
    );
    let name = scope.required(
        &format!("{path}.name"),
        written.name.as_ref(),
        "a service account's name, or `*` for all",
    );
    let pattern = ServiceAccountPattern::new(cluster.clone(), namespace?.clone(), name?.clone());
    Some(CallerPattern::ServiceAccount(pattern))
}

fn token(
    path: &str,
    written: &TokenCallerSpec,
    environment: &Environment,
    scope: &mut Scope<'_>,
) -> Option<CallerPattern> {
    let path = format!("{path}.token");
    let issuers = &environment.issuers;
    if issuers.is_empty() {
        scope.problem(&path, NO_ISSUER);
        return None;
    }
    let issuer =
        scope.required(&format!("{path}.issuer"), written.issuer.as_ref(), "the `iss` of the tokens");
    if let Some(issuer) = issuer.filter(|issuer| !issuers.contains(issuer)) {
        let known = known(issuers.iter().map(Issuer::as_str));
        let message =
            format!("no listener takes tokens of `{issuer}`, so nobody can be this caller (known: {known})");
        scope.problem(&format!("{path}.issuer"), message);
    }
    let what = "the `sub` of the tokens, or the beginning of one followed by `*`";
    let subject = scope.required(&format!("{path}.subject"), written.subject.as_ref(), what);
    let claims = written.claims.iter().map(|(name, text)| ClaimPattern::new(name.clone(), text.clone()));
    if let Some(issuer) = issuer {
        check_claims(&path, (issuer, written), environment, scope);
    }
    let pattern = TokenPattern::new(issuer?.clone(), subject?.clone()).with_claims(claims);
    Some(CallerPattern::Token(pattern))
}

/// A claim that nobody keeps would match nobody.
fn check_claims(
    path: &str,
    (issuer, written): (&Issuer, &TokenCallerSpec),
    environment: &Environment,
    scope: &mut Scope<'_>,
) {
    let path = format!("{path}.claims");
    if written.claims.is_empty() && scope.source.has(&path) {
        scope.problem(&path, "this is empty: leave it out, or say which claims are meant");
    }
    let kept = || environment.claims.iter().filter(|(of, _)| of == issuer).map(|(_, name)| name);
    for name in written.claims.keys().filter(|name| !kept().any(|kept| kept == *name)) {
        let known = known(kept().map(Name::as_str));
        let message = format!(
            "the claim `{name}` of tokens of `{issuer}` is not kept, so nobody can be this caller: name it in \
             `identity.tokens[].claims` of the settings (known: {known})"
        );
        scope.problem(&format!("{path}.{name}"), message);
    }
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
