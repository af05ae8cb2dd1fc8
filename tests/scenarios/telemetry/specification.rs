//! What is exported is what `gateway/TELEMETRY.md` specifies, and all of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use http::Method;
use serde_json::json;
use tollgate_tests::collector::{Collector, Item};
use tollgate_tests::gateway::eventually;
use tollgate_tests::process::free_port;
use tollgate_tests::provider::{ANTHROPIC_MODEL, chat, chat_completion, chat_usage_chunk, wrong_key};
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::{Fixture, Plan, Protocol, Reply, SecretKind, Seen, Upstream, needs};

use super::{CHAT, everything_to, from};

/// More than are told each, so that some are told together.
const REFUSALS: usize = 300;
/// In an answer, and nowhere else.
const ANSWERED: &str = "an-answer-that-nobody-else-says";

/// Attribute, type in OTLP's JSON, and where it may be.
fn specification() -> BTreeMap<String, (&'static str, BTreeSet<String>)> {
    let text = include_str!("../../../gateway/TELEMETRY.md").split_once("## Attributes").unwrap().1;
    let rows = text.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let kind = match cells[2].as_str() {
            "text" => "stringValue",
            "integer" => "intValue",
            "fraction" => "doubleValue",
            "flag" => "boolValue",
            other => panic!("{other}: {row}"),
        };
        (cells[1].clone(), (kind, cells[3].split(',').map(|place| place.trim().to_owned()).collect()))
    });
    rows.collect()
}

/// Asserts that all attributes of `items` are specified for `place`, and returns which there were.
fn specified(items: &[Item], place: &str) -> BTreeSet<(String, String)> {
    let specification = specification();
    let mut seen = BTreeSet::new();
    assert!(!items.is_empty(), "{place}");
    for item in items {
        for (name, (kind, _)) in &item.attributes {
            let is_field = name.starts_with("tollgate.log.field.");
            let name = if is_field { "tollgate.log.field.NAME" } else { name };
            let (known, places) = specification.get(name).unwrap_or_else(|| panic!("{name}: {item:?}"));
            assert_eq!(kind, known, "{name}");
            assert!(places.contains(place), "{name} on {place}");
            seen.insert((name.to_owned(), place.to_owned()));
        }
    }
    seen
}

/// Refuses the first key that it sees; answers as OpenAI and Anthropic do, with usage of every kind.
fn provider() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let refused = Mutex::new(String::new());
    move |seen| {
        let mut refused = refused.lock().unwrap();
        let key = seen.header("authorization").to_owned();
        if refused.is_empty() && !key.is_empty() {
            *refused = key.clone();
        }
        if seen.target.starts_with("/fails") {
            return Reply::status(500).data(ANSWERED);
        }
        if seen.authority.starts_with("api.claude.test") {
            let usage = json!({
                "input_tokens": 11, "output_tokens": 5, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 3,
            });
            return Reply::json(&json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": ANTHROPIC_MODEL, "stop_reason": "end_turn",
                "content": [{"type": "text", "text": ANSWERED}], "usage": usage,
            }));
        }
        if seen.authority.starts_with("api.plain.test") {
            return Reply::status(200).data(ANSWERED);
        }
        if key == *refused {
            return wrong_key();
        }
        if seen.json()["stream"] == true {
            let usage = chat_usage_chunk(20, 9);
            return Reply::events([usage.as_str(), "[DONE]"]);
        }
        let mut answer = chat_completion(20, 9);
        answer["choices"][0]["message"]["content"] = ANSWERED.into();
        answer["usage"]["completion_tokens_details"] = json!({"reasoning_tokens": 4});
        Reply::json(&answer)
    }
}

/// Destinations of every kind behind one upstream: a model API with two keys, another one, a plain one, and one that is down. All of it is
/// exported.
async fn all_kinds() -> (Fixture, Collector) {
    let mut plan = Plan::new();
    let collector = Collector::start(&plan.sandbox).await;
    // One core sees all refusals.
    let more = "    resource: {deployment.environment.name: test}\ncores: 1\n";
    plan.settings.extra = everything_to(&collector.endpoint(), more);
    let hosts = ["api.up.test", "api.claude.test", "api.plain.test", "api.down.test"];
    plan.server = plan.pki.server(&plan.sandbox, &hosts);
    for alias in ["a", "b"] {
        let key = plan.sandbox.canary(alias);
        plan.sandbox.stands_for(&key, &[SecretKind::File, SecretKind::Pool, SecretKind::Bearer]);
        plan.sandbox.input(&format!("keys/{alias}"), &key);
    }
    let upstream = Upstream::http(&plan.server, &["http/1.1"], provider()).await;
    let (port, ca) = (upstream.port(), plan.pki.bundle());
    let callers = "spiffe://prod.acme/ns/checkout/sa/*";
    let models = format!(
        "  allow: {{methods: [POST], paths: [/v1/chat/completions, /v1/messages], models: [gpt-5-mini, odd-model, {ANTHROPIC_MODEL}]}}\n"
    );
    let plain = "  allow: {methods: [GET], paths: [\"/**\"]}\n";
    let pool = "\n    - {alias: a, store: files, path: a}\n    - {alias: b, store: files, path: b}";
    let text = destination("up", hosts[0], port, ca, "openai")
        + &destination("claude", hosts[1], port, ca, "anthropic")
        + &destination("plain", hosts[2], port, ca, "http")
        + &destination("down", hosts[3], free_port(), ca, "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("pool", "up", pool, "{bearer: {}}")
        + &credential("one", "claude, plain, down", "{store: files, path: up}", "{header: {name: x-key}}")
        + &grant("to-up", callers, "up", "pool", &models)
        + &grant("to-claude", callers, "claude", "one", &models)
        + &grant("to-plain", callers, "plain", "one", plain)
        + &grant("to-down", callers, "down", "one", plain);
    plan.sandbox.stands_for(&plan.key, &[SecretKind::File, SecretKind::Header]);
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    (Plan { settings, ..plan }.start_with(upstream).await, collector)
}

/// Calls that end in every way that the specification has something for.
async fn call_in_every_way(fixture: &Fixture) {
    let client = fixture.checkout();
    let [prompt, query, header] = ["prompt", "query", "header"].map(|what| fixture.sandbox.canary(what));
    let said = |model: &str| {
        let mut body = chat(40);
        body["model"] = model.into();
        body["messages"][0]["content"] = prompt.as_str().into();
        body
    };
    // With another key when the first is refused, streamed, of a model without a price, and of one that is not allowed.
    client.post(CHAT, &said("gpt-5-mini")).await.assert_status(200);
    let mut streamed = said("gpt-5-mini");
    streamed["stream"] = true.into();
    client.post_over(Protocol::H2, CHAT, &streamed).await.assert_status(200);
    client.post(CHAT, &said("odd-model")).await.assert_status(200);
    for _ in 0..REFUSALS {
        client.post(CHAT, &said("gpt-4.1")).await.assert_refused(403, "model_not_allowed");
    }
    let message = json!({
        "model": ANTHROPIC_MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": prompt}],
    });
    client.post("/claude/v1/messages", &message).await.assert_status(200);
    // Plain calls, with what a caller may put into a head.
    let query = query.replace(['+', '/'], "-");
    let state = format!("vendor={}", fixture.sandbox.canary("state").replace('=', "-"));
    let headers = [("x-custom", header.as_str()), ("tracestate", &state)];
    let get = |path: &str| from(client.request(Method::GET, path, ""), &headers);
    client.send(Protocol::H1, get(&format!("/plain/x?q={query}"))).await.unwrap().assert_status(200);
    client.send(Protocol::H1, get("/plain/fails")).await.unwrap().assert_status(500);
    client.send(Protocol::H1, get("/down/x")).await.unwrap().assert_refused(502, "upstream_unreachable");
    let odd = client.request(Method::from_bytes(b"REPORT").unwrap(), "/plain/x", "");
    client.send(Protocol::H1, odd).await.unwrap().assert_refused(403, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_receives_follows_the_specification_and_holds_no_secret() {
    needs!(Collector::installed());
    let (mut fixture, collector) = all_kinds().await;
    call_in_every_way(&fixture).await;
    eventually("metrics come", || collector.metrics().contains_key("tollgate_requests_total")).await;
    let asked = format!(
        "authorization: Bearer {}\r\naccept: application/openmetrics-text;version=1.0.0\r\n",
        fixture.gateway.token()
    );
    let page = fixture.gateway.admin_get_with("/metrics", &asked);
    std::fs::write(fixture.sandbox.sinks().join("openmetrics.txt"), &page.1).unwrap();
    // The end of the process sends what is left, lines that stand for many calls among it.
    assert!(fixture.gateway.stop().success());

    let (server, client): (Vec<_>, Vec<_>) = collector.spans().into_iter().partition(Item::is_server);
    let (access, lines): (Vec<_>, Vec<_>) =
        collector.logs().into_iter().partition(|record| record.text("eventName") == "tollgate.access");
    let mut seen = BTreeSet::new();
    for (items, place) in [(&server, "server"), (&client, "client"), (&access, "access"), (&lines, "line")] {
        seen.extend(specified(items, place));
    }
    let all = specification()
        .into_iter()
        .flat_map(|(name, (_, places))| places.into_iter().map(move |place| (name.clone(), place)));
    let missing: Vec<_> = all.filter(|row| !seen.contains(row)).collect();
    assert!(missing.is_empty(), "specified and never exported: {missing:?}");

    assert_spans_are_related(&server, &client);
    assert_exemplars_are_traces(&page.1, &server);
    assert_metrics_are_those_of_the_reference(&collector);
    let resource = collector.resource();
    assert_eq!(resource["service.name"].1, "tollgate");
    assert_eq!(resource["deployment.environment.name"].1, "test");
    let text = std::fs::read_to_string(fixture.sandbox.sinks().join("collector.jsonl")).unwrap();
    assert!(!text.contains(ANSWERED), "an answer");
    fixture.sandbox.assert_swept();
}

/// Each attempt is below its call, in its time, and says what its events say.
fn assert_spans_are_related(server: &[Item], client: &[Item]) {
    assert_eq!(server.len(), REFUSALS + 8, "one for each call");
    let by_id: BTreeMap<_, _> = server.iter().map(|span| (span.text("spanId"), span)).collect();
    assert_eq!(by_id.len(), server.len());
    let time = |span: &Item, name: &str| span.text(name).parse::<u64>().unwrap();
    for attempt in client {
        let call = by_id[attempt.text("parentSpanId")];
        assert_eq!(attempt.text("traceId"), call.text("traceId"));
        assert!(time(attempt, "startTimeUnixNano") >= time(call, "startTimeUnixNano"));
        assert!(time(attempt, "endTimeUnixNano") <= time(call, "endTimeUnixNano"));
    }
    for call in server {
        assert_eq!(call.text("traceId"), call.attribute("tollgate.request.id"), "its own");
        assert_eq!(call.text("parentSpanId"), "");
    }
    let names =
        |spans: &[Item]| spans.iter().map(|span| span.text("name").to_owned()).collect::<BTreeSet<_>>();
    let messages = format!("chat {ANTHROPIC_MODEL}");
    assert_eq!(
        names(client),
        BTreeSet::from(["GET", "chat gpt-5-mini", "chat odd-model", &messages].map(str::to_owned))
    );
    let calls = ["POST up", "POST claude", "GET plain", "GET down", "HTTP plain"];
    assert_eq!(names(server), BTreeSet::from(calls.map(str::to_owned)));
    // The first call had two attempts: the refused key, and the one that was answered.
    let twice = client.iter().find(|span| span.attributes.contains_key("http.request.resend_count")).unwrap();
    let both: Vec<_> = client.iter().filter(|span| span.text("traceId") == twice.text("traceId")).collect();
    assert_eq!(both.len(), 2, "{both:#?}");
    assert_eq!((both[0].attribute("error.type"), both[1].attribute("error.type")), ("401", ""));
    let usage = |span: &Item, name: &str| span.attributes.get(name).map(|(_, value)| value.clone());
    assert_eq!(usage(both[0], "gen_ai.usage.input_tokens"), None);
    assert_eq!(usage(both[1], "gen_ai.usage.input_tokens"), Some("20".into()));
    assert_eq!(usage(both[1], "gen_ai.usage.output_tokens"), Some("9".into()));
    assert_eq!(usage(both[1], "gen_ai.usage.reasoning.output_tokens"), Some("4".into()));
    let events = |span: &Item| {
        let events = span.json["events"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        events(both[0]),
        ["tollgate.dialled", "tollgate.secured", "tollgate.sent", "tollgate.first_byte"]
    );
    let down = client.iter().find(|span| span.attribute("server.address") == "api.down.test").unwrap();
    assert_eq!((down.attribute("error.type"), events(down).len()), ("upstream_unreachable", 0));
    assert_eq!(down.json["status"]["code"], 2);
    let claude = client.iter().find(|span| span.attribute("gen_ai.provider.name") == "anthropic").unwrap();
    assert_eq!(usage(claude, "gen_ai.usage.input_tokens"), Some("21".into()), "with those of the cache");
}

/// Each bucket's exemplar is a call of that destination and no longer than its bound.
fn assert_exemplars_are_traces(page: &str, server: &[Item]) {
    assert!(page.ends_with("# EOF\n"), "{page}");
    let mut exemplars = 0;
    for line in page.lines().filter(|line| line.contains("_bucket{")) {
        let Some((sample, exemplar)) = line.split_once(" # {trace_id=\"") else { continue };
        let (trace, rest) = exemplar.split_once("\"} ").unwrap();
        let seconds: f64 = rest.split(' ').next().unwrap().parse().unwrap();
        let bound = sample.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(bound == "+Inf" || seconds <= bound.parse().unwrap(), "{line}");
        let call =
            server.iter().find(|call| call.text("traceId") == trace).unwrap_or_else(|| panic!("{line}"));
        assert!(
            sample.contains(&format!("destination=\"{}\"", call.attribute("tollgate.destination"))),
            "{line}"
        );
        exemplars += 1;
    }
    assert!(exemplars >= 4, "one for each destination at least: {page}");
}

fn assert_metrics_are_those_of_the_reference(collector: &Collector) {
    let rows =
        include_str!("../../../gateway/README.md").lines().filter(|line| line.starts_with("| `tollgate_"));
    let reference: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            (cells[1].clone(), if cells[2] == "counter" { "sum".to_owned() } else { cells[2].clone() })
        })
        .collect();
    let metrics = collector.metrics();
    for (name, points) in &metrics {
        assert_eq!(Some(&points.kind), reference.get(name), "{name}");
    }
    let requests = &metrics["tollgate_requests_total"].points;
    let of = |reason: &str| {
        let points = requests.iter().filter(|point| point.attribute("reason") == reason);
        points.map(|point| point.json["asDouble"].as_f64().unwrap()).sum::<f64>()
    };
    assert_eq!(of("model_not_allowed"), REFUSALS as f64, "{requests:#?}");
    assert!(requests.iter().all(|point| point.attribute("namespace") == "checkout"));
    let durations = &metrics["tollgate_request_duration_seconds"].points;
    assert!(
        durations.iter().any(|point| point.text("count").parse::<usize>().unwrap() > REFUSALS),
        "{durations:#?}"
    );
}
