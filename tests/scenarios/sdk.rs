//! Unmodified SDKs with a client certificate and no key.

use serde_json::{Value, json};
use tollgate_tests::aimock::{ANTHROPIC_USAGE, OPENAI_USAGE, TEXT};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::provider::{ANTHROPIC_MODEL, OPENAI_MODEL};
use tollgate_tests::report::{report, requests_reach, total};
use tollgate_tests::{Client, FullStack, needs, python};

const SHAPES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

async fn openai(full_stack: &FullStack, client: &Client, more: Value) -> Value {
    let mut call = json!({"path": "/openai/v1", "model": OPENAI_MODEL});
    for (name, value) in more.as_object().unwrap() {
        call[name] = value.clone();
    }
    python::run(&full_stack.sandbox, "openai_chat.py", client, full_stack.pki.bundle(), &call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_get_answers_with_keys_that_only_the_vault_and_the_provider_saw() {
    needs!(python::installed(), FullStack::possible());
    let mut full_stack = FullStack::start(
        "[{requests: 600, per: minute}, {tokens: 2000000, per: day}, {spend: 5 USD, per: month}]",
    )
    .await;
    let client = full_stack.caller(CHECKOUT);
    for (http2, stream) in SHAPES {
        let said = openai(&full_stack, &client, json!({"http2": http2, "stream": stream})).await;
        assert_eq!(said["text"], TEXT, "{said}");
        let call = json!({"path": "/anthropic", "model": ANTHROPIC_MODEL, "http2": http2, "stream": stream});
        let said = python::run(
            &full_stack.sandbox,
            "anthropic_messages.py",
            &client,
            full_stack.pki.bundle(),
            &call,
        )
        .await;
        assert_eq!(said["text"], TEXT, "{said}");
        assert_eq!(said["usage"]["output_tokens"], ANTHROPIC_USAGE.1, "{said}");
    }
    let journal = full_stack.aimock.journal();
    assert_eq!(journal.len(), 8);
    assert!(
        !serde_json::to_string(&journal).unwrap().contains("unused"),
        "the SDK's own key reached the provider"
    );
    requests_reach(&full_stack.gateway, 8).await;
    let rows = report(&full_stack.gateway, "caller,destination,model");
    let openai = |row: &Value| row["destination"] == "openai";
    assert_eq!(total(&rows, "input", openai), 4 * OPENAI_USAGE.0, "{rows:#?}");
    assert_eq!(total(&rows, "output", openai), 4 * OPENAI_USAGE.1, "{rows:#?}");
    assert_eq!(
        total(&rows, "output", |row| row["destination"] == "anthropic"),
        4 * ANTHROPIC_USAGE.1,
        "{rows:#?}"
    );
    assert!(rows.iter().all(|row| row["caller"] == CHECKOUT), "{rows:#?}");
    assert!(full_stack.gateway.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_responses_api_is_metered_streamed_and_not() {
    needs!(python::installed(), FullStack::possible());
    let full_stack = FullStack::start("[{tokens: 2000000, per: day}]").await;
    let client = full_stack.caller(CHECKOUT);
    for stream in [false, true] {
        let said = openai(&full_stack, &client, json!({"api": "responses", "stream": stream})).await;
        assert_eq!(said["text"], TEXT, "{said}");
    }
    requests_reach(&full_stack.gateway, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_usage_only_to_a_caller_that_asked_for_it() {
    needs!(python::installed(), FullStack::possible());
    let full_stack = FullStack::start("[{tokens: 2000000, per: day}]").await;
    let client = full_stack.caller(CHECKOUT);
    let plain = openai(&full_stack, &client, json!({"stream": true})).await;
    assert_eq!((&plain["usage"], &plain["chunks_without_choices"]), (&Value::Null, &json!(0)), "{plain}");
    let asked = openai(&full_stack, &client, json!({"stream": true, "include_usage": true})).await;
    assert_eq!(asked["usage"]["completion_tokens"], OPENAI_USAGE.1, "{asked}");
    requests_reach(&full_stack.gateway, 2).await;
    let rows = report(&full_stack.gateway, "destination");
    assert_eq!(total(&rows, "output", |_| true), 2 * OPENAI_USAGE.1, "{rows:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_show_why_a_call_was_refused() {
    needs!(python::installed(), FullStack::possible());
    let full_stack = FullStack::start("[{tokens: 2000000, per: day}]").await;
    let billing = full_stack.caller("spiffe://prod.acme/ns/billing/sa/web");
    let said = openai(&full_stack, &billing, json!({})).await;
    assert_eq!((&said["status"], &said["reason"]), (&json!(403), &json!("no_grant")), "{said}");
    assert!(said["message"].as_str().unwrap().contains("no_grant: spiffe://prod.acme/ns/billing"), "{said}");
    let told = ["code", "param", "type"].map(|name| said["body"][name].clone());
    assert_eq!(told, [json!("no_grant"), Value::Null, json!("tollgate_refusal")], "{said}");
    assert_eq!(said["id"], said["own_id"], "{said}");
    let call = json!({"path": "/anthropic", "model": ANTHROPIC_MODEL});
    let said =
        python::run(&full_stack.sandbox, "anthropic_messages.py", &billing, full_stack.pki.bundle(), &call)
            .await;
    assert_eq!((&said["status"], &said["reason"]), (&json!(403), &json!("no_grant")), "{said}");
    assert!(said["message"].as_str().unwrap().contains("no_grant: spiffe://prod.acme/ns/billing"), "{said}");
    let body = &said["body"];
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("permission_error")),
        "{said}"
    );
    assert_eq!((&said["id"], &body["request_id"]), (&said["own_id"], &said["own_id"]), "{said}");
    let batch = full_stack.caller("spiffe://prod.acme/ns/batch/sa/nightly");
    for stream in [false, true] {
        let said = openai(&full_stack, &batch, json!({"stream": stream})).await;
        assert_eq!((&said["status"], &said["reason"]), (&json!(429), &json!("budget_exhausted")), "{said}");
        assert!(said["message"].as_str().unwrap().contains("tokens"), "{said}");
    }
    assert_eq!(full_stack.aimock.journal().len(), 0);
}
