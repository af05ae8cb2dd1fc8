use super::*;

#[test]
fn a_listener_that_is_not_one_of_this_gateway_is_not_served() {
    let told = |change: &dyn Fn(&mut Value)| {
        let mut listener = listener("https");
        change(&mut listener);
        let fixture = Fixture { gateways: vec![gateway(&json!([listener]))], ..Fixture::new() };
        let translation = fixture.translated();
        let status = translation.statuses[&key(ObjectKind::Gateway, "tollgate", "egress")].clone();
        assert_eq!(condition(&status["conditions"], "Accepted").1, "ListenersNotValid");
        assert!(!condition(&status["conditions"], "Programmed").0);
        assert_eq!(status["addresses"], json!([]));
        status["listeners"][0]["conditions"].clone()
    };
    let port = told(&|listener| listener["name"] = json!("other"));
    assert_eq!(condition(&port, "Accepted").1, "PortUnavailable");
    let protocol = told(&|listener| listener["protocol"] = json!("TCP"));
    assert_eq!(condition(&protocol, "Accepted").1, "UnsupportedProtocol");
    let kind = told(&|listener| listener["allowedRoutes"]["kinds"] = json!([{"kind": "TCPRoute"}]));
    assert_eq!(condition(&kind, "ResolvedRefs").1, "InvalidRouteKinds");
    let certificate = told(&|listener| listener["tls"] = json!({"certificateRefs": [{"name": "secret"}]}));
    assert_eq!(condition(&certificate, "ResolvedRefs").1, "InvalidCertificateRef");
    assert!(!condition(&certificate, "Programmed").0);
}

#[test]
fn a_listener_for_tunnels_of_a_mesh_is_one_of_this_gateways_and_says_where_it_is() {
    let told = |listener: Value| {
        let fixture = Fixture { gateways: vec![gateway(&json!([listener]))], ..Fixture::new() };
        let route = fixture.route("Accepted");
        let translation = fixture.translated();
        (translation.statuses[&key(ObjectKind::Gateway, "tollgate", "egress")].clone(), route)
    };
    let (status, route) = told(json!({"name": "mesh", "port": 15008, "protocol": "HBONE"}));
    assert!(condition(&status["listeners"][0]["conditions"], "Programmed").0, "{status}");
    assert_eq!(status["listeners"][0]["supportedKinds"], json!([]));
    assert_eq!(status["addresses"], json!([{"type": "Hostname", "value": "tollgate.tollgate.svc"}]));
    assert_eq!((route.0, &*route.1), (false, "NotAllowedByListeners"));
    // A listener for requests takes no tunnels, and one for tunnels no requests.
    for (port, protocol) in [(8443, "HBONE"), (15008, "HTTPS")] {
        let (status, _) = told(json!({"name": "mesh", "port": port, "protocol": protocol}));
        let (holds, reason, message) = condition(&status["listeners"][0]["conditions"], "Accepted");
        assert_eq!((holds, &*reason), (false, "PortUnavailable"), "{message}");
        assert_eq!(status["addresses"], json!([]));
    }
}

#[test]
fn listeners_that_contradict_each_other_are_both_told_so() {
    let (one, mut other) = (listener("https"), listener("other"));
    let fixture = |other: &Value| Fixture { gateways: vec![gateway(&json!([one, other]))], ..Fixture::new() };
    let conflict = |fixture: &Fixture| {
        let translation = fixture.translated();
        let status = &translation.statuses[&key(ObjectKind::Gateway, "tollgate", "egress")];
        condition(&status["listeners"][0]["conditions"], "Conflicted")
    };
    assert_eq!(conflict(&fixture(&other)).1, "HostnameConflict");
    other["hostname"] = json!("api.openai.com");
    assert_eq!(conflict(&fixture(&other)).1, "NoConflicts");
    other["protocol"] = json!("TLS");
    assert_eq!(conflict(&fixture(&other)).1, "ProtocolConflict");
}

#[test]
fn a_gateway_that_wants_what_is_not_there_is_refused_whole() {
    for (field, value, reason) in [
        ("addresses", json!([{"type": "IPAddress", "value": "192.0.2.1"}]), "UnsupportedAddress"),
        ("tls", json!({"frontend": {}}), "Invalid"),
        ("infrastructure", json!({"parametersRef": {"name": "x"}}), "InvalidParameters"),
    ] {
        let mut fixture = Fixture::new();
        fixture.gateways[0]["spec"][field] = value;
        let translation = fixture.translated();
        let status = &translation.statuses[&key(ObjectKind::Gateway, "tollgate", "egress")];
        assert_eq!(condition(&status["conditions"], "Accepted").1, reason);
        assert!(translation.destinations.is_empty(), "{field}");
        assert!(!fixture.route("Accepted").0, "{field}");
    }
}

#[test]
fn a_certificate_of_another_namespace_needs_its_reference_grant() {
    let mut listener = listener("https");
    listener["tls"] = json!({"certificateRefs": [{"namespace": "shop", "name": "secret"}]});
    let mut fixture = Fixture { gateways: vec![gateway(&json!([listener]))], ..Fixture::new() };
    let resolved = |fixture: &Fixture| {
        let translation = fixture.translated();
        let status = &translation.statuses[&key(ObjectKind::Gateway, "tollgate", "egress")];
        condition(&status["listeners"][0]["conditions"], "ResolvedRefs").1
    };
    assert_eq!(resolved(&fixture), "RefNotPermitted");
    let mut permit = |kind: &str, name: &str| {
        let written = json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": {"namespace": "shop"},
            "spec": {
                "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": "tollgate"}],
                "to": [{"group": "", "kind": "Secret", "name": name}],
            },
        });
        fixture.consents.reference_grants =
            vec![tollgate_policy::consent::ReferenceGrant::read(&written).unwrap()];
        resolved(&fixture)
    };
    assert_eq!(permit("HTTPRoute", "secret"), "RefNotPermitted");
    assert_eq!(permit("Gateway", "other"), "RefNotPermitted");
    assert_eq!(permit("Gateway", "secret"), "InvalidCertificateRef");
}
