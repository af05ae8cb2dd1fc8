//! Grants: who, what, with which key. A field that could have no effect is a problem.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Compiler, Scope};
use crate::dialect::{Class, Dialect};
use crate::giving_way::giving_way;
use crate::limit::{Owner, Unit};
use crate::model::{AllowSpec, AssumeSpec, ClassWord, GrantSpec, LimitSpec, List, Resource, UnpricedWord};
use crate::pattern::{MethodPattern, PathPattern};
use crate::resource::{Allow, Approval, Assume, Credential, Destination, Grant, Injection, Scrub, Unpriced};

impl Compiler<'_> {
    pub(super) fn grants(&mut self) {
        let mut compiled = Vec::new();
        for resource in giving_way(&self.model.grants) {
            if let Some(grant) = self.grant(resource) {
                let grant = Arc::new(grant);
                if grant.credential.is_some() || resource.spec.credential.is_none() {
                    compiled.push((Arc::clone(&grant), &resource.source));
                }
                self.parts.grants.insert(resource.id.clone(), grant);
            }
        }
        self.gateways_first(&mut compiled);
        self.ties = super::tie::ties(&compiled);
        self.problems.extend(self.ties.iter().cloned());
    }

    fn grant(&mut self, resource: &Resource<GrantSpec>) -> Option<Grant> {
        let spec = &resource.spec;
        let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
        let callers = sorted(super::caller::callers(&spec.callers, self.environment, &mut scope));
        let what = "the name of a Destination";
        let destination =
            scope.required("spec.destination", spec.destination.as_ref(), what).and_then(|name| {
                let known = (self.model.destinations.as_slice(), self.model.incomplete);
                scope.resolve(("spec.destination", name), known, &self.parts.destinations)
            });
        let credential = spec.credential.as_ref().and_then(|name| {
            let known = (self.model.credentials.as_slice(), self.model.incomplete);
            scope.resolve(("spec.credential", name), known, &self.parts.credentials)
        });
        let written =
            spec.credential.as_ref().and_then(|reference| self.model.credential(&scope.id(reference)));
        if let (Some(reference), Some(credential)) = (&spec.destination, written) {
            scope.check_binding(("spec.credential", "sent"), &scope.id(reference), credential);
        }
        if let Some(credential) = credential.as_ref().filter(|key| key.client_certificate().is_some()) {
            let message = format!(
                "`{}` is a client certificate, which connections show where a Destination names it in `tls.clientCertificate`: leave it out",
                credential.name
            );
            scope.problem("spec.credential", message);
        }
        let allow = allow(spec, destination.as_deref(), &mut scope);
        check_actions(spec, credential.as_deref(), &mut scope);
        let (own, parts) = (&self.environment.audiences, (destination.as_deref(), credential.as_deref()));
        let caller_token = caller_token(spec, parts, own, &mut scope);
        let limits = super::limit::limits((&Owner::Grant(resource.id.clone()), &spec.limits), &mut scope);
        if let Some(destination) = destination.as_deref() {
            check_protocol(spec, destination, &mut scope);
        }
        if spec.default_output_cap == Some(0) {
            scope.problem("spec.defaultOutputCap", "a cap is at least 1 token");
        }
        check_suspended(spec, &mut scope);
        let assume = spec.assume.as_ref().and_then(|assume| assumed(assume, &mut scope));
        // What is written and has problems of its own must not become a grant without it, here and below.
        let lost = [
            (spec.caller_token.is_none(), "spec.callerToken"),
            (spec.credential.is_none(), "spec.credential"),
        ];
        if lost.into_iter().any(|(is_unread, field)| is_unread && resource.source.claims(field)) {
            return None;
        }
        Some(Grant {
            name: resource.id.clone(),
            callers,
            destination: destination?,
            // Without the one that it names it is in no policy, but denied by [`Compiler::publish`].
            credential,
            caller_token: if spec.caller_token.is_some() { Some(caller_token?) } else { None },
            allow,
            limits,
            budgets: Box::default(),
            default_output_cap: spec.default_output_cap,
            assume,
            unpriced: spec.unpriced.map_or_else(Unpriced::default, Unpriced::from),
            suspended: spec.suspended.as_deref().map(Box::from),
            approval: Approval::default(),
            is_broken: false,
        })
    }
}

fn check_suspended(spec: &GrantSpec, scope: &mut Scope<'_>) {
    let is_sentence = |why: &str| !why.trim().is_empty() && !why.chars().any(char::is_control);
    if spec.suspended.as_deref().is_some_and(|why| !is_sentence(why)) {
        scope.problem("spec.suspended", "say why, in one line: callers are told");
    }
}

/// What the destination's protocol and dialect have no use for.
fn check_protocol(spec: &GrantSpec, destination: &Destination, scope: &mut Scope<'_>) {
    let Some(http) = destination.http() else { return check_connection(spec, destination, scope) };
    check_pieces(spec, destination, scope);
    if http.dialect.is_plain() {
        let knows = format!("the dialect `{}`", http.dialect.name());
        check_plain(spec, destination, &knows, scope);
    }
}

/// What a call is taken to use where nothing bounds it.
pub(super) fn assumed(assume: &AssumeSpec, scope: &mut Scope<'_>) -> Option<Assume> {
    let input = scope.required("spec.assume.inputTokens", assume.input_tokens, "the tokens read");
    let output = scope.required("spec.assume.outputTokens", assume.output_tokens, "the tokens written");
    Some(Assume { input_tokens: input?, output_tokens: output? })
}

/// The audience of the caller's own token.
fn caller_token(
    spec: &GrantSpec,
    (destination, credential): (Option<&Destination>, Option<&Credential>),
    own: &[String],
    scope: &mut Scope<'_>,
) -> Option<Box<str>> {
    let written = spec.caller_token.as_ref()?;
    if let Some(host) = destination.and_then(|to| to.hosts.iter().find(|host| host.is_wildcard())) {
        let message = format!("the token would go to any host of `{host}`: it goes to exact hosts only");
        scope.problem("spec.callerToken", message);
    }
    let is_taken = |key: &&Credential| key.inject.iter().any(Injection::sets_authorization);
    if let Some(credential) = credential.filter(is_taken) {
        let message =
            format!("`{}` sets `authorization`, where the caller's own token would be", credential.name);
        scope.problem("spec.callerToken", message);
    }
    let path = "spec.callerToken.audience";
    let what = "the `aud` of tokens that are passed on, as in `https://api.example.com`";
    let audience = scope.required(path, written.audience.as_deref(), what)?;
    if audience.trim().is_empty() || audience.chars().any(char::is_control) {
        scope.problem(path, "this cannot be empty or have control characters");
    }
    if own.iter().any(|own| own == audience) {
        let message = format!(
            "tokens for `{audience}` prove callers to this gateway, and go no further: name the destination's own audience"
        );
        scope.problem(path, message);
    }
    Some(audience.into())
}

fn allow(spec: &GrantSpec, destination: Option<&Destination>, scope: &mut Scope<'_>) -> Allow {
    let nothing = AllowSpec::default();
    let allow = spec.allow.as_ref().unwrap_or(&nothing);
    let is_list = |list: Option<usize>, path: &str| list.is_some() || scope.source.claims(path);
    let has_methods = is_list(allow.methods.written(), "spec.allow.methods");
    let has_paths = is_list(allow.paths.written(), "spec.allow.paths");
    let shows = destination.is_some_and(|to| to.http().is_some() && to.client_certificate.is_some());
    let with = match scope.source.has("spec.credential") {
        true => Some("a credential"),
        false => shows.then_some("a destination that is shown a client certificate"),
    };
    if let Some(with) = with {
        if !has_methods {
            let what = format!("a grant with {with} says for which methods, as in `[POST]`");
            scope.required("spec.allow.methods", None::<()>, &what);
        }
        if !has_paths {
            let what = format!("a grant with {with} says for which paths, as in `[/v1/chat/completions]`");
            scope.required("spec.allow.paths", None::<()>, &what);
        }
    }
    let lists = [
        ("methods", allow.methods.written()),
        ("paths", allow.paths.written()),
        ("models", allow.models.written()),
        ("classes", allow.classes.written()),
        ("actions", allow.actions.written()),
        ("upgrades", allow.upgrades.written()),
    ];
    for (name, _) in lists.into_iter().filter(|(_, written)| *written == Some(0)) {
        scope.problem(
            &format!("spec.allow.{name}"),
            "this list is empty: leave it out, or say what is allowed",
        );
    }
    check_range(spec, destination, scope);
    check_upgrades(spec, destination, scope);
    if let Some(destination) = destination {
        check_forms(&allow.paths, destination, scope);
    }
    allowed(allow, (has_methods, has_paths))
}

/// What is allowed: all methods and paths where there is no list of them.
pub(super) fn allowed(allow: &AllowSpec, (has_methods, has_paths): (bool, bool)) -> Allow {
    let methods = if has_methods { collect(&allow.methods) } else { vec![MethodPattern::Any] };
    let paths = if has_paths { collect(&allow.paths) } else { vec![PathPattern::any()] };
    let headers: BTreeSet<&str> = allow.response_headers.values().map(|header| header.as_str()).collect();
    Allow {
        methods,
        paths,
        models: collect(&allow.models),
        classes: allow.classes.values().map(|word| (*word).into()).collect(),
        actions: collect(&allow.actions),
        response_headers: headers.into_iter().map(Box::from).collect(),
        upgrades: collect(&allow.upgrades),
        range: allow.range.unwrap_or_default(),
    }
}

pub(super) fn collect<T: Clone + Ord>(list: &List<T>) -> Vec<T> {
    sorted(list.values().cloned().collect())
}

/// The most specific first, each once.
pub(super) fn sorted<T: Ord>(mut patterns: Vec<T>) -> Vec<T> {
    patterns.sort();
    patterns.dedup();
    patterns
}

/// Ranges are withheld only where a key is looked for in bodies.
fn check_range(spec: &GrantSpec, destination: Option<&Destination>, scope: &mut Scope<'_>) {
    if spec.allow.as_ref().is_none_or(|allow| allow.range.is_none()) {
        return;
    }
    let is_unscrubbed = |to: &&Destination| to.http().is_some_and(|http| http.scrub == Scrub::Headers);
    let unscrubbed = destination.filter(is_unscrubbed);
    let why = match unscrubbed {
        _ if !scope.source.claims("spec.credential") => "this grant has no credential".to_owned(),
        Some(destination) => format!("Destination/{} has `scrub: headers`", destination.name),
        None => return,
    };
    let message = format!("{why}, so `Range` is passed on as it is: leave this out");
    scope.problem("spec.allow.range", message);
}

/// A WebSocket begins with a GET, and how much of a model is used in one is told only where the dialect knows of turns.
fn check_upgrades(spec: &GrantSpec, destination: Option<&Destination>, scope: &mut Scope<'_>) {
    let Some(allow) = spec.allow.as_ref().filter(|allow| allow.upgrades.values().next().is_some()) else {
        return;
    };
    let gets = |method: &MethodPattern| match method {
        MethodPattern::Any => true,
        MethodPattern::Exact(method) => **method == *"GET",
    };
    if allow.methods.written().is_some() && !allow.methods.values().any(gets) {
        let message = "a WebSocket begins with a GET, which `allow.methods` does not list: list it too";
        scope.problem("spec.allow.upgrades", message);
    }
    let allows = |path: &str| {
        allow.paths.written().is_none() || allow.paths.values().any(|pattern| pattern.matches(path))
    };
    let has_turns = |dialect: &Dialect| {
        dialect.endpoints().any(|endpoint| endpoint.session.is_some() && allows(&endpoint.path))
    };
    let dialect = destination.and_then(Destination::http).map(|http| &http.dialect);
    let is_read = dialect.is_none_or(|dialect| dialect.is_plain() || has_turns(dialect));
    let counts = |limit: &LimitSpec| limit.units().any(Unit::is_metered);
    if !is_read && (allow.models.values().next().is_some() || spec.limits.values().any(counts)) {
        let message = "models, tokens or spend are limited, and what a WebSocket carries cannot be metered, so every one would be \
                       refused: give it a grant of its own with other limits";
        scope.problem("spec.allow.upgrades", message);
    }
}

/// Only what is signed for AWS names actions that mean something here.
fn check_actions(spec: &GrantSpec, credential: Option<&Credential>, scope: &mut Scope<'_>) {
    if !scope.source.has("spec.allow.actions") {
        return;
    }
    let why = match credential {
        Some(credential) if credential.sigv4().is_some() => return,
        Some(credential) => format!("Credential/{} does not sign for AWS", credential.name),
        None if scope.source.claims("spec.credential") || spec.credential.is_some() => return,
        None => "this grant has no credential".to_owned(),
    };
    let message = format!("{why}, and actions are told apart only where `sigv4` signs: leave this out");
    scope.problem("spec.allow.actions", message);
}

/// A path in a form that the destination refuses is one that no call can have.
fn check_forms(paths: &List<PathPattern>, destination: &Destination, scope: &mut Scope<'_>) {
    let Some(http) = destination.http() else { return };
    for (index, pattern) in paths.iter() {
        for form in pattern.encoded_forms().beyond(http.encoded_path) {
            let name = &destination.name;
            let message = format!(
                "Destination/{name} refuses paths with {form}: it would have to list {form} in `encodedPath`"
            );
            scope.problem(&format!("spec.allow.paths[{index}]"), message);
        }
    }
}

/// Of a plain destination only requests and bytes are known.
fn check_plain(spec: &GrantSpec, destination: &Destination, knows: &str, scope: &mut Scope<'_>) {
    let fields =
        ["spec.allow.models", "spec.allow.classes", "spec.defaultOutputCap", "spec.assume", "spec.unpriced"];
    let written: Vec<&str> = fields.into_iter().filter(|field| scope.source.has(field)).collect();
    let name = &destination.name;
    for field in written {
        let message =
            format!("Destination/{name} has {knows}, which knows no models: this would have no effect");
        scope.problem(field, message);
    }
    let instead = match destination.http() {
        Some(_) => "requests or concurrency",
        None => "bytes, seconds, requests or concurrency",
    };
    for (index, limit) in spec.limits.iter() {
        for unit in limit.units().filter(|unit| unit.is_metered()) {
            let message =
                format!("Destination/{name} has {knows}, which cannot count {unit}: limit {instead}");
            scope.problem(&format!("spec.limits[{index}].{unit}"), message);
        }
    }
}

/// What is taken in pieces is counted only where connections are passed through.
fn check_pieces(spec: &GrantSpec, destination: &Destination, scope: &mut Scope<'_>) {
    let name = &destination.name;
    for (index, limit) in spec.limits.iter() {
        for unit in limit.units().filter(|unit| unit.is_taken_in_pieces()) {
            let message = format!(
                "Destination/{name} takes requests, and {unit} are counted of connections that are passed through: limit requests, \
                 tokens, spend or concurrency"
            );
            scope.problem(&format!("spec.limits[{index}].{unit}"), message);
        }
    }
}

/// Of a connection that is passed through nothing is known but where it goes.
fn check_connection(spec: &GrantSpec, destination: &Destination, scope: &mut Scope<'_>) {
    let name = &destination.name;
    let allowed = ["methods", "paths", "responseHeaders", "upgrades", "range", "actions"]
        .map(|f| format!("spec.allow.{f}"));
    let fields = allowed.iter().map(String::as_str).chain(["spec.credential", "spec.callerToken"]);
    let written: Vec<&str> = fields.filter(|field| scope.source.claims(field)).collect();
    for field in written {
        let message =
            format!("Destination/{name} does not speak HTTP, so no call would have this: leave it out");
        scope.problem(field, message);
    }
    check_plain(spec, destination, "another protocol than HTTP", scope);
}

impl From<ClassWord> for Class {
    fn from(word: ClassWord) -> Self {
        match word {
            ClassWord::AccountState => Self::AccountState,
            ClassWord::MintsCredentials => Self::MintsCredentials,
            ClassWord::Administers => Self::Administers,
        }
    }
}

impl From<UnpricedWord> for Unpriced {
    fn from(word: UnpricedWord) -> Self {
        match word {
            UnpricedWord::Deny => Self::Deny,
            UnpricedWord::Dearest => Self::Dearest,
            UnpricedWord::Flag => Self::Flag,
        }
    }
}
