//! Where the token goes that the gateway shows its issuers, when one of them says that its keys are somewhere else.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Gateway, Plan, Reply, Upstream};

use super::{AUDIENCE, resources};

fn key_set() -> Value {
    let key = KeyPair::generate().unwrap();
    let point = key.public_key_raw();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = (part(&point[1..33]), part(&point[33..65]));
    json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one", "x": x, "y": y}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_token_is_shown_to_the_issuer_and_to_no_host_that_only_its_discovery_names() {
    let plan = Plan::new();
    let own = plan.sandbox.canary("issuer-login");
    let file = plan.sandbox.input("issuer/token", &own);
    let server = plan.pki.server(&plan.sandbox, &["localhost"]);
    let keys = key_set();
    // The keys are told to whoever shows a token.
    let elsewhere = Upstream::http(&server, &["http/1.1"], move |seen| match seen.header("authorization") {
        "" => Reply::status(401),
        _ => Reply::json(&keys),
    })
    .await;
    let jwks_uri = format!("https://localhost:{}/keys", elsewhere.port());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let document = json!({"issuer": name, "jwks_uri": jwks_uri});
    let issuer = Upstream::http_on(listener, &server, &["http/1.1"], move |_| Reply::json(&document));
    let entry = |more: &str| {
        format!(
            "{{kind: oidc, issuer: \"{name}\", audience: {AUDIENCE}, keys: {{discovery: {{}}}}, caFile: {}, tokenFile: {}{more}}}",
            plan.pki.bundle().display(),
            file.display()
        )
    };
    let mut settings = plan.settings.clone();
    settings.client_certificate = "none";
    settings.tokens = vec![entry("")];
    let settings = settings.resource("fixture.yaml", resources(&plan, issuer.port(), &name));
    let mut gateway = Gateway::start(&plan.sandbox, &settings).await;
    let fault = || gateway.snapshot()["tokenIssuers"][0]["error"].to_string();
    eventually("it says what is missing", || fault().contains("name it in `tokenHosts`")).await;
    assert!(elsewhere.count() > 0 && elsewhere.seen().iter().all(|seen| !seen.everything().contains(&own)));
    assert!(issuer.seen().iter().all(|seen| seen.header("authorization") == format!("Bearer {own}")));

    gateway.stop();
    let host = format!(", tokenHosts: [\"localhost:{}\"]", elsewhere.port());
    gateway.edit_settings(&entry(""), &entry(&host));
    gateway.restart().await;
    let up = || gateway.metrics().sum("tollgate_token_issuer_up", &[]) == 1.0;
    eventually("its keys are there", up).await;
    assert_eq!(elsewhere.seen().last().unwrap().header("authorization"), format!("Bearer {own}"));
}
