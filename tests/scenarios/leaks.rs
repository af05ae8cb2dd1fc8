//! The leak sweep's own scenario: panics at every stage, refused reloads, failures, all sinks, and decoys in each of them.

use std::fs;
use std::time::Duration;

use http::{HeaderValue, Method};
use serde_json::json;
use tollgate_tests::gateway::eventually;
use tollgate_tests::provider::{self, chat};
use tollgate_tests::report::requests_reach;
use tollgate_tests::stand::CHAT_ONLY;
use tollgate_tests::{Plan, Protocol, Stand};

const CHAT: &str = "/up/v1/chat/completions";
const STAGES: [&str; 11] = [
    "identity", "target", "admit", "facts", "permit", "hold", "secret", "connect", "inject", "send", "scrub",
];

fn limited() -> Plan {
    Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 9000000, per: day}}, {{concurrency: 50}}]\n"))
}

async fn faulty(
    stand: &Stand,
    protocol: Protocol,
    stage: &str,
    stream: bool,
) -> Result<tollgate_tests::Answer, tollgate_tests::client::Failure> {
    let client = stand.checkout();
    let mut body = chat(40);
    body["stream"] = stream.into();
    let mut request = client.json(CHAT, &body);
    request
        .headers_mut()
        .insert("x-tollgate-fault", HeaderValue::from_str(&format!("panic@{stage}")).unwrap());
    client.send(protocol, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_any_stage_is_one_refused_call_and_one_record() {
    let stand = limited().start_openai(9, 2).await;
    let mut calls = 0;
    for protocol in Protocol::BOTH {
        for stage in STAGES {
            let answer = faulty(&stand, protocol, stage, false).await.unwrap();
            answer.assert_refused(500, "internal");
            assert!(
                !answer.text().contains("panic") && !answer.text().contains(stage),
                "{stage}: {}",
                answer.text()
            );
            calls += 1;
        }
        stand.checkout().post(CHAT, &chat(40)).await.assert_status(200);
        calls += 1;
    }
    // A panic before the caller is known leaves none.
    let unproven = 2;
    requests_reach(&stand.gateway, calls - unproven).await;
    eventually("nothing stays held", || stand.gateway.metrics().sum("tollgate_limit_held", &[]) == 0.0).await;
    assert_eq!(stand.gateway.metrics().sum("tollgate_requests_in_flight", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_body_cuts_the_stream_and_settles_the_hold() {
    let stand = limited().start_openai(9, 2).await;
    for protocol in Protocol::BOTH {
        let cut = faulty(&stand, protocol, "body", true).await;
        assert!(cut.is_err() || cut.unwrap().status == 500);
    }
    stand.checkout().post(CHAT, &chat(40)).await.assert_status(200);
    requests_reach(&stand.gateway, 3).await;
    eventually("nothing stays held", || stand.gateway.metrics().sum("tollgate_limit_held", &[]) == 0.0).await;
}

/// Everything that goes wrong, on one gateway.
async fn misery(stand: &Stand) {
    let client = stand.checkout();
    for stage in STAGES.iter().chain(&["body"]) {
        for stream in [false, true] {
            let _ = faulty(stand, Protocol::H1, stage, stream).await;
        }
    }
    client.post(CHAT, &chat(40)).await;
    client.post(CHAT, &json!({"model": "gpt-5-mini", "mode\u{6c}": 1, "messages": []})).await;
    stand.caller("spiffe://prod.acme/ns/billing/sa/web").get("/up/x").await;
    stand.stranger(None).refusal().await;
    client.raw(b"GET /up/x HTTP/1.1\r\nhost: localhost\r\nhost: x\r\n\r\n").await;
    let mut request = client.request(Method::GET, "/up/x", "");
    request.headers_mut().insert("authorization", HeaderValue::from_str(&stand.key).unwrap());
    let _ = client.send(Protocol::H2, request).await;
    let (file, text) = stand.gateway.settings().resources[0].clone();
    let generation = stand.gateway.generation();
    stand.gateway.write_resource(&file, &text.replace("kind: Grant", "kind: Grand"));
    let failed = || stand.gateway.metrics().sum("tollgate_config_reload_failures_total", &[]) > 0.0;
    eventually("the broken configuration is refused", failed).await;
    assert_eq!(stand.gateway.generation(), generation);
    stand.gateway.write_resource(&file, &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_in_any_sink_and_every_decoy_is() {
    let plan = limited();
    let respond = provider::openai(&plan.key, 9, 2);
    let key = plan.key.clone();
    let mut stand = plan
        .start(move |seen| respond(seen).header("x-echo", &key).header("set-cookie", &format!("k={key}")))
        .await;
    misery(&stand).await;
    stand.gateway.kill();
    stand.gateway.restart().await;
    misery_of_the_key(&stand).await;
    for arguments in [
        &["check"][..],
        &["report", "--by", "caller,model"],
        &["report", "--by", "caller", "--format", "csv"],
        &["ledger", "verify"],
        &["audit", "verify"],
        &["audit", "list"],
        &["credential", "ls"],
        &["credential", "test", "--all"],
    ] {
        stand.gateway.tollgate(arguments);
    }
    assert!(stand.gateway.stop().success());
    let sinks = stand.world.sinks();
    for sink in [
        "tollgate.stdout",
        "tollgate.stderr",
        "proc-cmdline",
        "proc-environ",
        "admin-metrics",
        "admin-debug-snapshot",
        "admin-debug-credentials",
        "cli.txt",
        "gateway/data/ledger.sqlite",
        "gateway/data/audit/journal",
    ] {
        assert!(sinks.join(sink).exists(), "{sink} was not captured");
    }
    stand.world.assert_swept();
}

/// The key goes away, comes back broken, and comes back.
async fn misery_of_the_key(stand: &Stand) {
    let file = stand.world.inputs().join("keys/up");
    let good = fs::read(&file).unwrap();
    for bad in [b"".to_vec(), b"line\nbreak".to_vec(), vec![b'k'; 100_000], [&good[..], b"\0\xff"].concat()] {
        fs::write(&file, bad).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stand.checkout().post(CHAT, &chat(40)).await;
    }
    fs::remove_file(&file).unwrap();
    stand.checkout().post(CHAT, &chat(40)).await;
    fs::write(&file, good).unwrap();
}
