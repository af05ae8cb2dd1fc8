//! Callers that wait for `100 Continue`, and providers that send interim answers of their own.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tollgate_tests::{Fixture, Plan, Protocol, Upstream};

const BODY: &str = "a body that waited";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nread";
const FAILED: &str = "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";

/// One head, without what follows it; `None` when the peer is gone.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(timeout(Duration::from_secs(20), stream.read_u8()).await.expect("in time").ok()?);
    }
    Some(String::from_utf8_lossy(&text).to_lowercase())
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &str) {
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.flush().await;
}

/// A provider that answers each request with `before`, reads the body if it `reads`, and then answers with `last`.
async fn fixture(before: &'static str, reads: bool, last: &'static str) -> Fixture {
    let grant = "  allow: {methods: [POST], paths: [/open]}\n".to_owned();
    let plan = Plan { grant, ..Plan::new() };
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, move |mut stream, _| async move {
        while let Some(head) = head(&mut stream).await {
            say(&mut stream, before).await;
            let mut body = vec![0; BODY.len()];
            if reads && stream.read_exact(&mut body).await.is_err() {
                return;
            }
            assert!(!reads || body == BODY.as_bytes(), "{head}");
            say(&mut stream, last).await;
            if !reads {
                return;
            }
        }
    })
    .await;
    plan.start_with(upstream).await
}

/// What a caller is answered that sends its body only when it is told to: the heads, in order.
async fn patient(fixture: &Fixture, path: &str) -> Vec<String> {
    let client = fixture.checkout();
    let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
    let authority = client.authority();
    let length = BODY.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    );
    say(&mut stream, &request).await;
    let mut heads = vec![head(&mut stream).await.expect("an answer")];
    if heads[0].starts_with("http/1.1 100 ") {
        say(&mut stream, BODY).await;
        heads.push(head(&mut stream).await.expect("a last answer"));
    }
    heads
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_is_told_to_go_on_once_its_call_is_admitted() {
    let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nset-cookie: a=b\r\n\r\n\
                 HTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    for before in ["", hints] {
        let fixture = fixture(before, true, OK).await;
        let heads = patient(&fixture, "/up/open").await;
        let [first, last] = &heads[..] else { panic!("{heads:?}") };
        assert!(first.starts_with("http/1.1 100 "), "{heads:?}");
        assert!(last.starts_with("http/1.1 200 ") && !last.contains("set-cookie"), "{heads:?}");
        // In HTTP/2 nobody is told to, and nobody waits for long.
        let client = fixture.checkout();
        let mut request = client.request(Method::POST, "/up/open", BODY);
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        let answer = client.send(Protocol::H2, request).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "read"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_and_is_refused_is_never_told_to_go_on() {
    let fixture = fixture("", true, OK).await;
    let heads = patient(&fixture, "/up/closed").await;
    let [refusal] = &heads[..] else { panic!("{heads:?}") };
    assert!(refusal.starts_with("http/1.1 403 "), "{heads:?}");
    assert!(refusal.contains("x-tollgate-reason: path_not_allowed"), "{heads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_answers_before_the_body_is_heard() {
    for before in ["", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let fixture = fixture(before, false, FAILED).await;
        let heads = patient(&fixture, "/up/open").await;
        let last = heads.last().unwrap();
        assert!(last.starts_with("http/1.1 417 "), "{heads:?}");
    }
}
