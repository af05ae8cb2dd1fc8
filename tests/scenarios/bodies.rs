//! Bodies that two parsers could read differently, and small ones that cost much.

use std::io::Write;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::provider::{chat, chat_completion};
use tollgate_tests::{Answer, Fixture, Plan, Protocol, Reply};

const CHAT: &str = "/up/v1/chat/completions";
const WIDE: &str = "  allow: {methods: [GET, POST, DELETE], paths: [\"/v1/**\"], models: [gpt-5-mini]}\n  limits: [{tokens: 1000000, per: day}]\n";

async fn send(
    fixture: &Fixture,
    protocol: Protocol,
    path: &str,
    body: impl Into<bytes::Bytes>,
    headers: &[(&str, &str)],
) -> Answer {
    let client = fixture.checkout();
    let mut request = client.request(http::Method::POST, path, body);
    request.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    client.send(protocol, request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_parsers_may_read_differently_is_refused_before_it_leaves() {
    let fixture = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 1000000, per: day}}]\n"))
        .start_openai(9, 2)
        .await;
    let messages = r#""messages":[{"role":"user","content":"hi"}],"max_completion_tokens":9"#;
    let utf16: Vec<u8> =
        format!(r#"{{"model":"gpt-5-mini",{messages}}}"#).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (format!(r#"{{"model":"gpt-5-mini","model":"gpt-5",{messages}}}"#).into(), 400, "ambiguous_body"),
        (
            format!(r#"{{"model":"gpt-5-mini","mod\u0065l":"gpt-5",{messages}}}"#).into(),
            400,
            "ambiguous_body",
        ),
        (format!(r#"{{"model":"gpt-5-mini","Model":"gpt-5",{messages}}}"#).into(), 400, "ambiguous_body"),
        (
            format!(r#"{{"model":"gpt-5-mini",{messages},"max_completion_tokens":90000}}"#).into(),
            400,
            "ambiguous_body",
        ),
        (format!(r#"{{"model":"gpt-5-mini",{messages},"n":1,"n":50}}"#).into(), 400, "ambiguous_body"),
        (
            format!(r#"{{"model":"gpt-5-mini",{messages},"stream":false,"stream":true}}"#).into(),
            400,
            "ambiguous_body",
        ),
        (format!(r#"{{{messages}}}"#).into(), 403, "model_required"),
        (format!(r#"{{"model":null,{messages}}}"#).into(), 400, "body_invalid"),
        (format!(r#"{{"model":"gpt-5",{messages}}}"#).into(), 403, "model_not_allowed"),
        (format!(r#"{{"model":"gpt-5-mini ",{messages}}}"#).into(), 403, "model_not_allowed"),
        (utf16, 400, "body_invalid"),
        (b"\xef\xbb\xbf{\"model\":\"gpt-5-mini\"}".to_vec(), 400, "body_invalid"),
        (b"{\"model\":\"gpt-5-mini\xff\"}".to_vec(), 400, "body_invalid"),
        (format!(r#"{{"model":"gpt-5-mini",{messages}}} {{"model":"gpt-5"}}"#).into(), 400, "body_invalid"),
        (format!(r#"{{"model":"gpt-5-mini",{messages}"#).into(), 400, "body_invalid"),
        (format!(r#"{{'model':'gpt-5-mini',{messages}}}"#).into(), 400, "body_invalid"),
        (br#"["gpt-5-mini"]"#.to_vec(), 400, "body_invalid"),
        (b"".to_vec(), 400, "body_invalid"),
        (br#"{"model":["gpt-5-mini"],"messages":[]}"#.to_vec(), 400, "body_invalid"),
    ];
    for (body, status, reason) in cases {
        for protocol in Protocol::BOTH {
            let shown = String::from_utf8_lossy(&body).into_owned();
            let answer = send(&fixture, protocol, CHAT, body.clone(), &[]).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-tollgate-reason")),
                (status, reason),
                "{shown}: {}",
                answer.text()
            );
        }
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_we_cannot_read_is_415_where_models_or_money_are_limited() {
    let fixture = Plan::openai(CHAT_ONLY).start_openai(9, 2).await;
    let body = chat(9).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for encoding in ["gzip", "br", "x-unknown", "identity, gzip"] {
        let answer =
            send(&fixture, Protocol::H1, CHAT, gzip.clone(), &[(CONTENT_ENCODING.as_str(), encoding)]).await;
        answer.assert_refused(415, "unsupported_encoding");
    }
    for kind in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/json; charset=utf-16",
    ] {
        let answer = send(&fixture, Protocol::H1, CHAT, body.clone(), &[(CONTENT_TYPE.as_str(), kind)]).await;
        answer.assert_refused(415, "unsupported_media_type");
    }
    let mut twice = fixture.checkout().json(CHAT, &chat(9));
    twice.headers_mut().append(CONTENT_TYPE, "text/plain".parse().unwrap());
    let twice = fixture.checkout().send(Protocol::H1, twice).await.unwrap();
    assert!(twice.status == 415 || twice.status == 400, "two content types: {}", twice.text());
    assert_eq!(fixture.upstream.count(), 0);
    send(&fixture, Protocol::H1, CHAT, body.clone(), &[("content-encoding", "identity")])
        .await
        .assert_status(200);
    send(&fixture, Protocol::H1, CHAT, body, &[("content-type", "application/json; charset=UTF-8")])
        .await
        .assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_bound_is_413() {
    let fixture = Plan::openai(CHAT_ONLY).start_openai(9, 2).await;
    let mut body = chat(9);
    body["messages"][0]["content"] = Value::from("x".repeat(40 << 20));
    let client = fixture.checkout();
    let answer = client.send(Protocol::H2, client.json(CHAT, &body)).await.unwrap();
    answer.assert_refused(413, "body_too_large");
    // Over HTTP/1.1 the connection may be cut while the body is still being written.
    if let Ok(answer) = client.send(Protocol::H1, client.json(CHAT, &body)).await {
        answer.assert_refused(413, "body_too_large");
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_path_opens_neither_keys_nor_accounts_nor_deferred_work() {
    let fixture = Plan::openai(WIDE).start_openai(9, 2).await;
    let client = fixture.checkout();
    for (path, reason) in [
        ("/up/v1/organization/admin_api_keys", "endpoint_class"),
        ("/up/v1/organization/projects", "endpoint_class"),
        ("/up/v1/organization/users", "endpoint_class"),
        ("/up/v1/realtime/client_secrets", "endpoint_class"),
        ("/up/v1/batches", "deferred_cost"),
        ("/up/v1/fine_tuning/jobs", "endpoint_class"),
        ("/up/v1/nobody-knows-this", "unmetered_endpoint"),
    ] {
        let answer = client.post(path, &json!({"model": "gpt-5-mini", "input_file_id": "file-1"})).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-tollgate-reason")),
            (403, reason),
            "{path}: {}",
            answer.text()
        );
    }
    let background =
        json!({"model": "gpt-5-mini", "input": "hi", "background": true, "max_output_tokens": 9});
    client.post("/up/v1/responses", &background).await.assert_refused(403, "deferred_cost");
    assert_eq!(fixture.upstream.count(), 0);
}

/// What one call holds of the fixture's token limit while it is under way.
async fn held(body: &Value, path: &str) -> f64 {
    let grant = WIDE.replace("1000000,", "900000000,");
    let fixture = Plan::openai(&grant)
        .start(|_| {
            Reply::status(200)
                .header("content-type", "application/json")
                .wait(Duration::from_secs(2))
                .data(chat_completion(1, 1).to_string())
        })
        .await;
    let client = fixture.checkout();
    let call = client.post(path, body);
    let mut most = 0.0_f64;
    let watch = async {
        eventually("the call holds something", || {
            most = most.max(fixture.gateway.metrics().sum("tollgate_limit_held", &["unit=\"tokens\""]));
            most > 0.0
        })
        .await;
    };
    let (answer, ()) = tokio::join!(call, watch);
    answer.assert_status(200);
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn what_multiplies_cost_is_held_for() {
    let base = held(&chat(1000), CHAT).await;
    // Body bytes, 4096 tokens for what a provider adds to a prompt, and the cap.
    assert!((1000.0 + 4096.0..1000.0 + 5096.0).contains(&base), "{base}");
    let with = |name: &str, value: Value| {
        let mut body = chat(1000);
        body[name] = value;
        body
    };
    let four = held(&with("n", json!(4)), CHAT).await;
    assert!((base + 3000.0..base + 3100.0).contains(&four), "n: {four}");
    let larger = held(&with("max_tokens", json!(5000)), CHAT).await;
    assert!((base + 4000.0..base + 4100.0).contains(&larger), "of two caps the larger counts: {larger}");
    let window = 200_000.0;
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/1.png"}}]}]);
    for (name, value) in [("messages", image), ("a_member_of_next_year", json!(true))] {
        let whole = held(&with(name, value), CHAT).await;
        assert!(whole > window, "{name}: {whole}");
    }
    let earlier = json!({"model": "gpt-5-mini", "input": "hi", "max_output_tokens": 1000, "previous_response_id": "resp_1"});
    let whole = held(&earlier, "/up/v1/responses").await;
    assert!(whole > window, "previous_response_id: {whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_cap_gets_the_grants_cap_written_into_it() {
    let grant = format!("{CHAT_ONLY}  limits: [{{tokens: 1000000, per: day}}]\n  defaultOutputCap: 321\n");
    let fixture = Plan::openai(&grant).start_openai(9, 2).await;
    let mut body = chat(1);
    body.as_object_mut().unwrap().remove("max_completion_tokens");
    body["metadata"] = json!({"kept": "as it was"});
    let client = fixture.checkout();
    client.post(CHAT, &body).await.assert_status(200);
    let mut seen = fixture.upstream.only().json();
    assert_eq!(seen["max_completion_tokens"], 321);
    seen.as_object_mut().unwrap().remove("max_completion_tokens");
    assert_eq!(seen, body, "nothing else of the body changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_bound_is_refused() {
    let grant = WIDE.replace("tokens: 1000000, per: day", "spend: 5 USD, per: day");
    let fixture = Plan::openai(&grant).start_openai(9, 2).await;
    let client = fixture.checkout();
    for tool in ["code_interpreter", "web_search", "a_tool_of_next_year"] {
        let mut call = json!({"model": "gpt-5-mini", "input": "hi", "max_output_tokens": 9});
        call["tools"] = json!([{"type": tool}]);
        client.post("/up/v1/responses", &call).await.assert_refused(400, "unbounded_cost");
    }
    assert_eq!(fixture.upstream.count(), 0);
    let mut capped =
        json!({"model": "gpt-5-mini", "input": "hi", "max_output_tokens": 9, "max_tool_calls": 2});
    capped["tools"] = json!([{"type": "web_search"}]);
    client.post("/up/v1/responses", &capped).await.assert_status(200);
}
