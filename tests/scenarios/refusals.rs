//! What a caller reads when it is refused.

use http::Method;
use serde_json::{Value, json};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Plan, Protocol, Reply, ledger, needs, python};

#[tokio::test(flavor = "multi_thread")]
async fn boto3_says_why_a_call_was_refused_in_every_protocol() {
    needs!(python::installed());
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let billing = fixture.caller("spiffe://prod.acme/ns/billing/sa/web");
    let argument = json!({"region": "eu-central-1"});
    let said =
        python::run(&fixture.sandbox, "aws_refused.py", &billing, fixture.pki.bundle(), &argument).await;
    for (service, told) in said.as_object().unwrap() {
        assert_eq!(told["reason"], "no_grant", "{service}: {told}");
        if service == "s3 head" {
            // HTTP has no place for more than the header.
            assert_eq!(told["code"], "403", "{told}");
            continue;
        }
        let text = told["text"].as_str().unwrap();
        assert!(text.starts_with("An error occurred (no_grant) when calling"), "{service}: {told}");
        assert!(text.contains("has no grant for destination up"), "{service}: {told}");
        assert_eq!(told["id"], told["own"], "{service}: {told}");
    }
    assert_eq!(said.as_object().unwrap().len(), 10);
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_has_no_body_and_its_connection_goes_on() {
    for dialect in ["http", "openai", "anthropic", "google"] {
        let fixture = Plan { dialect, ..Plan::new() }.start(|_| Reply::status(200)).await;
        let billing = fixture.caller("spiffe://prod.acme/ns/billing/sa/web");
        for protocol in Protocol::BOTH {
            let mut connection = billing.open(protocol).await.unwrap();
            for _ in 0..2 {
                let head = connection.send(billing.request(Method::HEAD, "/up/x", "")).await.unwrap();
                assert_eq!((head.status.as_u16(), head.header("x-tollgate-reason")), (403, "no_grant"));
                assert!(head.body.is_empty(), "{dialect} {protocol:?}: {}", head.text());
                let get = connection.send(billing.request(Method::GET, "/up/x", "")).await.unwrap();
                get.assert_refused(403, "no_grant");
                assert_eq!(head.header("content-length"), get.body.len().to_string());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_the_destination_is_known_is_a_problem_with_a_message() {
    let fixture = Plan::openai(CHAT_ONLY).start(|_| Reply::status(200)).await;
    let answer = fixture.checkout().get("/nobody/x").await;
    answer.assert_refused(421, "unknown_host");
    assert_eq!(answer.header("content-type"), "application/problem+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_budget_says_its_amount_its_use_and_when_it_resets() {
    let grant =
        format!("{CHAT_ONLY}  limits: [{{tokens: 10000, per: day}}, {{requests: 3, per: hour, burst: 2}}]\n");
    let fixture = Plan::openai(&grant).start_openai(4000, 1000).await;
    let client = fixture.checkout();
    let call = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 1000});
    client.post("/up/v1/chat/completions", &call).await.assert_status(200);
    let answer = client.post("/up/v1/chat/completions", &call).await;
    answer.assert_refused(429, "budget_exhausted");
    let (told, limit) = (answer.json(), &answer.json()["limit"]);
    let number = |name: &str| limit[name].as_u64().unwrap_or_else(|| panic!("{name}: {told}"));
    assert_eq!(limit["id"], "grant/checkout-up/tokens/day/shared", "{told}");
    assert_eq!(
        (&limit["unit"], number("amount"), number("used"), number("held")),
        (&json!("tokens"), 10_000, 5_000, 0)
    );
    assert!(number("needed") > 5_000, "{told}");
    assert_eq!(answer.header("retry-after"), number("resets_in").to_string(), "{told}");
    assert_eq!(answer.header("x-should-retry"), "false");
    let message = told["error"]["message"].as_str().unwrap();
    for words in [
        "5000 tokens of 10000 tokens used",
        "0 tokens held",
        &format!("{} tokens", number("needed")),
        "resets",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let tiny = json!({"model": "gpt-5-mini", "messages": [], "max_completion_tokens": 1});
    client.post("/up/v1/chat/completions", &tiny).await.assert_status(200);
    let answer = client.post("/up/v1/chat/completions", &tiny).await;
    let limit = &answer.json()["limit"];
    if answer.header("x-tollgate-reason") == "rate_limited" {
        assert_eq!(
            (&limit["amount"], &limit["burst"], &limit["needed"]),
            (&json!(3), &json!(2), &json!(1)),
            "{limit}"
        );
        assert_eq!(answer.header("retry-after"), limit["resets_in"].to_string());
    } else {
        answer.assert_refused(429, "budget_exhausted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_of_a_refused_call_is_in_record_and_log() {
    let fixture = Plan::openai(CHAT_ONLY).start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let call = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    let long = "x".repeat(200);
    for model in ["gpt-4o", "evil\u{1b}[2J\u{202e}model", &long] {
        client.post("/up/v1/chat/completions", &call(model)).await.assert_refused(403, "model_not_allowed");
    }
    let models = || ledger::column(&fixture.gateway, "model");
    eventually("the refusals are written", || models().len() == 3).await;
    let models = models();
    assert_eq!(models[..2], ["gpt-4o", "evil[2Jmodel"], "{models:?}");
    assert!(models[2].len() <= 128 && models[2].starts_with("xxxx"), "{models:?}");
    assert_eq!(ledger::column(&fixture.gateway, "operation"), ["chat"; 3]);
    let logged = || -> Vec<Value> {
        let lines = fixture.gateway.log().into_iter();
        lines.filter(|line| line.to_string().contains("model_not_allowed")).collect()
    };
    eventually("the refusals are logged", || logged().len() >= 3).await;
    for model in &models {
        assert!(
            logged().iter().any(|line| line.to_string().contains(model.as_str())),
            "{model}: {:#?}",
            logged()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_told_that_there_is_a_base_url() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let answer =
        fixture.checkout().raw(b"CONNECT api.up.test:443 HTTP/1.1\r\nhost: api.up.test:443\r\n\r\n").await;
    let text = String::from_utf8_lossy(&answer.bytes).to_lowercase();
    assert_eq!((answer.statuses(), answer.closed), (vec![405], true), "{text}");
    for words in ["x-tollgate-reason: method_refused", "allow: get, head", "no forward proxy", "base url"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_handshake_is_refused_as_that_wherever_it_goes() {
    let everything = "  allow: {methods: [GET, POST], paths: [\"/**\"]}\n";
    let limited = format!("{everything}  limits: [{{tokens: 100000, per: day}}]\n");
    for plan in [Plan::new(), Plan::openai(everything), Plan::openai(&limited)] {
        let fixture = plan.start(|_| Reply::status(426)).await;
        let client = fixture.checkout();
        for (path, upgrade, words) in [
            ("/up/v1/responses", "websocket", "WebSocket is not forwarded"),
            ("/up/v1/realtime?model=gpt-realtime", "WebSocket", "WebSocket is not forwarded"),
            ("/up/x", "h2c, websocket", "WebSocket is not forwarded"),
            ("/up/x", "h2c\r\nupgrade: websocket", "WebSocket is not forwarded"),
            ("/up/x", "SPDY/3.1", "another protocol"),
        ] {
            let raw = format!(
                "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: keep-alive, Upgrade\r\nupgrade: {upgrade}\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n\
                 GET /nobody HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n",
                host = client.authority()
            );
            let answer = client.raw(raw.as_bytes()).await;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            assert_eq!(answer.statuses(), [426, 421], "{path} {upgrade}: {text}");
            for words in ["x-tollgate-reason: upgrade_refused", "upgrade: HTTP/1.1", words] {
                assert!(text.contains(words), "{words}: {text}");
            }
        }
        assert_eq!(fixture.upstream.count(), 0);
        let reasons = || ledger::column(&fixture.gateway, "reason");
        eventually("all are recorded", || reasons().iter().filter(|r| *r == "upgrade_refused").count() == 5)
            .await;
    }
}
