//! Upstreams that answer too early, too much or ambiguously: no caller ever gets what was meant for another.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tollgate_tests::{Answer, Plan, Protocol, Upstream};

type Stream = TlsStream<TcpStream>;

const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-poison: 1\r\n\r\npoison";
const CLEAN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nclean";

/// One request head; `None` when the peer is gone.
async fn head(stream: &mut Stream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

async fn say(stream: &mut Stream, bytes: &str) {
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.flush().await;
}

/// The first connection answers its first request with `first`, then `late` after a pause; everything else is answered clean.
async fn upstream(plan: &Plan, first: String, late: String) -> Upstream {
    Upstream::raw(&plan.server, &["http/1.1"], None, move |mut stream, number| {
        let (first, late) = (first.clone(), late.clone());
        async move {
            let mut requests = 0;
            while head(&mut stream).await.is_some() {
                if number == 0 && requests == 0 {
                    say(&mut stream, &first).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    say(&mut stream, &late).await;
                } else {
                    say(&mut stream, CLEAN).await;
                }
                requests += 1;
            }
        }
    })
    .await
}

struct Outcome {
    first: Result<Answer, String>,
    next: Vec<String>,
    connections: usize,
}

/// A request that provokes `first`, then five of another caller.
async fn provoke(method: Method, first: &str, late: &str) -> Outcome {
    let plan =
        Plan { grant: "  allow: {methods: [GET, HEAD, POST], paths: [\"/**\"]}\n".to_owned(), ..Plan::new() };
    let upstream = upstream(&plan, first.to_owned(), late.to_owned()).await;
    let fixture = plan.start_with(upstream).await;
    let (one, two) = (fixture.checkout(), fixture.caller("spiffe://prod.acme/ns/checkout/sa/other"));
    let first =
        one.send(Protocol::H1, one.request(method, "/up/first", "")).await.map_err(|error| error.to_string());
    let mut next = Vec::new();
    // What comes while a connection is idle is there before the next request.
    for pause in [300, 0, 200, 0, 0] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        next.push(two.get("/up/next").await.text());
    }
    Outcome { first, next, connections: fixture.upstream.connections() }
}

async fn assert_never_poisoned(
    what: &str,
    method: Method,
    first: &str,
    late: &str,
) -> Result<Answer, String> {
    let outcome = provoke(method, first, late).await;
    assert_eq!(outcome.next, ["clean"; 5], "{what}");
    if let Ok(answer) = &outcome.first {
        assert!(
            !answer.text().contains("poison") && !answer.headers.contains_key("x-poison"),
            "{what}: {}",
            answer.text()
        );
    }
    assert!(outcome.connections > 1, "{what}: the connection went back to the pool");
    outcome.first
}

#[tokio::test(flavor = "multi_thread")]
async fn surplus_bytes_after_an_answer_are_nobodys_answer() {
    let fine = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let first = assert_never_poisoned("at once", Method::GET, &format!("{fine}{POISON}"), "").await;
    assert_eq!(first.unwrap().text(), "ok");
    assert_never_poisoned("late", Method::GET, fine, POISON).await.unwrap();
    assert_never_poisoned("late, half", Method::GET, fine, "HTTP/1.1 200 OK\r\n").await.unwrap();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    assert_never_poisoned("after chunks", Method::GET, &format!("{chunked}{POISON}"), "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_where_there_can_be_none_is_nobodys_answer() {
    for status in ["204 No Content", "304 Not Modified"] {
        let with_body = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{POISON}", POISON.len());
        let _ = assert_never_poisoned(status, Method::GET, &with_body, "").await;
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{POISON}", POISON.len());
    let _ = assert_never_poisoned("HEAD", Method::HEAD, &head, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_framing_is_a_broken_protocol() {
    let ambiguous = [
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nokHTTP"),
        (
            "length and chunked",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        ("negative length", "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok"),
        ("listed lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok"),
        ("plus sign", "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok"),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        ("not a status line", "HTTP/1.1 OK\r\n\r\n"),
        ("not HTTP", "SSH-2.0-OpenSSH_9.2\r\n"),
        ("bare LF in a name", "HTTP/1.1 200 OK\r\nx\ny: 1\r\ncontent-length: 2\r\n\r\nok"),
    ];
    for (what, bytes) in ambiguous {
        let outcome = provoke(Method::GET, bytes, "").await;
        assert_eq!(outcome.next, ["clean"; 5], "{what}");
        match outcome.first {
            Ok(answer) if answer.status.is_success() => {
                assert_eq!(answer.text(), "ok", "{what}");
            }
            Ok(answer) => {
                let reasons = ["upstream_protocol", "upstream_reset"];
                assert!(reasons.contains(&answer.header("x-tollgate-reason")), "{what}: {}", answer.text());
            }
            Err(error) => assert!(!error.is_empty(), "{what}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_request_was_whole_does_not_return_to_the_pool() {
    let plan = Plan::new();
    let script = move |mut stream: Stream, number: usize| async move {
        while head(&mut stream).await.is_some() {
            say(
                &mut stream,
                if number == 0 { "HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nearly" } else { CLEAN },
            )
            .await;
        }
    };
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, script).await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let big = vec![b'G'; 8 << 20];
    let early = client.send(Protocol::H2, client.request(Method::POST, "/up/big", big)).await;
    if let Ok(early) = &early {
        assert!(early.status == 413 || early.status == 502, "{}", early.text());
    }
    assert_eq!(client.get("/up/next").await.text(), "clean");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_101_that_nobody_asked_for_is_502() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nframes";
    let first = assert_never_poisoned("101", Method::GET, switch, "").await.unwrap();
    assert_eq!(first.status, 502, "{}", first.text());
    assert!(
        ["unsupported_upgrade", "upstream_protocol"].contains(&first.header("x-tollgate-reason")),
        "{:?}",
        first.headers
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_are_bounded_and_carry_nothing() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\nset-cookie: a=b\r\n\r\n";
    let outcome = provoke(Method::GET, &format!("{hints}{hints}{CLEAN}"), "").await;
    let first = outcome.first.unwrap();
    assert_eq!((first.status.as_u16(), first.text().as_str()), (200, "clean"));
    assert!(!first.headers.contains_key("set-cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_never_shared_between_destinations_or_keys() {
    let plan = Plan::new();
    let upstream = Upstream::http(&plan.server, &["h2"], |_| tollgate_tests::Reply::status(200)).await;
    let port = upstream.port();
    plan.sandbox.input("keys/second", plan.sandbox.canary("second"));
    let mut settings = plan.complete(port);
    let (_, text) = settings.resources.pop().unwrap();
    use tollgate_tests::resources::{credential, grant};
    let second = credential("second-key", "up", "{store: files, path: second}", "{bearer: {}}")
        + &grant(
            "billing-up",
            "spiffe://prod.acme/ns/billing/sa/*",
            "up",
            "second-key",
            "  allow: {methods: [GET], paths: [\"/**\"]}\n",
        );
    let plan = Plan { settings: settings.resource("fixture.yaml", text + &second), ..plan };
    let fixture = plan.start_with(upstream).await;
    let (one, two) = (fixture.checkout(), fixture.caller("spiffe://prod.acme/ns/billing/sa/web"));
    for _ in 0..3 {
        one.get("/up/x").await.assert_status(200);
        two.get("/up/x").await.assert_status(200);
    }
    let seen = fixture.upstream.seen();
    for one in &seen {
        for two in &seen {
            let shared = one.connection == two.connection
                && one.header("authorization") != two.header("authorization");
            assert!(!shared, "two keys on one connection");
        }
    }
}
