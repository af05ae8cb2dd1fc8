//! Tunnels over streams in memory, as a client of the mesh asks for them.

use std::future::poll_fn;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::super::fixture::{Fixture, has_met, recorded};
use super::*;
use crate::stats::Sums;

type Sender = client2::SendRequest<Empty<Bytes>>;

async fn connect(fixture: &Fixture) -> Sender {
    let (near, far) = duplex(1 << 16);
    tokio::spawn(serve(Arc::clone(&fixture.core), fixture.session(fixture.web(), true), near));
    let (sender, connection) = client2::handshake(TokioExecutor::new(), TokioIo::new(far)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Sender, authority: &str) -> Response<Incoming> {
    let request = Request::connect(authority).header("baggage", "k8s.namespace.name=else").body(Empty::new());
    sender.send_request(request.unwrap()).await.unwrap()
}

async fn tunnel(sender: &mut Sender, authority: &str) -> Upgraded {
    let answer = ask(sender, authority).await;
    assert_eq!(answer.status(), StatusCode::OK, "{authority}");
    hyper::upgrade::on(answer).await.unwrap()
}

fn refusal(answer: &Response<Incoming>) -> (u16, &str) {
    (answer.status().as_u16(), answer.headers()["x-tollgate-reason"].to_str().unwrap())
}

/// What a request in a tunnel gets, in HTTP/1.1.
async fn get(tunnel: Upgraded, host: &str) -> (u16, String) {
    let (mut sender, connection) = client1::handshake(tunnel).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/one").header("host", host).body(Empty::<Bytes>::new()).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn requests_in_a_tunnel_walk_the_route_in_either_http_and_to_either_form_of_authority() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    for authority in ["up.test:80", "up.test:443", "UP.test.:80", "240.240.0.1:80", "240.240.0.1:443"] {
        let answered = get(tunnel(&mut sender, authority).await, "up.test").await;
        assert_eq!(answered, (200, "GET /one HTTP/1.1".to_owned()), "{authority}");
    }
    let io = tunnel(&mut sender, "240.240.0.1:80").await;
    let (mut inner, connection) = client2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for path in ["/two", "/three"] {
        let request = Request::get(format!("http://up.test{path}")).body(Empty::<Bytes>::new()).unwrap();
        let answer = inner.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("GET {path} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_request_for_another_host_than_its_tunnels_is_refused() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    for (authority, host) in
        [("up.test:80", "twin.test"), ("240.240.0.1:80", "twin.test"), ("twin.test:80", "up.test")]
    {
        let (status, body) = get(tunnel(&mut sender, authority).await, host).await;
        assert_eq!(status, 400, "{authority} {host}");
        assert!(body.contains("ambiguous_authority"), "{body}");
    }
}

#[tokio::test]
async fn a_tunnel_leads_only_where_its_workload_may_have_something_to_ask() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    for (authority, refused) in [
        ("foreign.test:443", (401, "no_grant")),
        ("[fd00::1]:80", (401, "no_grant")),
        ("unknown.test:443", (421, "unknown_host")),
        ("240.240.0.2:80", (421, "unknown_host")),
        ("up.test:8080", (421, "unknown_host")),
        ("127.0.0.1:9441", (421, "unknown_host")),
    ] {
        assert_eq!(refusal(&ask(&mut sender, authority).await), refused, "{authority}");
    }
    let plain = Request::get("https://up.test/").body(Empty::new()).unwrap();
    assert_eq!(refusal(&sender.send_request(plain).await.unwrap()), (405, "method_refused"));
    let answered = get(tunnel(&mut sender, "up.test:80").await, "up.test").await;
    assert_eq!(answered.0, 200, "what was refused before costs the connection nothing");
}

#[tokio::test]
async fn tls_in_a_tunnel_ends_it_and_is_recorded_with_its_reason() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    let mut io = TokioIo::new(tunnel(&mut sender, "up.test:443").await);
    io.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).await.unwrap();
    let mut said = Vec::new();
    io.read_to_end(&mut said).await.unwrap();
    assert!(said.is_empty());
    let mut sums = Sums::default();
    sums.add(&fixture.core.stats);
    let counted = sums.calls.keys().filter(|series| {
        series.reason == Some(Reason::TlsInTunnel)
            && series.destination.as_ref().is_some_and(|name| name.name() == "up")
    });
    assert_eq!(counted.count(), 1);
}

#[tokio::test]
async fn a_tunnel_is_one_of_its_workloads_connections_and_gives_its_place_back() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    let usage = fixture.core.shared.usages.of(&"spiffe://prod.acme/web".parse().unwrap());
    let others: Vec<_> = std::iter::from_fn(|| usage.connection()).collect();
    let free = others.len();
    assert_eq!(refusal(&ask(&mut sender, "up.test:80").await), (429, "concurrency_limited"));
    drop(others);
    let open = tunnel(&mut sender, "up.test:80").await;
    let left: Vec<_> = std::iter::from_fn(|| usage.connection()).collect();
    assert_eq!(left.len(), free - 1);
    assert_eq!(refusal(&ask(&mut sender, "up.test:80").await), (429, "concurrency_limited"));
    drop((open, left));
    assert_eq!(get(tunnel(&mut sender, "up.test:80").await, "up.test").await.0, 200);
}

async fn io(sender: &mut Sender, authority: &str) -> TokioIo<Upgraded> {
    TokioIo::new(tunnel(sender, authority).await)
}

#[tokio::test]
async fn what_is_passed_through_arrives_both_ways_and_each_way_ends_by_itself() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    for authority in [format!("queue.test:{}", fixture.echo()), format!("240.240.0.9:{}", fixture.echo())] {
        let (mut reader, mut writer) = tokio::io::split(io(&mut sender, &authority).await);
        let mut back = Vec::new();
        let written = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(written, reader.read_to_end(&mut back));
        read.unwrap();
        assert!(back == sent, "{authority}");
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(recorded(&fixture, "queue", None).await, 2);
}

#[tokio::test]
async fn a_caller_that_ends_its_way_and_then_resets_the_tunnel_is_gone() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    let (port, met) = fixture.patient();
    let mut io = io(&mut sender, &format!("patient.test:{port}")).await;
    io.write_all(b"x").await.unwrap();
    io.shutdown().await.unwrap();
    let mut said = [0; 5];
    io.read_exact(&mut said).await.unwrap();
    has_met(&met, &["1 bytes"]).await;
    // hyper resets a stream whose answer nobody reads any more.
    drop(io);
    assert_eq!(recorded(&fixture, "patient", None).await, 1);
}

#[tokio::test]
async fn what_a_caller_sent_before_its_end_arrives_although_it_resets_the_tunnel_at_once() {
    let fixture = Fixture::new().await;
    let (near, far) = duplex(1 << 16);
    tokio::spawn(serve(Arc::clone(&fixture.core), fixture.session(fixture.web(), true), near));
    let (sender, connection) = h2::client::handshake(far).await.unwrap();
    tokio::spawn(connection);
    let (port, met) = fixture.patient();
    let request = Request::connect(format!("patient.test:{port}")).body(()).unwrap();
    let (answer, mut way) = sender.ready().await.unwrap().send_request(request, false).unwrap();
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    // All that goes, until the destination's socket and the gateway are full.
    let mut sent = 0;
    way.reserve_capacity(1 << 14);
    while let Ok(Some(Ok(room))) =
        timeout(Duration::from_millis(200), poll_fn(|cx| way.poll_capacity(cx))).await
    {
        way.send_data(vec![b'x'; room].into(), false).unwrap();
        way.reserve_capacity(1 << 14);
        sent += room;
    }
    way.send_data(Bytes::new(), true).unwrap();
    sleep(Duration::from_millis(50)).await;
    way.send_reset(h2::Reason::CANCEL);
    has_met(&met, &[&format!("{sent} bytes")]).await;
    assert_eq!(recorded(&fixture, "patient", None).await, 1);
}

#[tokio::test]
async fn a_connection_that_cannot_be_is_refused_before_its_tunnel_is_open() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    for (authority, refused) in [
        ("queue.test:443", (421, "unknown_host")),
        ("240.240.0.9:80", (421, "unknown_host")),
        ("closed.test:1", (503, "upstream_unreachable")),
        ("inside.test:22", (503, "address_refused")),
    ] {
        assert_eq!(refusal(&ask(&mut sender, authority).await), refused, "{authority}");
    }
    assert_eq!(recorded(&fixture, "inside", Some(Reason::AddressRefused)).await, 1);
}

/// The first message of a TLS client that asks for this server.
fn client_hello(server: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(server.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn tls_of_a_workload_goes_to_the_server_that_it_names_and_its_tunnel_leads_to() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    let echo = fixture.echo();
    for (authority, server, passes) in [
        (format!("a.named.test:{echo}"), "a.named.test", true),
        (format!("a.named.test:{echo}"), "b.named.test", false),
        (format!("240.240.0.10:{echo}"), "b.named.test", true),
        (format!("240.240.0.10:{echo}"), "up.test", false),
        (format!("240.240.0.10:{echo}"), "192.0.2.1", false),
    ] {
        let hello = client_hello(server);
        let mut io = io(&mut sender, &authority).await;
        io.write_all(&hello).await.unwrap();
        io.shutdown().await.unwrap();
        let mut back = Vec::new();
        let read = io.read_to_end(&mut back).await;
        if passes {
            assert_eq!((read.unwrap(), &back), (hello.len(), &hello), "{authority} {server}");
        } else {
            assert!(read.is_err() && back.is_empty(), "{authority} {server}: it is reset");
        }
    }
    assert_eq!(recorded(&fixture, "named", Some(Reason::SniMismatch)).await, 2);
    assert_eq!(recorded(&fixture, "named", Some(Reason::SniMissing)).await, 1);
    let mut plain = io(&mut sender, &format!("a.named.test:{echo}")).await;
    plain.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert!(plain.read_u8().await.is_err());
    assert_eq!(recorded(&fixture, "named", Some(Reason::TlsExpected)).await, 1);
}

#[tokio::test]
async fn what_is_passed_through_is_reset_when_its_grant_its_time_or_the_process_ends() {
    let fixture = Fixture::new().await;
    let mut sender = connect(&fixture).await;
    let echo = fixture.echo();
    for (host, reason) in [("idle", Reason::TunnelIdle), ("brief", Reason::TunnelLifetime)] {
        let mut io = io(&mut sender, &format!("{host}.test:{echo}")).await;
        io.write_all(b"x").await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'x');
        assert!(io.read_u8().await.is_err(), "{host}: it is no good end");
        assert_eq!(recorded(&fixture, host, Some(reason)).await, 1);
    }
    let mut io = io(&mut sender, &format!("queue.test:{echo}")).await;
    io.write_all(b"x").await.unwrap();
    assert_eq!(io.read_u8().await.unwrap(), b'x');
    fixture.withdraw();
    assert!(io.read_u8().await.is_err());
    assert_eq!(recorded(&fixture, "queue", Some(Reason::Withdrawn)).await, 1);
}
