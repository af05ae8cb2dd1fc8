//! The parts themselves: what the other scenarios conclude from them holds.

use std::time::Duration;

use serde_json::json;
use tollgate_tests::aimock::{ANTHROPIC_USAGE, Aimock, OPENAI_USAGE, TEXT};
use tollgate_tests::bao::Bao;
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::provider::{ANTHROPIC_MODEL, OPENAI_MODEL};
use tollgate_tests::{Authority, Client, Protocol, Reply, Sandbox, Upstream, needs, process, python};

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_refuses_any_other_key_and_reports_usage() {
    needs!(Aimock::installed(), Haproxy::installed());
    let sandbox = Sandbox::new();
    let pki = Authority::new(&sandbox, "pki");
    let key = sandbox.canary("openai");
    let aimock = Aimock::start(&sandbox, &[&key]).await;
    let front = Haproxy::front(&sandbox, &pki.server(&sandbox, &["localhost"]), aimock.address()).await;
    let client = Client::new(&sandbox, process::local(front.port()), pki.roots(), None);
    for protocol in Protocol::BOTH {
        let call = json!({"model": OPENAI_MODEL, "messages": [{"role": "user", "content": "hi"}]});
        let mut request = client.json("/v1/chat/completions", &call);
        request.headers_mut().insert("authorization", "Bearer another".parse().unwrap());
        assert_eq!(client.send(protocol, request).await.unwrap().status, 401);
        let mut request = client.json("/v1/chat/completions", &call);
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        let answer = client.send(protocol, request).await.unwrap();
        answer.assert_status(200);
        assert_eq!(answer.json()["usage"]["prompt_tokens"], OPENAI_USAGE.0);
        assert_eq!(answer.json()["choices"][0]["message"]["content"], TEXT);
        let call = json!({"model": ANTHROPIC_MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        let mut request = client.json("/v1/messages", &call);
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        let answer = client.send(protocol, request).await.unwrap();
        assert_eq!(answer.json()["usage"]["output_tokens"], ANTHROPIC_USAGE.1, "{}", answer.text());
    }
    assert_eq!(aimock.journal().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vault_keeps_versions_and_can_be_sealed() {
    needs!(Bao::installed());
    let sandbox = Sandbox::new();
    let bao = Bao::start(&sandbox).await;
    bao.put("llm/openai", "api_key", "one").await;
    bao.put("llm/openai", "api_key", "two").await;
    assert_eq!(bao.get("llm/openai", "api_key").await, (2, "two".to_owned()));
    bao.reader_token(&sandbox).await;
    bao.app_role(&sandbox).await;
    bao.seal().await;
    assert!(bao.is_sealed().await);
    bao.unseal().await;
    assert!(!bao.is_sealed().await);
    bao.put("llm/openai", "api_key", "three").await;
    assert_eq!(bao.get("llm/openai", "api_key").await, (3, "three".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripted_upstream_records_streams_and_breaks_off() {
    let sandbox = Sandbox::new();
    let pki = Authority::new(&sandbox, "pki");
    let server = pki.server(&sandbox, &["localhost"]);
    let upstream = Upstream::http(&server, &["h2", "http/1.1"], |seen| match seen.target.as_str() {
        "/events" => Reply::events(["one", "two"]).wait(Duration::from_millis(20)).event("three"),
        "/break" => Reply::status(200).data("begun").wait(Duration::from_millis(20)).abort(),
        _ => Reply::json(&json!({"path": seen.target})),
    })
    .await;
    let client = Client::new(&sandbox, upstream.address(), pki.roots(), None);
    for protocol in Protocol::BOTH {
        let events = client.send(protocol, client.request(http::Method::GET, "/events", "")).await.unwrap();
        assert_eq!(events.text(), "data: one\n\ndata: two\n\ndata: three\n\n");
        assert!(client.send(protocol, client.request(http::Method::GET, "/break", "")).await.is_err());
        let answer = client.post_over(protocol, "/x?y=1", &json!({"a": 1})).await;
        assert_eq!(answer.json()["path"], "/x?y=1");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!((seen.json(), seen.h2), (json!({"a": 1}), protocol == Protocol::H2));
        assert_eq!(seen.authority, format!("localhost:{}", upstream.port()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_talk_to_the_provider_and_show_what_it_says() {
    needs!(python::installed(), Aimock::installed(), Haproxy::installed());
    let sandbox = Sandbox::new();
    let pki = Authority::new(&sandbox, "pki");
    // The SDKs insist on some key; here it is the real one, behind the gateway it never is.
    let aimock = Aimock::start(&sandbox, &["unused"]).await;
    let front = Haproxy::front(&sandbox, &pki.server(&sandbox, &["localhost"]), aimock.address()).await;
    let client = Client::new(
        &sandbox,
        process::local(front.port()),
        pki.roots(),
        Some(pki.svid(&sandbox, "spiffe://prod.acme/ns/checkout/sa/web")),
    );
    for (http2, stream) in [(false, false), (false, true), (true, false), (true, true)] {
        let call = json!({"path": "/v1", "model": OPENAI_MODEL, "http2": http2, "stream": stream, "include_usage": stream});
        let said = python::run(&sandbox, "openai_chat.py", &client, pki.bundle(), &call).await;
        assert_eq!(said["text"], TEXT, "{said}");
        assert_eq!(said["usage"]["completion_tokens"], OPENAI_USAGE.1, "{said}");
        let call = json!({"path": "", "model": ANTHROPIC_MODEL, "http2": http2, "stream": stream});
        let said = python::run(&sandbox, "anthropic_messages.py", &client, pki.bundle(), &call).await;
        assert_eq!(said["text"], TEXT, "{said}");
        assert_eq!(said["usage"]["input_tokens"], ANTHROPIC_USAGE.0, "{said}");
    }
}
