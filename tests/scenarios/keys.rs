//! Keys of a pool whose calls cannot be sent again, or that are made of what is stored.

use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::json;
use tollgate_tests::ledger::records;
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, SecretKind, Seen, Upstream};

const ALIASES: [&str; 2] = ["a", "b"];
const ALLOW: &str = "  allow: {methods: [GET, POST], paths: [\"/**\"]}\n";

fn bearer(seen: &Seen) -> String {
    seen.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned()
}

/// A provider that takes every key but the one that is dead, and a pool of two keys in files; `inject` says how they come to it.
async fn start(plan: Plan, inject: &str, more: &str, dead: &Arc<Mutex<String>>) -> Fixture {
    for alias in ALIASES {
        let key = plan.sandbox.canary(alias);
        plan.sandbox.stands_for(&key, &[SecretKind::File, SecretKind::Pool]);
        plan.sandbox.input(&format!("keys/{alias}"), &key);
    }
    let dead = Arc::clone(dead);
    let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| {
        Reply::status(if bearer(seen) == *dead.lock().unwrap() { 401 } else { 200 })
    })
    .await;
    let from = ALIASES.map(|alias| format!("\n    - {{alias: {alias}, store: files, path: {alias}}}"));
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("pool", "up", &from.concat(), inject)
        + &grant("all-up", "spiffe://prod.acme/**", "up", "pool", ALLOW)
        + more;
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    Plan { settings, ..plan }.start_with(upstream).await
}

/// What the provider is shown on a call of this client, which is answered.
async fn used(fixture: &Fixture, client: &Client) -> String {
    fixture.upstream.clear();
    client.get("/up/x").await.assert_status(200);
    bearer(fixture.upstream.seen().last().expect("a call"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_body_streams_is_not_sent_again_and_its_dead_key_is_benched() {
    let dead = Arc::default();
    let fixture = start(Plan::new(), "{bearer: {}}\n  refresh: 1h", "", &dead).await;
    let client = fixture.checkout();
    let key = used(&fixture, &client).await;
    dead.lock().unwrap().clone_from(&key);
    fixture.upstream.clear();
    let call = client.request(Method::POST, "/up/x", vec![b'x'; 1 << 20]);
    let answer = client.send(Protocol::H1, call).await.expect("an answer");
    answer.assert_refused(502, "credential_rejected");
    let sent = fixture.upstream.only();
    assert_eq!((bearer(&sent), sent.body.len()), (key.clone(), 1 << 20));
    let benched = fixture.gateway.metrics().sum("tollgate_credential_key_benched_total", &[]);
    assert_eq!(benched, 1.0);
    assert_ne!(used(&fixture, &client).await, key);
    assert_eq!(fixture.upstream.count(), 1, "the dead key was not tried");
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_keys_that_are_minted_the_other_serves_when_the_tokens_of_one_are_refused() {
    let plan = Plan::new();
    let tokens = ALIASES.map(|alias| plan.sandbox.canary(&format!("token-{alias}")));
    for token in &tokens {
        plan.sandbox
            .stands_for(token, &[SecretKind::Pool, SecretKind::ClientCredentials, SecretKind::Bearer]);
    }
    let made = tokens.clone();
    let server = plan.pki.server(&plan.sandbox, &["idp.test"]);
    let idp = Upstream::http(&server, &["http/1.1"], move |seen| {
        let form = String::from_utf8_lossy(&seen.body);
        let shown = ALIASES.iter().position(|alias| form.contains(&format!("client_secret=sk-{alias}.")));
        let Some(at) = shown else { return Reply::status(401) };
        Reply::json(&json!({"access_token": made[at], "token_type": "Bearer", "expires_in": 3600}))
    })
    .await;
    let mint = "{bearer: {}}\n  mint:\n    endpoint: {destination: idp, path: /token}\n    \
                clientCredentials: {clientId: tollgate, auth: {post: {}}}";
    let more = destination("idp", "idp.test", idp.port(), plan.pki.bundle(), "http");
    let dead = Arc::default();
    let mut fixture = start(plan, mint, &more, &dead).await;
    let client = fixture.checkout();
    let first = used(&fixture, &client).await;
    let at = tokens.iter().position(|token| *token == first).expect("a token of the pool");
    dead.lock().unwrap().clone_from(&first);
    assert_eq!(used(&fixture, &client).await, tokens[1 - at]);
    assert_eq!(fixture.upstream.count(), 2, "both were tried");
    assert!(fixture.gateway.stop().success());
    let records = records(&fixture.gateway);
    let [_, repeated] = records.as_slice() else { panic!("{records:#?}") };
    let refused = &repeated["attempts"][0];
    assert_eq!((&refused["alias"], &refused["status"]), (&json!(ALIASES[at]), &json!(401)));
    assert_eq!((&repeated["alias"], &repeated["status"]), (&json!(ALIASES[1 - at]), &json!(200)));
    fixture.sandbox.assert_swept();
}
