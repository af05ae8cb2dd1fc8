//! What a call may cost before it is made: providers of ours answer the worst that the real ones' documentation allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tollgate_tests::gateway::{Metrics, eventually};
use tollgate_tests::provider::chat_completion;
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, Seen};

/// Calls of the long run; ten thousand where `TOLLGATE_WORST_CALLS` says so.
const CALLS: usize = 400;
const WORKERS: usize = 8;
const OPENAI_WINDOW: u64 = 400_000;
const ANTHROPIC_WINDOW: u64 = 200_000;
/// A PNG without its size.
const IMAGE: &str = "iVBORw0KGgo=";

fn plan(dialect: &'static str, limits: &str) -> Plan {
    let models = match dialect {
        "openai" => "[gpt-5-mini, text-embedding-3-small]",
        _ => "[claude-haiku-4-5, claude-sonnet-4-5]",
    };
    let grant =
        format!("  allow: {{methods: [POST], paths: [\"/v1/**\"], models: {models}}}\n  limits: {limits}\n");
    Plan { dialect, ..Plan::openai(&grant) }
}

fn sums(metrics: &Metrics, unit: &str) -> (f64, f64, f64) {
    let read = |name: &str| metrics.sum(name, &[unit]);
    (read("tollgate_limit_amount"), read("tollgate_limit_spent"), read("tollgate_limit_held"))
}

fn exceeded(fixture: &Fixture) -> f64 {
    fixture.gateway.metrics().sum("tollgate_hold_exceeded_total", &[])
}

async fn settled(fixture: &Fixture) {
    let held = || fixture.gateway.metrics().sum("tollgate_limit_held", &[]);
    eventually("every call is settled", || held() == 0.0).await;
}

/// What OpenAI may report at most: tokens read, tokens written, searches.
fn worst_of_openai(path: &str, body: &Value) -> Value {
    let number = |name: &str| body[name].as_u64();
    if path.ends_with("/embeddings") {
        let tokens = |input: &Value| match input {
            Value::String(text) => text.len(),
            input => input.as_array().map_or(0, Vec::len),
        };
        let read: usize = body["input"].as_array().unwrap().iter().map(tokens).sum();
        let read = read.min(300_000);
        return json!({"object": "list", "model": body["model"], "data": [], "usage": {"prompt_tokens": read, "total_tokens": read}});
    }
    let text = body.to_string().len() as u64;
    if path.ends_with("/responses") {
        let (calls, written) = (number("max_tool_calls").unwrap_or(0), number("max_output_tokens").unwrap());
        let searches = body["tools"].is_array();
        let read = if searches { OPENAI_WINDOW * (calls + 1) } else { text };
        let search = json!({"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}});
        let output = vec![search; if searches { calls as usize } else { 0 }];
        return json!({"id": "r", "model": body["model"], "service_tier": body["service_tier"], "output": output,
            "tool_usage": {"web_search": {"num_requests": output.len()}},
            "usage": {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}});
    }
    // 1,536 patches, times 1.62.
    let parts = body["messages"][0]["content"].as_array().unwrap();
    let images = parts.iter().filter(|part| part["type"] == "image_url").count() as u64;
    let n = number("n").unwrap_or(1);
    let mut written = number("max_completion_tokens").unwrap();
    written += body["prediction"]["content"].as_str().map_or(0, |content| content.len() as u64);
    let mut answer = chat_completion((text + images * 2489).min(OPENAI_WINDOW), n * written);
    answer["service_tier"] = body["service_tier"].clone();
    answer
}

/// The same of Anthropic: every use of a tool is another run of the model, which reads its whole window.
fn worst_of_anthropic(body: &Value) -> Value {
    let uses = body["tools"][0]["max_uses"].as_u64().unwrap_or(0);
    let searches = if body["tools"][0]["type"] == "web_search_20250305" { uses } else { 0 };
    let images = body["messages"][0]["content"].as_array().unwrap().len() as u64 - 1;
    let text = (body.to_string().len() as u64 + images * 1640).min(ANTHROPIC_WINDOW);
    let read = if uses > 0 { ANTHROPIC_WINDOW * (uses + 1) } else { text };
    let written =
        body["max_tokens"].as_u64().unwrap().max(body["thinking"]["budget_tokens"].as_u64().unwrap_or(0));
    json!({"id": "m", "type": "message", "role": "assistant", "model": body["model"], "content": [], "stop_reason": "end_turn",
        "usage": {"input_tokens": read / 3, "cache_read_input_tokens": 0, "cache_creation_input_tokens": read - read / 3,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": read - read / 3},
            "output_tokens": written, "server_tool_use": {"web_search_requests": searches}}})
}

fn worst(seen: &Seen) -> Reply {
    let body = seen.json();
    let path = seen.target.split('?').next().unwrap_or_default();
    let answer =
        if path.ends_with("/messages") { worst_of_anthropic(&body) } else { worst_of_openai(path, &body) };
    let pause = Duration::from_millis(if path.ends_with("/embeddings") { 20 } else { 2 });
    Reply::status(200).header("content-type", "application/json").wait(pause).data(answer.to_string())
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn flip(&mut self) -> bool {
        self.roll(2) == 1
    }
}

fn openai_call(dice: &mut Dice) -> (&'static str, Value) {
    let text = "~".repeat(dice.roll(4000) as usize);
    let tier = if dice.flip() { "default" } else { "priority" };
    match dice.roll(3) {
        0 => {
            let input = |dice: &mut Dice| json!(vec![7; 1 + dice.roll(4000) as usize]);
            let inputs: Vec<Value> = (0..1 + dice.roll(20)).map(|_| input(dice)).collect();
            ("/up/v1/embeddings", json!({"model": "text-embedding-3-small", "input": inputs}))
        }
        1 => {
            let mut body = json!({"model": "gpt-5-mini", "input": text, "max_output_tokens": 1 + dice.roll(3000), "service_tier": tier});
            if dice.flip() {
                body["tools"] = json!([{"type": "web_search"}]);
                body["max_tool_calls"] = json!(1 + dice.roll(4));
            }
            ("/up/v1/responses", body)
        }
        _ => {
            let image =
                json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{IMAGE}")}});
            let mut content = vec![image; dice.roll(4) as usize];
            content.push(json!({"type": "text", "text": text}));
            let mut body = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": content}], "n": 1 + dice.roll(4),
                "max_completion_tokens": 1 + dice.roll(3000), "service_tier": tier});
            if dice.flip() {
                body["prediction"] =
                    json!({"type": "content", "content": "~".repeat(dice.roll(2000) as usize)});
            }
            ("/up/v1/chat/completions", body)
        }
    }
}

fn anthropic_call(dice: &mut Dice) -> (&'static str, Value) {
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}});
    let mut content = vec![image; dice.roll(4) as usize];
    content.push(json!({"type": "text", "text": "~".repeat(dice.roll(4000) as usize)}));
    let mut body = json!({"model": "claude-haiku-4-5", "max_tokens": 1 + dice.roll(3000), "messages": [{"role": "user", "content": content}]});
    if dice.flip() {
        let tool = if dice.flip() { "web_search_20250305" } else { "web_fetch_20250910" };
        body["tools"] = json!([{"type": tool, "name": "t", "max_uses": 1 + dice.roll(4)}]);
    }
    if dice.flip() {
        body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024 + dice.roll(4000)});
    }
    ("/up/v1/messages", body)
}

/// Makes calls until there are none left; returns how many were let through.
async fn call(
    client: Client,
    seed: u64,
    left: Arc<AtomicU64>,
    make: fn(&mut Dice) -> (&'static str, Value),
) -> u64 {
    let mut dice = Dice(seed);
    let mut connection = client.open(Protocol::H1).await.expect("a connection");
    let mut through = 0;
    while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        let (path, body) = make(&mut dice);
        let answer = connection.send(client.json(path, &body)).await.expect("an answer");
        match (answer.status.as_u16(), answer.header("x-tollgate-reason")) {
            (200, _) => through += 1,
            (429, "budget_held" | "budget_exhausted") => {}
            other => panic!("{other:?}: {}", answer.text()),
        }
        if connection.closed() {
            connection = client.open(Protocol::H1).await.expect("a connection");
        }
    }
    through
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worst_answers_to_calls_of_every_kind_never_pass_a_budget() {
    let calls =
        std::env::var("TOLLGATE_WORST_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(CALLS);
    let kinds =
        [("openai", openai_call as fn(&mut Dice) -> _, calls / 40), ("anthropic", anthropic_call, calls / 8)];
    for (dialect, make, usd) in kinds {
        // Less than the calls cost, so that the end of the budget is met too.
        let limits =
            format!("[{{spend: {usd} USD, per: month}}, {{tokens: {}, per: month}}]", calls * 200_000);
        let fixture = plan(dialect, &limits).start(worst).await;
        let left = Arc::new(AtomicU64::new(calls as u64 / 2));
        let work: Vec<_> = (0..WORKERS as u64)
            .map(|worker| tokio::spawn(call(fixture.checkout(), worker, left.clone(), make)))
            .collect();
        let done = AtomicBool::new(false);
        let watch = async {
            while !done.load(Ordering::SeqCst) {
                let metrics = fixture.gateway.metrics();
                for unit in ["spend", "tokens"] {
                    let (amount, spent, held) = sums(&metrics, unit);
                    assert!(spent + held <= amount + 1e-9, "{unit}: spent {spent} + held {held} > {amount}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let all = async {
            let mut through = 0;
            for worker in work {
                through += worker.await.expect("a worker");
            }
            done.store(true, Ordering::SeqCst);
            through
        };
        let (through, ()) = tokio::join!(all, watch);
        settled(&fixture).await;
        let refused = calls as u64 / 2 - through;
        assert!(
            through > 20 && refused > 20,
            "{dialect}: {through} calls went through, {refused} were refused"
        );
        assert_eq!(fixture.upstream.count() as u64, through);
        let metrics = fixture.gateway.metrics();
        for unit in ["spend", "tokens"] {
            let (amount, spent, _) = sums(&metrics, unit);
            assert!(spent <= amount + 1e-9, "{dialect}: {spent} of {amount} {unit}");
        }
        assert_eq!(exceeded(&fixture), 0.0, "{dialect}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_of_many_inputs_are_held_at_what_the_call_may_read() {
    let fixture =
        plan("openai", "[{spend: 0.01 USD, per: month}, {tokens: 320000, per: month}]").start(worst).await;
    let input: Vec<Vec<u32>> = vec![(0..3000).map(|number| 1000 + number % 900).collect(); 90];
    let body = json!({"model": "text-embedding-3-small", "encoding_format": "base64", "input": input});
    let calls = (0..8).map(|_| {
        let (client, body) = (fixture.checkout(), body.clone());
        tokio::spawn(async move { client.post("/up/v1/embeddings", &body).await.status.as_u16() })
    });
    let mut through = 0;
    for call in calls.collect::<Vec<_>>() {
        through += u64::from(call.await.unwrap() == 200);
    }
    settled(&fixture).await;
    let (amount, spent, _) = sums(&fixture.gateway.metrics(), "spend");
    assert!(through == 1 && spent <= amount, "{through} calls, {spent} of {amount}");
    assert_eq!(exceeded(&fixture), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_the_providers_tools_is_held_at_a_window_for_each_run() {
    let fixture = plan("anthropic", "[{tokens: 202000, per: month}]").start(worst).await;
    let body = json!({"model": "claude-haiku-4-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "q"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]});
    let refused = fixture.checkout().post("/up/v1/messages", &body).await;
    refused.assert_refused(429, "budget_exhausted");
    assert!(
        refused.text().contains("1201000 tokens") && refused.text().contains("read its context 6 times"),
        "{}",
        refused.text()
    );
    let mut uncapped = body.clone();
    uncapped["tools"][0]["max_uses"] = Value::Null;
    let refused = fixture.checkout().post("/up/v1/messages", &uncapped).await;
    refused.assert_refused(400, "unbounded_cost");
    assert!(refused.text().contains("`web_search_20250305` without `max_uses`"), "{}", refused.text());
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_image_in_the_body_is_held_at_what_it_can_cost_and_one_by_url_at_the_window() {
    let fixture =
        plan("anthropic", "[{spend: 0.1 USD, per: month}, {tokens: 20000, per: month}]").start(worst).await;
    let call = |source: Value| {
        json!({"model": "claude-sonnet-4-5", "max_tokens": 1000, "messages": [{"role": "user", "content": [
            {"type": "image", "source": source}, {"type": "text", "text": "x"}]}]})
    };
    let inline = call(json!({"type": "base64", "media_type": "image/png", "data": IMAGE}));
    fixture.checkout().post("/up/v1/messages", &inline).await.assert_status(200);
    let by_url = call(json!({"type": "url", "url": "https://secret.example/cat.png"}));
    let refused = fixture.checkout().post("/up/v1/messages", &by_url).await;
    refused.assert_refused(429, "budget_exhausted");
    assert!(refused.text().contains("an image by URL in `messages`"), "{}", refused.text());
    assert!(!refused.text().contains("secret"), "{}", refused.text());
    assert_eq!(refused.header("x-should-retry"), "false");
    settled(&fixture).await;
    assert_eq!((fixture.upstream.count(), exceeded(&fixture)), (1, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deciding_fact_has_no_second_place_in_the_query() {
    let fixture = plan("openai", "[{tokens: 1000000, per: month}]").start(worst).await;
    let client = fixture.checkout();
    let body = json!({"model": "gpt-5-mini", "max_completion_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]});
    for (query, status, reason) in [
        ("api-version=1&model=gpt-5-mini", 200, ""),
        ("model=gpt-4.1", 400, "ambiguous_body"),
        ("MOD%65L=gpt-4.1", 400, "ambiguous_body"),
        ("n=100", 400, "ambiguous_body"),
        ("_method=DELETE", 400, "bad_request"),
        ("%5Fmethod=put", 400, "bad_request"),
        ("_method=POST", 200, ""),
    ] {
        let answer = client.post(&format!("/up/v1/chat/completions?{query}"), &body).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-tollgate-reason")), (status, reason), "{query}");
    }
    let half = r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":[{"type":"text","text":"x \ud83d y"}]}],"max_tokens":100}"#;
    let request = client.request(Method::POST, "/up/v1/chat/completions", half);
    let mut request = request;
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    let refused = client.send(Protocol::H1, request).await.unwrap();
    refused.assert_refused(400, "body_invalid");
    assert!(refused.text().contains("half of a surrogate pair at line 1, column "), "{}", refused.text());
    assert_eq!(fixture.upstream.count(), 2);
}
