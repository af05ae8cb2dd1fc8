//! What a policy costs as it grows: compiling it, the grants of a caller, and a decision. No network, no gateway.
//!
//! Prints JSON: for each number of grants the seconds of compiling, and the nanoseconds of the other two. Each is the least of several rounds.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tollgate_policy::caller::assumed;
use tollgate_policy::compile::{Compiled, Environment, HomeCluster, compile_each};
use tollgate_policy::consent::Consents;
use tollgate_policy::decision::{CallerGrants, Facts};
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::Policy;

const GATEWAY: &str = "tollgate";
/// Grants of one namespace, each for a destination of its own.
const OF_ONE: usize = 10;
const CALLER: &str = "spiffe://prod.acme/ns/team-0/sa/app-0";
const ROUNDS: usize = 25;
/// The dialect of destinations that have none of their own.
const HTTP: &str = include_str!("../../gateway/catalog/dialects/http.yaml");

fn main() {
    let measured: Vec<serde_json::Value> = [10, 2_000, 10_000].into_iter().map(measure).collect();
    println!("{}", serde_json::Value::from(measured));
}

fn measure(grants: usize) -> serde_json::Value {
    let objects = objects(grants);
    let (compiling, Compiled { policy, .. }) = least(5, 1, || compile(&objects));
    assert_eq!(policy.grants().count(), grants, "every grant is in force");
    let caller = assumed(CALLER.parse().expect("an identity"));
    let (grants_of, named) = least(ROUNDS, 1_000, || policy.grants_of(&caller));
    assert_eq!(named.iter().count(), OF_ONE, "the caller's grants");
    let (authorise, ()) = least(ROUNDS, 10_000, || authorise(&policy, &named));
    json!({"grants": grants, "compile_s": compiling / 1e9, "grants_of_ns": grants_of, "authorise_ns": authorise})
}

/// The least time of several rounds, in nanoseconds of one run, and what the last run gave.
fn least<T>(rounds: usize, runs: u32, mut run: impl FnMut() -> T) -> (f64, T) {
    let mut round = || {
        let begun = Instant::now();
        let mut last = black_box(run());
        for _ in 1..runs {
            last = black_box(run());
        }
        (begun.elapsed().as_secs_f64() * 1e9 / f64::from(runs), last)
    };
    let first = round();
    (1..rounds).map(|_| round()).fold(first, |least, next| if next.0 < least.0 { next } else { least })
}

fn authorise(policy: &Policy, grants: &CallerGrants) {
    let line = RequestLine { authority: "api-7.example", method: "POST", path: "/v1/items/7", query: None };
    let (target, request) = policy.resolve(&line).expect("a target");
    let admission = policy.admit(grants, target, request.into()).expect("an admission");
    let permit = admission.permit(&Facts::default(), jiff::Timestamp::UNIX_EPOCH).expect("a permit");
    let _ = black_box(permit);
}

/// Destinations of the platform, and grants of as many namespaces as have ten each. Every tenth grant is for all accounts of its namespace.
fn objects(grants: usize) -> Vec<SourceFile> {
    let object = |kind: &str, (namespace, name): (&str, &str), spec: &str| SourceFile {
        path: "".into(),
        text: format!(
            r#"{{"apiVersion":"tollgate.dev/v1alpha1","kind":"{kind}","metadata":{{"namespace":"{namespace}","name":"{name}"}},"spec":{spec}}}"#
        ),
    };
    let mut objects: Vec<SourceFile> = (0..OF_ONE)
        .map(|at| {
            let spec = format!(r#"{{"hosts":["api-{at}.example"],"allowedNamespaces":"All"}}"#);
            object("Destination", (GATEWAY, &format!("api-{at}")), &spec)
        })
        .collect();
    for at in 0..grants {
        let (namespace, destination) = (format!("team-{}", at / OF_ONE), at % OF_ONE);
        let account = if destination == 0 { "*" } else { "app-0" };
        let mut spec = String::new();
        write!(
            spec,
            r#"{{"callers":[{{"spiffe":"spiffe://prod.acme/ns/{namespace}/sa/{account}"}}],"destination":"{GATEWAY}/api-{destination}",
               "allow":{{"methods":["GET","POST"],"paths":["/v1/items/*"]}},"limits":[{{"requests":100,"per":"minute"}}]}}"#
        )
        .expect("text");
        objects.push(object("Grant", (&namespace, &format!("api-{destination}")), &spec));
    }
    objects
}

fn compile(objects: &[SourceFile]) -> Compiled {
    let dialect = SourceFile { path: "http.yaml".into(), text: HTTP.to_owned() };
    let environment = Environment {
        catalog: Arc::new(Catalog::parse(&[dialect]).expect("a catalog")),
        trust_domains: vec!["prod.acme".parse().expect("a trust domain")],
        home: HomeCluster {
            gateway_namespace: GATEWAY.parse().ok(),
            trust_domain: "prod.acme".parse().ok(),
            name: None,
        },
        ..Environment::default()
    };
    let compiled = compile_each(objects, &environment, &Consents::default()).expect("a policy");
    assert!(compiled.problems.is_empty(), "{}", compiled.problems[0]);
    compiled
}
