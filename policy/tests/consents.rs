//! What holds between the namespaces of a cluster, whatever each of them writes: no call goes out without the consent of every namespace
//! that it needs something of, and what one namespace breaks is its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/break_at.rs"]
mod break_at;
#[path = "support/read.rs"]
mod read;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use break_at::break_at;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tollgate_policy::compile::{Compiled, Environment, HomeCluster, compile_each};
use tollgate_policy::consent::{Consents, ReferenceGrant};
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::Reason;
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::Policy;

const GATEWAY: &str = "tollgate";
const NAMESPACES: [&str; 3] = [GATEWAY, "shop", "web"];
const CALLERS: [&str; 5] = [
    "spiffe://prod.acme/ns/tollgate/sa/a",
    "spiffe://prod.acme/ns/shop/sa/a",
    "spiffe://prod.acme/ns/shop/sa/b",
    "spiffe://prod.acme/ns/web/sa/a",
    "spiffe://prod.acme/x",
];
const HOSTS: [&str; 6] = [
    "tollgate.example",
    "shop.saas.example",
    "web.example",
    "www.saas.example",
    "nobody.example",
    "shop.example",
];
const PATHS: [&str; 2] = ["/a", "/b/c"];
const METHODS: [&str; 2] = ["GET", "POST"];

/// A call: caller, host, path and method.
type Call = (&'static str, &'static str, &'static str, &'static str);

fn calls() -> impl Iterator<Item = Call> {
    CALLERS.into_iter().flat_map(|caller| {
        HOSTS.into_iter().flat_map(move |host| {
            PATHS.into_iter().flat_map(move |path| METHODS.map(|method| (caller, host, path, method)))
        })
    })
}

fn resource(kind: &str, (namespace, name): (&str, &str), spec: &Value) -> Value {
    json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

fn grant() -> impl Strategy<Value = Value> {
    let broad = vec![
        "spiffe://prod.acme/ns/shop/sa/a",
        "spiffe://prod.acme/ns/*/sa/a",
        "spiffe://prod.acme/ns/web/**",
        "spiffe://prod.acme/**",
    ];
    let callers = move |namespace: &'static str| match namespace {
        GATEWAY => vec(select(broad.clone()), 1..3)
            .prop_map(|all| all.iter().map(ToString::to_string).collect())
            .boxed(),
        _ => vec(select(vec!["a", "*"]), 1..2)
            .prop_map(move |names| {
                names.iter().map(|name| format!("spiffe://prod.acme/ns/{namespace}/sa/{name}")).collect()
            })
            .boxed(),
    };
    let named = select(NAMESPACES.to_vec()).prop_flat_map(move |namespace| {
        let callers: BoxedStrategy<Vec<String>> = callers(namespace);
        (Just(namespace), callers)
    });
    let destinations = vec!["tollgate/d", "shop/d", "web/d", "tollgate/wide"];
    let credential =
        prop_oneof![1 => Just(None), 2 => select(vec!["tollgate/k", "shop/k", "web/k"]).prop_map(Some)];
    (named, select(destinations), credential, select(vec!["/a", "/b/*", "/**"]), select(vec!["GET", "*"]), proptest::bool::weighted(0.2))
        .prop_map(|((namespace, callers), destination, credential, path, method, is_suspended)| {
            let callers: Vec<Value> = callers.iter().map(|caller| json!({"spiffe": caller})).collect();
            let mut spec = json!({
                "callers": callers, "destination": destination, "allow": {"methods": [method], "paths": [path]},
            });
            if let Some(credential) = credential.filter(|_| destination != "tollgate/wide") {
                spec["credential"] = json!(credential);
            }
            if is_suspended {
                spec["suspended"] = json!("under review");
            }
            resource("Grant", (namespace, ""), &spec)
        })
}

/// Resources of three namespaces, all of which are written right, and refer to each other.
fn model() -> impl Strategy<Value = Vec<Value>> {
    vec(grant(), 1..6).prop_map(|grants| {
        let mut all = Vec::new();
        for (namespace, host) in [("shop", "shop.saas.example"), (GATEWAY, "tollgate.example"), ("web", "web.example")] {
            all.push(resource("Destination", (namespace, "d"), &json!({"hosts": [host]})));
        }
        all.push(resource("Destination", (GATEWAY, "wide"), &json!({"hosts": ["*.saas.example"]})));
        let store = json!({"file": {"root": "/run/a"}, "allowedPaths": ["teams/{namespace}"]});
        all.push(resource("SecretStore", (GATEWAY, "s"), &store));
        for namespace in NAMESPACES {
            let spec = json!({
                "destinations": ["tollgate/d", "shop/d", "web/d"],
                "from": {"store": "tollgate/s", "path": format!("teams/{namespace}/k")}, "inject": {"bearer": {}},
            });
            all.push(resource("Credential", (namespace, "k"), &spec));
        }
        for (index, mut grant) in grants.into_iter().enumerate() {
            grant["metadata"]["name"] = json!(format!("g{index}"));
            all.push(grant);
        }
        all
    })
}

/// What a resource says in `allowedNamespaces`.
fn allowed() -> impl Strategy<Value = Option<Value>> {
    let of_team = json!({"selector": {"matchLabels": {"team": "shop"}}});
    let but_team =
        json!({"selector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["shop"]}]}});
    select(vec![
        None,
        Some(json!("All")),
        Some(json!({"names": ["shop"]})),
        Some(json!({"names": ["web", GATEWAY]})),
        Some(of_team),
        Some(but_team),
    ])
}

/// The same, as it is meant.
fn admits(allowed: &Value, namespace: &str) -> bool {
    let is_listed = |list: &Value| list.as_array().into_iter().flatten().any(|name| name == namespace);
    match allowed {
        Value::String(_) => true,
        Value::Object(some) if some.contains_key("names") => is_listed(&some["names"]),
        // Only the namespaces with labels: see [`consents`].
        Value::Object(some) if some["selector"].get("matchLabels").is_some() => namespace == "shop",
        Value::Object(_) => namespace == GATEWAY,
        _ => false,
    }
}

fn reference_grant() -> impl Strategy<Value = Value> {
    let namespace = || select(NAMESPACES.to_vec());
    let to = prop_oneof![
        Just(json!({"group": "tollgate.dev", "kind": "Destination"})),
        Just(json!({"group": "tollgate.dev", "kind": "Destination", "name": "d"})),
        Just(json!({"group": "tollgate.dev", "kind": "Credential", "name": "k"})),
        Just(json!({"group": "tollgate.dev", "kind": "SecretStore"})),
        Just(json!({"group": "other.dev", "kind": "Credential"})),
    ];
    (namespace(), namespace(), select(vec!["Grant", "Credential"]), vec(to, 1..3)).prop_map(
        |(at, from, kind, to)| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
                "metadata": {"namespace": at, "name": "r"},
                "spec": {"from": [{"group": "tollgate.dev", "kind": kind, "namespace": from}], "to": to},
            })
        },
    )
}

/// The namespace `web` has no labels that are known.
fn consents(reference_grants: &[Value]) -> Consents {
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    Consents {
        reference_grants: reference_grants.iter().map(|it| ReferenceGrant::read(it).unwrap()).collect(),
        namespaces: [("shop", "shop"), (GATEWAY, "platform")]
            .map(|(namespace, team)| (namespace.parse().unwrap(), labels(team)))
            .into(),
    }
}

fn with_allowed(resources: &[Value], allowed: impl Fn(usize) -> Option<Value>) -> Vec<Value> {
    let mut resources = resources.to_vec();
    for (index, it) in resources.iter_mut().enumerate().filter(|(_, it)| it["kind"] != "Grant") {
        if let Some(allowed) = allowed(index) {
            it["spec"]["allowedNamespaces"] = allowed;
        }
    }
    resources
}

fn compile(resources: &[Value], reference_grants: &[Value]) -> Compiled {
    static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(read::catalog);
    let environment = Environment {
        catalog: Arc::clone(&CATALOG),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        home: HomeCluster {
            gateway_namespace: GATEWAY.parse().ok(),
            trust_domain: "prod.acme".parse().ok(),
            name: None,
        },
        ..Environment::default()
    };
    let text = resources.iter().map(|it| format!("---\n{it}\n")).collect();
    let files = [SourceFile { path: "a.yaml".into(), text }];
    compile_each(&files, &environment, &consents(reference_grants)).unwrap()
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

/// What each needs of another to let a call out by this grant: the kind, namespace and name of both.
fn needs(grant: &Value) -> Vec<(&'static str, String, &'static str, String)> {
    let own = grant["metadata"]["namespace"].as_str().unwrap().to_owned();
    let mut needs = vec![("Grant", own.clone(), "Destination", text(&grant["spec"]["destination"]))];
    if let Some(credential) = grant["spec"]["credential"].as_str() {
        needs.push(("Grant", own, "Credential", credential.to_owned()));
        let owner = credential.split('/').next().unwrap().to_owned();
        needs.push(("Credential", owner.clone(), "SecretStore", "tollgate/s".to_owned()));
        for destination in ["tollgate/d", "shop/d", "web/d"] {
            needs.push(("Credential", owner.clone(), "Destination", destination.to_owned()));
        }
    }
    needs
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The words of the documentation once more: whether all that a grant needs has agreed.
fn is_consented(grant: &Value, resources: &[Value], reference_grants: &[Value]) -> bool {
    needs(grant).iter().all(|(from, own, kind, id)| {
        let (namespace, name) = id.split_once('/').unwrap();
        let is_it = |it: &&Value| {
            it["kind"] == *kind && it["metadata"]["namespace"] == namespace && it["metadata"]["name"] == name
        };
        let target = resources.iter().find(is_it).unwrap();
        let grants = reference_grants.iter().filter(|it| it["metadata"]["namespace"] == namespace);
        let mut granted = grants.flat_map(|it| {
            let from = it["spec"]["from"].as_array().unwrap().iter();
            let to = it["spec"]["to"].as_array().unwrap();
            from.flat_map(move |from| to.iter().map(move |to| (from, to)))
        });
        namespace == own
            || admits(&target["spec"]["allowedNamespaces"], own)
            || granted.any(|(by, to)| {
                (by["kind"] == *from && by["namespace"] == own.as_str())
                    && (to["kind"] == *kind && to["group"] == "tollgate.dev")
                    && (to["name"].is_null() || to["name"] == name)
            })
    })
}

fn grants(resources: &[Value]) -> impl Iterator<Item = &Value> {
    resources.iter().filter(|it| it["kind"] == "Grant")
}

fn id(resource: &Value) -> String {
    format!("{}/{}", text(&resource["metadata"]["namespace"]), text(&resource["metadata"]["name"]))
}

fn names(grant: &Value, caller: &str) -> bool {
    grant["spec"]["callers"].as_array().unwrap().iter().any(|named| {
        let pattern = named["spiffe"].as_str().unwrap();
        match pattern.strip_suffix("/**").or_else(|| pattern.strip_suffix("/*")) {
            Some(beginning) => caller.starts_with(beginning),
            None => pattern == caller || (pattern.contains("/*/") && caller.ends_with("/sa/a")),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_call_goes_out_without_every_consent_and_taking_one_back_allows_nothing_new(
        resources in model(),
        allowed in vec(allowed(), 8),
        reference_grants in vec(reference_grant(), 0..4),
    ) {
        let open = with_allowed(&resources, |_| Some(json!("All")));
        let before = compile(&open, &[]);
        if !before.problems.is_empty() {
            return Ok(());
        }
        let closed = with_allowed(&resources, |index| allowed[index % allowed.len()].clone());
        let now = compile(&closed, &reference_grants);
        for call in calls() {
            let (before, now) = (decide(&before.policy, call), decide(&now.policy, call));
            let of_caller = || grants(&closed).filter(|grant| names(grant, call.0));
            if let Ok(name) = &now {
                prop_assert_eq!(Ok(name), before.as_ref(), "{:?}", call);
                let grant = grants(&closed).find(|grant| id(grant) == *name).unwrap();
                prop_assert!(is_consented(grant, &closed, &reference_grants), "{:?} by {}", call, grant);
                let owner = grant["metadata"]["namespace"].as_str().unwrap();
                prop_assert!(owner == GATEWAY || call.0.contains(&format!("/ns/{owner}/sa/")), "{:?} by {}", call, grant);
            } else if of_caller().all(|grant| is_consented(grant, &closed, &reference_grants)) {
                prop_assert_eq!(&before, &now, "{:?} is denied though all have agreed: {:?}", call, closed);
            }
        }
    }

    #[test]
    fn whatever_an_app_breaks_in_its_namespace_allows_nothing_new_and_is_felt_by_nobody_who_needs_nothing_of_it(
        resources in model(),
        which in any::<Index>(),
        picks in vec(any::<Index>(), 8),
        how in 0_usize..6,
    ) {
        let open = with_allowed(&resources, |_| Some(json!("All")));
        let before = compile(&open, &[]);
        if !before.problems.is_empty() {
            return Ok(());
        }
        let own: Vec<usize> = (0..open.len()).filter(|index| open[*index]["metadata"]["namespace"] == "shop").collect();
        let which = own[which.index(own.len())];
        let mut after = open.clone();
        break_at(&mut after[which]["spec"], "spec", &mut picks.into_iter(), how);
        let now = compile(&after, &[]);
        let label = format!("{}/{}: ", text(&after[which]["kind"]), id(&after[which]));
        let is_own = now.problems.iter().any(|problem| problem.field.starts_with(&label));
        for call in calls() {
            let (before, now) = (decide(&before.policy, call), decide(&now.policy, call));
            let is_for_shop = |grant: &Value| grant["spec"]["destination"] == "shop/d" && names(grant, call.0);
            // A host that its only exact destination no longer names falls to a wildcard's owner, for those whom that never concerned.
            let is_concerned = call.0.contains("/ns/shop/sa/") || grants(&open).any(is_for_shop) || call.1 != "shop.saas.example";
            if is_own && is_concerned && now.is_ok() {
                prop_assert_eq!(&before, &now, "{:?} with {} of {:?}", call, after[which], open);
            }
            let needs_shop = |grant: &Value| {
                id(grant).starts_with("shop/") || needs(grant).iter().any(|(_, owner, _, id)| owner == "shop" || id.starts_with("shop/"))
            };
            let is_theirs = call.0.contains("/ns/shop/") || call.1.starts_with("shop.");
            if !is_theirs && !grants(&open).any(|grant| names(grant, call.0) && needs_shop(grant)) {
                prop_assert_eq!(&before, &now, "{:?} with {} of {:?}", call, after[which], open);
            }
        }
    }
}
