//! A proxy over streams in memory, as programs ask it.

use std::time::Duration;

use h2::{RecvStream, SendStream};
use http::StatusCode;
use http_body_util::Empty;
use hyper::client::conn::http2 as client2;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::super::fixture::{Fixture, Met, has_met, recorded};
use super::*;
use crate::stats::Sums;

fn connect(fixture: &Fixture, chain: Vec<CertificateDer<'static>>, http2: bool) -> DuplexStream {
    let (near, far) = duplex(1 << 16);
    let session = fixture.session_by(ProxyMode::Forward, chain, http2);
    tokio::spawn(serve(Arc::clone(&fixture.core), session, near, (|_| std::future::ready(()), drop)));
    far
}

/// All that is answered to these bytes, until the connection ends.
async fn said(fixture: &Fixture, chain: Vec<CertificateDer<'static>>, sent: &str) -> String {
    let mut stream = connect(fixture, chain, false);
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    String::from_utf8(said).unwrap()
}

fn counted(fixture: &Fixture, reason: Reason) -> usize {
    let mut sums = Sums::default();
    sums.add(&fixture.core.stats);
    sums.calls.keys().filter(|series| series.reason == Some(reason) && series.destination.is_some()).count()
}

#[tokio::test]
async fn a_request_in_absolute_form_goes_to_its_host_by_the_whole_route() {
    let fixture = Fixture::new().await;
    for url in ["http://up.test/one", "https://up.test/one", "http://UP.test:80/one"] {
        let host = url.split('/').nth(2).unwrap();
        let sent = format!(
            "GET {url} HTTP/1.1\r\nhost: {host}\r\nproxy-connection: keep-alive\r\nconnection: close\r\n\r\n"
        );
        let answer = said(&fixture, fixture.web(), &sent).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nGET /one HTTP/1.1"),
            "{answer}"
        );
    }
    let io = TokioIo::new(connect(&fixture, fixture.web(), true));
    let (mut sender, connection) = client2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://up.test/two").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_tunnel_carries_plain_http_and_what_came_with_its_request() {
    let fixture = Fixture::new().await;
    let inside = "GET /one HTTP/1.1\r\nhost: up.test\r\nconnection: close\r\n\r\n";
    for (line, host) in [
        ("up.test:80 HTTP/1.1", "host: up.test:80\r\n"),
        ("UP.test:80 HTTP/1.1", "host: up.test\r\ncontent-length: 0\r\n"),
        ("up.test:80 HTTP/1.0", ""),
    ] {
        let sent = format!("CONNECT {line}\r\n{host}\r\n{inside}");
        let answer = said(&fixture, fixture.web(), &sent).await;
        let version = line.split(' ').nth(1).unwrap();
        assert!(answer.starts_with(&format!("{version} 200 OK\r\n")), "{answer}");
        let (_, inner) = answer.split_once("\r\n\r\n").unwrap();
        assert!(inner.starts_with("HTTP/1.1 200 OK\r\n") && inner.ends_with("GET /one HTTP/1.1"), "{answer}");
    }
    let io = TokioIo::new(connect(&fixture, fixture.web(), true));
    let (mut sender, connection) = client2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let answer = sender.send_request(Request::connect("up.test:80").body(Empty::<Bytes>::new()).unwrap());
        let mut tunnel = TokioIo::new(hyper::upgrade::on(answer.await.unwrap()).await.unwrap());
        tunnel.write_all(inside.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tunnel.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("GET /one HTTP/1.1"), "{answer}");
    }
}

#[tokio::test]
async fn a_tunnel_that_is_refused_says_why_and_nothing_behind_it_is_read() {
    let fixture = Fixture::new().await;
    let behind = "GET http://up.test/one HTTP/1.1\r\nhost: up.test\r\n\r\n";
    for (asked, status, reason) in [
        ("foreign.test:443 HTTP/1.1\r\nhost: foreign.test:443", 403, "no_grant"),
        ("unknown.test:443 HTTP/1.1\r\nhost: unknown.test", 421, "unknown_host"),
        ("localhost:9441 HTTP/1.1\r\nhost: localhost:9441", 421, "unknown_host"),
        ("169.254.169.254:80 HTTP/1.1\r\nhost: 169.254.169.254", 421, "unknown_host"),
        ("240.240.0.1:80 HTTP/1.1\r\nhost: 240.240.0.1:80", 421, "unknown_host"),
        ("up.test:443 HTTP/1.1\r\nhost: up.test:443", 400, "tls_in_tunnel"),
        ("up.test:80 HTTP/1.1\r\nhost: twin.test:80", 400, "ambiguous_authority"),
        ("up.test:80 HTTP/1.1\r\nhost: up.test:81", 400, "ambiguous_authority"),
        ("up.test HTTP/1.1\r\nhost: up.test", 400, "ambiguous_authority"),
        ("user@up.test:80 HTTP/1.1\r\nhost: up.test:80", 400, "ambiguous_authority"),
        ("http://up.test:80/ HTTP/1.1\r\nhost: up.test:80", 400, "ambiguous_authority"),
        ("up.test:80 HTTP/1.1\r\nhost: up.test:80\r\ncontent-length: 5", 400, "bad_request"),
        ("up.test:80 HTTP/1.1\r\nhost: up.test:80\r\ntransfer-encoding: chunked", 400, "bad_request"),
        (
            "foreign.test:80 HTTP/1.1\r\nhost: foreign.test:80\r\ncontent-type: application/grpc",
            403,
            "no_grant",
        ),
    ] {
        let answer = said(&fixture, fixture.web(), &format!("CONNECT {asked}\r\n\r\n{behind}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}: {answer}");
        assert!(answer.contains(&format!("x-tollgate-reason: {reason}\r\n")), "{asked}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{asked}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{asked}: {answer}");
    }
    assert_eq!(counted(&fixture, Reason::NoGrant), 1);
}

#[tokio::test]
async fn a_proxy_asks_for_proof_as_proxies_do() {
    let fixture = Fixture::new().await;
    for request in ["CONNECT up.test:80 HTTP/1.1", "GET http://up.test/one HTTP/1.1"] {
        let host = if request.starts_with('C') { "up.test:80" } else { "up.test" };
        let answer =
            said(&fixture, Vec::new(), &format!("{request}\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
                .await;
        assert!(answer.starts_with("HTTP/1.1 407 Proxy Authentication Required\r\n"), "{answer}");
        assert!(answer.contains("proxy-authenticate: Basic realm=\"tollgate\"\r\n"), "{answer}");
        assert!(!answer.contains("www-authenticate"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_for_another_host_than_its_tunnels_is_refused_and_tls_in_it_is_recorded() {
    let fixture = Fixture::new().await;
    let inside = "GET /one HTTP/1.1\r\nhost: twin.test\r\n\r\n";
    let sent = format!("CONNECT up.test:80 HTTP/1.1\r\nhost: up.test:80\r\n\r\n{inside}");
    let answer = said(&fixture, fixture.web(), &sent).await;
    assert!(
        answer.contains("HTTP/1.1 400 Bad Request\r\n") && answer.contains("ambiguous_authority"),
        "{answer}"
    );

    let tls = "\x16\x03\x01\n\n\n";
    let sent = format!("CONNECT up.test:80 HTTP/1.1\r\nhost: up.test:80\r\n\r\n{tls}");
    let answer = said(&fixture, fixture.web(), &sent).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(counted(&fixture, Reason::TlsInTunnel), 1);
}

#[tokio::test]
async fn a_tunnel_over_http1_is_one_of_its_callers_connections_and_gives_its_place_back() {
    let fixture = Fixture::new().await;
    let usage = fixture.core.shared.usages.of(&"spiffe://prod.acme/web".parse().unwrap());
    let mut others: Vec<_> = std::iter::from_fn(|| usage.connection()).collect();
    // That of the connection itself.
    others.pop();
    let asked = "CONNECT up.test:80 HTTP/1.1\r\nhost: up.test:80\r\n\r\n";
    let answer = said(&fixture, fixture.web(), asked).await;
    assert!(answer.contains("x-tollgate-reason: concurrency_limited\r\n"), "{answer}");
    drop(others);
    let inside = "GET /one HTTP/1.1\r\nhost: up.test\r\nconnection: close\r\n\r\n";
    let free = std::iter::from_fn(|| usage.connection()).collect::<Vec<_>>().len();
    let answer = said(&fixture, fixture.web(), &format!("{asked}{inside}")).await;
    assert!(answer.ends_with("GET /one HTTP/1.1"), "{answer}");
    tokio::task::yield_now().await;
    assert_eq!(std::iter::from_fn(|| usage.connection()).collect::<Vec<_>>().len(), free);
}

#[tokio::test]
async fn what_is_no_http_is_passed_through_with_what_came_with_its_request() {
    let fixture = Fixture::new().await;
    let port = fixture.echo();
    let mut stream = connect(&fixture, fixture.web(), false);
    let asked = format!("CONNECT queue.test:{port} HTTP/1.1\r\nhost: queue.test:{port}\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    stream.write_all(b"early\n\n\n").await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"early\n\n\n") {
        assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "{}", String::from_utf8_lossy(&said));
    }
    assert!(said.starts_with(b"HTTP/1.1 200 OK\r\n"));
    stream.write_all(b"later").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"later");
    let io = TokioIo::new(connect(&fixture, fixture.web(), true));
    let (mut sender, connection) = client2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::connect(format!("queue.test:{port}")).body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    tunnel.write_all(b"over HTTP/2").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut back = Vec::new();
    tunnel.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"over HTTP/2");
}

/// A tunnel over HTTP/2, and what the destination has met that stays when it has read all.
async fn patient_tunnel(fixture: &Fixture) -> (SendStream<Bytes>, RecvStream, Met) {
    let io = connect(fixture, fixture.web(), true);
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let (port, met) = fixture.patient();
    let request = Request::connect(format!("patient.test:{port}")).body(()).unwrap();
    let (answer, mut way) = sender.ready().await.unwrap().send_request(request, false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    way.send_data("a part".into(), false).unwrap();
    (way, answer.into_body(), met)
}

#[tokio::test]
async fn a_destination_does_not_take_a_cancelled_tunnel_over_http2_for_one_that_has_ended() {
    let fixture = Fixture::new().await;
    let (mut way, _body, met) = patient_tunnel(&fixture).await;
    sleep(Duration::from_millis(50)).await;
    way.send_reset(h2::Reason::CANCEL);
    has_met(&met, &["a reset"]).await;
}

#[tokio::test]
async fn the_end_of_one_way_waits_for_no_reader_of_the_other() {
    let fixture = Fixture::new().await;
    let io = connect(&fixture, fixture.web(), true);
    let mut client = h2::client::Builder::new();
    let (sender, connection) = client.initial_window_size(1_000).handshake(io).await.unwrap();
    tokio::spawn(connection);
    let (port, met) = fixture.talkative();
    let request = Request::connect(format!("talkative.test:{port}")).body(()).unwrap();
    let (answer, mut way) = sender.ready().await.unwrap().send_request(request, false).unwrap();
    // Kept, and not read.
    let _answer: Response<RecvStream> = answer.await.unwrap();
    sleep(Duration::from_millis(100)).await;
    way.send_data(Bytes::new(), true).unwrap();
    has_met(&met, &["0 bytes"]).await;
}

#[tokio::test]
async fn a_caller_over_http2_that_ends_its_way_and_then_resets_the_tunnel_is_gone() {
    let fixture = Fixture::new().await;
    let (mut way, mut body, met) = patient_tunnel(&fixture).await;
    way.send_data(Bytes::new(), true).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "ended");
    has_met(&met, &["6 bytes"]).await;
    way.send_reset(h2::Reason::CANCEL);
    assert_eq!(recorded(&fixture, "patient", None).await, 1);
}

#[tokio::test]
async fn a_connection_that_cannot_be_passed_through_is_refused_before_its_tunnel_is_open() {
    let fixture = Fixture::new().await;
    for (authority, status, reason) in [
        ("closed.test:1", 502, "upstream_unreachable"),
        ("inside.test:22", 502, "address_refused"),
        ("queue.test:443", 421, "unknown_host"),
    ] {
        let asked = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        let answer = said(&fixture, fixture.web(), &asked).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{authority}: {answer}");
        assert!(answer.contains(&format!("x-tollgate-reason: {reason}\r\n")), "{authority}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_tls_or_for_another_server_ends_a_tunnel_that_tls_has_to_come_in() {
    let fixture = Fixture::new().await;
    let port = fixture.echo();
    let asked = format!("CONNECT a.named.test:{port} HTTP/1.1\r\nhost: a.named.test:{port}\r\n\r\n");
    let answer = said(&fixture, fixture.web(), &format!("{asked}SSH-2.0-x\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("SSH"), "{answer}");
    assert_eq!(counted(&fixture, Reason::TlsExpected), 1);
}
