//! While one caller, or a stranger, takes all it can get, another's calls succeed.

mod work;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::{Settings, eventually, field};
use tollgate_tests::ledger::segments;
use tollgate_tests::provider::{chat, chat_completion};
use tollgate_tests::report::{assert_verified, report, requests, total};
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply};

const CHAT: &str = "/up/v1/chat/completions";
const NOBODY: &str = "spiffe://prod.acme/ns/other/sa/nobody";
const VICTIM: &str = "spiffe://prod.acme/ns/checkout/sa/victim";

/// Quick to judge: a caller may be slow for two seconds.
const HASTY: &str = "cores: 1\nlimits: {patience: 2s, minRate: 4 KiB, heldBytes: 32 MiB}\n";

/// Logs as they are set in production: some of these scenarios make calls by the thousand.
fn quiet(mut plan: Plan, extra: &str) -> Plan {
    plan.settings.environment = vec![("RUST_LOG".to_owned(), "info".to_owned())];
    plan.settings = Settings { extra: extra.to_owned(), ..plan.settings };
    plan
}

fn limited(limits: &str) -> Plan {
    Plan::openai(&format!("{CHAT_ONLY}  limits: {limits}\n"))
}

/// The head of a call over HTTP/1.1 whose body has this many bytes.
fn head(client: &Client, length: usize) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n",
        client.authority()
    )
}

/// Says how many calls are made and timed, where the times matter. Where they do, the clients that are timed should not wait for the
/// machine: `chrt -f 1` before the tests, and `chrt -o 0` in a script around the gateway that `TOLLGATE_BIN` names.
const TIMED: &str = "TOLLGATE_TIMED_CALLS";

fn is_timed() -> bool {
    std::env::var_os(TIMED).is_some()
}

/// How many calls are made and timed.
fn timed() -> usize {
    std::env::var(TIMED).ok().and_then(|calls| calls.parse().ok()).unwrap_or(100)
}

/// Makes calls one after the other, all of which have to succeed, and prints how long most of them and all but one in a hundred took.
async fn calls(what: &str, client: &Client) {
    let count = timed();
    let mut connection = client.open(Protocol::H1).await.expect("a connection");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let answer = connection.send(client.json(CHAT, &chat(9))).await.expect("an answer");
        answer.assert_status(200);
        times.push(begun.elapsed());
    }
    times.sort();
    let at = |percent: usize| times[(count * percent).div_ceil(100) - 1];
    eprintln!("{what}: p50 {:?}, p99 {:?}, {count} calls", at(50), at(99));
}

/// Reads an answer until it says `what`, which is to be soon.
async fn hears(stream: &mut (impl AsyncReadExt + Unpin), what: &str) -> String {
    let mut answer = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&answer).contains(what) {
            assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0, "it ends before {what}");
        }
    };
    tokio::time::timeout(Duration::from_secs(15), read).await.expect("an answer in time");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn bytes_of_journal(fixture: &Fixture) -> u64 {
    segments(&fixture.gateway).iter().map(|path| path.metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_in_a_loop_leave_little_behind_and_are_counted_each() {
    const REFUSED: usize = 3_000;
    let mut fixture =
        quiet(limited("[{spend: 1000 USD, per: month}]"), "cores: 1\n").start_openai(10, 1).await;
    let victim = fixture.caller(VICTIM);
    let begun = bytes_of_journal(&fixture).await;
    calls("undisturbed", &victim).await;
    let before = bytes_of_journal(&fixture).await;
    let nobody = fixture.caller(NOBODY);
    let enough = Arc::new(AtomicBool::new(false));
    let flood = tokio::spawn({
        let enough = enough.clone();
        async move {
            let mut connection = nobody.open(Protocol::H1).await.expect("a connection");
            let mut refused = 0;
            while refused < REFUSED || !enough.load(Ordering::Relaxed) {
                let answer = connection.send(nobody.json(CHAT, &chat(9))).await.expect("an answer");
                answer.assert_refused(403, "no_grant");
                refused += 1;
            }
            refused
        }
    });
    calls("while refusals come in a loop", &victim).await;
    enough.store(true, Ordering::Relaxed);
    let flooded = flood.await.unwrap();
    fixture.gateway.stop();
    // The victim's calls take as much as before.
    let left = (bytes_of_journal(&fixture).await - before).saturating_sub(before - begun);
    assert!(left < 300_000, "{left} bytes for {flooded} refusals");
    let rows = report(&fixture.gateway, "caller");
    assert_eq!(requests(&rows), (flooded + 2 * timed()) as u64, "{rows:?}");
    let refused = |row: &Value| row["caller"] == NOBODY;
    assert_eq!(total(&rows, "requests", refused), flooded as u64, "{rows:?}");
    let log = fixture.gateway.log();
    let told = log.iter().map(|line| field(line, "record")).filter(|record| record["reason"] == "no_grant");
    let counts: Vec<u64> = told.map(|record| record["count"].as_u64().unwrap_or(1)).collect();
    assert!(counts.len() < REFUSED / 2, "{} lines", counts.len());
    assert_eq!(counts.iter().sum::<u64>(), flooded as u64);
    assert_verified(&fixture.gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_bodies_fit_while_others_hold_large_ones_that_do_not_end() {
    let fixture = quiet(Plan::openai(CHAT_ONLY), HASTY).start_openai(1, 1).await;
    let victim = fixture.caller(VICTIM);
    calls("undisturbed", &victim).await;
    let mut unfinished = tokio::task::JoinSet::new();
    for number in 0..57 {
        let greedy = fixture.caller(&format!("spiffe://prod.acme/ns/checkout/sa/greedy-{}", number % 5));
        unfinished.spawn(async move {
            let mut stream = greedy.handshake(greedy.tls(&["http/1.1"])).await.unwrap();
            stream.write_all(head(&greedy, 16 << 20).as_bytes()).await.unwrap();
            let part = vec![b' '; 4 << 20];
            let _ = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&part)).await;
            stream
        });
    }
    let open = unfinished.join_all().await;
    calls("while large bodies do not end", &victim).await;
    // Those that stopped are let go, and what they held is free again.
    let large = serde_json::json!({"model": "gpt-5-mini", "max_completion_tokens": 9,
        "messages": [{"role": "user", "content": "x".repeat(1 << 20)}]});
    let mut answer = victim.post(CHAT, &large).await;
    for _ in 0..20 {
        if answer.status == 200 {
            break;
        }
        answer.assert_refused(429, "concurrency_limited");
        tokio::time::sleep(Duration::from_millis(500)).await;
        answer = victim.post(CHAT, &large).await;
    }
    answer.assert_status(200);
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stops_or_trickles_is_let_go_however_fast_it_began() {
    let fixture = quiet(Plan::openai(CHAT_ONLY), HASTY).start_openai(1, 1).await;
    let victim = fixture.caller(VICTIM);
    calls("undisturbed", &victim).await;
    let client = fixture.checkout();
    let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
    stream.write_all(head(&client, (8 << 20) + 1).as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; 8 << 20]).await.unwrap();
    calls("while a body has stopped", &victim).await;
    let text = hears(&mut stream, "too slowly").await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_trickles_a_body_or_sips_an_answer_does_not_keep_a_place() {
    let grant = "  allow: {methods: [GET, POST], paths: [\"/**\"]}\n  limits: [{concurrency: 2}]\n";
    let plan = quiet(Plan { grant: grant.to_owned(), ..Plan::new() }, HASTY);
    let fixture = plan
        .start(|seen| Reply::status(200).data(vec![b'x'; if seen.target == "/big" { 32 << 20 } else { 10 }]))
        .await;
    let greedy = fixture.checkout();
    let mut upload = greedy.handshake(greedy.tls(&["http/1.1"])).await.unwrap();
    let begun =
        format!("POST /up/x HTTP/1.1\r\nhost: {}\r\ncontent-length: 100000\r\n\r\nx", greedy.authority());
    upload.write_all(begun.as_bytes()).await.unwrap();
    let mut sip = greedy.handshake(greedy.tls(&["http/1.1"])).await.unwrap();
    let asks = format!("GET /up/big HTTP/1.1\r\nhost: {}\r\n\r\n", greedy.authority());
    sip.write_all(asks.as_bytes()).await.unwrap();
    let trickle = tokio::spawn(async move {
        let mut byte = [0; 64];
        while sip.read(&mut byte).await.is_ok_and(|read| read > 0) {
            let _ = upload.write_all(b"y").await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    });
    let victim = fixture.caller(VICTIM);
    let mut free = 0;
    let waited = Instant::now();
    while free < 20 {
        let answer = victim.get("/up/x").await;
        free = if answer.status == 200 { free + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(waited.elapsed() < Duration::from_secs(30), "both places stay taken");
    }
    trickle.abort();
}

/// Makes a call that it drags out, a few bytes at a time, and when that is cut another.
async fn drags(client: Client, uploads: bool) {
    loop {
        let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
        let (method, path) = if uploads { ("POST", "/up/x") } else { ("GET", "/up/big") };
        let length = if uploads { "content-length: 100000\r\n" } else { "" };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{length}\r\n", client.authority());
        stream.write_all(head.as_bytes()).await.unwrap();
        while match uploads {
            true => stream.write_all(b"y").await.is_ok(),
            false => stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0),
        } {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drags_calls_out_leaves_others_their_share_of_the_places() {
    let grant = "  allow: {methods: [GET, POST], paths: [\"/**\"]}\n  limits: [{concurrency: 4}]\n";
    let plan = quiet(Plan { grant: grant.to_owned(), ..Plan::new() }, HASTY);
    let fixture = plan
        .start(|seen| Reply::status(200).data(vec![b'x'; if seen.target == "/big" { 32 << 20 } else { 10 }]))
        .await;
    let victim = fixture.caller(VICTIM);
    calls("undisturbed", &victim).await;
    let dragging: Vec<_> =
        (0..8).map(|number| tokio::spawn(drags(fixture.checkout(), number % 2 == 0))).collect();
    let held = || fixture.gateway.metrics().sum("tollgate_limit_held", &[]);
    eventually("the slow one has two places", || held() == 2.0).await;
    calls("while another drags its calls out", &victim).await;
    eventually("it still has some", || held() > 0.0).await;
    for task in dragging {
        assert!(!task.is_finished());
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_provider_is_slow_is_not_cut() {
    let plan = quiet(limited("[{concurrency: 2}]"), HASTY);
    let fixture = plan
        .start(|_| {
            let slow = |reply: Reply, text| {
                reply.event(&tollgate_tests::provider::chat_chunk(text)).wait(Duration::from_millis(3_500))
            };
            let reply = Reply::status(200).header("content-type", "text/event-stream");
            slow(slow(reply, "Hel"), "lo.").event("[DONE]")
        })
        .await;
    let mut asks = chat(9);
    asks["stream"] = Value::Bool(true);
    let answer = fixture.checkout().post(CHAT, &asks).await;
    answer.assert_status(200);
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_callers_holds_leave_others_their_share_of_a_budget() {
    let plan = quiet(limited("[{tokens: 1000000, per: month}]"), "cores: 1\n");
    let fixture = plan
        .start(|seen| {
            let is_greedy = seen.json()["max_completion_tokens"] != 9;
            let wait = Duration::from_millis(if is_greedy { 5_000 } else { 1 });
            let reply = Reply::status(200).header("content-type", "application/json").wait(wait);
            reply.data(chat_completion(1, 1).to_string())
        })
        .await;
    let victim = fixture.caller(VICTIM);
    calls("undisturbed", &victim).await;
    let mut greedy = tokio::task::JoinSet::new();
    // Smaller and smaller ones: all that could be held would be, but for less than the other's calls take.
    for cap in [90_000, 9_000, 900, 90, 10].iter().flat_map(|cap| [cap; 12]) {
        let client = fixture.checkout();
        greedy.spawn(async move { client.post(CHAT, &chat(*cap)).await.status.as_u16() });
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eventually("the greedy one holds what it can get", || {
        fixture.gateway.metrics().sum("tollgate_limit_held", &[]) > 300_000.0
    })
    .await;
    calls("while one caller holds all it can get", &victim).await;
    let statuses = greedy.join_all().await;
    assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
    drop(fixture);
    let plan = quiet(limited("[{tokens: 1000000, per: month}]"), "cores: 1\n");
    let fixture = plan
        .start(|_| {
            let reply = Reply::status(200).header("content-type", "application/json");
            reply.wait(Duration::from_secs(2)).data(chat_completion(1, 1).to_string())
        })
        .await;
    let mut alone = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let client = fixture.checkout();
        alone.spawn(async move { client.post(CHAT, &chat(90_000)).await.status.as_u16() });
    }
    assert_eq!(alone.join_all().await, [200; 10], "a lone caller may hold all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_from_several_addresses_keep_nobody_out() {
    let fixture = quiet(Plan::openai(CHAT_ONLY), "cores: 1\n").start_openai(1, 1).await;
    let victim = fixture.caller(VICTIM);
    calls("undisturbed", &victim).await;
    let mut silent = Vec::new();
    for net in 1..=4 {
        for _ in 0..600 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, net, 1), 0))).unwrap();
            let connected = socket.connect(fixture.gateway.address());
            silent.extend(tokio::time::timeout(Duration::from_secs(5), connected).await.map(Result::unwrap));
        }
    }
    for number in 0..10 {
        let newcomer = fixture.caller(&format!("{VICTIM}-{number}"));
        let called = tokio::time::timeout(Duration::from_secs(3), newcomer.post(CHAT, &chat(9))).await;
        called.expect("a new connection is served at once").assert_status(200);
    }
    calls("while strangers are silent", &victim).await;
    assert!(silent.len() > 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_to_the_admin_port_are_bounded() {
    let fixture = quiet(Plan::openai(CHAT_ONLY), "cores: 1\n").start_openai(1, 1).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(fixture.gateway.admin()).await.unwrap());
    }
    assert_eq!(fixture.gateway.admin_get("/healthz").0, 200, "whoever comes is answered");
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(Duration::from_secs(5), idle[0].read(&mut byte)).await;
    assert_eq!(closed.expect("the oldest gave way").unwrap_or(0), 0);
    eventually("all but a few give way", || {
        idle[1..].iter().filter(|stream| stream.try_read(&mut [0; 1]).is_err()).count() <= 64
    })
    .await;
    calls("beside an admin port that is full", &fixture.caller(VICTIM)).await;
}
