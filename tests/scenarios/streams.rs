//! Many streams of events at once: each comes whole and in order, and costs little memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::provider::{chat, chat_chunk, chat_usage_chunk};
use tollgate_tests::{Fixture, Plan, Protocol, Reply, ledger};

const STREAMS: usize = 500;
const CALLERS: usize = 10;
const EVENTS: usize = 40;
/// Bytes of the process for one open stream, with both of its TLS connections: many times what it takes.
const MOST: u64 = 512 << 10;

/// Bytes of the gateway's process that are in memory.
fn resident(fixture: &Fixture) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn event(number: usize) -> String {
    chat_chunk(&format!("event {number}."))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_at_once_come_whole_and_in_order_and_take_little_memory() {
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 1000000000, per: day}}]\n"));
    let fixture = plan
        .start(|_| {
            // All are open before the first goes on.
            let mut reply = Reply::events([event(0).as_str()]).wait(Duration::from_secs(40));
            for number in 1..EVENTS {
                reply = reply.event(&event(number)).wait(Duration::from_millis(20));
            }
            reply.event(&chat_usage_chunk(10, 20)).event("[DONE]")
        })
        .await;
    let before = resident(&fixture);
    let begun = Instant::now();
    let (mut streams, handshakes) = (JoinSet::new(), Arc::new(Semaphore::new(16)));
    for caller in 0..CALLERS {
        let client = fixture.caller(&format!("spiffe://prod.acme/ns/checkout/sa/web-{caller}"));
        for _ in 0..STREAMS / CALLERS {
            let (client, handshakes) = (client.clone(), Arc::clone(&handshakes));
            streams.spawn(async move {
                let mut body = chat(20);
                body["stream"] = true.into();
                // Of one address, the gateway has so many strangers at once and no more.
                let handshake = handshakes.acquire().await.expect("a turn");
                let mut connection = client.open(Protocol::H1).await.expect("a connection");
                drop(handshake);
                connection.send(client.json("/up/v1/chat/completions", &body)).await.expect("an answer")
            });
        }
    }
    while fixture.upstream.count() < STREAMS && begun.elapsed() < Duration::from_secs(39) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(answer) = streams.try_join_next() {
            panic!("one is over before all have begun: {:?}", answer.expect("a stream"));
        }
    }
    assert_eq!(fixture.upstream.count(), STREAMS, "all are open at once");
    let taken = resident(&fixture).saturating_sub(before);
    assert!(taken < MOST * STREAMS as u64, "{taken} bytes for {STREAMS} streams");
    let whole: Vec<String> = (0..EVENTS).map(event).collect();
    while let Some(answer) = streams.join_next().await {
        let answer = answer.expect("a stream");
        let text = answer.text();
        let mut events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        for expected in &whole {
            assert_eq!(events.next(), Some(expected.as_str()));
        }
        // The usage was asked for by the gateway alone.
        assert_eq!((events.next(), events.next()), (Some("[DONE]"), None));
    }
    eventually("all are recorded", || ledger::records(&fixture.gateway).len() == STREAMS).await;
    for record in ledger::records(&fixture.gateway) {
        assert_eq!((&record["outcome"], &record["usage_source"]), (&"completed".into(), &"reported".into()));
    }
    let metrics = fixture.gateway.metrics();
    let day = ["limit=\"grant/checkout-up/tokens/day/shared\""];
    assert_eq!(
        (metrics.sum("tollgate_limit_spent", &day), metrics.sum("tollgate_limit_held", &day)),
        (30.0 * STREAMS as f64, 0.0)
    );
}
