//! The whole route over a stream that is no socket: all that a listener has to bring is a stream, an arrival and proofs.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1 as client1, http2 as client2};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::fixture::Fixture;
use super::super::write_timeout::WriteTimeoutStream;
use super::*;
use crate::drain::Phase;

/// Serves a stream in memory, to whoever has shown this chain elsewhere.
fn connect(fixture: &Fixture, chain: Vec<CertificateDer<'static>>, http2: bool) -> TokioIo<DuplexStream> {
    let (near, far) = duplex(1 << 16);
    let session = fixture.session(chain, http2);
    tokio::spawn(serve(Arc::clone(&fixture.core), session, near, |_| std::future::ready(())));
    TokioIo::new(far)
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://up.test{path}")).header("host", "up.test").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_stream_that_is_no_socket_goes_the_whole_route() {
    let fixture = Fixture::new().await;
    let answered = |(head, body): (http::response::Parts, Bytes)| (head.status, body);

    let io = connect(&fixture, fixture.web(), false);
    let (mut sender, connection) = client1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request("/one")).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(answered((head, body)), (StatusCode::OK, Bytes::from("GET /one HTTP/1.1")));

    let io = connect(&fixture, fixture.web(), true);
    let (mut sender, connection) = client2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request("/two")).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(answered((head, body)), (StatusCode::OK, Bytes::from("GET /two HTTP/1.1")));
}

#[tokio::test]
async fn a_connection_that_has_shown_nothing_is_refused_by_the_route() {
    let fixture = Fixture::new().await;
    let (mut sender, connection) = client1::handshake(connect(&fixture, Vec::new(), false)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request("/")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers()["x-tollgate-reason"], "no_certificate");
}

/// A caller's end of a connection, and how it is seen from the gateway's.
struct Kept {
    far: DuplexStream,
    session: Arc<Session>,
}

const ASKED: &str = "GET / HTTP/1.1\r\nhost: up.test\r\n\r\n";

impl Kept {
    /// A connection over a pipe that holds so many bytes.
    fn new(fixture: &Fixture, room: usize) -> Self {
        let (near, far) = duplex(room);
        let session = fixture.session(fixture.web(), false);
        let near = WriteTimeoutStream::new(near, Arc::clone(&session.deadline), None);
        let core = Arc::clone(&fixture.core);
        tokio::spawn(serve(core, Arc::clone(&session), near, |_| std::future::ready(())));
        Self { far, session }
    }

    async fn ask(&mut self, text: &str) {
        self.far.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one answer to its end.
    async fn answered(&mut self) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"GET / HTTP/1.1") {
            answer.push(self.far.read_u8().await.unwrap());
        }
        String::from_utf8(answer).unwrap()
    }

    /// What becomes of it once it has waited for longer than others wait; its turn must have come.
    async fn rest(&self, fixture: &Fixture) -> bool {
        let Core { shared, connections, .. } = &*fixture.core;
        self.session.deadline.wait_since(Timestamp::now().as_second() - 60);
        for _ in 0..10 {
            connections.review(&shared.trust, &shared.usages, Phase::Serving);
            tokio::task::yield_now().await;
        }
        self.session.is_parked()
    }
}

#[tokio::test]
async fn a_parked_connection_is_served_as_any_other_however_its_next_request_comes() {
    let fixture = Fixture::new().await;
    let mut kept = Kept::new(&fixture, 1 << 16);
    for pieces in
        [vec![ASKED], vec!["G", &ASKED[1..]], ASKED.split_inclusive('\n').collect(), vec!["\r\n", ASKED]]
    {
        for piece in pieces {
            kept.ask(piece).await;
            tokio::task::yield_now().await;
        }
        assert!(kept.answered().await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(kept.rest(&fixture).await);
    }
    // Two at once: the second is read out of the buffer of the first.
    kept.ask(&ASKED.repeat(2)).await;
    kept.answered().await;
    kept.answered().await;
    assert!(kept.rest(&fixture).await);
    // Framing is still judged, over the whole head.
    kept.ask("GET / HTTP/1.1\r\nhost: up.test\nx: y\r\n\r\n").await;
    let mut refused = String::new();
    kept.far.read_to_string(&mut refused).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
}

#[tokio::test]
async fn a_parked_connection_ends_with_its_peer_and_when_it_is_told() {
    let fixture = Fixture::new().await;
    for (order, is_old) in [
        (None, false),
        (Some(Phase::Serving), true),
        (Some(Phase::Closing), false),
        (Some(Phase::Cut), false),
    ] {
        let mut kept = Kept::new(&fixture, 1 << 16);
        kept.ask(ASKED).await;
        kept.answered().await;
        assert!(kept.rest(&fixture).await);
        let Core { shared, connections, .. } = &*fixture.core;
        if is_old {
            kept.session.deadline.wait_since(Timestamp::now().as_second() - 400);
        }
        match order {
            Some(phase) => connections.review(&shared.trust, &shared.usages, phase),
            None => kept.far.shutdown().await.unwrap(),
        }
        assert_eq!(kept.far.read_to_end(&mut Vec::new()).await.unwrap(), 0, "{order:?}");
    }
}

#[tokio::test]
async fn a_connection_with_something_under_way_is_not_parked() {
    let fixture = Fixture::new().await;
    // Some of the next request came with this one.
    let mut kept = Kept::new(&fixture, 1 << 16);
    kept.ask(&format!("{ASKED}GET / HT")).await;
    kept.answered().await;
    assert!(!kept.rest(&fixture).await);
    kept.ask("TP/1.1\r\nhost: up.test\r\n\r\n").await;
    kept.answered().await;
    assert!(kept.rest(&fixture).await);
    // Its caller has not taken all of the answer.
    let mut kept = Kept::new(&fixture, 16);
    kept.ask(ASKED).await;
    kept.far.read_u8().await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!kept.rest(&fixture).await);
    kept.answered().await;
    assert!(kept.rest(&fixture).await);
}
