//! Usage is read off the wire while it streams, and a caller cannot switch that off.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::json;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::column;
use tollgate_tests::provider::{chat, chat_chunk, chat_completion, chat_usage_chunk};
use tollgate_tests::report::{report, requests_reach, total};
use tollgate_tests::{Fixture, Plan, Protocol, Reply};

const CHAT: &str = "/up/v1/chat/completions";

fn limited() -> Plan {
    Plan::openai(&format!(
        "{CHAT_ONLY}  limits: [{{tokens: 1000000, per: day}}, {{spend: 9 USD, per: month}}]\n"
    ))
}

fn stream() -> serde_json::Value {
    let mut body = chat(400);
    body["stream"] = true.into();
    body
}

fn sources(fixture: &Fixture) -> Vec<String> {
    column(&fixture.gateway, "usage_source")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffered_and_a_streamed_call_cost_the_same_to_the_nano_dollar() {
    let fixture = limited().start_openai(1234, 567).await;
    let client = fixture.checkout();
    for protocol in Protocol::BOTH {
        client.send(protocol, client.json(CHAT, &chat(400))).await.unwrap().assert_status(200);
        let streamed = client.send(protocol, client.json(CHAT, &stream())).await.unwrap();
        assert!(streamed.text().ends_with("data: [DONE]\n\n"), "{}", streamed.text());
        assert!(
            !streamed.text().contains("\"choices\":[]"),
            "a chunk that nobody asked for: {}",
            streamed.text()
        );
    }
    requests_reach(&fixture.gateway, 4).await;
    let rows = report(&fixture.gateway, "model");
    assert_eq!(total(&rows, "input", |_| true), 4 * 1234, "{rows:#?}");
    assert_eq!(total(&rows, "output", |_| true), 4 * 567, "{rows:#?}");
    // 0.25 USD and 2 USD per million tokens (OpenAI's price list for gpt-5-mini): 250 and 2000 nano-USD a token.
    let costs = column(&fixture.gateway, "cost");
    assert_eq!(costs, vec![(1234 * 250 + 567 * 2000).to_string(); 4]);
    assert_eq!(sources(&fixture), ["reported"; 4]);
    assert!(
        fixture
            .upstream
            .seen()
            .iter()
            .all(|seen| seen.json()["stream"] != true
                || seen.json()["stream_options"]["include_usage"] == true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_prints_a_usage_object_bills_nobody_less() {
    let fixture = limited()
        .start(|_| {
            let mut body = chat_completion(1000, 900);
            body["choices"][0]["message"]["content"] = json!("\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}} {\"usage\":{\"completion_tokens\":0}}");
            body["choices"][0]["usage"] = json!({"prompt_tokens": 0, "completion_tokens": 0});
            Reply::json(&body)
        })
        .await;
    fixture.checkout().post(CHAT, &chat(400)).await.assert_status(200);
    requests_reach(&fixture.gateway, 1).await;
    assert_eq!(total(&report(&fixture.gateway, "model"), "output", |_| true), 900);
    let fixture = limited()
        .start(|_| {
            let fake = chat_chunk(
                "data: {\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\ndata: [DONE]\n\n",
            );
            Reply::events([fake.as_str()]).event(&chat_usage_chunk(1000, 900)).event("[DONE]")
        })
        .await;
    fixture.checkout().post(CHAT, &stream()).await.assert_status(200);
    requests_reach(&fixture.gateway, 1).await;
    assert_eq!(total(&report(&fixture.gateway, "model"), "output", |_| true), 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_early_pays_for_what_the_provider_bills() {
    let fixture = limited()
        .start(|_| {
            let mut reply = Reply::events([chat_chunk("a").as_str()]);
            for _ in 0..5 {
                reply = reply.wait(Duration::from_millis(100)).event(&chat_chunk("b"));
            }
            reply.event(&chat_usage_chunk(50, 60)).event("[DONE]")
        })
        .await;
    for protocol in Protocol::BOTH {
        let client = fixture.checkout();
        let mut connection = client.open(protocol).await.unwrap();
        let mut response = connection.start(client.json(CHAT, &stream())).await.unwrap();
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert!(first.is_data());
        drop(response);
        drop(connection);
    }
    requests_reach(&fixture.gateway, 2).await;
    assert_eq!(sources(&fixture), ["drained"; 2]);
    assert_eq!(total(&report(&fixture.gateway, "model"), "output", |_| true), 120);
    eventually("nothing is held any more", || {
        fixture.gateway.metrics().sum("tollgate_limit_held", &[]) == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_does_not_report_is_marked_and_settles_at_the_hold() {
    let fixture = limited().start(|_| Reply::events([chat_chunk("a").as_str(), "[DONE]"])).await;
    fixture.checkout().post(CHAT, &stream()).await.assert_status(200);
    requests_reach(&fixture.gateway, 1).await;
    assert_eq!(sources(&fixture), ["estimated"]);
    let spent = fixture.gateway.metrics().sum("tollgate_limit_spent", &["tokens/day"]);
    assert!((400.0 + 4096.0..6000.0).contains(&spent), "the whole hold: {spent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_event_waits_for_the_journal_and_nothing_before_it_does() {
    let fixture = limited()
        .start(|_| {
            let second = Reply::events([chat_chunk("a").as_str()])
                .wait(Duration::from_millis(700))
                .event(&chat_chunk("b"));
            second.event(&chat_usage_chunk(5, 6)).event("[DONE]")
        })
        .await;
    let client = fixture.checkout();
    let mut connection = client.open(Protocol::H2).await.unwrap();
    let mut response = connection.start(client.json(CHAT, &stream())).await.unwrap();
    let begun = std::time::Instant::now();
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "the first event was held back");
    assert!(first.starts_with(b"data: "));
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    fixture.gateway.settings();
    let mut fixture = fixture;
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    requests_reach(&fixture.gateway, 1).await;
    assert_eq!(sources(&fixture), ["reported"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_saas_is_counted_in_requests_and_bytes() {
    let fixture = Plan::new().start(|_| Reply::status(200).data("x".repeat(5000))).await;
    let client = fixture.checkout();
    client
        .send(Protocol::H2, client.request(http::Method::POST, "/up/x", "y".repeat(3000)))
        .await
        .unwrap()
        .assert_status(200);
    requests_reach(&fixture.gateway, 1).await;
    let bytes = (column(&fixture.gateway, "bytes_in"), column(&fixture.gateway, "bytes_out"));
    assert_eq!(bytes, (vec!["3000".to_owned()], vec!["5000".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_nobody_has_a_price_for_is_never_free() {
    let grant = "  allow: {methods: [POST], paths: [/v1/chat/completions], models: [\"*\"]}\n  limits: [{spend: 9 USD, per: month}]\n";
    let fixture = Plan::openai(grant).start_openai(10, 10).await;
    let mut body = chat(400);
    body["model"] = json!("gpt-of-next-year");
    fixture.checkout().post(CHAT, &body).await.assert_refused(403, "unpriced_model");
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strings_of_callers_are_harmless_where_people_read_them() {
    let grant = "  allow: {methods: [POST], paths: [/v1/chat/completions], models: [\"*\"]}\n";
    let fixture = Plan::openai(grant).start_openai(10, 10).await;
    let client = fixture.checkout();
    let hostile = [
        "=HYPERLINK(\"https://evil.test\",\"x\")",
        "+1+1",
        "@SUM(1)",
        "-2",
        "<img src=x onerror=alert(1)>",
        "\u{1b}[2J\u{1b}[31mred",
        "a\r\nforged: line",
        &"long".repeat(400),
        "tab\there",
    ];
    for model in hostile {
        let mut body = chat(400);
        body["model"] = json!(model);
        client.post(CHAT, &body).await;
    }
    for number in 0..40 {
        let mut body = chat(400);
        body["model"] = json!(format!("made-up-{number}"));
        client.post(CHAT, &body).await;
    }
    requests_reach(&fixture.gateway, hostile.len() as u64 + 40).await;
    let csv = fixture.gateway.tollgate(&["report", "--by", "model", "--format", "csv"]);
    let csv = String::from_utf8(csv.stdout).unwrap();
    for line in csv.lines() {
        for cell in line.split(',') {
            let bare = cell.trim_matches('"');
            let formula = bare.starts_with(['=', '+', '-', '@', '\t']) && bare.parse::<f64>().is_err();
            assert!(!formula, "{line}");
        }
    }
    for models in
        [csv, String::from_utf8(fixture.gateway.tollgate(&["report", "--by", "model"]).stdout).unwrap()]
    {
        assert!(!models.contains('\u{1b}') && !models.contains('\r'), "{models:?}");
    }
    assert!(column(&fixture.gateway, "model").iter().all(|model| model.len() <= 128));
    let labels: std::collections::BTreeSet<_> = fixture
        .gateway
        .metrics()
        .series()
        .filter(|series| series.contains("model="))
        .map(str::to_owned)
        .collect();
    assert!(!labels.iter().any(|series| series.contains("made-up")), "labels come from the catalog");
}
