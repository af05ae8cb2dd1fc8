//! What is exported over OpenTelemetry follows `gateway/TELEMETRY.md`, and a collector that is slow or gone costs calls nothing.

mod specification;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use serde_json::Value;
use tokio::net::TcpListener;
use tollgate_tests::client::Body;
use tollgate_tests::collector::Collector;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::provider::chat;
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, Upstream, needs};

const CHAT: &str = "/up/v1/chat/completions";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Settings that send everything to `endpoint`, with further members.
fn everything_to(endpoint: &str, more: &str) -> String {
    format!(
        "telemetry:\n  otlp:\n    endpoint: {endpoint}\n    traces: {{sample: 1}}\n    metrics: {{interval: 1s}}\n    logs: true\n{more}"
    )
}

fn from(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_caller_is_kept_and_told_only_to_whom_it_is_to_be_told() {
    needs!(Collector::installed());
    for told in [false, true] {
        let mut plan = Plan::openai(CHAT_ONLY);
        let collector = Collector::start(&plan.sandbox).await;
        let sampled = "    traces: {sample: 0, callersPerSecond: 1000}\n";
        let otlp =
            format!("telemetry:\n  otlp:\n    endpoint: {}\n    logs: true\n{sampled}", collector.endpoint());
        plan.settings.extra = if told { format!("{otlp}  propagate: [up]\n") } else { otlp };
        let mut fixture = plan.start_openai(10, 5).await;
        let client = fixture.checkout();
        let call = async |headers: &[(&'static str, &str)]| {
            let request = from(client.json(CHAT, &chat(40)), headers);
            client.send(Protocol::H1, request).await.unwrap().assert_status(200);
            let seen = fixture.upstream.seen().pop().unwrap();
            (seen.header("traceparent").to_owned(), seen.header("tracestate").to_owned())
        };
        let parent = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
        let recorded = call(&[("traceparent", &parent("01")), ("tracestate", "a=1")]).await;
        let passed = call(&[("traceparent", &parent("00")), ("tracestate", "b=2")]).await;
        let none = call(&[]).await;
        let forged = call(&[("traceparent", "00-nonsense-01"), ("tracestate", "c=3")]).await;

        eventually("the span comes", || collector.spans().len() == 2).await;
        let spans = collector.spans();
        let (server, attempt) = (
            spans.iter().find(|span| span.is_server()).unwrap(),
            spans.iter().find(|span| !span.is_server()).unwrap(),
        );
        assert_eq!((server.text("traceId"), server.text("parentSpanId")), (TRACE, SPAN));
        if told {
            assert_eq!(recorded, (format!("00-{TRACE}-{}-01", attempt.text("spanId")), "a=1".to_owned()));
            assert_eq!(passed, (parent("00"), "b=2".to_owned()), "as it came");
        } else {
            assert_eq!((recorded, passed), Default::default());
        }
        assert_eq!((none, forged), Default::default());
        // The access log and the exported one name the trace, also where it is not recorded here.
        eventually("the lines come", || {
            let access =
                fixture.gateway.log().into_iter().filter(|line| field(line, "target") == "tollgate::access");
            access.filter(|line| line["record"]["trace_id"] == TRACE).count() == 2
        })
        .await;
        eventually("the records come", || {
            collector.logs().iter().filter(|log| log.text("traceId") == TRACE).count() == 2
        })
        .await;
        assert!(fixture.gateway.stop().success());
        fixture.sandbox.assert_swept();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_telemetry_a_context_goes_nowhere_but_where_it_is_to_be_told() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    for (settings, passed) in [("", ("", "")), ("telemetry: {propagate: [up]}\n", (parent.as_str(), "a=1"))] {
        let mut plan = Plan::openai(CHAT_ONLY);
        plan.settings.extra = settings.to_owned();
        let fixture = plan.start_openai(10, 5).await;
        let client = fixture.checkout();
        let request = from(client.json(CHAT, &chat(40)), &[("traceparent", &parent), ("tracestate", "a=1")]);
        client.send(Protocol::H1, request).await.unwrap().assert_status(200);
        let seen = fixture.upstream.seen().pop().unwrap();
        assert_eq!((seen.header("traceparent"), seen.header("tracestate")), passed, "{settings}");
        assert!(!fixture.gateway.admin_get("/metrics").1.contains("tollgate_otlp_items_total"));
    }
}

/// Calls until `holds`, and fails when a call does.
async fn call_until(client: &Client, what: &str, mut holds: impl FnMut() -> bool) {
    let calls = async {
        while !holds() {
            client.post(CHAT, &chat(40)).await.assert_status(200);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), calls).await.unwrap_or_else(|_| panic!("{what}"));
}

fn items(fixture: &Fixture, signal: &str, result: &str) -> f64 {
    let labels = [format!("signal=\"{signal}\""), format!("result=\"{result}\"")];
    fixture.gateway.metrics().sum("tollgate_otlp_items_total", &[&labels[0], &labels[1]])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_dies_costs_calls_nothing_and_what_is_lost_is_counted() {
    needs!(Collector::installed());
    let mut plan = Plan::openai(CHAT_ONLY);
    let mut collector = Collector::start(&plan.sandbox).await;
    plan.settings.extra = everything_to(&collector.endpoint(), "    queue: 16\n");
    let mut fixture = plan.start_openai(10, 5).await;
    let client = fixture.checkout();
    call_until(&client, "spans are sent", || items(&fixture, "traces", "sent") > 0.0).await;
    collector.hang(true);
    call_until(&client, "what finds no room is counted", || items(&fixture, "traces", "queue_full") > 0.0)
        .await;
    call_until(&client, "so are lines", || items(&fixture, "logs", "queue_full") > 0.0).await;
    collector.hang(false);
    let sent = items(&fixture, "traces", "sent");
    call_until(&client, "it is sent again", || items(&fixture, "traces", "sent") > sent).await;
    collector.kill();
    call_until(&client, "what cannot be sent is counted", || items(&fixture, "traces", "failed") > 0.0).await;
    // Nobody is there to flush to: the end comes all the same.
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_process_does_not_wait_for_a_collector_that_hangs() {
    // Takes connections, and never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", deaf.local_addr().unwrap());
    let mut plan = Plan::openai(CHAT_ONLY);
    plan.settings.extra = everything_to(&endpoint, "");
    let mut fixture = plan.start_openai(10, 5).await;
    for _ in 0..5 {
        fixture.checkout().post(CHAT, &chat(40)).await.assert_status(200);
    }
    assert!(fixture.gateway.stop().success(), "within the harness's patience");
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_asked_again_where_that_helps_and_shown_the_header_of_the_file_alone() {
    let mut plan = Plan::openai(CHAT_ONLY);
    let collector = plan.pki.server(&plan.sandbox, &["otel.test", "localhost"]);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // Traces are refused twice, in a way that passes; logs and metrics for good.
    let sink = Upstream::http(&collector, &["http/1.1"], move |seen| match seen.target.as_str() {
        "/base/v1/traces" => match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::status(429).header("retry-after", "1"),
            1 => Reply::status(503),
            // In the end it is slow.
            _ => Reply::status(200).wait(Duration::from_secs(2)),
        },
        "/base/v1/logs" => Reply::status(500),
        _ => Reply::status(307).header("location", "https://localhost/elsewhere"),
    })
    .await;
    let token = plan.sandbox.canary("otel");
    let file = plan.sandbox.input("otel.token", format!("{token}\n"));
    plan.settings.extra = everything_to(
        &format!("https://localhost:{}/base/", sink.port()),
        &format!(
            "    caFile: {}\n    headers: {{x-otel-token: {{file: {}}}}}\n",
            plan.pki.bundle().display(),
            file.display()
        ),
    );
    let mut fixture = plan.start_openai(10, 5).await;
    fixture.checkout().post(CHAT, &chat(40)).await.assert_status(200);
    eventually("it is taken in the end", || items(&fixture, "traces", "sent") == 1.0).await;
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    eventually("the others are not", || {
        items(&fixture, "logs", "failed") > 0.0 && items(&fixture, "metrics", "failed") > 0.0
    })
    .await;
    assert_eq!(items(&fixture, "logs", "sent") + items(&fixture, "metrics", "sent"), 0.0);
    let seen = sink.seen();
    assert!(seen.iter().all(|seen| seen.header("x-otel-token") == token
        && seen.header("content-type") == "application/x-protobuf"));
    assert!(seen.iter().all(|seen| seen.target != "/elsewhere"), "no redirect is followed");
    let said: Vec<Value> =
        fixture.gateway.log().into_iter().filter(|line| !field(line, "why").is_null()).collect();
    assert!(said.iter().any(|line| field(line, "why") == "status 500"), "{said:#?}");
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}
