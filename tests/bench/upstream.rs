//! The provider of the benchmark: TLS, HTTP/1.1 and HTTP/2, 401 unless the key arrived. With `--pki FOLDER` it only makes
//! the certificates of a run.

mod frames;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tollgate_tests::provider::{chat_chunk, chat_completion, chat_usage_chunk};
use tollgate_tests::wire::{self, Flags};
use tollgate_tests::{Authority, Sandbox};

const BIG: usize = 10 << 20;
const EVENTS: usize = 50;
const PACE: Duration = Duration::from_millis(20);

type Answer = Response<Either<Full<Bytes>, Channel<Bytes, Infallible>>>;

struct Provider {
    bearer: String,
    completion: Bytes,
    big: Bytes,
    /// Bodies of that length in which a search for keys has more or less to do, by their paths.
    searched: [(&'static str, Bytes); 4],
}

fn main() {
    let flags = Flags::read();
    if flags.has("pki") {
        return pki(&flags);
    }
    wire::runtime(&flags).block_on(serve(&flags));
}

/// Prints the folder with the certificates: `prod.acme.pem`, `pki.pem`, `gateway`, `provider` and `caller`, `.crt` and `.key`. With
/// `--callers` there is a folder of that name, too, with so many callers of `--teams` teams, in turn.
fn pki(flags: &Flags) {
    let sandbox = Sandbox::new();
    let (prod, pki) = (Authority::new(&sandbox, "prod.acme"), Authority::new(&sandbox, "pki"));
    pki.issue(&sandbox, "gateway", &tollgate_tests::Leaf::server(&["localhost"]));
    pki.issue(&sandbox, "provider", &tollgate_tests::Leaf::server(&["api.openai.test"]));
    prod.issue(&sandbox, "caller", &tollgate_tests::Leaf::svid("spiffe://prod.acme/ns/checkout/sa/web"));
    for number in 0..flags.number("callers", 0) {
        let id = format!("spiffe://prod.acme/ns/team-{}/sa/app-{number}", number % flags.number("teams", 1));
        prod.issue(&sandbox, &format!("callers/{number}"), &tollgate_tests::Leaf::svid(&id));
    }
    println!("{}", sandbox.inputs().display());
}

async fn serve(flags: &Flags) {
    let mut completion = chat_completion(20, 30);
    completion["choices"][0]["message"]["content"] = "x".repeat(600).into();
    let provider = Arc::new(Provider {
        bearer: format!("Bearer {}", flags.text("bearer")),
        completion: completion.to_string().into(),
        big: vec![b'x'; BIG].into(),
        searched: [
            (
                "/big/json",
                repeated(
                    br#"{"id":4711,"name":"one of ours","text":"some words, \"quoted\",\n and a line"},"#,
                ),
            ),
            ("/big/base64", base64_like()),
            ("/big/escapes", repeated(br"\u0061\/\u0062\u002b")),
            ("/big/percent", repeated(b"%61%2F%62%2b")),
        ],
    });
    let protocols: &[&str] = if flags.has("h1") { &["http/1.1"] } else { &["h2", "http/1.1"] };
    let tls = wire::server(flags.text("cert"), flags.text("key"), None, protocols);
    let acceptor = TlsAcceptor::from(tls);
    let listener = TcpListener::bind(flags.text("listen")).await.expect("listen");
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, provider) = (acceptor.clone(), provider.clone());
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request| {
                let provider = provider.clone();
                async move { Ok::<_, Infallible>(provider.answer(request).await) }
            });
            let io = TokioIo::new(stream);
            if h2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(io, service).with_upgrades().await;
            }
        });
    }
}

impl Provider {
    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let known = request
            .headers()
            .get(header::AUTHORIZATION)
            .is_some_and(|key| key.as_bytes() == self.bearer.as_bytes());
        if !known {
            return whole(StatusCode::UNAUTHORIZED, "text/plain", Bytes::from_static(b"no"));
        }
        if request.headers().contains_key(header::UPGRADE) {
            return websocket(&mut request);
        }
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut streamed = false;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.into_data().unwrap_or_default();
            streamed |= bytes.len() < 4096 && memchr::memmem::find(&bytes, b"\"stream\":true").is_some();
        }
        match path.as_str() {
            path if path.starts_with("/big/") => match self.searched.iter().find(|(at, _)| *at == path) {
                Some((_, body)) => whole(StatusCode::OK, "text/plain", body.clone()),
                None => whole(StatusCode::NOT_FOUND, "text/plain", Bytes::new()),
            },
            "/big" => whole(StatusCode::OK, "application/octet-stream", self.big.clone()),
            "/upload" => whole(StatusCode::OK, "text/plain", Bytes::from_static(b"ok")),
            _ if streamed => events(),
            _ => whole(StatusCode::OK, "application/json", self.completion.clone()),
        }
    }
}

/// Sends every message back.
fn websocket(request: &mut Request<Incoming>) -> Answer {
    let accept =
        request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| wire::websocket_accept(key.as_bytes()));
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut stream = TokioIo::new(upgraded);
        while let Ok((frames::TEXT, message)) = frames::read(&mut stream).await {
            if frames::write(&mut stream, frames::TEXT, &message, None).await.is_err() {
                return;
            }
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept.unwrap_or_default());
    response.body(Either::Left(Full::default())).expect("an answer")
}

fn repeated(unit: &[u8]) -> Bytes {
    unit.iter().copied().cycle().take(BIG).collect()
}

/// One run of letters and digits without a period.
fn base64_like() -> Bytes {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 1_u64;
    let letter = |_| {
        // Knuth's MMIX: the high bits are as good as random.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        alphabet[(state >> 58) as usize]
    };
    (0..BIG).map(letter).collect()
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    response.body(Either::Left(Full::new(body))).expect("an answer")
}

fn events() -> Answer {
    let (mut sender, channel) = Channel::new(1);
    tokio::spawn(async move {
        for _ in 0..EVENTS {
            let event = format!("data: {}\n\n", chat_chunk("word "));
            if sender.send_data(event.into()).await.is_err() {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
        let end = format!("data: {}\n\ndata: [DONE]\n\n", chat_usage_chunk(20, 30));
        let _ = sender.send_data(end.into()).await;
    });
    let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    response.body(Either::Right(channel)).expect("an answer")
}
