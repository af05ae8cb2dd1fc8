//! What a change of resources adds and removes, held against what the policies themselves decide.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/read.rs"]
mod read;

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use tollgate_policy::access::{Change, Diff, diff};
use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::decision::{CallerGrants, Facts};
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::{Grant, Policy};

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn environment() -> Environment {
    static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(read::catalog);
    Environment {
        catalog: Arc::clone(&CATALOG),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        issuers: vec!["https://ci.example".parse().unwrap()],
        clusters: vec!["eu-1".parse().unwrap()],
        ..Environment::default()
    }
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "tollgate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// `None`: grants tie, or say what has no effect.
fn policy(resources: &[Value]) -> Option<Policy> {
    let text = resources.iter().map(|it| format!("---\n{it}\n")).collect();
    compile_files(&[SourceFile { path: "a.yaml".into(), text }], &environment())
        .ok()
        .map(|compiled| compiled.policy)
}

const CALLERS: [&str; 14] = [
    "spiffe://prod.acme/ns/web/sa/a",
    "spiffe://prod.acme/ns/web/sa/b",
    "spiffe://prod.acme/ns/web/sa/a/b",
    "spiffe://prod.acme/ns/web",
    "spiffe://prod.acme/ns/shop/sa/a",
    "spiffe://prod.acme/ns/shop/sa/b",
    "spiffe://prod.acme/ns/shop",
    "spiffe://prod.acme/x",
    "spiffe://prod.acme",
    "k8s:eu-1/web/a",
    "k8s:eu-1/web/b",
    "k8s:eu-1/shop/a",
    "jwt:https://ci.example#repo:acme/web",
    "jwt:https://ci.example#repo:other",
];
const HOSTS: [&str; 4] = ["llm.example", "eu.llm.example", "us.llm.example", "plain.example"];
const PATHS: [&str; 22] = [
    // Of every pattern of a grant and every endpoint of the dialect that have paths together, one.
    "/v1/chat/completions",
    "/V1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/completions",
    "/v1/models/x",
    "/v1/files",
    "/v1/files/",
    "/V1/FILES",
    "/v1/files/completions",
    "/v1/files/x",
    "/v1/files/x/content",
    "/v1/audio/speech",
    "/v1/batches",
    "/v1/nope",
    "/v1/x/completions",
    "/v1/x/y",
    "/v1",
    "/v1/",
    "/x",
    "/",
];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const MODELS: [Option<&str>; 6] =
    [None, Some("gpt-5-mini"), Some("gpt-5"), Some("gpt-5-mini-2025-08-07"), Some("gpt-4.1"), Some("o3")];

fn caller_pattern() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"spiffe": "spiffe://prod.acme/ns/web/sa/a"}),
        json!({"spiffe": "spiffe://prod.acme/ns/web/sa/*"}),
        json!({"spiffe": "spiffe://prod.acme/ns/*/sa/a"}),
        json!({"spiffe": "spiffe://prod.acme/ns/web/**"}),
        json!({"spiffe": "spiffe://prod.acme/**"}),
        json!({"serviceAccount": {"namespace": "web", "name": "*"}}),
        json!({"serviceAccount": {"namespace": "*", "name": "a"}}),
        json!({"token": {"issuer": "https://ci.example", "subject": "repo:acme/*"}}),
        json!({"token": {"issuer": "https://ci.example", "subject": "*"}}),
    ])
}

fn some(of: Vec<&'static str>) -> impl Strategy<Value = Vec<&'static str>> {
    let len = of.len();
    subsequence(of, 1..=len)
}

fn maybe<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![2 => Just(None), 1 => value.prop_map(Some)]
}

fn grant() -> impl Strategy<Value = Value> {
    let paths = vec![
        "/v1/chat/completions",
        "/v1/models",
        "/v1/files",
        "/v1/nope",
        "/v1/*",
        "/v1/*/completions",
        "/v1/**",
        "/**",
    ];
    (
        vec(caller_pattern(), 1..3),
        select(vec!["llm", "llm", "llm", "plain"]),
        some(vec!["GET", "POST", "*"]),
        some(paths),
        maybe(some(vec!["gpt-5-mini", "gpt-5*", "gpt-*"])),
        maybe(select(vec!["k0", "k1"])),
        maybe(select(vec![json!({"requests": 9, "per": "day"}), json!({"requests": 10, "per": "day"}), json!({"spend": "5 USD", "per": "day"})])),
        (proptest::bool::weighted(0.2), maybe(Just("accountState")), maybe(Just("https://llm.example"))),
    )
        .prop_map(|(callers, destination, methods, paths, models, credential, limit, (is_suspended, class, audience))| {
            let mut spec = json!({
                "callers": callers, "destination": destination, "allow": {"methods": methods, "paths": paths},
            });
            let is_llm = destination == "llm";
            if let Some(models) = models.filter(|_| is_llm) {
                spec["allow"]["models"] = json!(models);
            }
            if let Some(class) = class.filter(|_| is_llm) {
                spec["allow"]["classes"] = json!([class]);
            }
            if let Some(limit) = limit.filter(|limit| is_llm || limit.get("spend").is_none()) {
                spec["limits"] = json!([limit]);
            }
            match (credential, audience) {
                (Some(credential), _) => spec["credential"] = json!(credential),
                (None, Some(audience)) if !is_llm => spec["callerToken"] = json!({"audience": audience}),
                _ => {}
            }
            if is_suspended {
                spec["suspended"] = json!("under review");
            }
            spec
        })
}

fn destinations() -> impl Strategy<Value = Vec<Value>> {
    let hosts = select(vec![
        vec!["llm.example"],
        vec!["llm.example", "eu.llm.example"],
        vec!["*.llm.example"],
        vec!["us.llm.example", "*.llm.example"],
    ]);
    (hosts, proptest::bool::weighted(0.2)).prop_map(|(hosts, is_moved)| {
        let mut plain = vec!["plain.example"];
        if is_moved && !hosts.contains(&"eu.llm.example") {
            plain.push("eu.llm.example");
        }
        let store = json!({"file": {"root": "/run/keys"}});
        let key = |path: &str| json!({
            "destinations": ["llm", "plain"], "wildcardHosts": ["*.llm.example"], "from": {"store": "s", "path": path}, "inject": {"header": {"name": "x-key"}},
        });
        vec![
            resource("Destination", "llm", &json!({"hosts": hosts, "dialect": "openai"})),
            resource("Destination", "plain", &json!({"hosts": plain})),
            resource("SecretStore", "s", &store),
            resource("Credential", "k0", &key("k0")),
            resource("Credential", "k1", &key("k1")),
        ]
    })
}

/// Two sets of resources that have something in common.
fn change() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    let grants = || vec(grant(), 0..3);
    (destinations(), maybe(destinations()), grants(), grants(), grants()).prop_map(
        |(old, new, both, only_old, only_new)| {
            let named = |destinations: Vec<Value>, grants: Vec<Value>| {
                let grants = grants
                    .into_iter()
                    .enumerate()
                    .map(|(index, spec)| resource("Grant", &format!("g{index}"), &spec));
                destinations.into_iter().chain(grants).collect::<Vec<_>>()
            };
            let new = new.unwrap_or_else(|| old.clone());
            let before = both.iter().cloned().chain(only_old).collect();
            (named(old, before), named(new, both.into_iter().chain(only_new).collect()))
        },
    )
}

#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    caller: &'a str,
    host: &'a str,
    method: &'a str,
    path: &'a str,
    model: Option<&'a str>,
}

fn decide(policy: &Policy, grants: &CallerGrants, call: Call<'_>) -> Option<Arc<Grant>> {
    let Call { host, method, path, model, .. } = call;
    let line = RequestLine { authority: host, method, path, query: None };
    let (target, request) = policy.resolve(&line).ok()?;
    let admission = policy.admit(grants, target, request.into()).ok()?;
    // As the route does: a model is read where the dialect knows of one.
    let reads = admission.endpoint().is_some_and(|endpoint| endpoint.has_facts());
    let facts = Facts { model: model.filter(|_| reads).map(Into::into), ..Facts::default() };
    Some(Arc::clone(admission.permit(&facts, now()).ok()?.grant()))
}

fn is_permitted(policy: &Policy, call: Call<'_>) -> bool {
    decide(policy, &policy.grants_of(&assumed::caller(call.caller)), call).is_some()
}

fn calls(caller: &'static str) -> impl Iterator<Item = Call<'static>> {
    HOSTS.into_iter().flat_map(move |host| {
        PATHS.into_iter().flat_map(move |path| {
            METHODS
                .into_iter()
                .flat_map(move |method| MODELS.map(|model| Call { caller, host, method, path, model }))
        })
    })
}

/// Whether calls by one grant have more with them, or are bounded by less, than by another; in words of this test alone.
fn is_wider(old: &Grant, new: &Grant) -> bool {
    let key = |grant: &Grant| grant.credential.as_ref().map(|credential| credential.name.clone());
    let other_key = key(new).is_some() && key(new) != key(old);
    let other_token = new.caller_token.is_some() && new.caller_token != old.caller_token;
    let is_kept = |before: &tollgate_policy::limit::Limit| {
        old.name == new.name
            && new.limits.iter().any(|now| now.unit == before.unit && now.amount <= before.amount)
    };
    // Of two ways to read usage neither is the wider, so the other one is.
    let dialect = |grant: &Grant| grant.destination.http().map(|http| http.dialect.name().to_owned());
    dialect(old) != dialect(new) || other_key || other_token || !old.limits.iter().all(is_kept)
}

fn examples(changes: &[Change]) -> impl Iterator<Item = Call<'_>> {
    changes.iter().filter_map(|change| {
        let example = change.example.as_ref()?;
        let rest = example.url.strip_prefix("https://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        Some(Call {
            caller: &example.caller,
            host,
            method: &example.method,
            path,
            model: example.model.as_deref(),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn something_is_added_exactly_where_some_call_is_permitted_that_was_not_or_has_more_with_it((before, after) in change()) {
        let (Some(old), Some(new)) = (policy(&before), policy(&after)) else { return Ok(()) };
        let found = diff(&old, &new, now(), &|id| assumed::caller(id.as_str()));
        let Diff { adds, removes } = &found;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for caller in CALLERS {
            let [of_old, of_new] = [&old, &new].map(|policy| policy.grants_of(&assumed::caller(caller)));
            for call in calls(caller) {
                match (decide(&old, &of_old, call), decide(&new, &of_new, call)) {
                    (None, Some(_)) => added.push(call),
                    (Some(_), None) => removed.push(call),
                    (Some(old), Some(new)) if is_wider(&old, &new) => added.push(call),
                    _ => {}
                }
            }
        }
        prop_assert_eq!(adds.is_empty(), added.is_empty(), "{:?}\n{:#?}\n{:#?}\n{:?}", added.first(), before, after, adds);
        if !removed.is_empty() {
            prop_assert!(!removes.is_empty(), "{:?}\n{:#?}\n{:#?}", removed.first(), before, after);
        }
        for call in examples(adds) {
            prop_assert!(!is_permitted(&old, call) && is_permitted(&new, call), "{:?}\n{:#?}\n{:#?}", call, before, after);
        }
        for call in examples(removes) {
            prop_assert!(is_permitted(&old, call) && !is_permitted(&new, call), "{:?}\n{:#?}\n{:#?}", call, before, after);
        }
    }

    #[test]
    fn the_same_resources_differ_in_nothing_and_what_is_added_one_way_is_removed_the_other((before, after) in change()) {
        let (Some(old), Some(new)) = (policy(&before), policy(&after)) else { return Ok(()) };
        prop_assert_eq!(diff(&old, &old, now(), &|id| assumed::caller(id.as_str())), Diff::default());
        let (forward, backward) = (diff(&old, &new, now(), &|id| assumed::caller(id.as_str())), diff(&new, &old, now(), &|id| assumed::caller(id.as_str())));
        let calls = |changes: &[Change]| changes.iter().filter(|change| change.example.is_some()).count();
        prop_assert_eq!(calls(&forward.adds), calls(&backward.removes));
        prop_assert_eq!(calls(&forward.removes), calls(&backward.adds));
    }
}
