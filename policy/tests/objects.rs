//! Objects of a cluster: each stands for itself, whatever is wrong with it.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_policy::compile::{Compiled, Denied, Environment, HomeCluster, compile_each};
use tollgate_policy::consent::Consents;
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;

const KINDS: [&str; 4] = ["Destination", "SecretStore", "Credential", "Grant"];

fn environment() -> Environment {
    let text = "dialect: http\nprovider: http\nplain: true\nendpoints: []\n".to_owned();
    let catalog = SourceFile { path: "catalog.yaml".into(), text };
    Environment {
        catalog: Catalog::parse(&[catalog]).unwrap().into(),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        home: HomeCluster {
            gateway_namespace: "egress".parse().ok(),
            trust_domain: "prod.acme".parse().ok(),
            name: None,
        },
        ..Environment::default()
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> SourceFile {
    let object = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    });
    SourceFile::object(object.to_string())
}

fn destination(name: &str, host: &str) -> SourceFile {
    object("Destination", "shop", name, json!({"hosts": [host], "dialect": "http"}))
}

fn grant(name: &str) -> SourceFile {
    let spec = json!({"callers": [{"spiffe": "spiffe://prod.acme/ns/shop/sa/web"}], "destination": "api"});
    object("Grant", "shop", name, spec)
}

/// What is denied beside a whole destination and a grant of it, and what is said.
fn broken(kind: &str, spec: Value) -> (Vec<Denied>, Vec<String>) {
    let files = [destination("api", "api.example"), grant("web"), object(kind, "shop", "bad", spec)];
    let Compiled { policy, problems, denied, .. } =
        compile_each(&files, &environment(), &Consents::default()).unwrap();
    assert!(policy.grants().any(|grant| grant.name.as_str() == "shop/web"), "{problems:?}");
    (denied, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn an_object_that_cannot_be_read_is_named_without_a_line_and_denies_itself_alone() {
    let specs = [
        Value::Null,
        json!("text"),
        json!([1, 2]),
        json!(7.5),
        json!({"no": {"such": "field"}}),
        json!({"hosts": 1, "from": [null], "callers": {"a": []}, "file": "x", "destination": {"a": 1}}),
    ];
    for kind in KINDS {
        for spec in &specs {
            let (denied, said) = broken(kind, spec.clone());
            assert!(!said.is_empty(), "{kind}: {spec}");
            for said in &said {
                assert!(said.starts_with(&format!("{kind} shop/bad: spec")), "{said}");
            }
            let of = |denied: &Denied| match denied {
                Denied::Destination(id) | Denied::Grant(id) | Denied::Callers(id) => {
                    id.as_str() == "shop/bad"
                }
            };
            assert!(denied.iter().all(of), "{kind}: {spec}: {denied:?}");
        }
    }
}

#[test]
fn an_object_without_a_spec_denies_itself_alone() {
    for kind in KINDS {
        let text = json!({
            "apiVersion": "tollgate.dev/v1alpha1", "kind": kind, "metadata": {"namespace": "shop", "name": "bad"},
        });
        let files = [destination("api", "api.example"), grant("web"), SourceFile::object(text.to_string())];
        let Compiled { policy, problems, .. } =
            compile_each(&files, &environment(), &Consents::default()).unwrap();
        assert_eq!(policy.grants().count(), 1);
        assert_eq!(problems.first().unwrap().to_string(), format!("{kind} shop/bad: spec: this is required"));
    }
}

#[test]
fn of_two_objects_that_claim_one_host_the_first_serves_and_the_others_name_it() {
    let files =
        [destination("old", "api.example"), destination("a", "api.example"), destination("b", "api.example")];
    let Compiled { policy, problems, .. } =
        compile_each(&files, &environment(), &Consents::default()).unwrap();
    let in_force: Vec<&str> = policy.destinations().map(|destination| destination.name.as_str()).collect();
    assert_eq!(in_force, ["shop/old"]);
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let message = "spec.hosts[0]: `api.example` port 443 is already Destination/shop/old";
    assert_eq!(said, [format!("Destination shop/a: {message}"), format!("Destination shop/b: {message}")]);
}

#[test]
fn a_relative_path_of_an_object_counts_from_the_root() {
    let spec = json!({"file": {"root": "var/keys"}});
    let Compiled { policy, .. } =
        compile_each(&[object("SecretStore", "egress", "files", spec)], &environment(), &Consents::default())
            .unwrap();
    assert!(format!("{:?}", policy.store("egress/files").unwrap()).contains("\"/var/keys\""));
}

#[test]
fn thousands_of_objects_are_compiled_in_one_pass_also_where_many_are_broken() {
    let mut files = Vec::new();
    for team in 0..200 {
        let namespace = format!("team-{team}");
        let spec = json!({"hosts": [format!("api-{team}.example")], "dialect": "http"});
        files.push(object("Destination", &namespace, "api", spec));
        for app in 0..10 {
            let caller = format!("spiffe://prod.acme/ns/{namespace}/sa/app-{app}");
            // Half of them refer to nothing, and say something unknown besides.
            let spec = match app % 2 {
                0 => json!({"callers": [{"spiffe": caller}], "destination": "api"}),
                _ => json!({"callers": [{"spiffe": caller}], "destination": "apo", "alow": 1}),
            };
            files.push(object("Grant", &namespace, &format!("app-{app}"), spec));
        }
    }
    let begun = Instant::now();
    let Compiled { policy, problems, .. } =
        compile_each(&files, &environment(), &Consents::default()).unwrap();
    let took = begun.elapsed();
    println!("2,000 grants of 200 namespaces, half of them broken: {took:?}");
    assert_eq!((policy.grants().count(), problems.len()), (1000, 2000));
    // A debug build is about ten times as slow.
    let most = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 1 });
    assert!(took < most, "{took:?}");
}

const WORDS: &[&str] =
    &["hosts", "callers", "destination", "from", "store", "inject", "allow", "limits", "spiffe", "x"];

/// JSON of any shape, with the names of real fields among its own.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let names = prop_oneof![prop::sample::select(WORDS).prop_map(str::to_owned), ".{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_spec_whatsoever_keeps_the_rest_from_being_compiled(spec in anything(), kind in 0..4_usize) {
        broken(KINDS[kind], spec);
    }
}
