//! Who gets in, and what may travel on: the address that is listened on, the signals, headers, answers that are passed on.

use std::time::Duration;

use http::{HeaderName, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::{binary, eventually};
use tollgate_tests::process::{Process, free_port};
use tollgate_tests::{Client, Gateway, Plan, Protocol, Reply, Upstream, ledger};

/// A gateway with its own folder, on this port.
fn on_port(plan: &Plan, upstream: &Upstream, port: u16) -> Gateway {
    let gateway = Gateway::prepare(&plan.sandbox, &plan.complete(upstream.port()));
    gateway.edit_settings("127.0.0.1:0\", protocols", &format!("127.0.0.1:{port}\", protocols"));
    gateway.edit_settings("drain:", "cores: 3\ndrain:");
    gateway
}

fn client(plan: &Plan, gateway: &Gateway) -> Client {
    let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
    Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_an_address_is_refused_and_a_killed_ones_successor_is_not() {
    let (plan, other) = (Plan::new(), Plan::new());
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |seen| match seen.target.as_str() {
        "/slow" => Reply::status(200).wait(Duration::from_secs(60)),
        _ => Reply::status(200),
    })
    .await;
    let port = free_port();
    let mut first = on_port(&plan, &upstream, port);
    first.launch().await;
    first.ready().await;

    let second = on_port(&other, &upstream, port);
    let mut command = std::process::Command::new(binary());
    command.current_dir(second.home()).args(["serve", "--config", "tollgate.yaml"]);
    let mut refused = Process::spawn("second", &other.sandbox.sinks(), &mut command);
    eventually("the second one ends", || refused.ended().is_some()).await;
    assert!(!refused.ended().unwrap().success());
    let said = refused.stderr();
    for words in [
        format!("listener mesh: cannot listen on 127.0.0.1:{port}"),
        format!("in use by process {} (tollgate", first.pid()),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }

    let caller = client(&plan, &first);
    let mut open = caller.open(Protocol::H1).await.unwrap();
    open.send(caller.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    let slow = tokio::spawn({
        let caller = caller.clone();
        async move { caller.send(Protocol::H1, caller.request(Method::GET, "/up/slow", "")).await }
    });
    eventually("a call is under way", || upstream.count() == 2).await;
    first.kill();
    first.launch().await;
    first.ready().await;
    assert_eq!(first.address().port(), port);
    client(&plan, &first).get("/up/x").await.assert_status(200);
    assert!(slow.await.unwrap().is_err());
    assert!(first.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_gateway_ends_at_an_interrupt_without_the_delay() {
    let plan = Plan::new();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let mut gateway = Gateway::prepare(&plan.sandbox, &plan.complete(upstream.port()));
    gateway.edit_settings("delay: 100ms", "delay: 10m");
    gateway.launch().await;
    gateway.ready().await;
    let caller = client(&plan, &gateway);
    let mut idle = caller.open(Protocol::H1).await.unwrap();
    idle.send(caller.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    gateway.interrupt();
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_http_2_that_never_sends_a_byte_does_not_hold_a_drain() {
    let plan = Plan::new();
    let mut gateway = Gateway::prepare(&plan.sandbox, &plan.complete(443));
    gateway.edit_settings("timeout: 10s", "timeout: 10m");
    gateway.launch().await;
    gateway.ready().await;
    let caller = client(&plan, &gateway);
    let _silent = caller.handshake(caller.tls(&["h2"])).await.expect("a connection");
    gateway.begin_drain();
    // It is told to end after five seconds, and cut after thirty more.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_what_is_under_way_and_records_it() {
    let plan = Plan::new();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| {
        Reply::status(200).data("begun").wait(Duration::from_secs(600)).data("done")
    })
    .await;
    let mut gateway = Gateway::prepare(&plan.sandbox, &plan.complete(upstream.port()));
    gateway.edit_settings("delay: 100ms, timeout: 10s", "delay: 10m, timeout: 10m");
    gateway.launch().await;
    gateway.ready().await;
    let caller = client(&plan, &gateway);
    let call = tokio::spawn({
        let caller = caller.clone();
        async move { caller.send(Protocol::H1, caller.request(Method::GET, "/up/x", "")).await }
    });
    eventually("a call is under way", || upstream.count() == 1).await;
    gateway.begin_drain();
    eventually("readiness fails", || gateway.admin_get_with("/readyz", "").0 == 503).await;
    caller.get("/up-is-no-destination/x").await.assert_refused(421, "unknown_host");
    gateway.interrupt();
    assert!(gateway.ended().await.success());
    assert!(call.await.unwrap().is_err(), "a cut answer never ends cleanly");
    let paths = ledger::column(&gateway, "path");
    assert_eq!(paths.iter().filter(|path| *path == "/x").count(), 1, "{paths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_assert_and_second_spellings_of_framing_stay_behind() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let names = "client-cert client-cert-chain x-forwarded x-httpd-method x-method x-host-override x-backend-host x-request-url \
                 x-ssl-client-s-dn x-goog-authenticated-user-id x-ms-client-principal-id x-consumer-username x-authenticated-userid \
                 remote-user x-middleware-subrequest x-accel-redirect content_type content_encoding x_forwarded_for remote_user";
    for protocol in Protocol::BOTH {
        let mut request = client.request(Method::POST, "/up/x", "hello");
        for name in names.split_whitespace() {
            request.headers_mut().insert(HeaderName::from_static(name), "smuggled".parse().unwrap());
        }
        request.headers_mut().insert("x-own", "kept".parse().unwrap());
        client.send(protocol, request).await.unwrap().assert_status(200);
        let seen = fixture.upstream.only();
        assert!(!seen.everything().contains("smuggled"), "{seen:#?}");
        assert_eq!(seen.header("x-own"), "kept");
        fixture.upstream.clear();
    }
}

/// An upstream that answers each request with what its path stands for, and closes after it where it `closes`.
async fn saying(plan: &Plan, answers: &'static [(&'static str, &'static str)], closes: bool) -> Upstream {
    let script = move |mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, _| async move {
        loop {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..read]).into_owned();
            let Some((_, answer)) = answers.iter().find(|(path, _)| text.contains(&format!(" /{path} ")))
            else {
                return;
            };
            let fields = |count| "x-a: b\r\n".repeat(count);
            let answer = [99, 150, 300].into_iter().fold((*answer).to_owned(), |answer, count| {
                answer.replace(&format!("{{{count}}}"), &fields(count))
            });
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.flush().await;
            if closes {
                let _ = stream.shutdown().await;
                return;
            }
        }
    };
    Upstream::raw(&plan.server, &["http/1.1"], None, script).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_is_named_as_that() {
    let mut plan = Plan::new();
    plan.settings.extra = "limits: {answerFields: 256}\n".to_owned();
    let upstream = saying(
        &plan,
        &[
            ("many", "HTTP/1.1 200 OK\r\n{150}content-length: 2\r\n\r\nok"),
            ("fields", "HTTP/1.1 200 OK\r\n{300}content-length: 2\r\n\r\nok"),
            ("folded", "HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nok"),
            ("colon", "HTTP/1.1 200 OK\r\nx-a : b\r\ncontent-length: 2\r\n\r\nok"),
            ("smtp", "220 mail.up.test ESMTP ready\r\n"),
            ("status", "HTTP/1.1 2x0 OK\r\ncontent-length: 2\r\n\r\nok"),
            ("length", "HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok"),
        ],
        true,
    )
    .await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let many = client.request(Method::GET, "/up/many", "");
    client.send(Protocol::H2, many).await.unwrap().assert_status(200);
    for (path, words) in [
        ("fields", "more fields than `limits.answerFields` allows"),
        ("folded", "folded into several lines"),
        ("colon", "a field of its head is malformed"),
        ("smtp", "does not begin as HTTP"),
        ("status", "status"),
        ("length", "Content-Length"),
    ] {
        let answer = client.get(&format!("/up/{path}")).await;
        answer.assert_refused(502, "upstream_protocol");
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    let reasons = || ledger::column(&fixture.gateway, "reason");
    eventually("all are written", || {
        reasons().iter().filter(|reason| *reason == "upstream_protocol").count() == 6
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_a_hundred_fields_where_nothing_else_is_set() {
    let plan = Plan::new();
    let upstream = saying(
        &plan,
        &[
            ("hundred", "HTTP/1.1 200 OK\r\n{99}content-length: 2\r\n\r\nok"),
            ("more", "HTTP/1.1 200 OK\r\n{99}x-b: c\r\ncontent-length: 2\r\n\r\nok"),
        ],
        true,
    )
    .await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let hundred = client.request(Method::GET, "/up/hundred", "");
    client.send(Protocol::H2, hundred).await.unwrap().assert_status(200);
    client.get("/up/more").await.assert_refused(502, "upstream_protocol");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_http_1_0_costs_its_caller_no_connection() {
    for (closes, answer) in [
        (false, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello"),
        (true, "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        (true, "HTTP/1.0 200 OK\r\n\r\nhello"),
    ] {
        let plan = Plan::new();
        let answers: &'static [(&str, &str)] = Box::leak(Box::new([("x", answer)]));
        let upstream = saying(&plan, answers, closes).await;
        let fixture = plan.start_with(upstream).await;
        let client = fixture.checkout();
        let mut connection = client.open(Protocol::H1).await.unwrap();
        for _ in 0..5 {
            let request = client.request(Method::GET, "/up/x", "");
            let response = connection.start(request).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_11, "{answer:?}");
            let answer = tollgate_tests::Answer::read(&fixture.sandbox, response).await.unwrap();
            assert_eq!(answer.text(), "hello");
        }
        assert!(!connection.closed(), "{answer:?}");
    }
}
