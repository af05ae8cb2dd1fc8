//! Who may speak: every certificate that must not be accepted, and what happens when one stops being valid.

use std::fs;
use std::time::Duration;

use http::Method;
use rustls::HandshakeKind;
use tollgate_tests::client::Connection;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::report::report;
use tollgate_tests::{Authority, Fixture, Identity, Leaf, Plan, Protocol, Reply};

async fn fixture() -> Fixture {
    Plan::new().start(|_| Reply::status(200).data("fine")).await
}

fn refused(fixture: &Fixture, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    fixture.gateway.metrics().sum("tollgate_tls_handshakes_refused_total", &[&label])
}

/// The handshake ends in an alert, is counted under `reason`, and leaves no record.
async fn assert_turned_away(fixture: &Fixture, identity: Option<Identity>, reason: &str) {
    let before = refused(fixture, reason);
    let alert = fixture.stranger(identity).refusal().await;
    assert!(alert.contains("alert") && !alert.contains("answered"), "{reason}: {alert}");
    // It is counted once the alert is sent.
    eventually(reason, || refused(fixture, reason) > before).await;
    assert_eq!(refused(fixture, reason), before + 1.0, "{reason}: {alert}");
    assert_eq!(fixture.upstream.count(), 0);
    assert!(report(&fixture.gateway, "caller").is_empty(), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_svid_speaks_and_nobody_else() {
    let fixture = fixture().await;
    let sandbox = &fixture.sandbox;
    let other = Authority::new(sandbox, "other");
    let issue = |ca: &Authority, leaf: Leaf| Some(ca.issue(sandbox, "stranger", &leaf));
    assert_turned_away(&fixture, None, "no_certificate").await;
    assert_turned_away(&fixture, issue(&other, Leaf::svid(CHECKOUT)), "unknown_issuer").await;
    let expired = Leaf { begins_in: -7200, ends_in: -3600, ..Leaf::svid(CHECKOUT) };
    assert_turned_away(&fixture, issue(&fixture.prod, expired), "expired").await;
    let early = Leaf { begins_in: 3600, ends_in: 7200, ..Leaf::svid(CHECKOUT) };
    assert_turned_away(&fixture, issue(&fixture.prod, early), "not_yet_valid").await;
    let foreign = Leaf::svid("spiffe://elsewhere.test/ns/checkout/sa/web");
    assert_turned_away(&fixture, issue(&other, foreign.clone()), "unknown_trust_domain").await;
    assert_turned_away(&fixture, issue(&fixture.prod, foreign), "unknown_trust_domain").await;
    let two = Leaf {
        uris: vec![CHECKOUT.into(), "spiffe://prod.acme/ns/billing/sa/web".into()],
        ..Leaf::svid(CHECKOUT)
    };
    assert_turned_away(&fixture, issue(&fixture.prod, two), "not_one_uri_san").await;
    let none = Leaf { uris: vec![], names: vec!["web.checkout".into()], ..Leaf::svid(CHECKOUT) };
    assert_turned_away(&fixture, issue(&fixture.prod, none), "not_one_uri_san").await;
    let web = Leaf { uris: vec!["https://prod.acme/ns/checkout/sa/web".into()], ..Leaf::svid(CHECKOUT) };
    assert_turned_away(&fixture, issue(&fixture.prod, web), "not_a_spiffe_id").await;
    let signing = Leaf { ca: true, ..Leaf::svid(CHECKOUT) };
    assert_turned_away(&fixture, issue(&fixture.prod, signing), "signing_certificate").await;
    fixture.checkout().get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_bundle_speaks_for_its_own_trust_domain_only() {
    let mut plan = Plan::new();
    let partner = Authority::new(&plan.sandbox, "partner.example");
    plan.settings = plan.settings.trusting("partner.example", partner.bundle());
    let fixture = plan.start(|_| Reply::status(200)).await;
    let own = partner.svid(&fixture.sandbox, "spiffe://partner.example/ns/checkout/sa/web");
    fixture.stranger(Some(own)).get("/up/x").await.assert_refused(403, "no_grant");
    let usurper = partner.svid(&fixture.sandbox, CHECKOUT);
    let alert = fixture.stranger(Some(usurper)).refusal().await;
    assert!(alert.contains("alert"), "{alert}");
    assert_eq!(refused(&fixture, "unknown_issuer"), 1.0);
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_partners_bundle_file_holds_decides_on_the_partners_callers_alone() {
    let mut plan = Plan::new();
    let partner = Authority::new(&plan.sandbox, "partner.example");
    plan.settings = plan.settings.trusting("partner.example", partner.bundle());
    let file = partner.bundle().to_owned();
    fs::write(&file, "no certificate\n").unwrap();
    let fixture = plan.start(|_| Reply::status(200)).await;
    let theirs =
        fixture.stranger(Some(partner.svid(&fixture.sandbox, "spiffe://partner.example/ns/checkout/sa/web")));
    let ours = fixture.checkout();
    let setting = "setting=\"identity.trustDomains.partner.example.bundleFile\"";
    let up = |label: &[&str]| fixture.gateway.metrics().sum("tollgate_identity_file_up", label);
    assert_eq!((up(&[]), up(&[setting])), (3.0, 0.0));
    assert_eq!(
        fixture.gateway.admin_get("/readyz"),
        (200, "ready; 1 of 4 identity files are refused\n".into())
    );
    let checked = fixture.gateway.tollgate(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.contains("no PEM certificate in it; nobody of"), "{said}");
    assert_turned_away(
        &fixture,
        Some(partner.svid(&fixture.sandbox, "spiffe://partner.example/x")),
        "unknown_issuer",
    )
    .await;

    let mut open = ours.open(Protocol::H1).await.unwrap();
    open.send(ours.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    let next = Authority::new(&fixture.sandbox, "next");
    fs::write(fixture.prod.bundle(), next.pem()).unwrap();
    eventually("our own revocation is taken all the same", || open.closed()).await;

    fs::write(&file, partner.pem()).unwrap();
    eventually("the file is in force", || up(&[setting]) == 1.0).await;
    assert_eq!(fixture.gateway.admin_get("/readyz"), (200, "ready\n".into()));
    let mut open = theirs.open(Protocol::H1).await.unwrap();
    open.send(theirs.request(Method::GET, "/up/x", "")).await.unwrap().assert_refused(403, "no_grant");
    fs::write(&file, "").unwrap();
    eventually("of an empty bundle nobody is trusted", || open.closed()).await;
    assert!(theirs.refusal().await.contains("alert"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_beside_a_good_chain_costs_its_caller_nothing() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let expired = Leaf { ca: true, ends_in: -60, begins_in: -7200, ..Leaf::default() };
    let old = Authority::new(&fixture.sandbox, "old").issue(&fixture.sandbox, "old-ca", &expired);
    let svid = fixture.prod.svid(&fixture.sandbox, CHECKOUT);
    let chain = [&svid, &old].map(|identity| fs::read_to_string(&identity.cert).unwrap()).concat();
    fs::write(&svid.cert, chain).unwrap();
    fixture.stranger(Some(svid)).get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_prove_nothing() {
    let fixture = fixture().await;
    let billing = fixture.caller("spiffe://prod.acme/ns/billing/sa/web");
    for (name, value) in [
        ("x-forwarded-client-cert", "By=spiffe://prod.acme/gw;URI=spiffe://prod.acme/ns/checkout/sa/web"),
        ("x-spiffe-id", CHECKOUT),
        ("l5d-client-id", "web.checkout.serviceaccount.identity.linkerd.cluster.local"),
        ("x-tollgate-caller", CHECKOUT),
        ("baggage", "k8s.namespace.name=checkout"),
    ] {
        let mut request = billing.request(Method::GET, "/up/x", "");
        request.headers_mut().insert(name, value.parse().unwrap());
        billing.send(Protocol::H1, request).await.unwrap().assert_refused(403, "no_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_grant_is_403_with_the_reason_and_names_no_secret() {
    let fixture = fixture().await;
    let billing = fixture.caller("spiffe://prod.acme/ns/billing/sa/web");
    for protocol in Protocol::BOTH {
        let answer = billing.send(protocol, billing.request(Method::GET, "/up/x", "")).await.unwrap();
        answer.assert_refused(403, "no_grant");
        let text = answer.text();
        assert!(!text.contains("files") && !text.contains("up-key"), "{text}");
        assert_eq!(answer.json()["request_id"].as_str().map(str::len), Some(32), "{text}");
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_certificate_expires_closes_after_the_current_answer() {
    let fixture =
        Plan::new().start(|_| Reply::status(200).data("a").wait(Duration::from_secs(4)).data("b")).await;
    let brief = fixture.prod.issue(&fixture.sandbox, "brief", &Leaf { ends_in: 3, ..Leaf::svid(CHECKOUT) });
    let brief = fixture.stranger(Some(brief));
    let long = fixture.checkout();
    for protocol in Protocol::BOTH {
        let identity =
            fixture.prod.issue(&fixture.sandbox, "brief", &Leaf { ends_in: 3, ..Leaf::svid(CHECKOUT) });
        let brief = brief.showing(Some(identity));
        let mut dying = brief.open(protocol).await.unwrap();
        let mut living = long.open(protocol).await.unwrap();
        let answer = dying.send(brief.request(Method::GET, "/up/x", "")).await.unwrap();
        assert_eq!(answer.text(), "ab", "the answer under way is finished");
        eventually("the connection closes", || dying.closed()).await;
        living.send(long.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
        assert!(!living.closed());
        assert!(brief.refusal().await.contains("alert"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_bundle_closes_what_it_does_not_verify_and_a_ticket_does_not_outlive_it() {
    let fixture = fixture().await;
    let old = fixture.checkout();
    let tls = old.tls(&["http/1.1"]);
    let mut open =
        Connection::over(&old, old.handshake(tls.clone()).await.unwrap(), Protocol::H1).await.unwrap();
    open.send(old.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    let resumed = old.handshake(tls.clone()).await.unwrap();
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "tickets are issued");
    let mut resumed = Connection::over(&old, resumed, Protocol::H1).await.unwrap();
    resumed.send(old.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    let bundle = fixture.prod.bundle();
    let next = Authority::new(&fixture.sandbox, "next");
    fs::write(bundle, fixture.prod.pem() + &next.pem()).unwrap();
    let new = fixture.stranger(Some(next.svid(&fixture.sandbox, CHECKOUT)));
    eventually("the new root is trusted", || {
        tokio::task::block_in_place(|| futures(new.refusal()) == "answered")
    })
    .await;
    open.send(old.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    fs::write(bundle, next.pem()).unwrap();
    eventually("what the bundle no longer verifies closes", || open.closed() && resumed.closed()).await;
    let late = old.handshake(tls).await;
    let answered = match late {
        Err(_) => false,
        Ok(stream) => {
            let mut late = Connection::over(&old, stream, Protocol::H1).await.unwrap();
            late.send(old.request(Method::GET, "/up/x", "")).await.is_ok()
        }
    };
    assert!(!answered, "a resumed session outlived its bundle");
    new.get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_certificate_rotates_without_a_restart() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    let mut before = client.open(Protocol::H2).await.unwrap();
    let own = &fixture.gateway.settings().certificate;
    let serial = |identity: &Identity| fs::read(&identity.cert).unwrap();
    let next = fixture.pki.server(&fixture.sandbox, &["localhost", "tollgate.test"]);
    assert_ne!(serial(own), serial(&next));
    let shown = async || {
        let stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    fs::copy(&next.key, &own.key).unwrap();
    fs::copy(&next.cert, &own.cert).unwrap();
    for _ in 0..600 {
        if shown().await != first {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(shown().await, first, "the new certificate is shown");
    before.send(client.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
}

fn futures<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(future)
}
