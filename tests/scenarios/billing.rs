//! What a call costs is what its provider bills for it: tools by their own count, images and sound by their own units, and nothing for
//! what came to nothing.

use http::Method;
use serde_json::{Value, json};
use tollgate_tests::ledger::{column, records};
use tollgate_tests::provider::{chat, chat_chunk, chat_usage_chunk};
use tollgate_tests::report::{report, requests_reach, total};
use tollgate_tests::{Fixture, Plan, Reply};

const CHAT: &str = "/up/v1/chat/completions";
const MESSAGES: &str = "/up/v1/messages";
const RESPONSES: &str = "/up/v1/responses";

/// Everything, with these limits.
fn grant(limits: &str) -> String {
    format!("  allow: {{methods: [POST], paths: [\"/**\"], models: [\"*\"]}}\n  limits: [{limits}]\n")
}

const SPEND: &str = "{tokens: 100000000, per: month}, {spend: 1000 USD, per: month}";
const REQUESTS: &str = "{requests: 1000, per: day}";

fn openai(limits: &str) -> Plan {
    Plan::openai(&grant(limits))
}

fn anthropic() -> Plan {
    Plan { dialect: "anthropic", grant: grant(SPEND), ..Plan::new() }
}

fn spent(fixture: &Fixture, limit: &str) -> f64 {
    fixture.gateway.metrics().sum("tollgate_limit_spent", &[limit])
}

async fn only_record(fixture: &Fixture) -> Value {
    requests_reach(&fixture.gateway, 1).await;
    records(&fixture.gateway).pop().expect("a record")
}

fn sse(text: String) -> Reply {
    Reply::status(200).header("content-type", "text/event-stream").data(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_a_200_is_recorded_as_one_and_costs_what_was_reported() {
    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-opus-5\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
    const ERROR: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let body = json!({"model": "claude-opus-5", "max_tokens": 32000, "stream": true, "messages": [{"role": "user", "content": "x"}]});
    for (before, source, tokens) in [("", "none", 0.0), (START, "reported", 26.0)] {
        let fixture = anthropic().start(move |_| sse(format!("{before}{ERROR}"))).await;
        let answer = fixture.checkout().post(MESSAGES, &body).await;
        answer.assert_status(200);
        assert!(answer.text().ends_with(ERROR), "{}", answer.text());
        let record = only_record(&fixture).await;
        assert_eq!(record["outcome"], "provider_error", "{record}");
        assert_eq!(record["reason"], "upstream_error", "{record}");
        assert_eq!((&record["status"], &record["usage_source"]), (&json!(200), &json!(source)), "{record}");
        assert_eq!(spent(&fixture, "tokens/month"), tokens, "{record}");
        assert_eq!(fixture.gateway.metrics().sum("tollgate_limit_held", &[]), 0.0);
        assert!(spent(&fixture, "spend/month") < 0.001, "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_the_middle_of_an_answer_costs_what_came_before_it() {
    let error = "data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\"}}\n\ndata: [DONE]\n\n";
    let mut body = chat(20_000);
    body["stream"] = true.into();
    for (before, tokens) in
        [(String::new(), 0.0..1.0), (format!("data: {}\n\n", chat_chunk("Hello")), 1.0..200.0)]
    {
        let fixture = openai(SPEND).start(move |_| sse(format!("{before}{error}"))).await;
        fixture.checkout().post(CHAT, &body).await.assert_status(200);
        let record = only_record(&fixture).await;
        assert_eq!(record["outcome"], "provider_error", "{record}");
        assert!(tokens.contains(&spent(&fixture, "tokens/month")), "{record}");
    }
    let failed = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_error\"},\"usage\":null}}\n\n";
    let fixture = openai(SPEND).start(move |_| sse(failed.to_owned())).await;
    let body = json!({"model": "gpt-5-mini", "input": "q", "stream": true, "max_output_tokens": 20_000});
    fixture.checkout().post(RESPONSES, &body).await.assert_status(200);
    assert_eq!(only_record(&fixture).await["outcome"], "provider_error");
    assert_eq!(spent(&fixture, "tokens/month"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_status_costs_nothing_even_where_its_body_cannot_be_read() {
    for status in [400, 429, 500] {
        let fixture = openai(SPEND)
            .start(move |_| Reply::status(status).header("content-encoding", "compress").data("\u{1f}\u{9d}"))
            .await;
        fixture.checkout().post(CHAT, &chat(20_000)).await;
        let record = only_record(&fixture).await;
        assert_eq!(record["usage_source"], "none", "{record}");
        assert_eq!(spent(&fixture, "tokens/month"), 0.0, "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_whatever_its_label_says() {
    let events =
        format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", chat_chunk("a"), chat_usage_chunk(50, 60));
    let whole =
        json!({"model": "gpt-5-mini", "usage": {"prompt_tokens": 50, "completion_tokens": 60}}).to_string();
    for (kind, text) in [("application/json", events), ("text/event-stream", whole)] {
        let fixture = openai(SPEND)
            .start(move |_| Reply::status(200).header("content-type", kind).data(text.clone()))
            .await;
        let mut body = chat(400);
        body["stream"] = true.into();
        fixture.checkout().post(CHAT, &body).await.assert_status(200);
        assert_eq!(only_record(&fixture).await["usage_source"], "reported", "{kind}");
        assert_eq!(spent(&fixture, "tokens/month"), 110.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_billed_by_tool_and_model_and_stand_in_the_report_with_the_tier() {
    let item =
        |action: &str| json!({"type": "web_search_call", "status": "completed", "action": {"type": action}});
    let items = ["search", "search", "open_page", "search", "find_in_page", "search"].map(item);
    let fixture = openai(SPEND)
        .start(move |seen| {
            Reply::json(&json!({
                "model": seen.json()["model"], "output": items, "service_tier": "priority",
                "usage": {"input_tokens": 0, "output_tokens": 0},
            }))
        })
        .await;
    let client = fixture.checkout();
    for (model, tool) in [
        ("gpt-4.1", "web_search_preview"),
        ("gpt-4.1", "web_search"),
        ("gpt-5-mini", "web_search_preview_2025_03_11"),
    ] {
        let body = json!({"model": model, "input": "q", "tools": [{"type": tool}], "max_tool_calls": 5, "max_output_tokens": 100});
        client.post(RESPONSES, &body).await.assert_status(200);
    }
    requests_reach(&fixture.gateway, 3).await;
    assert_eq!(column(&fixture.gateway, "cost"), ["100000000", "40000000", "40000000"]);
    assert_eq!(column(&fixture.gateway, "tier"), ["priority"; 3]);
    let rows = report(&fixture.gateway, "tier");
    assert_eq!(total(&rows, "searches", |row| row["tier"] == "priority"), 12, "{rows:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_priced_by_their_tokens_and_refused_where_tokens_are_limited() {
    let answer = json!({"created": 1, "data": [{"b64_json": "aaaa"}], "usage": {"input_tokens": 50, "output_tokens": 4160,
        "total_tokens": 4210, "input_tokens_details": {"text_tokens": 50, "image_tokens": 0}}});
    let body = json!({"model": "gpt-image-1", "prompt": "x"});
    let fixture = openai(REQUESTS)
        .start({
            let answer = answer.clone();
            move |_| Reply::json(&answer)
        })
        .await;
    fixture.checkout().post("/up/v1/images/generations", &body).await.assert_status(200);
    let record = only_record(&fixture).await;
    assert_eq!(record["units"], json!({"input": 50, "image_out": 4160, "images": 1, "requests": 1}));
    // 5 USD a million tokens of text, 40 of images.
    assert_eq!((&record["model"], &record["cost"]), (&json!("gpt-image-1"), &json!(166_650_000)));
    let rows = report(&fixture.gateway, "model");
    assert_eq!((total(&rows, "images", |_| true), total(&rows, "unpriced", |_| true)), (1, 0));

    let fixture = openai(SPEND).start(move |_| Reply::json(&answer)).await;
    fixture
        .checkout()
        .post("/up/v1/images/generations", &body)
        .await
        .assert_refused(403, "unmetered_endpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_is_priced_by_its_seconds_or_characters_and_what_tells_neither_has_no_price() {
    let fixture = openai(REQUESTS)
        .start(|seen| match seen.everything() {
            asked if asked.contains("speech") => {
                Reply::status(200).header("content-type", "audio/mpeg").data("ID3 data")
            }
            asked if asked.contains("srt") => {
                Reply::status(200).header("content-type", "text/plain").data("1\nHi")
            }
            _ => Reply::json(&json!({"text": "Hi", "usage": {"type": "duration", "seconds": 60}})),
        })
        .await;
    let client = fixture.checkout();
    let speech = json!({"model": "tts-1", "input": "H\u{e9}llo", "voice": "alloy"});
    client.post("/up/v1/audio/speech", &speech).await.assert_status(200);
    for format in ["json", "srt"] {
        let part = |name: &str, value: &str| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let form = part("model", "whisper-1")
            + &part("response_format", format)
            + &part("file\"; filename=\"a.mp3", "ID3")
            + "--B--\r\n";
        let mut request = client.request(Method::POST, "/up/v1/audio/transcriptions", form);
        let kind = "multipart/form-data; boundary=B".parse().unwrap();
        request.headers_mut().insert("content-type", kind);
        client.send(tollgate_tests::Protocol::H1, request).await.unwrap().assert_status(200);
    }
    requests_reach(&fixture.gateway, 3).await;
    assert_eq!(column(&fixture.gateway, "model"), ["tts-1", "whisper-1", "whisper-1"]);
    // 15 USD a million characters; 0.006 USD a minute.
    assert_eq!(column(&fixture.gateway, "cost"), ["75000", "6000000", "0"]);
    assert_eq!(column(&fixture.gateway, "unpriced"), ["", "", "true"]);
    let rows = report(&fixture.gateway, "destination");
    let sum = |name: &str| total(&rows, name, |_| true);
    assert_eq!((sum("characters"), sum("seconds"), sum("unpriced")), (5, 60, 1), "{rows:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_and_not_read_says_that_it_has_no_price() {
    let grant = format!("  allow: {{methods: [POST], paths: [\"/**\"]}}\n  limits: [{REQUESTS}]\n");
    let fixture = Plan::openai(&grant).start(|_| Reply::json(&json!({"object": "decision"}))).await;
    let client = fixture.checkout();
    client.post("/up/v1/decisions", &json!({"model": "x"})).await.assert_status(200);
    client.post("/up/v1/moderations", &json!({"input": "x"})).await.assert_status(200);
    client
        .post("/up/v1/responses/input_tokens", &json!({"model": "gpt-5", "input": "x"}))
        .await
        .assert_status(200);
    requests_reach(&fixture.gateway, 3).await;
    assert_eq!(column(&fixture.gateway, "unpriced"), ["true", "", ""]);
    assert_eq!(total(&report(&fixture.gateway, "destination"), "unpriced", |_| true), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_is_held_and_charged_like_the_call_that_it_shortens() {
    let fixture = openai(SPEND)
        .start(|_| Reply::json(&json!({"object": "response.compaction", "output": [], "usage": {"input_tokens": 139, "output_tokens": 438}})))
        .await;
    let body = json!({"model": "gpt-5-mini", "input": [{"role": "user", "content": "x"}]});
    fixture.checkout().post("/up/v1/responses/compact", &body).await.assert_status(200);
    assert_eq!(fixture.upstream.only().json(), body, "sent as it came");
    let record = only_record(&fixture).await;
    assert_eq!(record["cost"], json!(139 * 250 + 438 * 2000), "{record}");
    assert_eq!(spent(&fixture, "tokens/month"), 577.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_that_served_is_charged_whatever_was_asked() {
    let fixture = openai(SPEND)
        .start(|seen| {
            let served = seen.json()["metadata"]["served"].clone();
            Reply::json(&json!({
                "model": "gpt-5-mini", "output": [], "service_tier": served, "usage": {"input_tokens": 1000, "output_tokens": 100},
            }))
        })
        .await;
    let client = fixture.checkout();
    for (asked, served) in [("priority", "default"), ("flex", "flex"), ("auto", "priority")] {
        let body = json!({"model": "gpt-5-mini", "input": "q", "service_tier": asked, "max_output_tokens": 200, "metadata": {"served": served}});
        client.post(RESPONSES, &body).await.assert_status(200);
    }
    requests_reach(&fixture.gateway, 3).await;
    assert_eq!(column(&fixture.gateway, "cost"), ["450000", "225000", "810000"]);
    assert_eq!(column(&fixture.gateway, "tier"), ["default", "flex", "priority"]);
}
