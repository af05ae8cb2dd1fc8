//! Certificate revocation lists of trust domains.

use std::fs;

use http::Method;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Client, Fixture, Leaf, Plan, Protocol, Reply, ca};

const LEAVER: u64 = 77;

/// A gateway that reads revocation lists of `prod.acme`, and the file with them.
async fn fixture() -> (Fixture, std::path::PathBuf) {
    let plan = Plan::new();
    let file = plan.sandbox.input("prod.crl", plan.prod.revocation_list(&[], 3600));
    let upstream =
        tollgate_tests::Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200).data("fine"))
            .await;
    let settings = plan.complete(upstream.port());
    let mut gateway = tollgate_tests::Gateway::prepare(&plan.sandbox, &settings);
    let bundle = format!("bundleFile: {}", plan.prod.bundle().display());
    gateway.edit_settings(&bundle, &format!("{bundle}, crlFile: {}", file.display()));
    gateway.launch().await;
    gateway.ready().await;
    let Plan { sandbox, prod, pki, key, .. } = plan;
    (Fixture { sandbox, prod, pki, key, upstream, gateway }, file)
}

fn leaver(fixture: &Fixture) -> Client {
    let leaf = Leaf { serial: Some(LEAVER), ..Leaf::svid(CHECKOUT) };
    fixture.stranger(Some(fixture.prod.issue(&fixture.sandbox, "leaver", &leaf)))
}

fn write(file: &std::path::Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_at_once_and_on_its_open_connection() {
    let (fixture, file) = fixture().await;
    let (client, other) = (leaver(&fixture), fixture.checkout());
    let mut open = client.open(Protocol::H1).await.unwrap();
    open.send(client.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    let tls = client.tls(&["http/1.1"]);
    drop(client.handshake(tls).await.unwrap());
    write(&file, &fixture.prod.revocation_list(&[LEAVER], 3600));
    let refused =
        || fixture.gateway.metrics().sum("tollgate_tls_handshakes_refused_total", &["reason=\"revoked\""]);
    let begun = std::time::Instant::now();
    while refused() == 0.0 {
        assert!(begun.elapsed().as_secs() < 20, "the list is not taken");
        let _ = client.refusal().await;
    }
    assert_eq!(client.refusal().await, "received fatal alert: CertificateRevoked");
    match open.send(client.request(Method::GET, "/up/x", "")).await {
        Ok(answer) => answer.assert_refused(401, "certificate_expired"),
        Err(_) => assert!(open.closed(), "it was closed before"),
    }
    other.get("/up/x").await.assert_status(200);
    assert_eq!(fixture.upstream.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_nobody_of_the_trust_domain_signed_is_refused_and_one_that_ended_lets_nobody_in() {
    let (fixture, file) = fixture().await;
    let client = fixture.checkout();
    let foreign = ca::Authority::new(&fixture.sandbox, "foreign");
    let setting = "setting=\"identity.trustDomains.prod.acme.crlFile\"";
    let up = || fixture.gateway.metrics().sum("tollgate_identity_file_up", &[setting]);
    write(&file, &foreign.revocation_list(&[LEAVER], 3600));
    eventually("it is refused", || up() == 0.0).await;
    let is_named = |line: &serde_json::Value| {
        let line = line.to_string();
        line.contains("identity.trustDomains.prod.acme.crlFile") && line.contains("another issuer")
    };
    eventually("the log names the file and what is wrong", || fixture.gateway.log().iter().any(is_named))
        .await;
    client.get("/up/x").await.assert_status(200);
    write(&file, &fixture.prod.revocation_list(&[], -1));
    eventually("it is taken", || up() == 1.0).await;
    assert!(client.refusal().await.contains("fatal alert"));
    let ended = ["reason=\"revocation_list_ended\""];
    assert!(fixture.gateway.metrics().sum("tollgate_tls_handshakes_refused_total", &ended) >= 1.0);
    write(&file, &fixture.prod.revocation_list(&[], 3600));
    let begun = std::time::Instant::now();
    while client.refusal().await != "answered" {
        assert!(begun.elapsed().as_secs() < 20, "the next list lets it in again");
    }
}
