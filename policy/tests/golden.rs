//! The golden corpus: resources and requests in `corpus/`, and what is decided of each.
//!
//! The same files are replayed against a running gateway and `tollgate explain`. Each has
//! `trustDomains`, `gatewayNames`, `resources` (the text of a resource file) and `requests`. A request has `caller`, `method`, `url`
//! and maybe `model` or `action`, and as what is expected either `grant` (with `sends`, the URL that leaves, where it is another, and maybe
//! `budgets`) or `reason`.
//! The scheme `tunnel` or `database` asks for a connection instead, which has neither method nor path.
//! Those in `denied/` are of a cluster whose gateway is in the namespace `gatewayNamespace`, without it `default`, and have resources with
//! errors, which deny themselves and nothing else. They may have `referenceGrants` and the labels of `namespaces`, and may say in
//! `problems` every problem there is: what it is about, and a part of its message.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/read.rs"]
mod read;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tollgate_policy::caller::TrustDomain;
use tollgate_policy::compile::{Environment, HomeCluster, compile_each, compile_files};
use tollgate_policy::consent::{Consents, ReferenceGrant};
use tollgate_policy::decision::{Actions, Facts, Verdict, actions_of_form, actions_of_path};
use tollgate_policy::denial::Denial;
use tollgate_policy::model::{Problem, SourceFile, read_settings};
use tollgate_policy::name::Name;
use tollgate_policy::operation::{Operation, RequestLine};
use tollgate_policy::policy::Policy;
use tollgate_policy::target::{GatewayName, Target};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Corpus {
    #[serde(rename = "about")]
    _about: String,
    trust_domains: Vec<TrustDomain>,
    gateway_names: Vec<GatewayName>,
    resources: String,
    /// What is denied because of an error: only in `denied/`, where resources have some.
    #[serde(default)]
    denied: Vec<String>,
    #[serde(default)]
    gateway_namespace: Option<Name>,
    #[serde(default)]
    reference_grants: Vec<Value>,
    #[serde(default)]
    namespaces: BTreeMap<Name, BTreeMap<String, String>>,
    #[serde(default)]
    problems: Vec<String>,
    requests: Vec<Request>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    caller: String,
    #[serde(default)]
    method: String,
    url: String,
    model: Option<String>,
    action: Option<String>,
    grant: Option<String>,
    /// The budgets that the call is held to, where that is looked at.
    budgets: Option<Vec<String>>,
    sends: Option<String>,
    reason: Option<String>,
}

/// `grant` and what leaves, or the reason.
type Outcome = Result<(String, String), String>;

#[test]
fn every_request_of_the_corpus_is_decided_as_written() {
    let decided = decide_all("corpus", compile);
    assert!(decided >= 120, "the corpus has shrunk to {decided} requests");
}

#[test]
fn a_resource_with_an_error_denies_itself_and_lets_nothing_fall_to_another() {
    let decided = decide_all("denied", |name, corpus| {
        let file = SourceFile { path: name.into(), text: corpus.resources.clone() };
        let compiled = compile_each(&[file], &cluster(corpus), &consents(corpus)).unwrap();
        assert!(!compiled.problems.is_empty(), "{name}");
        compare_problems(name, &corpus.problems, &compiled.problems);
        let denied: Vec<String> = compiled.denied.iter().map(ToString::to_string).collect();
        assert_eq!(denied, corpus.denied, "{name}");
        compiled.policy
    });
    assert!(decided >= 30);
}

fn decide_all(folder: &str, compile: impl Fn(&str, &Corpus) -> Policy) -> usize {
    let mut decided = 0;
    let mut wrong = Vec::new();
    for file in read::files(&read::tests().join(folder)) {
        let name = file.path.file_name().unwrap().to_string_lossy().into_owned();
        let (corpus, _): (Corpus, _) =
            read_settings(&file, |_| ()).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let policy = compile(&name, &corpus);
        for request in &corpus.requests {
            decided += 1;
            let expected = expected(request);
            let found = decide(&policy, request);
            if found != expected {
                wrong.push(format!("{name}: {request:?}\n  expected {expected:?}\n  found    {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {decided}:\n{}", wrong.len(), wrong.join("\n"));
    decided
}

fn environment(corpus: &Corpus) -> Environment {
    Environment {
        catalog: read::catalog(),
        gateway_names: corpus.gateway_names.clone(),
        trust_domains: corpus.trust_domains.clone(),
        ..Environment::default()
    }
}

/// The same of a cluster.
fn cluster(corpus: &Corpus) -> Environment {
    let home = HomeCluster {
        gateway_namespace: corpus.gateway_namespace.clone().or_else(|| "default".parse().ok()),
        trust_domain: corpus.trust_domains.first().cloned(),
        name: "local".parse().ok(),
    };
    let clusters = ["local", "far"].map(|cluster| cluster.parse().unwrap()).into();
    let issuers = vec!["https://ci.example".parse().unwrap()];
    Environment { home, clusters, issuers, ..environment(corpus) }
}

fn consents(corpus: &Corpus) -> Consents {
    let read = |object: &Value| ReferenceGrant::read(object).unwrap();
    Consents {
        reference_grants: corpus.reference_grants.iter().map(read).collect(),
        namespaces: corpus.namespaces.clone(),
        ..Consents::default()
    }
}

/// Every problem is expected, and every expected one is there, where some are.
fn compare_problems(name: &str, expected: &[String], found: &[Problem]) {
    if expected.is_empty() {
        return;
    }
    let mut left: Vec<&Problem> = found.iter().collect();
    for expected in expected {
        let is_it = |problem: &&Problem| {
            let rest = expected.strip_prefix(&format!("{}: ", problem.field));
            rest.is_some_and(|part| problem.message.contains(part))
        };
        let index = left.iter().position(is_it);
        left.remove(index.unwrap_or_else(|| panic!("{name}: missing: {expected}\n{found:#?}")));
    }
    assert!(left.is_empty(), "{name}: unexpected: {left:#?}");
}

fn compile(name: &str, corpus: &Corpus) -> Policy {
    let file = SourceFile { path: name.into(), text: corpus.resources.clone() };
    match compile_files(&[file], &environment(corpus)) {
        Ok(compiled) => compiled.policy,
        Err(problems) => {
            panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
        }
    }
}

fn expected(request: &Request) -> Outcome {
    match (&request.grant, &request.reason) {
        (Some(grant), None) => {
            Ok((grant.clone(), request.sends.clone().unwrap_or_else(|| request.url.clone())))
        }
        (None, Some(reason)) => Err(reason.clone()),
        _ => panic!("a request expects a grant or a reason: {request:?}"),
    }
}

fn decide(policy: &Policy, request: &Request) -> Outcome {
    let (scheme, rest) = request.url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find(['/', '*', '?']).unwrap_or(rest.len()));
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let caller = assumed::caller(&request.caller);
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let outcome = || -> Result<(String, String), Denial> {
        let (target, operation) = match scheme {
            "tunnel" => (connection(policy, authority)?, Operation::Tunnel),
            "database" => (connection(policy, authority)?, Operation::DatabaseSession),
            _ => {
                let line = RequestLine { authority, method: &request.method, path, query };
                let (target, request) = policy.resolve(&line)?;
                (target, Operation::Http(request))
            }
        };
        let grants = policy.grants_of(&caller);
        let named = request.action.as_deref().map(Into::into);
        let query = actions_of_form(query.unwrap_or_default().as_bytes());
        let path = operation.http().map(|request| actions_of_path(request.path())).unwrap_or_default();
        let actions = Actions::of(named.into_iter().chain(path).chain(query))?;
        let facts = Facts { model: request.model.as_deref().map(Into::into), actions, ..Facts::default() };
        let traced = policy.trace(&grants, &target, &operation, &facts, now);
        let permits = traced.iter().find(|(_, verdict)| *verdict == Verdict::Permits);
        let permits = permits.map(|(grant, _)| grant.name.to_string());
        let admission = policy.admit(&grants, target, operation);
        let permit = admission.and_then(|admission| admission.permit(&facts, now));
        let decided = permit.as_ref().ok().map(|permit| permit.grant().name.to_string());
        assert_eq!(permits, decided, "the trace of {request:?} disagrees: {traced:?}");
        let permit = permit?;
        if let Some(budgets) = &request.budgets {
            let held: Vec<&str> = permit.grant().budgets.iter().map(|budget| budget.name.as_str()).collect();
            assert_eq!(held, *budgets, "{request:?}");
        }
        assert!(policy.reauthorize(&grants, &permit, request.model.as_deref()), "{request:?} does not hold");
        let target = permit.target();
        let port = if target.port() == 443 { String::new() } else { format!(":{}", target.port()) };
        let sends = match permit.http() {
            Some(request) => {
                let query = request.query().map_or_else(String::new, |query| format!("?{query}"));
                format!("https://{}{port}{}{query}", target.host(), request.path())
            }
            None => format!("{scheme}://{}{port}", target.host()),
        };
        Ok((permit.grant().name.to_string(), sends))
    };
    outcome().map_err(|denial| denial.reason.to_string())
}

fn connection(policy: &Policy, authority: &str) -> Result<Target, Denial> {
    let (host, port) = authority.rsplit_once(':').unwrap();
    policy.target(host, port.parse().unwrap())
}
