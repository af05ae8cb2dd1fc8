//! The whole route over a stream that is no socket: all that a listener has to bring is a stream, an arrival and proofs.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1 as client1, http2 as client2};
use rustls::pki_types::CertificateDer;
use tokio::io::{DuplexStream, duplex};

use super::super::fixture::Fixture;
use super::*;

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
