//! What an app's namespace may not reach, one test for each way to try.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/read.rs"]
mod read;

use cluster::{GATEWAY, compile, decide, resource};
use serde_json::{Value, json};
use tollgate_policy::denial::Reason;

/// What is said of each resource besides those that are right: `Kind/namespace/name: field`.
fn problems(resources: &[Value]) -> Vec<String> {
    let base = [
        resource(
            "Destination",
            (GATEWAY, "d"),
            &json!({"hosts": ["tollgate.example"], "allowedNamespaces": "All"}),
        ),
        resource(
            "SecretStore",
            (GATEWAY, "s"),
            &json!({"file": {"root": "/run/a"}, "allowedNamespaces": "All", "allowedPaths": ["teams/{namespace}"]}),
        ),
    ];
    let all: Vec<Value> = base.iter().chain(resources).cloned().collect();
    compile(&all, &[]).problems.into_iter().map(|problem| problem.field).collect()
}

/// Stealing keys by reference: another team's path, a store at an address of the thief's with the gateway's own login, a file of the
/// gateway's, a token endpoint that has not agreed.
#[test]
fn an_app_reads_no_key_by_a_reference_of_its_own() {
    let credential = |from: Value, more: Value| {
        let mut spec = json!({"destinations": ["tollgate/d"], "from": from, "inject": {"bearer": {}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource("Credential", ("shop", "k"), &spec)
    };
    let own = json!({"store": "tollgate/s", "path": "teams/shop/k"});
    assert_eq!(problems(&[credential(own.clone(), json!({}))]), [""; 0]);
    for path in
        ["teams/web/k", "teams/shop-two/k", "teams", "k", "teams/shop/../web/k", "/run/a/teams/shop/k"]
    {
        let said = problems(&[credential(json!({"store": "tollgate/s", "path": path}), json!({}))]);
        assert!(said.contains(&"Credential/shop/k: spec.from.path".to_owned()), "{path}: {said:?}");
    }
    let files = json!({"certFile": "/run/svid.pem", "keyFile": "/run/svid.key"});
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    for auth in [
        json!({"token": {"file": token}}),
        json!({"kubernetes": {"role": "r"}}),
        json!({"jwt": {"role": "r", "tokenFile": token}}),
        json!({"appRole": {"roleIdFile": "a", "secretIdFile": "b"}}),
        json!({"certificate": files}),
    ] {
        let store = json!({"vault": {"address": "https://thief.example", "auth": auth}});
        let said = problems(&[resource("SecretStore", ("shop", "s"), &store)]);
        assert_eq!(said, ["SecretStore/shop/s: spec.vault"], "{auth}");
    }
    for store in [
        json!({"file": {"root": "/"}}),
        json!({"age": {"file": "a", "identityFile": "b"}}),
        json!({"env": {"prefix": "KEY_"}}),
        json!({"aws": {"region": "eu-central-1", "endpoint": "https://thief.example"}}),
    ] {
        let kind = store.as_object().unwrap().keys().next().unwrap();
        let said = problems(&[resource("SecretStore", ("shop", "s"), &store)]);
        assert_eq!(said, [format!("SecretStore/shop/s: spec.{kind}")]);
    }
    let mint = json!({"mint": {"endpoint": {"destination": "web/idp", "path": "/token"}, "clientCredentials": {"clientId": "a"}}});
    let idp = resource("Destination", ("web", "idp"), &json!({"hosts": ["idp.example"]}));
    let said = problems(&[credential(own, mint), idp]);
    assert_eq!(said, ["Credential/shop/k: spec.mint.endpoint.destination"]);
}

/// A grant of a namespace names a literal local trust domain and its own namespace, and one that does not still denies its own callers.
#[test]
fn a_grant_of_an_app_is_for_its_own_namespace_in_the_local_trust_domain() {
    let grant = |caller: Value| {
        resource("Grant", ("shop", "g"), &json!({"callers": [caller], "destination": "tollgate/d"}))
    };
    for own in [
        "spiffe://prod.acme/ns/shop/sa/a",
        "spiffe://prod.acme/ns/shop/sa/*",
        "spiffe://prod.acme/ns/shop/sa/**",
    ] {
        assert_eq!(problems(&[grant(json!({"spiffe": own}))]), [""; 0], "{own}");
    }
    for other in [
        "spiffe://prod.acme/**",
        "spiffe://prod.acme/ns/**",
        "spiffe://prod.acme/ns/*/sa/a",
        "spiffe://prod.acme/*/shop/sa/a",
        "spiffe://prod.acme/ns/shop/**",
        "spiffe://prod.acme/ns/shop/*/a",
        "spiffe://prod.acme/ns/shop",
        "spiffe://prod.acme/ns/shop/sa",
        "spiffe://prod.acme/ns/shop-two/sa/a",
        "spiffe://prod.acme/ns/web/sa/a",
        "spiffe://prod.acme/shop",
    ] {
        let resources = [grant(json!({"spiffe": other}))];
        assert_eq!(problems(&resources), ["Grant/shop/g: spec.callers[0].spiffe"], "{other}");
        let broad = json!({"callers": [{"spiffe": "spiffe://prod.acme/**"}], "destination": "d"});
        let [mine] = resources;
        let destination = json!({"hosts": ["tollgate.example"], "allowedNamespaces": "All"});
        let all = [
            resource("Destination", (GATEWAY, "d"), &destination),
            resource("Grant", (GATEWAY, "all"), &broad),
            mine,
        ];
        let policy = compile(&all, &[]).policy;
        let asked = |caller| decide(&policy, (caller, "tollgate.example", "/a", "GET"));
        assert_eq!(asked("spiffe://prod.acme/ns/shop/sa/a"), Err(Reason::BrokenConfiguration), "{other}");
        assert_eq!(asked("spiffe://prod.acme/ns/web/sa/a"), Ok("tollgate/all".to_owned()), "{other}");
    }
}

/// Whether two that do not agree are told apart by one who refers to them: neither the words nor what is denied tell.
#[test]
fn what_has_not_agreed_and_what_is_not_there_are_told_alike() {
    let closed = [
        resource("Destination", ("web", "d"), &json!({"hosts": ["web.example"]})),
        resource(
            "Credential",
            ("web", "k"),
            &json!({"destinations": ["d"], "from": {"store": "tollgate/s", "path": "teams/web/k"}, "inject": {"bearer": {}}}),
        ),
    ];
    let grant = |spec: Value| resource("Grant", ("shop", "g"), &spec);
    let callers = json!([{"spiffe": "spiffe://prod.acme/ns/shop/sa/a"}]);
    let allow = json!({"methods": ["GET"], "paths": ["/a"]});
    for spec in [
        json!({"callers": callers, "destination": "web/d"}),
        json!({"callers": callers, "destination": "tollgate/d", "credential": "web/k", "allow": allow}),
        json!({"callers": callers, "destination": "web/d", "credential": "web/k", "allow": allow}),
    ] {
        let said = |more: &[Value]| {
            let base = resource(
                "Destination",
                (GATEWAY, "d"),
                &json!({"hosts": ["tollgate.example"], "allowedNamespaces": "All"}),
            );
            let store =
                json!({"file": {"root": "/run/a"}, "allowedNamespaces": "All", "allowedPaths": ["teams"]});
            let all =
                [&[base, resource("SecretStore", (GATEWAY, "s"), &store)], more, &[grant(spec.clone())]]
                    .concat();
            let compiled = compile(&all, &[]);
            let denied: Vec<String> = compiled.denied.iter().map(ToString::to_string).collect();
            let said: Vec<String> =
                compiled.problems.into_iter().map(|problem| problem.field + &problem.message).collect();
            (said, denied)
        };
        let (there, gone) = (said(&closed), said(&[]));
        assert!(!there.0.is_empty());
        assert_eq!(there, gone, "{spec}");
    }
}
