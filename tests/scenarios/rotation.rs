//! A key rotated in OpenBao while calls are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate_tests::bao::Bao;
use tollgate_tests::fixture::{CHAT_ONLY, CHECKOUT};
use tollgate_tests::provider::{self, chat};
use tollgate_tests::resources::{credential, destination, grant, vault_store};
use tollgate_tests::{Client, FullStack, Plan, Protocol, Upstream, needs};

async fn load(client: Client, path: &'static str, protocol: Protocol, stop: Arc<AtomicBool>) -> usize {
    let mut connection = client.open(protocol).await.expect("a connection");
    let mut calls = 0;
    while !stop.load(Ordering::SeqCst) {
        connection.send(client.json(path, &chat(50))).await.expect("an answer").assert_status(200);
        calls += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_rotated_under_load_fails_no_call_while_both_keys_are_good() {
    needs!(FullStack::possible());
    let full_stack = FullStack::start("[{tokens: 90000000, per: day}]").await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = full_stack.caller(CHECKOUT);
    let loads: Vec<_> = [Protocol::H1, Protocol::H2]
        .into_iter()
        .cycle()
        .take(6)
        .map(|protocol| {
            tokio::spawn(load(client.clone(), "/openai/v1/chat/completions", protocol, stop.clone()))
        })
        .collect();
    for round in 1..=3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        full_stack.bao.put("llm/openai", "api_key", &full_stack.openai_keys[round % 2]).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::SeqCst);
    let mut calls = 0;
    for load in loads {
        calls += load.await.expect("no call failed");
    }
    assert_eq!(full_stack.aimock.journal().len(), calls);
    assert!(calls > 100, "{calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_provider_revokes_is_fetched_again_and_the_call_repeated() {
    needs!(Bao::installed());
    let plan = Plan::openai(CHAT_ONLY);
    let next = plan.sandbox.canary("next");
    let bao = Bao::start(&plan.sandbox).await;
    bao.put("llm/up", "api_key", &plan.key).await;
    let token = bao.reader_token(&plan.sandbox).await;
    let revoked = Arc::new(AtomicBool::new(false));
    let (before, after) = (provider::openai(&plan.key, 9, 2), provider::openai(&next, 9, 2));
    let switch = revoked.clone();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| {
        if switch.load(Ordering::SeqCst) { after(seen) } else { before(seen) }
    })
    .await;
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "openai")
        + &vault_store("bao", &bao.address(), bao.ca(), &token)
        + &credential(
            "up-key",
            "up",
            "{store: bao, path: llm/up, field: api_key}\n  refresh: 1h",
            "{bearer: {}}",
        )
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", CHAT_ONLY);
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    let path = "/up/v1/chat/completions";
    client.post(path, &chat(50)).await.assert_status(200);
    bao.put("llm/up", "api_key", &next).await;
    revoked.store(true, Ordering::SeqCst);
    let body = chat(50);
    let (first, second) = tokio::join!(client.post(path, &body), client.post(path, &body));
    first.assert_status(200);
    second.assert_status(200);
    for _ in 0..18 {
        client.post(path, &body).await.assert_status(200);
    }
    let rejected = fixture
        .upstream
        .seen()
        .iter()
        .filter(|seen| seen.header("authorization") == format!("Bearer {}", fixture.key))
        .count();
    assert!((2..=3).contains(&rejected), "only the calls under way noticed: {rejected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn provoked_rejections_do_not_hammer_the_vault() {
    let plan = Plan::openai(CHAT_ONLY);
    let value = serde_json::json!({"data": {"data": {"api_key": plan.key}, "metadata": {"version": 1}}});
    let vault = Upstream::http(&plan.pki.server(&plan.sandbox, &["localhost"]), &["http/1.1"], move |_| {
        tollgate_tests::Reply::json(&value)
    })
    .await;
    let token = plan.sandbox.input("bao.token", plan.sandbox.canary("vault"));
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| provider::wrong_key()).await;
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "openai")
        + &vault_store("bao", &format!("https://127.0.0.1:{}", vault.port()), plan.pki.bundle(), &token)
        + &credential(
            "up-key",
            "up",
            "{store: bao, path: llm/up, field: api_key}\n  refresh: 1h",
            "{bearer: {}}",
        )
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", CHAT_ONLY);
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    for _ in 0..30 {
        client.post("/up/v1/chat/completions", &chat(50)).await.assert_refused(502, "credential_rejected");
    }
    let reads = vault.seen().iter().filter(|seen| seen.target.contains("/data/")).count();
    assert!(reads <= 3, "{reads} reads for one version of one credential");
}
