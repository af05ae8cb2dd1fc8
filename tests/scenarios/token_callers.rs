//! Callers by token: whom one proves, what else was shown beside it, and that it goes no further than the gateway.

mod claims;
mod cluster;
mod connections;
mod discovery;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::idp::{self, Idp};
use tollgate_tests::resources::{credential, destination, document, file_store, grant};
use tollgate_tests::{Answer, Client, Fixture, Plan, Protocol, Reply, Sandbox, Upstream, ledger, needs};

use crate::tokens::in_seconds;

const AUDIENCE: &str = "tollgate";
const ELSEWHERE: &str = "https://api.up.test";
const SECOND: Duration = Duration::from_secs(1);
/// Headers in which a token may come, and what stands before it.
const CARRIERS: [(&str, &str); 5] = [
    ("authorization", "Bearer "),
    ("x-api-key", ""),
    ("api-key", ""),
    ("x-goog-api-key", ""),
    ("x-amz-security-token", ""),
];

/// A gateway that takes certificates and the tokens of an issuer, before one upstream.
struct Stand {
    fixture: Fixture,
    idp: Idp,
}

/// Those of the gateway, however many the machine has.
const CORES: usize = 2;

impl Stand {
    async fn start(client_certificate: &'static str) -> Self {
        Self::keeping(client_certificate, "").await
    }

    /// With more settings of its issuer.
    async fn keeping(client_certificate: &'static str, more: &str) -> Self {
        let plan = Plan::new();
        let server = plan.pki.server(&plan.sandbox, &[idp::HOST, "localhost"]);
        let client = json!({"id": "unused", "secret": "unused"});
        let idp = Idp::start(&plan.sandbox, server, 600, &client).await;
        let upstream = Upstream::http(&plan.server, &["http/1.1"], |seen| match seen.target.as_str() {
            "/slow" => (0..120).fold(Reply::events([]), |reply, _| reply.event("more").wait(SECOND)),
            _ => Reply::status(200).data("fine"),
        })
        .await;
        let mut settings = plan.settings.clone();
        settings.client_certificate = client_certificate;
        settings.extra = format!("cores: {CORES}\n");
        settings.tokens = vec![format!(
            "{{kind: oidc, issuer: \"{}\", audience: {AUDIENCE}, keys: {{discovery: {{}}}}, caFile: {}{more}}}",
            idp.issuer(),
            plan.pki.bundle().display()
        )];
        let settings = settings.resource("fixture.yaml", resources(&plan, upstream.port(), &idp.issuer()));
        let fixture = Plan { settings, ..plan }.start_with(upstream).await;
        let stand = Self { fixture, idp };
        stand.has_keys().await;
        stand
    }

    async fn has_keys(&self) {
        let up = || self.fixture.gateway.metrics().sum("tollgate_token_issuer_up", &[]) == 1.0;
        eventually("the keys of the issuer are there", up).await;
    }

    /// A token for the gateway of this subject.
    async fn token(&self, subject: &str) -> String {
        self.idp.mint(&json!({"sub": subject, "aud": AUDIENCE}), false).await
    }

    fn nobody(&self) -> Client {
        self.fixture.stranger(None)
    }
}

async fn ask(client: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = client.request(Method::POST, path, "body");
    for (name, value) in headers {
        let name = name.parse::<http::HeaderName>().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    client.send(Protocol::H1, request).await.unwrap()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn resources(plan: &Plan, port: u16, issuer: &str) -> String {
    let subject = |name: &str, subject: &str, rest: &str| {
        let spec = format!(
            "  callers: [{{token: {{issuer: \"{issuer}\", subject: \"{subject}\"}}}}]\n  destination: up\n  {rest}\n"
        );
        document("Grant", name, spec)
    };
    let all = "allow: {methods: [GET, POST], paths: [\"/**\"]}";
    destination("up", "api.up.test", port, plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("up-key", "up", "{store: files, path: up}", "{header: {name: x-api-key}}")
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", &format!("  {all}\n"))
        + &subject("ci-up", "repo:acme/shop:*", &format!("credential: up-key\n  {all}"))
        + &subject("passes", "passes", &format!("callerToken: {{audience: \"{ELSEWHERE}\"}}\n  {all}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_proves_its_caller_in_every_header_of_a_key_and_never_reaches_the_provider() {
    needs!(Idp::installed());
    let mut stand = Stand::start("none").await;
    let (client, token) = (stand.nobody(), stand.token("repo:acme/shop:main").await);
    for (name, before) in CARRIERS {
        for protocol in Protocol::BOTH {
            let mut request = client.request(Method::POST, "/up/x", "body");
            request.headers_mut().insert(name, format!("{before}{token}").parse().unwrap());
            client.send(protocol, request).await.unwrap().assert_status(200);
        }
    }
    // The same token twice is one, and another scheme's password is none.
    ask(&client, "/up/x", &[("x-api-key", &token), ("authorization", &bearer(&token))])
        .await
        .assert_status(200);
    ask(&client, "/up/x", &[("authorization", &format!("Basic {token}"))])
        .await
        .assert_refused(401, "no_proof");
    let seen = stand.fixture.upstream.seen();
    assert_eq!(seen.len(), 11);
    for seen in seen {
        let all = seen.everything();
        let signature = token.rsplit('.').next().unwrap();
        assert!(!all.contains(&token) && !all.contains(signature), "{all}");
        assert_eq!(seen.header("x-api-key"), stand.fixture.key);
    }
    let caller = format!("jwt:{}#repo:acme/shop:main", stand.idp.issuer());
    assert!(stand.fixture.gateway.stop().success());
    assert_eq!(ledger::column(&stand.fixture.gateway, "caller"), vec![caller; 11]);
    assert_eq!(ledger::column(&stand.fixture.gateway, "proof"), vec!["token"; 11]);
    stand.fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_proves_nobody_is_401_and_says_why() {
    needs!(Idp::installed());
    let stand = Stand::start("none").await;
    let client = stand.nobody();
    let mint = async |claims: Value| stand.idp.mint(&claims, false).await;
    let good = stand.token("repo:acme/shop:main").await;
    let [header, claims, signature] = [0, 1, 2].map(|at| good.split('.').nth(at).unwrap());
    let forged = format!("{header}.{claims}.{}{}", &signature[4..], &signature[..4]);
    let sub = "repo:acme/shop:main";
    for (token, reason) in [
        (mint(json!({"sub": sub, "aud": AUDIENCE, "exp": in_seconds(-60)})).await, "token_expired"),
        (mint(json!({"sub": sub, "aud": AUDIENCE, "nbf": in_seconds(60)})).await, "token_invalid"),
        (mint(json!({"sub": sub, "aud": ELSEWHERE})).await, "token_audience"),
        (
            mint(json!({"sub": sub, "aud": AUDIENCE, "iss": "https://other.test"})).await,
            "token_issuer_unknown",
        ),
        (mint(json!({"sub": "", "aud": AUDIENCE})).await, "token_invalid"),
        (mint(json!({"sub": sub, "aud": AUDIENCE, "note": "x".repeat(9 << 10)})).await, "token_invalid"),
        (format!("{header}.{claims}."), "token_invalid"),
        (forged, "token_invalid"),
        ("sk-dummy".to_owned(), "no_proof"),
    ] {
        let answer = ask(&client, "/up/x", &[("x-api-key", &token)]).await;
        answer.assert_refused(401, reason);
        let said = answer.header("www-authenticate").to_owned();
        let error = if reason == "no_proof" { "" } else { ", error=\"invalid_token\", error_description=\"" };
        assert!(said.starts_with(&format!("Bearer realm=\"tollgate\"{error}")), "{said}");
        assert!(!answer.text().contains(signature) && !said.contains(sub), "{said}");
    }
    let other = stand.token("repo:acme/shop:other").await;
    ask(&client, "/up/x", &[("x-api-key", &good), ("authorization", &bearer(&other))])
        .await
        .assert_refused(401, "proofs_disagree");
    ask(&client, "/up/x", &[("x-api-key", &stand.token("repo:acme/else").await)])
        .await
        .assert_refused(403, "no_grant");
    assert_eq!(stand.fixture.upstream.count(), 0);
    let metrics = stand.fixture.gateway.metrics();
    for reason in ["token_expired", "token_audience", "token_issuer_unknown", "proofs_disagree", "no_proof"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(metrics.sum("tollgate_refused_before_identity_total", &[&label]), 1.0, "{reason}");
    }
    stand.fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_and_a_token_name_one_caller_or_nobody() {
    needs!(Idp::installed());
    let stand = Stand::start("optional").await;
    let (workload, nobody) = (stand.fixture.checkout(), stand.nobody());
    let (token, svid) = (stand.token("repo:acme/shop:main").await, stand.token(CHECKOUT).await);
    // By certificate alone, with whatever the SDK insists on sending, as before.
    for key in ["sk-dummy", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        ask(&workload, "/up/x", &[("authorization", &bearer(key))]).await.assert_status(200);
    }
    ask(&nobody, "/up/x", &[("authorization", &bearer(&token))]).await.assert_status(200);
    ask(&nobody, "/up/x", &[]).await.assert_refused(401, "no_proof");
    // A token of an issuer is no workload, whatever it says.
    for token in [&token, &svid] {
        ask(&workload, "/up/x", &[("x-api-key", token)]).await.assert_refused(401, "proofs_disagree");
    }
    let expired = json!({"sub": CHECKOUT, "aud": AUDIENCE, "exp": in_seconds(-60)});
    let expired = stand.idp.mint(&expired, false).await;
    ask(&workload, "/up/x", &[("x-api-key", &expired)]).await.assert_refused(401, "token_expired");
    let foreign = stand.idp.mint(&json!({"sub": CHECKOUT, "aud": ELSEWHERE}), false).await;
    ask(&workload, "/up/x", &[("x-api-key", &foreign)]).await.assert_status(200);
    for seen in stand.fixture.upstream.seen() {
        assert!(!seen.everything().contains(&foreign), "a token for somebody else is thrown away");
    }
    stand.fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_third_party_passes_on_beside_the_proof_which_never_does() {
    needs!(Idp::installed());
    let stand = Stand::start("none").await;
    let client = stand.nobody();
    let proof = stand.token("passes").await;
    let theirs = stand.idp.mint(&json!({"sub": "x", "aud": ELSEWHERE}), false).await;
    ask(&client, "/up/x", &[("x-api-key", &proof), ("authorization", &bearer(&theirs))])
        .await
        .assert_status(200);
    let seen = stand.fixture.upstream.only();
    assert_eq!(seen.header("authorization"), bearer(&theirs));
    assert!(!seen.everything().contains(&proof));
    stand.fixture.upstream.clear();
    ask(&client, "/up/x", &[("authorization", &bearer(&proof))]).await.assert_refused(403, "caller_token");
    assert_eq!(stand.fixture.upstream.count(), 0);
    let checked = stand.fixture.gateway.tollgate(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && said.contains("tokens of https://localhost:"), "{said}");
    // A grant that names the gateway's own audience is refused.
    let ours = format!(
        "  callers: [{{spiffe: \"{CHECKOUT}\"}}]\n  destination: up\n  callerToken: {{audience: {AUDIENCE}}}\n"
    );
    stand.fixture.gateway.write_resource("ours.yaml", &document("Grant", "ours", ours));
    let checked = stand.fixture.gateway.tollgate(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(said.contains("Grant/ours: spec.callerToken.audience: tokens for `tollgate`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_followed_when_they_rotate_and_dropped_when_they_vanish() {
    needs!(Idp::installed());
    let mut stand = Stand::start("none").await;
    let client = stand.nobody();
    let claims = json!({"sub": "repo:acme/shop:main", "aud": AUDIENCE});
    let old = stand.token("repo:acme/shop:main").await;
    let mut kept = client.open(Protocol::H2).await.unwrap();
    let by = |token: &str| {
        let mut request = client.request(Method::POST, "/up/x", "body");
        request.headers_mut().insert("x-api-key", token.parse().unwrap());
        request
    };
    kept.send(by(&old)).await.unwrap().assert_status(200);
    let new = stand.idp.mint(&claims, true).await;
    let refused = kept.send(by(&new)).await.unwrap();
    refused.assert_refused(401, "token_invalid");
    assert_eq!(refused.header("x-should-retry"), "true", "its keys are being fetched");
    let mut answer = kept.send(by(&new)).await.unwrap();
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = kept.send(by(&new)).await.unwrap();
    }
    answer.assert_status(200);
    kept.send(by(&old)).await.unwrap().assert_status(200);
    // Away, and back with other keys: until it is back, those before serve.
    stand.idp.kill();
    kept.send(by(&new)).await.unwrap().assert_status(200);
    stand.fixture.gateway.stop();
    stand.fixture.gateway.restart().await;
    let client = stand.nobody();
    ask(&client, "/up/x", &[("x-api-key", &new)]).await.assert_refused(503, "token_keys_unavailable");
    stand.idp.launch().await;
    stand.has_keys().await;
    ask(&client, "/up/x", &[("x-api-key", &new)]).await.assert_refused(401, "token_invalid");
    let newest = stand.token("repo:acme/shop:main").await;
    ask(&client, "/up/x", &[("x-api-key", &newest)]).await.assert_status(200);
    let shown = stand.fixture.gateway.snapshot()["tokenIssuers"][0].clone();
    assert_eq!((&shown["keys"], &shown["up"]), (&json!(1), &json!(true)), "{shown}");
    assert!(
        shown["keysAgeSeconds"].as_u64().unwrap() < 300 && shown["failures"].as_u64().unwrap() > 0,
        "{shown}"
    );
}

/// Writes a token where a pod's volume would have it.
fn projected(sandbox: &Sandbox, token: &str) -> std::path::PathBuf {
    sandbox.input("projected/tollgate", token)
}
