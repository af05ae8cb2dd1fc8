mod backends;
mod listeners;

use super::*;

const OWN: &str = "gateway.networking.k8s.io/v1";

/// A world of one class, one Gateway `tollgate/egress`, and what is added to it.
struct Fixture {
    classes: Vec<Value>,
    gateways: Vec<Value>,
    routes: Vec<Value>,
    backends: Vec<Value>,
    destinations: Vec<Value>,
    consents: Consents,
    refused: BTreeMap<Id, String>,
    held_hosts: BTreeMap<Id, String>,
    gateway_namespaces: Vec<String>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            classes: vec![json!({
                "apiVersion": OWN, "kind": "GatewayClass", "metadata": {"name": "tollgate", "generation": 1},
                "spec": {"controllerName": CONTROLLER},
            })],
            gateways: vec![gateway(&json!([listener("https")]))],
            routes: vec![by_host("api.openai.com")],
            backends: vec![backend("openai", "api.openai.com")],
            destinations: Vec::new(),
            consents: Consents::default(),
            refused: BTreeMap::new(),
            held_hosts: BTreeMap::new(),
            gateway_namespaces: Vec::new(),
        }
    }

    fn translated(&self) -> Translation {
        let mut consents = self.consents.clone();
        consents.namespaces = BTreeMap::from([
            ("shop".parse().unwrap(), BTreeMap::from([("team".to_owned(), "shop".to_owned())])),
            ("tollgate".parse().unwrap(), BTreeMap::new()),
        ]);
        let place = GatewayPlace {
            listeners: vec![
                OwnListener { name: "https".to_owned(), port: 8443, kind: ListenerKind::Http },
                OwnListener { name: "tunnels".to_owned(), port: 15008, kind: ListenerKind::Hbone },
            ],
            names: vec!["tollgate.tollgate.svc".parse().unwrap()],
            home: "tollgate".to_owned(),
            addresses: vec!["tollgate.tollgate.svc".to_owned()],
            gateway_namespaces: self.gateway_namespaces.clone(),
        };
        let mut world = GatewayWorld::new(&place, &consents);
        for (kind, objects) in [
            (ObjectKind::GatewayClass, &self.classes),
            (ObjectKind::Gateway, &self.gateways),
            (ObjectKind::HttpRoute, &self.routes),
            (ObjectKind::Backend, &self.backends),
            (ObjectKind::Destination, &self.destinations),
        ] {
            for object in objects {
                let found = serde_json::from_value(object.clone()).unwrap();
                let object = ClusterObject::of(kind, found).unwrap();
                world.add(&object, &object.status);
            }
        }
        translated(&world.compiled(self.refused.clone(), self.held_hosts.clone()))
    }

    /// The condition of the only route under its only Gateway.
    fn route(&self, kind: &str) -> (bool, String, String) {
        let translation = self.translated();
        let (_, status) = translation.statuses.iter().find(|it| it.0.kind == ObjectKind::HttpRoute).unwrap();
        condition(&status["parents"][0]["conditions"], kind)
    }
}

fn key(kind: ObjectKind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn condition(conditions: &Value, kind: &str) -> (bool, String, String) {
    let found = conditions.as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (found["status"] == "True", text("reason"), text("message"))
}

fn gateway(listeners: &Value) -> Value {
    json!({
        "apiVersion": OWN, "kind": "Gateway",
        "metadata": {"namespace": "tollgate", "name": "egress", "generation": 2, "creationTimestamp": "2026-10-01T00:00:00Z"},
        "spec": {"gatewayClassName": "tollgate", "listeners": listeners},
    })
}

fn listener(name: &str) -> Value {
    json!({
        "name": name, "port": 443, "protocol": "HTTPS",
        "tls": {"mode": "Terminate", "options": {"tollgate.dev/certificate": "own"}},
        "allowedRoutes": {"namespaces": {"from": "All"}},
    })
}

fn route(hostnames: &Value, rules: &Value) -> Value {
    json!({
        "apiVersion": OWN, "kind": "HTTPRoute",
        "metadata": {"namespace": "shop", "name": "openai", "generation": 5, "creationTimestamp": "2026-10-02T00:00:00Z"},
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "tollgate", "name": "egress"}],
            "hostnames": hostnames, "rules": rules,
        },
    })
}

fn to_backend(name: &str) -> Value {
    json!([{"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": name, "weight": 1}])
}

fn by_host(host: &str) -> Value {
    let matches = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    route(&json!([host]), &json!([{"matches": matches, "backendRefs": to_backend("openai")}]))
}

fn by_path(prefix: &str) -> Value {
    let rewrite = json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}});
    route(
        &json!(["tollgate.tollgate.svc"]),
        &json!([{
            "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
            "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
            "backendRefs": to_backend("openai"),
        }]),
    )
}

fn backend(name: &str, host: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackend",
        "metadata": {"namespace": "shop", "name": name, "generation": 7, "creationTimestamp": "2026-11-01T00:00:00Z"},
        "spec": {
            "type": "ExternalHostname", "externalHostname": {"hostname": host}, "port": {"number": 443},
            "protocol": "HTTP",
            "tls": {"mode": "ServerOnly", "validation": {"hostname": host, "wellKnownCACertificates": "System"}},
        },
    })
}

#[test]
fn a_backend_that_a_route_leads_to_is_a_destination_of_its_namespace_and_name() {
    for written in [
        by_host("api.openai.com"),
        by_host("API.openai.com"),
        by_path("/openai.shop"),
        by_path("/openai.shop/"),
    ] {
        let fixture = Fixture { routes: vec![written.clone()], ..Fixture::new() };
        let translation = fixture.translated();
        let [made] = translation.destinations.as_slice() else {
            panic!("{written}: {:?}", fixture.route("Accepted"))
        };
        assert_eq!((&*made.namespace, &*made.name), ("shop", "openai"));
        assert_eq!(made.created.to_string(), "2026-11-01T00:00:00Z");
        assert_eq!(
            made.resource,
            json!({
                "apiVersion": "tollgate.dev/v1alpha1", "kind": "Destination",
                "metadata": {"namespace": "shop", "name": "openai"},
                "spec": {"hosts": ["api.openai.com"], "port": 443, "http": "auto", "tls": {"verify": "system"}},
            })
        );
        assert!(fixture.route("Accepted").0);
        assert!(fixture.route("ResolvedRefs").0);
    }
    let home = Fixture {
        routes: vec![{
            let mut written = by_path("/openai");
            written["metadata"]["namespace"] = json!("tollgate");
            written
        }],
        backends: vec![{
            let mut written = backend("openai", "api.openai.com");
            written["metadata"]["namespace"] = json!("tollgate");
            written
        }],
        ..Fixture::new()
    };
    assert_eq!(
        home.translated().destinations.len(),
        1,
        "in its own namespace the gateway needs no other word"
    );
}

#[test]
fn every_object_is_told_what_became_of_it() {
    let translation = Fixture::new().translated();
    let status = |kind, namespace: &str, name: &str| &translation.statuses[&key(kind, namespace, name)];
    let class = status(ObjectKind::GatewayClass, "", "tollgate");
    assert_eq!(condition(&class["conditions"], "Accepted").1, "Accepted");
    assert!(class["supportedFeatures"].as_array().unwrap().contains(&json!({"name": "HTTPRoute"})));
    let gateway = status(ObjectKind::Gateway, "tollgate", "egress");
    assert_eq!(
        condition(&gateway["conditions"], "Accepted"),
        (true, "Accepted".into(), "all listeners are served".into())
    );
    assert!(condition(&gateway["conditions"], "Programmed").0);
    assert_eq!(gateway["addresses"], json!([{"type": "Hostname", "value": "tollgate.tollgate.svc"}]));
    assert_eq!(gateway["conditions"][0]["observedGeneration"], 2);
    let listener = &gateway["listeners"][0];
    assert_eq!(listener["attachedRoutes"], 1);
    assert_eq!(
        listener["supportedKinds"],
        json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}])
    );
    for (kind, holds) in
        [("Accepted", true), ("ResolvedRefs", true), ("Programmed", true), ("Conflicted", false)]
    {
        assert_eq!(condition(&listener["conditions"], kind).0, holds, "{kind}");
    }
    let route = &status(ObjectKind::HttpRoute, "shop", "openai")["parents"][0];
    assert_eq!(
        (route["controllerName"].as_str(), route["parentRef"]["name"].as_str()),
        (Some(CONTROLLER), Some("egress"))
    );
    let backend = &status(ObjectKind::Backend, "shop", "openai")["ancestors"][0];
    assert_eq!(backend["ancestorRef"]["kind"], "Gateway");
    assert!(condition(&backend["conditions"], "Accepted").0);
}

#[test]
fn what_belongs_to_another_controller_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.classes[0]["spec"]["controllerName"] = json!("example.com/other");
    let translation = fixture.translated();
    assert!(translation.statuses.is_empty() && translation.destinations.is_empty());
    let mut fixture = Fixture::new();
    let theirs =
        json!({"parentRef": {"name": "other"}, "controllerName": "example.com/other", "conditions": []});
    fixture.routes[0]["status"] = json!({ "parents": [theirs] });
    let translation = fixture.translated();
    let status = &translation.statuses[&key(ObjectKind::HttpRoute, "shop", "openai")];
    assert_eq!(status["parents"][0], theirs);
    assert_eq!(status["parents"].as_array().unwrap().len(), 2);
}

#[test]
fn a_condition_that_does_not_change_keeps_its_time_and_one_that_does_gets_a_new_one() {
    let mut fixture = Fixture::new();
    let old = "2020-01-01T00:00:00Z";
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "x", "message": "", "lastTransitionTime": old});
    fixture.gateways[0]["status"] =
        json!({"conditions": [condition("Accepted", "True"), condition("Programmed", "False")]});
    let translation = fixture.translated();
    let status = &translation.statuses[&key(ObjectKind::Gateway, "tollgate", "egress")];
    assert_eq!(status["conditions"][0]["lastTransitionTime"], old);
    assert_ne!(status["conditions"][1]["lastTransitionTime"], old);
}

#[test]
fn a_route_that_would_say_what_only_a_grant_says_is_refused_and_leads_nowhere() {
    let rule = |rule: Value| route(&json!(["api.openai.com"]), &json!([rule]));
    let refs = || to_backend("openai");
    let cases = [
        (
            rule(json!({"backendRefs": refs(), "matches": [{"path": {"value": "/v1"}}]})),
            "UnsupportedValue",
            "/openai.shop",
        ),
        (
            rule(json!({"backendRefs": refs(), "matches": [{"method": "POST"}]})),
            "UnsupportedValue",
            "said by a Grant",
        ),
        (
            rule(json!({"backendRefs": refs(), "matches": [{"headers": [{"name": "a", "value": "b"}]}]})),
            "UnsupportedValue",
            "Grant",
        ),
        (
            rule(json!({"backendRefs": refs(), "matches": [{"path": {"type": "Exact", "value": "/"}}]})),
            "UnsupportedValue",
            "Grant",
        ),
        (
            rule(json!({"backendRefs": refs(), "timeouts": {"request": "1s"}})),
            "UnsupportedValue",
            "spec.rules[0].timeouts",
        ),
        (rule(json!({"backendRefs": refs(), "retry": {}})), "UnsupportedValue", "spec.rules[0].retry"),
        (
            rule(json!({"backendRefs": refs(), "filters": [{"type": "RequestHeaderModifier"}]})),
            "UnsupportedValue",
            "spec.rules[0].filters",
        ),
        (rule(json!({})), "UnsupportedValue", "one XBackend"),
        (route(&json!([]), &json!([{"backendRefs": refs()}])), "UnsupportedValue", "spec.hostnames"),
        (
            route(&json!(["other.example.com"]), &json!([{"backendRefs": refs()}])),
            "UnsupportedValue",
            "`api.openai.com`",
        ),
        (route(&json!(["api.openai.com"]), &json!([])), "UnsupportedValue", "spec.rules"),
        (by_path("/openai"), "UnsupportedValue", "`/openai.shop`"),
        (by_path("/openai.shop/v1"), "UnsupportedValue", "`/openai.shop`"),
    ];
    for (written, reason, part) in cases {
        let fixture = Fixture { routes: vec![written.clone()], ..Fixture::new() };
        let (holds, said, message) = fixture.route("Accepted");
        assert_eq!((holds, said.as_str()), (false, reason), "{written}");
        assert!(message.contains(part), "{message}: {written}");
        let translation = fixture.translated();
        assert!(translation.destinations.is_empty(), "{written}");
    }
}

#[test]
fn a_backend_that_is_not_known_or_not_the_routes_to_use_is_not_resolved() {
    let to = |reference: Value| route(&json!(["api.openai.com"]), &json!([{"backendRefs": [reference]}]));
    for (reference, reason) in [
        (
            json!({"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "other"}),
            "BackendNotFound",
        ),
        (json!({"name": "openai", "port": 80}), "InvalidKind"),
        (
            json!({"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "openai", "namespace": "tollgate"}),
            "RefNotPermitted",
        ),
    ] {
        let fixture = Fixture { routes: vec![to(reference.clone())], ..Fixture::new() };
        let (holds, said, _) = fixture.route("ResolvedRefs");
        assert_eq!((holds, said.as_str()), (false, reason), "{reference}");
        assert!(fixture.route("Accepted").0, "{reference}");
        assert!(fixture.translated().destinations.is_empty());
    }
}

#[test]
fn a_route_attaches_only_where_a_listener_takes_it() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut listener = listener("https");
        change(&mut listener);
        Fixture { gateways: vec![gateway(&json!([listener]))], ..Fixture::new() }
    };
    let same = with(&|listener| drop(listener.as_object_mut().unwrap().remove("allowedRoutes")));
    let selector = |team: &str| {
        let selector = json!({"matchLabels": {"team": team}});
        with(&|listener| {
            listener["allowedRoutes"]["namespaces"] = json!({"from": "Selector", "selector": selector});
        })
    };
    assert_eq!(same.route("Accepted").1, "NotAllowedByListeners");
    assert!(selector("shop").route("Accepted").0);
    assert_eq!(selector("web").route("Accepted").1, "NotAllowedByListeners");
    let host = |host: &str| with(&|listener| listener["hostname"] = json!(host));
    assert!(host("*.openai.com").route("Accepted").0 && host("api.openai.com").route("Accepted").0);
    assert_eq!(host("*.anthropic.com").route("Accepted").1, "NoMatchingListenerHostname");
    let mut fixture = Fixture::new();
    fixture.routes[0]["spec"]["parentRefs"][0]["sectionName"] = json!("other");
    assert_eq!(fixture.route("Accepted").1, "NoMatchingParent");
    assert!(fixture.translated().destinations.is_empty());
}

#[test]
fn a_status_that_stands_there_is_known_beside_the_conditions_of_others() {
    let ours = json!({"type": "Accepted", "status": "True"});
    let wanted =
        json!({"conditions": [ours], "listeners": [{"name": "a", "attachedRoutes": 1}], "addresses": []});
    let mut there = wanted.clone();
    there["conditions"].as_array_mut().unwrap().insert(0, json!({"type": "Ready", "status": "True"}));
    there.as_object_mut().unwrap().remove("addresses");
    there["attachedListenerSets"] = json!(0);
    assert!(stands(&wanted, &there));
    there["listeners"][0]["attachedRoutes"] = json!(2);
    assert!(!stands(&wanted, &there));
    there["listeners"] = json!([wanted["listeners"][0], {"name": "gone"}]);
    assert!(!stands(&wanted, &there));
    assert!(!stands(&wanted, &Value::Null));
}
