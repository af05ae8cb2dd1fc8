//! What costs the gateway much to do for one caller costs the others little.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tollgate_tests::client::Body;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::provider::chat;
use tollgate_tests::resources::{credential, destination, grant};
use tollgate_tests::{Client, Plan, Protocol, Reply, Upstream};

use super::{CHAT, VICTIM, calls, head, hears, is_timed, limited, quiet};

/// A JSON object of about this many bytes that is all members.
fn members(length: usize) -> Bytes {
    let mut text = b"{".to_vec();
    text.extend(b"\"A\":1,".repeat(length / 6));
    text.extend(b"\"B\":1}");
    text.into()
}

fn posted(client: &Client, body: Bytes) -> Request<Body> {
    let mut request = client.request(Method::POST, CHAT, body);
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_read_while_others_go_on_and_not_at_all_without_a_budget() {
    let fixture = quiet(limited("[{tokens: 9000, per: month, key: caller}]"), "").start_openai(4100, 9).await;
    let victim = fixture.caller(VICTIM);
    let refused = |client: Client, body: Bytes| async move {
        client.send(Protocol::H1, posted(&client, body)).await.map(|answer| answer.status.as_u16())
    };
    let members = members(6 << 20);
    let mut greedy = JoinSet::new();
    for number in 0..4 {
        let client = fixture.caller(&format!("spiffe://prod.acme/ns/checkout/sa/greedy-{number}"));
        greedy.spawn(refused(client, members.clone()));
    }
    let other = fixture.caller("spiffe://prod.acme/ns/nobody/sa/x");
    let mut connection = other.open(Protocol::H1).await.unwrap();
    let mut slowest = Duration::ZERO;
    while !greedy.is_empty() {
        let begun = Instant::now();
        let answer = connection.send(other.json(CHAT, &chat(9))).await.unwrap();
        answer.assert_refused(403, "no_grant");
        slowest = slowest.max(begun.elapsed());
        while greedy.try_join_next().is_some() {}
    }
    eprintln!("while large bodies are read: slowest {slowest:?}");
    for _ in 0..2 {
        victim.post(CHAT, &chat(9)).await.assert_status(200);
    }
    // Nothing of the body is sent: it is not waited for.
    let mut stream = victim.handshake(victim.tls(&["http/1.1"])).await.unwrap();
    stream.write_all(head(&victim, 31 << 20).as_bytes()).await.unwrap();
    let text = hears(&mut stream, "budget_exhausted").await;
    assert!(text.starts_with("HTTP/1.1 429"), "{text}");
}

/// Runs `attack` on a thread of its own. Where times matter it has only what others leave of the machine: what is timed waits for the
/// gateway, not for the attacker's own work.
fn beside<T: Send + 'static>(attack: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    thread::spawn(|| {
        if is_timed() {
            let thread = fs::read_link("/proc/thread-self").unwrap();
            let id = thread.file_name().unwrap();
            assert!(Command::new("chrt").args(["--idle", "--pid", "0"]).arg(id).status().unwrap().success());
        }
        Builder::new_current_thread().enable_all().build().unwrap().block_on(attack)
    })
}

/// Has large bodies read, one after the other, and says how many were.
async fn large_ones(client: Client, body: Bytes, enough: Arc<AtomicBool>) -> usize {
    let mut read = 0;
    while !enough.load(Ordering::Relaxed) {
        match client.send(Protocol::H1, posted(&client, body.clone())).await {
            Ok(answer) if answer.header("x-tollgate-reason") == "model_required" => read += 1,
            // There is no room for it; where the answer does not wait for the body the connection may be cut first.
            Ok(answer) => answer.assert_refused(429, "concurrency_limited"),
            Err(_) => {}
        }
    }
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_calls_go_on_while_bodies_of_very_many_members_are_read() {
    let fixture = quiet(Plan::openai(CHAT_ONLY), "cores: 1\n").start_openai(1, 1).await;
    let victim = fixture.caller(VICTIM);
    calls("undisturbed", &victim).await;
    let enough = Arc::new(AtomicBool::new(false));
    let body = members(31 << 20);
    let greedy: Vec<_> =
        (0..8).map(|_| large_ones(fixture.checkout(), body.clone(), enough.clone())).collect();
    let attack = beside(async { JoinSet::from_iter(greedy).join_all().await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    calls("while large bodies are read", &victim).await;
    enough.store(true, Ordering::Relaxed);
    let read: usize = attack.join().unwrap().into_iter().sum();
    assert!(read > 0, "none was read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_calls_go_on_while_a_provider_repeats_a_key_to_another_caller_without_end() {
    const TIMES: usize = 8_000;
    let mut plan = quiet(Plan::new(), "cores: 1\n");
    let escaped: String = plan.key.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let repeated = Bytes::from(escaped.repeat(TIMES));
    let masked = vec![b'*'; repeated.len()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resources = destination(
        "echo",
        "api.echo.test",
        listener.local_addr().unwrap().port(),
        plan.pki.bundle(),
        "http",
    ) + &credential("echo-key", "echo", "{store: files, path: up}", "{bearer: {}}")
        + &grant("checkout-echo", "spiffe://prod.acme/ns/checkout/sa/*", "echo", "echo-key", &plan.grant);
    plan.settings = plan.settings.resource("echo.yaml", resources);
    let echo = plan.pki.server(&plan.sandbox, &["api.echo.test"]);
    let fixture = plan.start(|_| Reply::status(200).data("fine")).await;
    let victim = fixture.caller(VICTIM);
    calls("undisturbed", &victim).await;
    let enough = Arc::new(AtomicBool::new(false));
    let attack = beside({
        let (client, enough) = (fixture.checkout(), enough.clone());
        async move {
            let echo = Upstream::http_on(listener, &echo, &["http/1.1"], move |_| {
                Reply::status(200).data(repeated.clone())
            });
            let mut connection = client.open(Protocol::H1).await.unwrap();
            while !enough.load(Ordering::Relaxed) {
                let answer = connection.start(client.request(Method::GET, "/echo/", "")).await.unwrap();
                assert!(answer.into_body().collect().await.unwrap().to_bytes() == masked);
            }
            echo.count()
        }
    });
    calls("while a key is repeated to another", &victim).await;
    enough.store(true, Ordering::Relaxed);
    assert!(attack.join().unwrap() > 0);
}
