use super::*;

#[test]
fn a_backend_that_cannot_be_had_as_it_is_written_is_refused() {
    let told = |change: &dyn Fn(&mut Value)| {
        let mut fixture = Fixture::new();
        change(&mut fixture.backends[0]);
        let translation = fixture.translated();
        assert!(translation.destinations.is_empty());
        let status = &translation.statuses[&key(ObjectKind::Backend, "shop", "openai")];
        let list = if status.get("parents").is_some() { "parents" } else { "ancestors" };
        condition(&status[list][0]["conditions"], "Accepted")
    };
    let spec = |pointer: &'static str, value: Value| {
        told(&move |object| match object.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => panic!("{pointer}"),
        })
    };
    assert_eq!(spec("/spec/protocol", json!("TCP")).1, "UnsupportedValue");
    assert_eq!(spec("/spec/tls/mode", json!("None")).1, "UnsupportedValue");
    assert_eq!(spec("/spec/tls/validation/hostname", json!("other.example.com")).1, "UnsupportedValue");
    assert_eq!(
        spec("/spec/tls/validation/wellKnownCACertificates", Value::Null).1,
        "InvalidCACertificateRef"
    );
    let unknown = told(&|object| object["spec"]["sessionPersistence"] = json!({}));
    assert!(unknown.2.contains("spec.sessionPersistence"), "{}", unknown.2);
    let secret = told(&|object| object["spec"]["tls"]["clientCertificateRef"] = json!({"name": "x"}));
    assert_eq!(secret.1, "InvalidClientCertificateRef");
    let mut taken = Fixture::new();
    taken.destinations.push(json!({"metadata": {"namespace": "shop", "name": "openai"}, "spec": {}}));
    assert!(taken.translated().destinations.is_empty());
}

#[test]
fn the_form_of_1_6_is_taken_too() {
    let mut fixture = Fixture::new();
    fixture.backends[0]["spec"]["port"] = json!({"port": 8443, "name": "https"});
    fixture.backends[0]["status"] = json!({"parents": []});
    let translation = fixture.translated();
    assert_eq!(translation.destinations[0].resource["spec"]["port"], 8443);
    let status = &translation.statuses[&key(ObjectKind::Backend, "shop", "openai")];
    assert_eq!(status["parents"][0]["parentRef"]["name"], "egress");
}

#[test]
fn what_compiling_found_wrong_is_told_at_the_backend_and_its_route() {
    let mut fixture = Fixture::new();
    fixture.refused.insert(("shop".into(), "openai".into()), "spec.hosts[0]: it is another's".to_owned());
    let translation = fixture.translated();
    let status = &translation.statuses[&key(ObjectKind::Backend, "shop", "openai")];
    let (holds, reason, message) = condition(&status["ancestors"][0]["conditions"], "Accepted");
    assert_eq!(
        (holds, reason.as_str(), message.as_str()),
        (false, "Invalid", "spec.hosts[0]: it is another's")
    );
    let (holds, reason, message) = fixture.route("ResolvedRefs");
    assert_eq!((holds, reason.as_str()), (false, "BackendNotAccepted"));
    assert!(message.contains("`openai`") && message.contains("another's"), "{message}");
    assert_eq!(refusal(status), Some("spec.hosts[0]: it is another's"));
}

#[test]
fn a_backend_that_no_route_leads_to_any_more_loses_what_was_said_of_it() {
    let mut fixture = Fixture::new();
    let told = fixture.translated().statuses[&key(ObjectKind::Backend, "shop", "openai")].clone();
    fixture.routes.clear();
    assert!(!fixture.translated().statuses.contains_key(&key(ObjectKind::Backend, "shop", "openai")));
    let other = json!({"controllerName": "example.com/other", "ancestorRef": {"name": "x"}});
    fixture.backends[0]["status"] = told;
    fixture.backends[0]["status"]["ancestors"].as_array_mut().unwrap().push(other.clone());
    let translation = fixture.translated();
    assert!(translation.destinations.is_empty());
    assert_eq!(
        translation.statuses[&key(ObjectKind::Backend, "shop", "openai")],
        json!({"ancestors": [other]})
    );
}

#[test]
fn a_name_that_no_destination_can_have_is_refused() {
    let mut fixture = Fixture::new();
    fixture.backends[0]["metadata"]["name"] = json!("open.ai");
    fixture.routes[0]["spec"]["rules"][0]["backendRefs"][0]["name"] = json!("open.ai");
    let translation = fixture.translated();
    assert!(translation.destinations.is_empty());
    let status = &translation.statuses[&key(ObjectKind::Backend, "shop", "open.ai")];
    let (holds, reason, message) = condition(&status["ancestors"][0]["conditions"], "Accepted");
    assert!(!holds && reason == "Invalid" && message.contains("metadata.name"), "{message}");
}

#[test]
fn a_backend_says_its_dialect_by_an_annotation_and_another_annotation_says_nothing() {
    let mut fixture = Fixture::new();
    fixture.backends[0]["metadata"]["annotations"] = json!({"tollgate.dev/dialect": "openai", "note": "x"});
    assert_eq!(fixture.translated().destinations[0].resource["spec"]["dialect"], "openai");
    fixture.backends[0]["metadata"]["annotations"] = json!({"note": "x"});
    assert!(fixture.translated().destinations[0].resource["spec"].get("dialect").is_none());
}

/// What is withheld of the only backend.
fn held(fixture: &Fixture) -> Value {
    let translation = fixture.translated();
    assert!(translation.destinations.is_empty());
    let [held] = translation.withheld.as_slice() else { panic!("{:?}", translation.withheld) };
    assert_eq!((&*held.namespace, &*held.name), ("shop", "openai"));
    held.resource.clone()
}

#[test]
fn a_backend_that_cannot_be_had_is_withheld_with_its_host_and_yields_only_where_no_route_leads_to_it() {
    let mut refused = Fixture::new();
    refused.backends[0]["spec"]["sessionPersistence"] = json!({});
    let found = held(&refused);
    assert_eq!(found["spec"], json!({"hosts": ["api.openai.com"], "port": 443}));
    assert!(found["withheld"]["because"].as_str().unwrap().contains("spec.sessionPersistence"));
    assert!(found["withheld"].get("yields").is_none());

    let mut unreadable = Fixture::new();
    unreadable.backends[0]["spec"]["port"] = json!("https");
    assert_eq!(held(&unreadable)["spec"]["hosts"], json!(["api.openai.com"]));

    // Of these not even the host is known.
    let mut large = Fixture::new();
    large.backends[0]["spec"]["note"] = json!("x".repeat(300_000));
    let mut deep = Fixture::new();
    deep.backends[0]["spec"]["note"] = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
    for (fixture, why) in [(large, "and is not read"), (deep, "recursion limit exceeded")] {
        let found = held(&fixture);
        assert!(found.get("spec").is_none(), "{found}");
        assert!(found["unreadable"].as_str().unwrap().contains(why), "{found}");
    }

    let mut typo = Fixture::new();
    typo.routes[0]["spec"]["rules"][0]["timeouts"] = json!({"request": "1s"});
    let mut detached = Fixture::new();
    detached.gateways[0]["spec"]["listeners"][0]["allowedRoutes"] = json!({});
    let mut gone = Fixture::new();
    gone.routes.clear();
    for fixture in [typo, detached, gone] {
        let found = held(&fixture);
        let because = json!({"because": "no accepted route leads to it", "yields": true});
        assert_eq!((&found["withheld"], &found["spec"]["hosts"]), (&because, &json!(["api.openai.com"])));
    }

    let mut taken = Fixture::new();
    taken.destinations.push(json!({"metadata": {"namespace": "shop", "name": "openai"}, "spec": {}}));
    assert!(taken.translated().withheld.is_empty(), "a Destination of its name is there");
}

#[test]
fn a_gateway_of_another_namespace_is_served_only_if_the_settings_name_it() {
    let mut fixture = Fixture::new();
    fixture.gateways[0]["metadata"]["namespace"] = json!("shop");
    fixture.routes[0]["spec"]["parentRefs"][0]["namespace"] = json!("shop");
    assert_eq!(fixture.route("Accepted").1, "NoMatchingParent");
    held(&fixture);
    let translation = fixture.translated();
    let status = &translation.statuses[&key(ObjectKind::Gateway, "shop", "egress")];
    let (holds, reason, message) = condition(&status["conditions"], "Accepted");
    assert_eq!((holds, reason.as_str()), (false, "NamespaceNotServed"));
    assert!(message.contains("gatewayNamespaces"), "{message}");
    fixture.gateway_namespaces = vec!["shop".to_owned()];
    assert!(fixture.route("Accepted").0);
    assert_eq!(fixture.translated().destinations.len(), 1);
}

#[test]
fn a_backend_claims_its_host_since_the_youngest_of_what_leads_to_it() {
    let since = |change: &dyn Fn(&mut Fixture)| {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        fixture.translated().destinations[0].created.to_string()
    };
    let late = "2026-12-01T00:00:00Z";
    assert_eq!(since(&|_| {}), "2026-11-01T00:00:00Z");
    assert_eq!(since(&|it| it.routes[0]["metadata"]["creationTimestamp"] = json!(late)), late);
    assert_eq!(since(&|it| it.gateways[0]["metadata"]["creationTimestamp"] = json!(late)), late);
}

fn told_hosts(status: &Value) -> Vec<String> {
    super::super::super::claim::held_hosts(ObjectKind::Backend, status)
}

#[test]
fn the_host_that_a_backend_has_is_told_in_a_condition_and_read_from_it() {
    let mut fixture = Fixture::new();
    let of = |fixture: &Fixture| {
        let translation = fixture.translated();
        let has = translation.destinations[0].resource.get("heldHosts").cloned();
        (translation.statuses[&key(ObjectKind::Backend, "shop", "openai")].clone(), has)
    };
    let (status, has) = of(&fixture);
    assert!(told_hosts(&status).is_empty() && has.is_none());
    fixture.held_hosts.insert(("shop".into(), "openai".into()), "api.openai.com".to_owned());
    let (told, _) = of(&fixture);
    assert_eq!(told_hosts(&told), ["api.openai.com"]);
    assert!(!stands(&told, &status) && !stands(&status, &told));
    fixture.backends[0]["status"] = told.clone();
    let (again, has) = of(&fixture);
    assert_eq!((stands(&again, &told), has), (true, Some(json!(["api.openai.com"]))));
    // While no route leads to it, also where its Gateway is gone, this stays where it is read from.
    let unrouted: [fn(&mut Fixture); 2] = [|it| it.routes.clear(), |it| it.gateways.clear()];
    for lose in unrouted {
        lose(&mut fixture);
        let translation = fixture.translated();
        assert_eq!(translation.withheld[0].resource["heldHosts"], json!(["api.openai.com"]));
        let status = &translation.statuses[&key(ObjectKind::Backend, "shop", "openai")];
        assert_eq!(told_hosts(status), ["api.openai.com"]);
    }
    fixture.held_hosts.clear();
    let given_up = &fixture.translated().statuses[&key(ObjectKind::Backend, "shop", "openai")];
    assert!(told_hosts(given_up).is_empty());
    // What another controller says of it counts for nothing.
    let foreign = told.to_string().replace(CONTROLLER, "example.com/other");
    assert!(told_hosts(&serde_json::from_str(&foreign).unwrap()).is_empty());
}
