use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_policy::dialect::Catalog;
use tollgate_policy::price::{NanoUsd, UNIT_MAX};

use super::*;
use crate::metering::catalog;

mod known_members;
mod pictures;
mod threats;

fn endpoint(dialect: &str, path: &str) -> Arc<Endpoint> {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    let catalog = CATALOG.get_or_init(|| catalog::shipped().unwrap());
    catalog.dialect(dialect).unwrap().endpoint("POST", path).unwrap().clone()
}

fn chat() -> Arc<Endpoint> {
    endpoint("openai", "/v1/chat/completions")
}

fn responses() -> Arc<Endpoint> {
    endpoint("openai", "/v1/responses")
}

fn messages() -> Arc<Endpoint> {
    endpoint("anthropic", "/v1/messages")
}

fn headers(content_type: &str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())])
}

fn read_text(endpoint: &Endpoint, body: &str) -> Result<ReadBody, Denial> {
    read(endpoint, &headers("application/json"), body.as_bytes())
}

fn facts(endpoint: &Endpoint, body: &Value) -> Facts {
    read_text(endpoint, &body.to_string()).unwrap().facts
}

/// The reason, and the detail, which names the member.
fn refusal(endpoint: &Endpoint, body: &str) -> (Reason, String) {
    let denial = read_text(endpoint, body).unwrap_err();
    (denial.reason, denial.detail.into_owned())
}

fn edited(endpoint: &Endpoint, body: &str, cap: Option<u64>) -> String {
    let read = read_text(endpoint, body).unwrap();
    let edited = apply(&read.edits(cap, None), Bytes::copy_from_slice(body.as_bytes()));
    let edited = String::from_utf8(edited.to_vec()).unwrap();
    serde_json::from_str::<Value>(&edited).unwrap_or_else(|error| panic!("{error}: {edited}"));
    edited
}

#[test]
fn a_chat_request_says_what_it_may_cost() {
    let body = json!({"model": "gpt-5-mini", "stream": true, "n": 3, "max_completion_tokens": 100, "max_tokens": 250,
        "service_tier": "flex", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5});
    let expected = Facts {
        model: Some("gpt-5-mini".into()),
        stream: true,
        body_bytes: body.to_string().len() as u64,
        output_cap: Some(250),
        choices: 3,
        tier: Some("flex".into()),
        ..Facts::default()
    };
    assert_eq!(facts(&chat(), &body), expected);
}

#[test]
fn a_request_that_says_little_leaves_it_open() {
    let body = json!({"model": "gpt-5-mini", "messages": [], "stream": null, "n": null, "max_tokens": null, "service_tier": null});
    let expected = Facts {
        model: Some("gpt-5-mini".into()),
        body_bytes: body.to_string().len() as u64,
        ..Facts::default()
    };
    assert_eq!(facts(&chat(), &body), expected);
    assert_eq!(facts(&chat(), &json!({"service_tier": "auto"})).tier, None);
}

#[test]
fn a_body_without_rules_is_not_read() {
    let plain = endpoint("http", "/any");
    let read = read(&plain, &HeaderMap::new(), b"\xff not json").unwrap();
    assert_eq!(read.facts, Facts { body_bytes: 10, ..Facts::default() });
    assert!(read.edits(Some(5), None).is_empty() && !read.hides_usage());
}

#[test]
fn json_in_utf_8_is_the_only_media_type() {
    let body = br#"{"model":"m"}"#;
    for good in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "application/json;",
    ] {
        assert!(read(&chat(), &headers(good), body).is_ok(), "{good}");
    }
    for bad in [
        "",
        "text/json",
        "application/json; charset=utf-16",
        "application/json; charset=latin1",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/plain",
        "application/jsonp",
        "application/json; profile=x",
    ] {
        assert_eq!(
            read(&chat(), &headers(bad), body).unwrap_err().reason,
            Reason::UnsupportedMediaType,
            "{bad}"
        );
    }
    assert_eq!(read(&chat(), &HeaderMap::new(), body).unwrap_err().reason, Reason::UnsupportedMediaType);
    let mut twice = headers("application/json");
    twice.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    assert_eq!(read(&chat(), &twice, body).unwrap_err().reason, Reason::UnsupportedMediaType);
}

#[test]
fn a_wrong_type_is_refused_by_the_members_name() {
    let cases = [
        (r#"{"model":7}"#, "model"),
        (r#"{"model":null}"#, "model"),
        (r#"{"model":""}"#, "model"),
        (r#"{"model":["m"]}"#, "model"),
        (r#"{"stream":"true"}"#, "stream"),
        (r#"{"stream":1}"#, "stream"),
        (r#"{"max_tokens":-1}"#, "max_tokens"),
        (r#"{"max_tokens":1.5}"#, "max_tokens"),
        (r#"{"max_tokens":1e3}"#, "max_tokens"),
        (r#"{"max_tokens":"100"}"#, "max_tokens"),
        (r#"{"max_completion_tokens":99999999999999999999}"#, "max_completion_tokens"),
        (r#"{"max_completion_tokens":1000000000001}"#, "max_completion_tokens"),
        (r#"{"n":[1]}"#, "n"),
        (r#"{"service_tier":1}"#, "service_tier"),
        (r#"{"stream_options":[]}"#, "stream_options"),
        (r#"{"stream":true,"stream_options":{"include_usage":"no"}}"#, "stream_options.include_usage"),
    ];
    for (body, member) in cases {
        let (reason, detail) = refusal(&chat(), body);
        assert_eq!(reason, Reason::BodyInvalid, "{body}");
        assert!(detail.starts_with(&format!("`{member}` ")), "{body}: {detail}");
    }
}

#[test]
fn what_is_no_json_object_is_refused_and_not_quoted() {
    let deep = format!(r#"{{"messages":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let bodies = [
        "",
        "[]",
        "\"model\"",
        "null",
        r#"{"model":"sk-secret"} x"#,
        r#"{"model":"sk-secret""#,
        r#"{"a":01}"#,
        "\u{feff}{}",
        "{'a':1}",
        r#"{"a":1,}"#,
        r#"{"messages":"sk-secret\x"}"#,
        "{\"a\":\"\n\"}",
        r#"{"tools":"sk-secret"}"#,
        r#"{"tools":["sk-secret"]}"#,
        &deep,
    ];
    for body in bodies {
        let (reason, detail) = refusal(&chat(), body);
        assert_eq!(reason, Reason::BodyInvalid, "{body}");
        assert!(!detail.contains("secret"), "{detail}");
    }
    let denial = read(&chat(), &headers("application/json"), b"{\"model\":\"\xff\"}").unwrap_err();
    assert_eq!(denial.reason, Reason::BodyInvalid);
}

#[test]
fn usage_is_forced_into_every_stream() {
    let cases = [
        (
            r#"{"model":"m","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#,
        ),
        (r#" { "stream" : true } "#, r#" {"stream_options":{"include_usage":true}, "stream" : true } "#),
        (
            r#"{"stream_options":null,"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_obfuscation":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":false,"x":1}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage": null }}"#,
            r#"{"stream":true,"stream_options":{"include_usage": true }}"#,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(edited(&chat(), body, None), expected);
        assert!(read_text(&chat(), body).unwrap().hides_usage(), "{body}");
    }
}

#[test]
fn a_body_that_needs_no_edit_is_sent_as_it_came() {
    for body in [
        r#"{"stream":true,"stream_options":{"include_usage":true},"max_tokens":5}"#,
        r#"{"stream":false,"stream_options":{"include_usage":false},"max_tokens":5}"#,
        r#"{"max_tokens":5}"#,
    ] {
        let read = read_text(&chat(), body).unwrap();
        assert!(read.edits(Some(9), None).is_empty() && !read.hides_usage(), "{body}");
        let bytes = Bytes::from_static(b"abc");
        assert_eq!(apply(&read.edits(None, None), bytes.clone()).as_ptr(), bytes.as_ptr(), "not copied");
    }
    assert!(!read_text(&responses(), r#"{"stream":true}"#).unwrap().hides_usage());
    assert!(read_text(&messages(), r#"{"stream":true}"#).unwrap().edits(None, None).is_empty());
}

#[test]
fn a_cap_is_written_where_the_body_names_none() {
    assert_eq!(
        edited(&chat(), r#"{"model":"m"}"#, Some(500)),
        r#"{"max_completion_tokens":500,"model":"m"}"#
    );
    assert_eq!(edited(&chat(), "{}", Some(500)), r#"{"max_completion_tokens":500}"#);
    assert_eq!(edited(&chat(), "{}", None), "{}");
    assert_eq!(edited(&responses(), r#"{"max_output_tokens":null}"#, Some(7)), r#"{"max_output_tokens":7}"#);
    assert_eq!(edited(&messages(), r#"{"a":1}"#, Some(7)), r#"{"max_tokens":7,"a":1}"#);
    assert_eq!(
        edited(&chat(), r#"{"max_tokens":5,"max_completion_tokens":null}"#, Some(7)),
        r#"{"max_tokens":5,"max_completion_tokens":null}"#
    );
    assert_eq!(
        edited(&endpoint("openai", "/v1/embeddings"), r#"{"model":"m"}"#, Some(7)),
        r#"{"model":"m"}"#
    );
}

#[test]
fn both_edits_are_made_at_once() {
    assert_eq!(
        edited(&chat(), r#"{"model":"m","stream":true}"#, Some(9)),
        r#"{"stream_options":{"include_usage":true},"max_completion_tokens":9,"model":"m","stream":true}"#
    );
    assert_eq!(
        edited(
            &chat(),
            r#"{"max_completion_tokens":null,"é":"😀","stream":true,"stream_options":{"include_usage":false}}"#,
            Some(9)
        ),
        r#"{"max_completion_tokens":9,"é":"😀","stream":true,"stream_options":{"include_usage":true}}"#
    );
}

#[test]
fn content_that_is_all_in_the_body_is_not_outside() {
    let chat_body = json!({"model": "m", "messages": [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": [{"type": "text", "text": "file_id image_url"}], "name": "a"},
        {"role": "assistant", "content": null, "refusal": null, "audio": null, "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a"}}],
         "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"type\":\"image_url\"}"}},
                        {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"}]});
    assert!(!facts(&chat(), &chat_body).outside);
    let responses_body = json!({"model": "m", "instructions": "x", "input": [
        {"role": "user", "content": "Hi"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}]},
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "gAAA"},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "local_shell_call", "id": "l", "call_id": "c", "status": "completed", "action": {"type": "exec", "command": ["ls"], "env": {"type": "x"}}}]});
    assert!(!facts(&responses(), &responses_body).outside);
    assert!(!facts(&responses(), &json!({"input": "just text"})).outside);
    let messages_body = json!({"model": "m", "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}], "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"type": "image", "file_id": "x"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "citations": {"enabled": true}}]}],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 2}}]}});
    let read = facts(&messages(), &messages_body);
    assert!(!read.outside && !read.unbounded);
}

#[test]
fn tools_that_the_caller_runs_cost_nothing_beside_their_tokens() {
    let read = facts(
        &responses(),
        &json!({"tools": [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"type": {"type": "web_search"}, "max_uses": {}}}},
        {"type": "custom", "name": "g"}, {"type": "apply_patch"}, {"type": "local_shell"}]}),
    );
    assert!(!read.outside && !read.unbounded && read.tool_fees == NanoUsd::ZERO);
    let read = facts(
        &messages(),
        &json!({"tools": [{"name": "f", "input_schema": {"type": "object"}}, {"type": "bash_20250124", "name": "bash"}, {"type": null, "name": "h"}]}),
    );
    assert!(!read.outside && !read.unbounded);
    assert!(!facts(&chat(), &json!({"tools": null})).unbounded);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Edits leave everything else as it was, and what they set is what a reader of the edited body finds.
    #[test]
    fn edits_change_what_they_are_for_and_nothing_else(
        before in prop::collection::btree_map("[a-y]{3,6}", any::<i32>(), 0..4),
        after in prop::collection::btree_map("z[a-z]{3,6}", "[a-z\"\\\\{},é]{0,6}", 0..4),
        options in prop::sample::select(vec![None, Some("null"), Some("{}"), Some("{\"include_usage\":false}"), Some("{\"x\":{},\"include_usage\":null}"), Some("{\"include_usage\":true}")]),
        null_cap: bool,
        stream: bool,
        cap in prop::option::of(0_u64..1000),
        space in "[ \n\t]{0,2}",
    ) {
        let mut members: Vec<String> = before.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        members.push(format!("\"stream\":{stream}"));
        members.extend(options.map(|options| format!("\"stream_options\":{options}")));
        members.extend(null_cap.then(|| "\"max_completion_tokens\":null".to_owned()));
        members.extend(after.iter().map(|(name, value)| format!("{}:{}", json!(name), json!(value))));
        let body = format!("{space}{{{space}{}{space}}}{space}", members.join(&format!("{space},{space}")));
        let mut expected: Value = serde_json::from_str(&body).unwrap();
        let edited: Value = serde_json::from_str(&edited(&chat(), &body, cap)).unwrap();
        if stream {
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = json!({});
            }
            expected["stream_options"]["include_usage"] = json!(true);
        }
        // An unknown member may be a cap of its own; one is written all the same.
        if let Some(cap) = cap {
            expected["max_completion_tokens"] = json!(cap);
        }
        prop_assert_eq!(edited, expected);
    }

    #[test]
    fn no_body_makes_it_panic(body in "[{}\\[\\]\":,a-n1 \\\\]{0,80}", bytes: Vec<u8>) {
        for endpoint in [chat(), responses(), messages()] {
            let _ = read_text(&endpoint, &body);
            let _ = read(&endpoint, &headers("application/json"), &bytes);
        }
    }
}
