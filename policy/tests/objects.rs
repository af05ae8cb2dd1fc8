//! Objects of a cluster: each stands for itself, whatever is wrong with it.

#![expect(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "all of this is a test")]

use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_policy::compile::{Compiled, Denied, Environment, HomeCluster, compile_each};
use tollgate_policy::consent::Consents;
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;

const KINDS: [&str; 5] = ["Destination", "SecretStore", "Credential", "Grant", "Budget"];

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
                Denied::Destination(id) | Denied::Grant(id) | Denied::Callers(id) | Denied::Budget(id) => {
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

/// An object whose spec is this text.
fn written(kind: &str, spec: &str) -> SourceFile {
    let head = r#""apiVersion":"tollgate.dev/v1alpha1","metadata":{"namespace":"shop","name":"bad"}"#;
    SourceFile::object(format!(r#"{{{head},"kind":"{kind}","spec":{spec}}}"#))
}

/// What is said of such an object beside others, which are in force.
fn said_of(kind: &str, spec: &str) -> Vec<String> {
    let files = [destination("api", "api.example"), grant("web"), written(kind, spec)];
    let Compiled { policy, problems, .. } =
        compile_each(&files, &environment(), &Consents::default()).unwrap();
    assert!(policy.grants().any(|grant| grant.name.as_str() == "shop/web" && !grant.is_broken));
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_object_that_is_nested_without_end_denies_itself_alone() {
    for kind in KINDS {
        for depth in [100, 126, 127, 128, 130, 5_000] {
            let spec = format!(r#"{{"from":{}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
            let said = said_of(kind, &spec);
            assert!(said.iter().all(|said| said.starts_with(&format!("{kind} shop/bad: spec"))), "{said:?}");
            if depth > 126 {
                let deep = "spec: this is nested more than a hundred levels deep";
                assert!(said.iter().any(|said| said.contains(deep)), "{depth}: {said:?}");
            }
        }
    }
}

#[test]
fn an_object_that_was_not_read_is_told_of_in_one_line_and_may_have_said_anything() {
    for kind in KINDS {
        let head = json!({"namespace": "shop", "name": "bad"});
        let unread = json!({
            "apiVersion": "tollgate.dev/v1alpha1", "kind": kind, "metadata": head, "unreadable": "this has 300 KiB",
        });
        // The gateway's wildcard is what would take over.
        let files = [
            destination("api", "api.example"),
            grant("web"),
            object("Destination", "egress", "any", json!({"hosts": ["*.up.example"], "dialect": "http"})),
            SourceFile::object(unread.to_string()),
        ];
        let Compiled { policy, problems, .. } =
            compile_each(&files, &environment(), &Consents::default()).unwrap();
        assert_eq!(policy.grants().count(), 1, "{kind}");
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, [format!("{kind} shop/bad: spec: this has 300 KiB")]);
    }
}

#[test]
fn an_object_that_is_wrong_in_very_many_ways_or_with_very_long_names_is_soon_refused() {
    let begun = Instant::now();
    let many: Vec<String> = (0..50_000).map(|field| format!(r#""a{field}":{{}}"#)).collect();
    for spec in [format!("{{{}}}", many.join(",")), format!(r#"{{"from":{{{}}}}}"#, many.join(","))] {
        for kind in KINDS {
            let said = said_of(kind, &spec);
            assert!(said.len() < 70, "{kind}: {}", said.len());
            if spec.starts_with(r#"{"a0"#) {
                assert!(
                    said.iter().any(|said| said.contains("only the first 64 faults are told")),
                    "{said:?}"
                );
            }
        }
    }
    let (long, list) = ("x".repeat(600_000), "0,".repeat(300_000));
    let said = said_of("Credential", &format!(r#"{{"from":{{"{long}":[{list}0]}}}}"#));
    assert!(!said.is_empty() && said.iter().all(|said| said.len() < 5_000));
    // A debug build takes about a second for what took longer than anybody waits.
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
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
fn an_app_is_not_told_what_another_namespace_has() {
    let spiffe = "spiffe://prod.acme/ns/shop/sa/web";
    let api = json!({"hosts": ["api.example"], "dialect": "http", "allowedNamespaces": "All"});
    let ties = json!({"callers": [{"spiffe": spiffe}], "destination": "egress/api"});
    let files = [
        object("Destination", "egress", "api", api),
        object("Grant", "egress", "hidden-grant", ties.clone()),
        object("Grant", "shop", "web", ties),
        object("Destination", "shop", "same", json!({"hosts": ["api.example"], "dialect": "http"})),
    ];
    let Compiled { problems, .. } = compile_each(&files, &environment(), &Consents::default()).unwrap();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let of =
        |named: &str| said.iter().find(|said| said.starts_with(named)).unwrap_or_else(|| panic!("{said:?}"));
    assert!(of("Grant shop/web: spec.callers").contains("ties with a grant of another namespace:"));
    assert!(of("Destination shop/same: spec.hosts[0]").contains("belongs to the namespace `egress`"));
    assert!(said.iter().all(|said| !said.contains("hidden-grant")), "{said:?}");
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

#[test]
fn what_an_app_mints_of_a_secret_that_it_was_shown_breaks_no_other_credential() {
    let shown = json!({"file": {"root": "/run/keys"}, "allowedNamespaces": "All", "allowedPaths": ["llm"]});
    let from = json!({"store": "egress/keys", "path": "llm/openai", "field": "key"});
    let own = json!({"destinations": ["api"], "from": {"store": "keys", "path": "llm/openai", "field": "key"}, "inject": {"bearer": {}}});
    let minted = json!({
        "destinations": ["idp"], "from": from, "inject": {"bearer": {}},
        "mint": {"endpoint": {"destination": "idp", "path": "/token"}, "clientCredentials": {"clientId": "a"}},
    });
    let other = json!({"destinations": ["idp"], "from": from, "inject": {"bearer": {}}});
    let files = [
        object("SecretStore", "egress", "keys", shown),
        object("Destination", "egress", "api", json!({"hosts": ["api.example"], "dialect": "http"})),
        object("Destination", "shop", "idp", json!({"hosts": ["idp.shop.example"], "dialect": "http"})),
        object("Destination", "web", "idp", json!({"hosts": ["idp.web.example"], "dialect": "http"})),
        object("Credential", "shop", "minted", minted.clone()),
        object("Credential", "egress", "openai", own.clone()),
        object("Credential", "web", "plain", other),
    ];
    let problems = |files: &[SourceFile]| {
        let compiled = compile_each(files, &environment(), &Consents::default()).unwrap();
        compiled.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(problems(&files), Vec::<String>::new());

    // What the store's owners mint of it binds everybody who is shown it.
    let mut bound = files.to_vec();
    bound[5] = object("Credential", "egress", "openai", {
        let mut owners = minted;
        owners["destinations"] = json!(["api"]);
        owners["from"] = own["from"].clone();
        owners["mint"]["endpoint"]["destination"] = json!("api");
        owners
    });
    let said = problems(&bound);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said.iter().all(|problem| problem.contains("a Credential of another namespace binds this secret")),
        "{said:?}"
    );
}

#[test]
fn grants_with_long_lists_are_compared_by_their_lists_and_not_by_every_call() {
    let many = |kind: &str| (0..3000).map(|at| format!("{kind}{at}")).collect::<Vec<_>>();
    let letters = |number: &str| number.bytes().map(|digit| char::from(digit + 17)).collect::<String>();
    let methods: Vec<String> = many("").iter().map(|number| letters(number)).collect();
    let allowed = |last: &str| {
        let mut paths = many("/v1/");
        paths.push(last.to_owned());
        json!({
            "callers": [{"spiffe": "spiffe://prod.acme/ns/shop/sa/web"}], "destination": "api",
            "allow": {"methods": methods, "paths": paths},
        })
    };
    let other = |last: &str| {
        let paths = [last, "/v2"];
        json!({
            "callers": [{"spiffe": "spiffe://prod.acme/ns/shop/sa/web"}], "destination": "api",
            "allow": {"methods": [letters("2999")], "paths": paths},
        })
    };
    let ties = |last: &str| {
        let files = [
            destination("api", "api.example"),
            object("Grant", "shop", "large", allowed("/v3")),
            object("Grant", "shop", "small", other(last)),
        ];
        let compiled = compile_each(&files, &environment(), &Consents::default()).unwrap();
        compiled.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ties("/v4"), Vec::<String>::new());
    let said = ties("/v3");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("ties with Grant/shop/large") && said[0].contains("CJJJ /v3"), "{said:?}");
}
