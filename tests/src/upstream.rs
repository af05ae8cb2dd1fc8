//! An upstream of our own for what no real provider can be asked to do: it records what arrived, answers as told, and can
//! misbehave down to the byte.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ca::Identity;

type Failure = std::io::Error;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// `Host` or `:authority`.
    pub authority: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// Trailer fields, when there were any.
    pub trailers: Option<HeaderMap>,
    /// The whole body.
    pub body: Bytes,
    /// The address that its connection came from.
    pub from: IpAddr,
    /// Which accepted connection it came on, counted from 0.
    pub connection: usize,
    /// Whether it came over HTTP/2.
    pub h2: bool,
    /// The client certificate of its connection, in DER; empty where none was shown.
    pub certificate: Bytes,
}

impl Seen {
    /// The body as JSON; null when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// One header as text, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// All that arrived, in one string, to search.
    pub fn everything(&self) -> String {
        format!(
            "{} {} {}\n{:?}\n{:?}\n{}",
            self.method,
            self.authority,
            self.target,
            self.headers,
            self.trailers,
            String::from_utf8_lossy(&self.body)
        )
    }
}

/// An answer, played step by step.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    steps: Vec<Step>,
}

/// One step of an answer's body.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends bytes.
    Data(Bytes),
    /// Waits.
    Wait(Duration),
    /// Waits until this is so.
    Until(watch::Receiver<bool>),
    /// Breaks the stream off.
    Abort,
    /// Ends the stream with this trailer field.
    Trailer(http::HeaderName, http::HeaderValue),
}

impl Reply {
    /// A bare status.
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self { status, headers: HeaderMap::new(), steps: Vec::new() }
    }

    /// 200 with a JSON body.
    pub fn json(body: &Value) -> Self {
        Self::status(200).header("content-type", "application/json").data(body.to_string())
    }

    /// 200 with a stream of server-sent events.
    pub fn events<'a>(events: impl IntoIterator<Item = &'a str>) -> Self {
        events.into_iter().fold(Self::status(200).header("content-type", "text/event-stream"), Self::event)
    }

    /// One more `data:` event.
    pub fn event(self, data: &str) -> Self {
        self.data(format!("data: {data}\n\n"))
    }

    /// One more header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.append(name, value.parse().expect("a header value"));
        self
    }

    /// More body.
    pub fn data(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Data(bytes.into()));
        self
    }

    /// A pause before what follows.
    pub fn wait(mut self, pause: Duration) -> Self {
        self.steps.push(Step::Wait(pause));
        self
    }

    /// What follows is held until this is so.
    pub fn until(mut self, holds: &watch::Receiver<bool>) -> Self {
        self.steps.push(Step::Until(holds.clone()));
        self
    }

    /// The stream breaks off here.
    pub fn abort(mut self) -> Self {
        self.steps.push(Step::Abort);
        self
    }

    /// The stream ends here, with a trailer field.
    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        let value = value.parse().expect("a header value");
        self.steps.push(Step::Trailer(http::HeaderName::from_static(name), value));
        self
    }

    async fn respond(self) -> Response<Either<Full<Bytes>, Channel<Bytes, Failure>>> {
        let mut steps = self.steps;
        while let Some(Step::Wait(pause)) = steps.first() {
            tokio::time::sleep(*pause).await;
            steps.remove(0);
        }
        let body = match steps.as_slice() {
            [] => Either::Left(Full::default()),
            [Step::Data(bytes)] => Either::Left(Full::new(bytes.clone())),
            _ => Either::Right(play(steps)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

fn play(steps: Vec<Step>) -> Channel<Bytes, Failure> {
    let (mut sender, channel) = Channel::new(1);
    tokio::spawn(async move {
        for step in steps {
            match step {
                Step::Data(bytes) => {
                    if sender.send_data(bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(pause) => tokio::time::sleep(pause).await,
                // Whoever would say so may be gone.
                Step::Until(mut holds) => drop(holds.wait_for(|holds| *holds).await),
                Step::Trailer(name, value) => {
                    let _ = sender.send_trailers(HeaderMap::from_iter([(name, value)])).await;
                    return;
                }
                Step::Abort => return sender.abort(Failure::other("broken off")),
            }
        }
    });
    channel
}

/// A listening upstream; it stops when dropped.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    h2: bool,
    task: JoinHandle<()>,
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

impl Upstream {
    /// HTTP over TLS, in the versions named by ALPN, answering each request by `respond`.
    pub async fn http(
        identity: &Identity,
        protocols: &[&str],
        respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        Self::http_on(listener, identity, protocols, respond)
    }

    /// The same on a socket of the scenario's choice.
    pub fn http_on(
        listener: TcpListener,
        identity: &Identity,
        protocols: &[&str],
        respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::http_with(listener, identity.server_config(protocols, None), respond)
    }

    /// HTTP over TLS that asks for a client certificate of `callers`.
    pub async fn http_asking(
        identity: &Identity,
        protocols: &[&str],
        callers: RootCertStore,
        respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        Self::http_with(listener, identity.server_config(protocols, Some(callers)), respond)
    }

    fn http_with(
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let respond: Arc<Handler> = Arc::new(respond);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let answered: Arc<AtomicUsize> = Arc::default();
        let (log, done) = (seen.clone(), answered.clone());
        let script =
            move |stream, connection| serve(stream, connection, respond.clone(), log.clone(), done.clone());
        let mut upstream = Self::accepting(listener, tls, script);
        upstream.seen = seen;
        upstream.answered = answered;
        upstream
    }

    /// TLS with nothing above it: `script` is handed each accepted stream and its number.
    pub async fn raw<F: Future<Output = ()> + Send + 'static>(
        identity: &Identity,
        protocols: &[&str],
        callers: Option<RootCertStore>,
        script: impl Fn(TlsStream<TcpStream>, usize) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        Self::accepting(listener, identity.server_config(protocols, callers), script)
    }

    fn accepting<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        script: impl Fn(TlsStream<TcpStream>, usize) -> F + Send + Sync + 'static,
    ) -> Self {
        let h2 = tls.alpn_protocols.iter().any(|id| id == b"h2");
        let acceptor = TlsAcceptor::from(tls);
        let address = listener.local_addr().expect("address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, script) = (connections.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, script, count) = (acceptor.clone(), script.clone(), count.clone());
                tokio::spawn(async move {
                    let _ = tcp.set_nodelay(true);
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        let number = count.fetch_add(1, Ordering::SeqCst);
                        script(stream, number).await;
                    }
                });
            }
        });
        Self { address, seen: Arc::default(), connections, answered: Arc::default(), h2, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Whether it speaks HTTP/2.
    pub fn speaks_h2(&self) -> bool {
        self.h2
    }

    /// Everything that arrived, in order of arrival of the last byte.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("seen").clone()
    }

    /// How many requests arrived whole.
    pub fn count(&self) -> usize {
        self.seen.lock().expect("seen").len()
    }

    /// The only request that arrived.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.into_iter().next().expect("one")
    }

    /// Forgets what arrived.
    pub fn clear(&self) {
        self.seen.lock().expect("seen").clear();
    }

    /// How many TLS connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many answers were begun.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve(
    stream: TlsStream<TcpStream>,
    connection: usize,
    respond: Arc<Handler>,
    seen: Arc<Mutex<Vec<Seen>>>,
    answered: Arc<AtomicUsize>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let tls = stream.get_ref().1;
    let shown = tls.peer_certificates().and_then(<[_]>::first);
    // It may have left.
    let Ok(peer) = stream.get_ref().0.peer_addr() else { return Box::pin(async {}) };
    let way = Way {
        from: peer.ip(),
        connection,
        h2: tls.alpn_protocol() == Some(b"h2"),
        certificate: shown.map_or_else(Bytes::new, |shown| Bytes::copy_from_slice(shown)),
    };
    let h2 = way.h2;
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (respond, seen, answered) = (respond.clone(), seen.clone(), answered.clone());
        let way = way.clone();
        async move {
            let arrived = arrive(request, way).await?;
            seen.lock().expect("seen").push(arrived.clone());
            let response = respond(&arrived).respond().await;
            answered.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Failure>(response)
        }
    });
    let io = TokioIo::new(stream);
    Box::pin(async move {
        if h2 {
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await;
        } else {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        }
    })
}

/// What a request came on.
#[derive(Clone)]
struct Way {
    from: IpAddr,
    connection: usize,
    h2: bool,
    certificate: Bytes,
}

async fn arrive(request: http::Request<Incoming>, way: Way) -> Result<Seen, Failure> {
    let (head, body) = request.into_parts();
    let collected = body.collect().await.map_err(Failure::other)?;
    let trailers = collected.trailers().cloned();
    let host = head.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = head.uri.authority().map_or(host, http::uri::Authority::as_str).to_owned();
    Ok(Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        authority,
        headers: head.headers,
        trailers,
        body: collected.to_bytes(),
        from: way.from,
        connection: way.connection,
        h2: way.h2,
        certificate: way.certificate,
    })
}
