//! One caller, or a stranger, cannot take the gateway from the others.

use std::time::Duration;

use http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tollgate_tests::gateway::eventually;
use tollgate_tests::report::requests_reach;
use tollgate_tests::{Plan, Protocol, Reply, Upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_connections_cost_others_nothing_and_leave_no_record() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(fixture.gateway.address()).await.unwrap());
    }
    let stranger = fixture.stranger(None);
    for _ in 0..100 {
        stranger.refusal().await;
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), fixture.checkout().get("/up/x")).await;
    answer.expect("others are served meanwhile").assert_status(200);
    requests_reach(&fixture.gateway, 1).await;
    let refused = fixture.gateway.metrics().sum("tollgate_tls_handshakes_refused_total", &["no_certificate"]);
    assert_eq!(refused, 100.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_and_writers_hold_up_nobody_else() {
    let fixture = Plan::new()
        .start(|seen| Reply::status(200).data(vec![b'x'; if seen.target == "/big" { 8 << 20 } else { 10 }]))
        .await;
    let client = fixture.checkout();
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
        let head = format!("GET /up/big HTTP/1.1\r\nhost: {}\r\n\r\n", client.authority());
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
        let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
        let head = format!(
            "POST /up/x HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000000\r\n\r\nbegun",
            client.authority()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let other = fixture.caller("spiffe://prod.acme/ns/checkout/sa/other");
    for protocol in Protocol::BOTH {
        let call = other.send(protocol, other.request(Method::GET, "/up/x", ""));
        tokio::time::timeout(Duration::from_secs(5), call)
            .await
            .expect("others are served meanwhile")
            .unwrap()
            .assert_status(200);
    }
    let resident = resident_kib(fixture.gateway.pid());
    assert!(resident < 400 * 1024, "{resident} KiB for twenty slow readers of 8 MiB: nothing is buffered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_held_are_bounded_together() {
    let grant = "  allow: {methods: [POST], paths: [/v1/chat/completions], models: [gpt-5-mini]}\n";
    let fixture = Plan::openai(grant).start_openai(1, 1).await;
    let client = fixture.checkout();
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
        let head = format!(
            "POST /up/v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            client.authority(),
            31 << 20
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let part = vec![b' '; 12 << 20];
        let _ = tokio::time::timeout(Duration::from_millis(700), stream.write_all(&part)).await;
        open.push(stream);
    }
    let resident = resident_kib(fixture.gateway.pid());
    assert!(resident < 1200 * 1024, "{resident} KiB");
    let other = fixture.caller("spiffe://prod.acme/ns/checkout/sa/other");
    other.post("/up/v1/chat/completions", &tollgate_tests::provider::chat(9)).await.assert_status(200);
}

pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_never_ends_is_cut_off() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
    stream
        .write_all(format!("GET /up/x HTTP/1.1\r\nhost: {}\r\n", client.authority()).as_bytes())
        .await
        .unwrap();
    let begun = std::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let trickle = stream.write_all(b"x-a: b\r\n").await.and(stream.flush().await);
        let mut byte = [0; 1];
        let read = tokio::time::timeout(
            Duration::from_millis(10),
            tokio::io::AsyncReadExt::read(&mut stream, &mut byte),
        )
        .await;
        if trickle.is_err() || read.is_ok() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(45), "a trickled head is read for ever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_a_caller_does_not_take_stall_no_http2_connection_of_others() {
    let mut plan = Plan::new();
    plan.settings.extra = "cores: 1\n".to_owned();
    let respond = |seen: &tollgate_tests::Seen| match seen.target.as_str() {
        "/big" => Reply::status(200).data(vec![b'x'; 1 << 20]),
        // A frame each, and most of what it costs is its head.
        "/crumbs" => (0..1000).fold(Reply::status(200), |reply, _| reply.data("x\n")),
        "/late" => Reply::status(200).data("begun ").wait(Duration::from_secs(3)).data(vec![b'y'; 100_000]),
        _ => Reply::status(200).data(vec![b'y'; 100_000]),
    };
    let upstream = Upstream::http(&plan.server, &["h2"], respond).await;
    let fixture = plan.start_with(upstream).await;
    let other = fixture.caller("spiffe://prod.acme/ns/checkout/sa/other");
    for path in ["/up/big", "/up/crumbs"] {
        let before = fixture.upstream.answered();
        let late = tokio::spawn({
            let other = other.clone();
            async move { other.get("/up/late").await }
        });
        let greedy = fixture.checkout();
        let stream = greedy.handshake(greedy.tls(&["h2"])).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(10)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut untaken = tokio::task::JoinSet::new();
        for _ in 0..60 {
            let (mut sender, request) = (sender.clone(), greedy.request(Method::GET, path, ""));
            untaken.spawn(async move { sender.send_request(request).await });
        }
        let mut answers = Vec::new();
        while let Some(answer) = untaken.join_next().await {
            answers.push(answer.unwrap());
        }
        eventually("all are answered", || fixture.upstream.answered() >= before + 61).await;
        // What is not taken piles up where it can.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..3 {
            let call = tokio::time::timeout(Duration::from_secs(10), other.get("/up/x")).await;
            let answer = call.expect("others are served meanwhile");
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 100_000), "{path}");
        }
        let late = tokio::time::timeout(Duration::from_secs(10), late).await;
        assert_eq!(late.expect("a stream under way goes on").unwrap().body.len(), 100_006, "{path}");
        drop(answers);
    }
}
