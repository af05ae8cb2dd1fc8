//! What holds when one resource of a valid model is broken: it denies itself, lets nothing fall to another, and leaves the rest alone.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/break_at.rs"]
mod break_at;
#[path = "support/read.rs"]
mod read;

use std::sync::{Arc, LazyLock};

use break_at::break_at;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tollgate_policy::compile::{Environment, HomeCluster, compile_each, compile_files};
use tollgate_policy::consent::Consents;
use tollgate_policy::decision::{Facts, Verdict};
use tollgate_policy::denial::Reason;
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::{Problem, SourceFile};
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::Policy;

const CALLERS: [&str; 3] =
    ["spiffe://prod.acme/ns/web/sa/a", "spiffe://prod.acme/ns/shop/sa/a", "spiffe://prod.acme/x"];
const AUTHORITIES: [&str; 7] = [
    "api.one.example",
    "www.one.example",
    "api.one.example:9443",
    "www.one.example:9443",
    "two.example",
    "two.example:9443",
    "nobody.example",
];
const PATHS: [&str; 2] = ["/a", "/b/c"];
const METHODS: [&str; 2] = ["GET", "POST"];

/// A call: caller, authority, path and method.
type Call = (&'static str, &'static str, &'static str, &'static str);

fn calls() -> impl Iterator<Item = Call> {
    CALLERS.into_iter().flat_map(|caller| {
        AUTHORITIES.into_iter().flat_map(move |authority| {
            PATHS.into_iter().flat_map(move |path| METHODS.map(|method| (caller, authority, path, method)))
        })
    })
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "tollgate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn destinations() -> impl Strategy<Value = Vec<Value>> {
    let hosts = |name: &str, hosts: Vec<&'static str>| {
        let name = name.to_owned();
        (select(hosts), select(vec![443, 9443])).prop_map(move |(host, port)| {
            resource(
                "Destination",
                &name,
                &json!({"hosts": [host, format!("{name}.own.example")], "port": port}),
            )
        })
    };
    let one = hosts("d0", vec!["api.one.example", "*.one.example"]);
    let two = hosts("d1", vec!["*.one.example", "two.example"]);
    let three = hosts("d2", vec!["api.one.example", "two.example"]);
    (one, two, three).prop_map(|(one, two, three)| vec![one, two, three])
}

fn grant() -> impl Strategy<Value = Value> {
    let callers = [
        "spiffe://prod.acme/ns/web/sa/a",
        "spiffe://prod.acme/ns/*/sa/a",
        "spiffe://prod.acme/ns/web/**",
        "spiffe://prod.acme/**",
    ];
    let credential = prop_oneof![2 => Just(None), 1 => select(vec!["k0", "k1"]).prop_map(Some)];
    (
        vec(select(callers.to_vec()), 1..3),
        select(vec!["d0", "d1", "d2"]),
        credential,
        select(vec!["/a", "/b/*", "/**"]),
        select(vec!["GET", "*"]),
        proptest::bool::weighted(0.3),
    )
        .prop_map(|(callers, destination, credential, path, method, is_suspended)| {
            let callers: Vec<Value> = callers.iter().map(|caller| json!({"spiffe": caller})).collect();
            let mut spec = json!({
                "callers": callers, "destination": destination,
                "allow": {"methods": [method], "paths": [path]},
                "limits": [{"requests": 600, "per": "minute"}],
            });
            if let Some(credential) = credential {
                spec["credential"] = json!(credential);
            }
            if is_suspended {
                spec["suspended"] = json!("under review");
            }
            spec
        })
}

/// A model: the resources, all of which are written right.
fn model() -> impl Strategy<Value = Vec<Value>> {
    (destinations(), vec(grant(), 1..5)).prop_map(|(mut all, grants)| {
        for (name, root) in [("s0", "/run/a"), ("s1", "/run/b")] {
            all.push(resource("SecretStore", name, &json!({"file": {"root": root}})));
        }
        for (name, store) in [("k0", "s0"), ("k1", "s1")] {
            let spec = json!({
                "destinations": ["d0", "d1", "d2"], "wildcardHosts": [],
                "from": {"store": store, "path": "k"}, "inject": {"bearer": {}},
            });
            all.push(resource("Credential", name, &spec));
        }
        for (index, spec) in grants.iter().enumerate() {
            all.push(resource("Grant", &format!("g{index}"), spec));
        }
        // A key goes to no wildcard that its owner does not name.
        let has_wildcard = |all: &[Value]| all.iter().any(|it| it["spec"]["hosts"][0] == "*.one.example");
        if has_wildcard(&all) {
            for it in all.iter_mut().filter(|it| it["kind"] == "Credential") {
                it["spec"]["wildcardHosts"] = json!(["*.one.example"]);
            }
        }
        all
    })
}

fn environment() -> Environment {
    static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(read::catalog);
    Environment {
        catalog: Arc::clone(&CATALOG),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        home: HomeCluster { gateway_namespace: "default".parse().ok(), ..HomeCluster::default() },
        ..Environment::default()
    }
}

fn files(resources: &[Value]) -> Vec<SourceFile> {
    let text = resources.iter().map(|it| format!("---\n{it}\n")).collect();
    vec![SourceFile { path: "a.yaml".into(), text }]
}

/// The grant that lets the call out, or why none does.
fn decide(policy: &Policy, (caller, authority, path, method): Call) -> Result<String, Reason> {
    let line = RequestLine { authority, method, path, query: None };
    let (target, request) = policy.resolve(&line).map_err(|denial| denial.reason)?;
    let grants = policy.grants_of(&assumed::caller(caller));
    let admission = policy.admit(&grants, target, request.into()).map_err(|denial| denial.reason)?;
    let permit =
        admission.permit(&Facts::default(), Timestamp::UNIX_EPOCH).map_err(|denial| denial.reason)?;
    Ok(permit.grant().name.to_string())
}

/// Whether the resource, or one that depends on it, has a part in the call.
fn has_part(policy: &Policy, broken: &Value, (caller, authority, path, method): Call) -> bool {
    let line = RequestLine { authority, method, path, query: None };
    let Ok((target, request)) = policy.resolve(&line) else { return true };
    let name = broken["metadata"]["name"].as_str().unwrap();
    let caller = assumed::caller(caller);
    let grants = policy.grants_of(&caller);
    match broken["kind"].as_str().unwrap() {
        "Destination" => target.destination().name.as_str() == name,
        // It denies as much as its callers might have asked of its destination.
        "Grant" => grants
            .iter()
            .any(|grant| grant.name.as_str() == name && grant.destination.name == target.destination().name),
        _ => {
            let traced =
                policy.trace(&grants, &target, &request.into(), &Facts::default(), Timestamp::UNIX_EPOCH);
            traced.iter().any(|(grant, verdict)| {
                let uses = grant.credential.as_ref().is_some_and(|key| {
                    key.name.as_str() == name || key.keys.iter().any(|key| key.from.store.as_str() == name)
                });
                uses && !matches!(verdict, Verdict::Mismatch(_))
            })
        }
    }
}

/// Whether it can still be read which calls the resource has to do with.
fn says_which_calls(kind: &str, place: &str) -> bool {
    match kind {
        // At an unreadable port it may be where a later one is.
        "Destination" => {
            place != "spec" && !place.starts_with("spec/hosts") && !place.starts_with("spec/port")
        }
        "Grant" => {
            !matches!(place, "spec")
                && !place.starts_with("spec/callers")
                && !place.starts_with("spec/destination")
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn breaking_a_resource_allows_nothing_new_and_leaves_what_it_had_no_part_in(
        resources in model(),
        which in any::<Index>(),
        picks in vec(any::<Index>(), 8),
        how in 0_usize..6,
    ) {
        let Ok(whole) = compile_files(&files(&resources), &environment()) else { return Ok(()) };
        let mut after = resources.clone();
        let which = which.index(after.len());
        let place = break_at(&mut after[which]["spec"], "spec", &mut picks.into_iter(), how);
        let broken = compile_each(&files(&after), &environment(), &Consents::default());
        prop_assert!(broken.is_ok(), "{}: {broken:?}", after[which]);
        let broken = broken.unwrap();
        let kind = resources[which]["kind"].as_str().unwrap();
        let name = resources[which]["metadata"]["name"].as_str().unwrap();
        // What is right by itself may say what another says too: then the first serves.
        let is_shared = |problem: &Problem| ["ties with", "is already"].iter().any(|it| problem.message.contains(it));
        let is_own =
            |problem: &Problem| problem.field.starts_with(&format!("{kind}/{name}: ")) && !is_shared(problem);
        if !broken.problems.iter().any(is_own) {
            return Ok(());
        }
        for call in calls() {
            let (before, now) = (decide(&whole.policy, call), decide(&broken.policy, call));
            if now.is_ok() || (says_which_calls(kind, &place) && !has_part(&whole.policy, &resources[which], call)) {
                prop_assert_eq!(&before, &now, "{:?} with {} of {:?}: {:?}", call, after[which], resources, broken.problems);
            }
        }
    }
}
