//! A client certificate towards an upstream that asks for one: shown, rotated, refused, and never seen elsewhere.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::resources::{document, file_store};
use tollgate_tests::{
    Authority, Client, Gateway, Identity, Leaf, Plan, Protocol, Reply, SecretKind, Seen, Settings, Upstream,
    ledger,
};

/// Writes chain and key where the store reads them; the key is looked for in every sink.
fn store(plan: &Plan, name: &str, chain: &Identity, key: &Identity) {
    let (chain, key) = (fs::read_to_string(&chain.cert).unwrap(), fs::read_to_string(&key.key).unwrap());
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        plan.sandbox.stands_for(line, &[SecretKind::File, SecretKind::ClientCertificate]);
    }
    let next =
        plan.sandbox.input(&format!("keys/{name}.next"), json!({"chain": chain, "key": key}).to_string());
    fs::rename(next, plan.sandbox.inputs().join("keys").join(name)).unwrap();
}

/// Destinations that are all shown the certificate `partner`, by name and port.
fn settings(plan: &Plan, destinations: &[(&str, u16)], refresh: &str) -> Settings {
    let names: Vec<&str> = destinations.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    let credential = format!(
        "  destinations: [{names}]\n  from: {{store: files, path: partner, fields: [chain, key]}}\n  \
         refresh: {refresh}\n  inject: {{clientCertificate: {{certificate: chain, key: key}}}}\n"
    );
    let mut resources = file_store("files", &plan.sandbox.inputs().join("keys"))
        + &document("Credential", "partner", credential);
    for (name, port) in destinations {
        let destination = format!(
            "  hosts: [api.{name}.test]\n  port: {port}\n  addresses: [127.0.0.1]\n  http: 2\n  \
             tls: {{verify: {{caFile: {}}}, clientCertificate: partner}}\n",
            plan.pki.bundle().display()
        );
        let grant = format!(
            "  callers: [{{spiffe: \"spiffe://prod.acme/ns/checkout/sa/*\"}}]\n  destination: {name}\n  \
             allow: {{methods: [GET], paths: [\"/**\"]}}\n"
        );
        resources += &document("Destination", name, destination);
        resources += &document("Grant", &format!("checkout-{name}"), grant);
    }
    plan.settings.clone().resource("fixture.yaml", resources)
}

fn der(identity: &Identity) -> Vec<u8> {
    CertificateDer::from_pem_file(&identity.cert).unwrap().to_vec()
}

fn checkout(plan: &Plan, gateway: &Gateway) -> Client {
    let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
    Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity))
}

async fn load(client: Client, protocol: Protocol, stop: Arc<AtomicBool>) -> usize {
    let mut connection = client.open(protocol).await.unwrap();
    let mut calls = 0;
    while !stop.load(Ordering::SeqCst) {
        let request = client.request(http::Method::GET, "/up/x", "");
        connection.send(request).await.unwrap().assert_status(200);
        calls += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_and_its_rotation_fails_no_call() {
    for protocol in ["http/1.1", "h2"] {
        let plan = Plan::new();
        let partner = Authority::new(&plan.sandbox, "partner");
        let [first, second] =
            ["first", "second"].map(|name| partner.issue(&plan.sandbox, name, &Leaf::server(&["tollgate"])));
        store(&plan, "partner", &first, &first);
        let upstream =
            Upstream::http_asking(&plan.server, &[protocol], partner.roots(), |_| Reply::status(200)).await;
        let settings = settings(&plan, &[("up", upstream.port())], "1s");
        let mut gateway = Gateway::start(&plan.sandbox, &settings).await;
        let tested = gateway.tollgate(&["credential", "test", "partner"]);
        let said = String::from_utf8_lossy(&tested.stdout).into_owned();
        assert!(tested.status.success() && said.contains("chain and key belong together"), "{said}");
        let client = checkout(&plan, &gateway);
        let stop = Arc::new(AtomicBool::new(false));
        let loads = Protocol::BOTH.map(|protocol| tokio::spawn(load(client.clone(), protocol, stop.clone())));
        let last = || upstream.seen().last().map(|seen| seen.certificate.to_vec());
        eventually("a call with the first", || last() == Some(der(&first))).await;
        store(&plan, "partner", &second, &second);
        eventually("a call with the second", || last() == Some(der(&second))).await;
        let turned = upstream.count();
        eventually("calls after that", || upstream.count() >= turned + 30).await;
        stop.store(true, Ordering::SeqCst);
        let mut calls = 0;
        for load in loads {
            calls += load.await.expect("no call failed");
        }
        assert_eq!(upstream.count(), calls);
        let seen = upstream.seen();
        let turned = seen.iter().position(|seen| seen.certificate == der(&second)).unwrap();
        let mixed = seen.iter().filter(|one| seen[turned].connection == one.connection);
        assert!(mixed.clone().all(|seen| seen.certificate == der(&second)), "a connection shows one");
        assert!(seen.iter().rev().take(10).all(|seen| seen.certificate == der(&second)));
        assert!(gateway.stop().success());
        let listed = gateway.tollgate(&["audit", "list", "--credential", "partner", "--format", "json"]);
        let audit = String::from_utf8_lossy(&listed.stdout).into_owned();
        for word in ["fetched", "rotated", "injected"] {
            assert!(audit.contains(&format!("\"{word}\"")), "{word}: {audit}");
        }
        plan.sandbox.assert_swept();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_refused_broken_or_missing_is_named_and_nothing_is_sent() {
    let plan = Plan::new();
    let partner = Authority::new(&plan.sandbox, "partner");
    let stranger = Authority::new(&plan.sandbox, "stranger");
    let good = partner.issue(&plan.sandbox, "good", &Leaf::server(&["tollgate"]));
    let expired = Leaf { ends_in: -60, begins_in: -3600, ..Leaf::server(&["tollgate"]) };
    let expired = partner.issue(&plan.sandbox, "expired", &expired);
    let foreign = stranger.issue(&plan.sandbox, "foreign", &Leaf::server(&["tollgate"]));
    let upstream =
        Upstream::http_asking(&plan.server, &["http/1.1"], partner.roots(), |_| Reply::status(200)).await;
    let settings = settings(&plan, &[("up", upstream.port())], "1s");
    let mut gateway = Gateway::start(&plan.sandbox, &settings).await;
    let client = checkout(&plan, &gateway);
    let tests = |gateway: &Gateway| {
        let output = gateway.tollgate(&["credential", "test", "partner"]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };

    client.get("/up/x").await.assert_refused(503, "secret_unavailable");
    for (what, chain, key, status, reason, cause, verdict) in [
        ("expired", &expired, &expired, 502, "credential_rejected", "CertificateExpired", "expired on"),
        ("of a stranger", &foreign, &foreign, 502, "credential_rejected", "UnknownCA", "until 2"),
        ("with another key", &good, &foreign, 503, "secret_unavailable", "does not belong", "not belong"),
    ] {
        store(&plan, "partner", chain, key);
        assert!(gateway.stop().success());
        let before = gateway.log().len();
        gateway.restart().await;
        let client = checkout(&plan, &gateway);
        client.get("/up/x").await.assert_refused(status, reason);
        let (is_good, said) = tests(&gateway);
        assert_eq!(is_good, what == "of a stranger", "{what}: {said}");
        assert!(said.contains(verdict), "{what}: {said}");
        let is_warning = |line: &Value| {
            let says = field(line, "error").as_str().is_some_and(|error| error.contains(cause));
            field(line, "reason") == reason && field(line, "credential") == "partner" && says
        };
        eventually(what, || gateway.log().iter().skip(before).any(is_warning)).await;
    }
    assert_eq!(upstream.count(), 0);
    assert!(gateway.stop().success());
    let reasons = ledger::column(&gateway, "reason");
    assert_eq!(
        reasons,
        ["secret_unavailable", "credential_rejected", "credential_rejected", "secret_unavailable"]
    );
    store(&plan, "partner", &good, &good);
    gateway.restart().await;
    checkout(&plan, &gateway).get("/up/x").await.assert_status(200);
    assert_eq!(upstream.only().certificate, der(&good));
    assert!(gateway.stop().success());
    let listed = gateway.tollgate(&["audit", "list", "--credential", "partner", "--format", "json"]);
    let audit = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(audit.contains("\"refused\"") && audit.contains("credential_rejected"), "{audit}");
    plan.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_client_certificate_is_refused_is_sent_once_more_with_a_newer_one() {
    for protocol in ["http/1.1", "h2"] {
        let plan = Plan::new();
        let [first, second] = ["first", "second"].map(|name| {
            let authority = Authority::new(&plan.sandbox, name);
            let identity =
                authority.issue(&plan.sandbox, &format!("of-{name}"), &Leaf::server(&["tollgate"]));
            (authority, identity)
        });
        let answer = |_: &Seen| Reply::status(200);
        let other = plan.pki.server(&plan.sandbox, &["api.old.test"]);
        let old = Upstream::http_asking(&other, &[protocol], first.0.roots(), answer).await;
        let upstream = Upstream::http_asking(&plan.server, &[protocol], second.0.roots(), answer).await;
        let destinations = [("up", upstream.port()), ("old", old.port())];
        store(&plan, "partner", &first.1, &first.1);
        let mut gateway = Gateway::start(&plan.sandbox, &settings(&plan, &destinations, "1h")).await;
        let client = checkout(&plan, &gateway);
        client.get("/old/x").await.assert_status(200);
        store(&plan, "partner", &second.1, &second.1);
        client.get("/old/x").await.assert_status(200);
        assert!(old.seen().iter().all(|seen| seen.certificate == der(&first.1)), "nobody has looked");
        client.get("/up/x").await.assert_status(200);
        assert_eq!(upstream.only().certificate, der(&second.1));
        // The newer one is in force: to whom it is good for nothing it is shown, and once is enough.
        client.get("/old/x").await.assert_refused(502, "credential_rejected");
        assert_eq!((upstream.count(), old.count()), (1, 2));
        assert!(gateway.stop().success());
        let attempts = ledger::records(&gateway).into_iter().filter_map(|mut record| {
            let attempts = record.get_mut("attempts")?.take();
            Some(attempts.as_array()?.len())
        });
        assert_eq!(attempts.collect::<Vec<_>>(), [2, 1], "{protocol}");
        plan.sandbox.assert_swept();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_key_does_not_belong_leaves_the_certificate_before_in_use_and_is_not_called_well() {
    let plan = Plan::new();
    let partner = Authority::new(&plan.sandbox, "partner");
    let [first, second, third] = ["first", "second", "third"]
        .map(|name| partner.issue(&plan.sandbox, name, &Leaf::server(&["tollgate"])));
    store(&plan, "partner", &first, &first);
    let upstream =
        Upstream::http_asking(&plan.server, &["http/1.1"], partner.roots(), |_| Reply::status(200)).await;
    let mut gateway = Gateway::start(&plan.sandbox, &settings(&plan, &[("up", upstream.port())], "1s")).await;
    let client = checkout(&plan, &gateway);
    client.get("/up/x").await.assert_status(200);
    let listed = |gateway: &Gateway| {
        let admin = gateway.admin().to_string();
        let output = gateway.tollgate(&["credential", "ls", "--format", "json", "--admin", &admin]);
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        ["health", "reason"].map(|field| listed[0][field].as_str().unwrap_or_default().to_owned())
    };
    store(&plan, "partner", &second, &third);
    let is_said =
        |line: &&Value| field(line, "error").as_str().is_some_and(|error| error.contains("does not belong"));
    eventually("a line in the log", || gateway.log().iter().any(|line| is_said(&line))).await;
    assert_eq!(listed(&gateway), ["stale", "malformed"]);
    for _ in 0..20 {
        client.get("/up/x").await.assert_status(200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(upstream.seen().iter().all(|seen| seen.certificate == der(&first)));
    assert_eq!(gateway.log().iter().filter(is_said).count(), 1);
    store(&plan, "partner", &third, &third);
    let last = || upstream.seen().last().map(|seen| seen.certificate.to_vec());
    while last() != Some(der(&third)) {
        client.get("/up/x").await.assert_status(200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(listed(&gateway), ["well", ""]);
    assert!(gateway.stop().success());
    plan.sandbox.assert_swept();
}
