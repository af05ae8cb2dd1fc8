//! Callers: hyper over mutual TLS, HTTP/1.1 or HTTP/2, or raw bytes. Every answer is kept for the sweep.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ca::{Identity, client_config, mesh_config};
use crate::sandbox::Sandbox;

/// A request body: whole or streamed.
pub type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What went wrong on the way to an answer.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The HTTP version a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

impl Protocol {
    /// Both versions, for scenarios that must hold for either.
    pub const BOTH: [Self; 2] = [Self::H1, Self::H2];

    fn alpn(self) -> &'static str {
        match self {
            Self::H1 => "http/1.1",
            Self::H2 => "h2",
        }
    }
}

/// A workload: an address to call, a certificate to show, an authority to name.
#[derive(Clone)]
pub struct Client {
    sandbox: Sandbox,
    address: SocketAddr,
    authority: String,
    roots: RootCertStore,
    identity: Option<Identity>,
}

impl Client {
    /// A caller of `https://localhost:<port>` that trusts `roots`.
    pub fn new(
        sandbox: &Sandbox,
        address: SocketAddr,
        roots: RootCertStore,
        identity: Option<Identity>,
    ) -> Self {
        let authority = format!("localhost:{}", address.port());
        Self { sandbox: sandbox.clone(), address, authority, roots, identity }
    }

    /// The same caller naming another authority in `Host` or `:authority`; TLS still asks for `localhost`.
    pub fn naming(&self, authority: &str) -> Self {
        Self { authority: authority.to_owned(), ..self.clone() }
    }

    /// The same caller at another address; TLS still asks for `localhost`, and requests name the port.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, authority: format!("localhost:{}", address.port()), ..self.clone() }
    }

    /// The same address called with another certificate.
    pub fn showing(&self, identity: Option<Identity>) -> Self {
        Self { identity, ..self.clone() }
    }

    /// The authority that requests name.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The certificate shown.
    pub fn identity(&self) -> &Identity {
        self.identity.as_ref().expect("a caller with a certificate")
    }

    /// TLS as this caller does it; hold on to it to resume sessions.
    pub fn tls(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        client_config(self.roots.clone(), self.identity.as_ref(), protocols)
    }

    /// TLS as its mesh does it in its place.
    pub fn mesh_tls(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        mesh_config(self.roots.clone(), self.identity.as_ref(), protocols)
    }

    /// A connection with no TLS on it yet.
    pub async fn dial(&self) -> Result<TcpStream, Failure> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// A TLS connection with nothing sent on it.
    pub async fn handshake(&self, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Failure> {
        self.secure(tls, self.dial().await?).await
    }

    /// TLS on a connection that has none yet.
    pub async fn secure(
        &self,
        tls: Arc<ClientConfig>,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        Ok(TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, tcp).await?)
    }

    /// A connection that speaks `protocol`.
    pub async fn open(&self, protocol: Protocol) -> Result<Connection, Failure> {
        let stream = self.handshake(self.tls(&[protocol.alpn()])).await?;
        Connection::over(self, stream, protocol).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, protocol: Protocol, request: Request<Body>) -> Result<Answer, Failure> {
        self.open(protocol).await?.send(request).await
    }

    /// `GET path` over HTTP/1.1.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Protocol::H1, self.request(Method::GET, path, "")).await.expect("an answer")
    }

    /// `POST path` with a JSON body over HTTP/1.1.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_over(Protocol::H1, path, body).await
    }

    /// `POST path` with a JSON body.
    pub async fn post_over(&self, protocol: Protocol, path: &str, body: &Value) -> Answer {
        self.send(protocol, self.json(path, body)).await.expect("an answer")
    }

    /// A POST of JSON, to add headers to.
    pub fn json(&self, path: &str, body: &Value) -> Request<Body> {
        let mut request = self.request(Method::POST, path, body.to_string());
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    /// A request with a body of known length.
    pub fn request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Request<Body> {
        let uri = format!("https://{}{path}", self.authority);
        Request::builder().method(method).uri(uri).body(full(body)).expect("a request")
    }

    /// Writes `bytes` as they are over TLS with HTTP/1.1 negotiated and returns all that comes back until the peer closes
    /// or falls silent for two seconds.
    pub async fn raw(&self, bytes: &[u8]) -> RawAnswer {
        let stream = self.handshake(self.tls(&["http/1.1"])).await.expect("handshake");
        RawAnswer::of(&self.sandbox, stream, bytes).await
    }

    /// How the handshake is refused: the alert's name as rustls spells it. A TLS 1.3 server refuses a certificate after
    /// the client believes to be done, so one read is needed to see it.
    pub async fn refusal(&self) -> String {
        let refused = match self.handshake(self.tls(&["http/1.1"])).await {
            Err(error) => error.to_string(),
            Ok(mut stream) => {
                let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                match stream.read(&mut [0; 64]).await {
                    Err(error) => error.to_string(),
                    Ok(0) => "closed without an alert".to_owned(),
                    Ok(_) => "answered".to_owned(),
                }
            }
        };
        self.sandbox.answered(refused.as_bytes());
        refused
    }
}

/// A body of known length.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

/// An open connection; requests on it go one after another over HTTP/1.1 and may overlap over HTTP/2.
pub struct Connection {
    sandbox: Sandbox,
    authority: String,
    sender: Sender,
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

impl Connection {
    /// HTTP over an established stream.
    pub async fn over<S>(client: &Client, stream: S, protocol: Protocol) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let sender = match protocol {
            Protocol::H1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection.with_upgrades());
                Sender::H1(sender)
            }
            Protocol::H2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::H2(sender)
            }
        };
        Ok(Self { sandbox: client.sandbox.clone(), authority: client.authority.clone(), sender })
    }

    /// Sends and reads the whole answer.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Answer, Failure> {
        let response = self.start(request).await?;
        Answer::read(&self.sandbox, response).await
    }

    /// Sends and returns as soon as the head of the answer is there. Over HTTP/1.1 what is for `https` is sent in origin form; what is
    /// for `http`, and a request for a tunnel, as a proxy is asked.
    pub async fn start(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        match &mut self.sender {
            Sender::H2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::H1(sender) => {
                let is_of_proxy =
                    request.method() == Method::CONNECT || request.uri().scheme() == Some(&Scheme::HTTP);
                let named = request.uri().authority().filter(|_| is_of_proxy);
                let host = HeaderValue::from_str(named.map_or(&*self.authority, Authority::as_str))?;
                request.headers_mut().entry(header::HOST).or_insert(host);
                if !is_of_proxy {
                    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
                    *request.uri_mut() = path.parse()?;
                }
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Whether the peer has closed the connection, or said that it takes no more requests on it.
    pub fn closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, to its clean end.
    pub body: Bytes,
    /// Trailer fields, when there were any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Reads a response to its end; a body that breaks off is an error.
    pub async fn read(sandbox: &Sandbox, response: Response<Incoming>) -> Result<Self, Failure> {
        let (head, body) = response.into_parts();
        sandbox.answered(format!("{:?} {:?}\n", head.status, head.headers).as_bytes());
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        let body = collected.to_bytes();
        sandbox.answered(&body);
        sandbox.answered(format!("\n{trailers:?}\n").as_bytes());
        Ok(Self { status: head.status, headers: head.headers, body, trailers })
    }

    /// The body as JSON; null when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// One header as text, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts a refusal by the gateway itself: this status, this reason in header and body, in a form that the clients of
    /// the destination show.
    pub fn assert_refused(&self, status: u16, reason: &str) {
        let (text, said) = (self.text(), self.json());
        assert_eq!((self.status.as_u16(), self.header("x-tollgate-reason")), (status, reason), "{text}");
        let begins = format!("{reason}: ");
        let is_told = |message: &Value| message.as_str().is_some_and(|message| message.starts_with(&begins));
        match self.header("content-type") {
            "application/problem+json" => {
                assert_eq!((&said["reason"], &said["status"]), (&json!(reason), &json!(status)), "{text}");
                assert_eq!(said["type"], format!("https://tollgate.dev/problems/{reason}"));
                assert!(is_told(&said["message"]) && is_told(&said["error"]["message"]), "{text}");
            }
            "application/json" => {
                assert_eq!(said["reason"], reason, "{text}");
                assert!(is_told(&said["message"]) || is_told(&said["error"]["message"]), "{text}");
            }
            "application/x-amz-json-1.1" => {
                assert!(said["__type"] == reason && is_told(&said["message"]), "{text}");
            }
            "application/xml" | "application/cbor" => assert!(text.contains(&begins), "{text}"),
            other => panic!("{other}: {text}"),
        }
    }

    /// Asserts that the upstream answered, not the gateway.
    pub fn assert_status(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{:?} {}", self.headers, self.text());
    }
}

/// What came back on a raw connection.
#[derive(Debug)]
pub struct RawAnswer {
    /// All bytes until the end.
    pub bytes: Vec<u8>,
    /// Whether the peer closed, rather than fell silent.
    pub closed: bool,
}

impl RawAnswer {
    /// Writes `sent` as it is on an established stream, and reads until the peer closes or falls silent for two seconds.
    pub async fn of(sandbox: &Sandbox, mut stream: impl AsyncRead + AsyncWrite + Unpin, sent: &[u8]) -> Self {
        let _ = stream.write_all(sent).await;
        let _ = stream.flush().await;
        let mut bytes = Vec::new();
        let mut chunk = [0; 16384];
        let closed = loop {
            match tokio::time::timeout(std::time::Duration::from_secs(2), stream.read(&mut chunk)).await {
                Ok(Ok(0) | Err(_)) => break true,
                Ok(Ok(count)) => bytes.extend_from_slice(&chunk[..count]),
                Err(_) => break false,
            }
        };
        sandbox.answered(&bytes);
        Self { bytes, closed }
    }

    /// The status codes of the answers, in order.
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
    }
}
