//! A client certificate towards an upstream that asks for one: shown, rotated, refused, and never seen elsewhere.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::resources::{document, file_store};
use tollgate_tests::stand::CHECKOUT;
use tollgate_tests::{
    Authority, Client, Gateway, Identity, Kind, Leaf, Plan, Protocol, Reply, Settings, Upstream, ledger,
};

/// Writes chain and key where the store reads them; the key is looked for in every sink.
fn store(plan: &Plan, name: &str, chain: &Identity, key: &Identity) {
    let (chain, key) = (fs::read_to_string(&chain.cert).unwrap(), fs::read_to_string(&key.key).unwrap());
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        plan.world.stands_for(line, &[Kind::File, Kind::ClientCertificate]);
    }
    let next =
        plan.world.input(&format!("keys/{name}.next"), json!({"chain": chain, "key": key}).to_string());
    fs::rename(next, plan.world.inputs().join("keys").join(name)).unwrap();
}

fn settings(plan: &Plan, port: u16) -> Settings {
    let destination = format!(
        "  hosts: [api.up.test]\n  port: {port}\n  addresses: [127.0.0.1]\n  \
         tls: {{verify: {{caFile: {}}}, clientCertificate: partner}}\n",
        plan.pki.bundle().display()
    );
    let credential = "  destinations: [up]\n  from: {store: files, path: partner, fields: [chain, key]}\n  \
                      refresh: 1s\n  inject: {clientCertificate: {certificate: chain, key: key}}\n";
    let grant = "  callers: [{spiffe: \"spiffe://prod.acme/ns/checkout/sa/*\"}]\n  destination: up\n  \
                 allow: {methods: [GET], paths: [\"/**\"]}\n";
    let resources = document("Destination", "up", destination)
        + &file_store("files", &plan.world.inputs().join("keys"))
        + &document("Credential", "partner", credential)
        + &document("Grant", "checkout-up", grant);
    plan.settings.clone().resource("stand.yaml", resources)
}

fn der(identity: &Identity) -> Vec<u8> {
    CertificateDer::from_pem_file(&identity.cert).unwrap().to_vec()
}

fn checkout(plan: &Plan, gateway: &Gateway) -> Client {
    let identity = plan.prod.svid(&plan.world, CHECKOUT);
    Client::new(&plan.world, gateway.address(), plan.pki.roots(), Some(identity))
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
        let partner = Authority::new(&plan.world, "partner");
        let [first, second] =
            ["first", "second"].map(|name| partner.issue(&plan.world, name, &Leaf::server(&["tollgate"])));
        store(&plan, "partner", &first, &first);
        let upstream =
            Upstream::http_asking(&plan.server, &[protocol], partner.roots(), |_| Reply::status(200)).await;
        let mut gateway = Gateway::start(&plan.world, &settings(&plan, upstream.port())).await;
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
        tokio::time::sleep(Duration::from_millis(200)).await;
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
        plan.world.assert_swept();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_refused_broken_or_missing_is_named_and_nothing_is_sent() {
    let plan = Plan::new();
    let partner = Authority::new(&plan.world, "partner");
    let stranger = Authority::new(&plan.world, "stranger");
    let good = partner.issue(&plan.world, "good", &Leaf::server(&["tollgate"]));
    let expired = Leaf { ends_in: -60, begins_in: -3600, ..Leaf::server(&["tollgate"]) };
    let expired = partner.issue(&plan.world, "expired", &expired);
    let foreign = stranger.issue(&plan.world, "foreign", &Leaf::server(&["tollgate"]));
    let upstream =
        Upstream::http_asking(&plan.server, &["http/1.1"], partner.roots(), |_| Reply::status(200)).await;
    let mut gateway = Gateway::start(&plan.world, &settings(&plan, upstream.port())).await;
    let client = checkout(&plan, &gateway);
    let tests = |gateway: &Gateway| {
        let output = gateway.tollgate(&["credential", "test", "partner"]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };

    client.get("/up/x").await.assert_refused(503, "secret_unavailable");
    for (what, chain, key, status, reason, remark) in [
        ("expired", &expired, &expired, 502, "credential_rejected", None),
        ("of a stranger", &foreign, &foreign, 502, "credential_rejected", None),
        ("with another key", &good, &foreign, 503, "secret_unavailable", Some("does not belong")),
    ] {
        store(&plan, "partner", chain, key);
        assert!(gateway.stop().success());
        gateway.restart().await;
        let client = checkout(&plan, &gateway);
        client.get("/up/x").await.assert_refused(status, reason);
        let (is_good, said) = tests(&gateway);
        assert_eq!(is_good, remark.is_none(), "{what}: {said}");
        assert!(said.contains(remark.unwrap_or("belong together")), "{what}: {said}");
        let warned = || gateway.log().iter().any(|line| field(line, "reason") == reason);
        eventually(what, warned).await;
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
    plan.world.assert_swept();
}
