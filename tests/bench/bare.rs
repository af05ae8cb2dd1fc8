//! The floor: a proxy of the same shape with nothing but the wire. One current-thread runtime, hyper, rustls, a LIFO pool;
//! it checks the caller's SPIFFE id, strips and injects, writes an access line. No policy, no limits, no timeouts.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tollgate_tests::wire::{self, Flags};

const CALLER: &[u8] = b"spiffe://prod.acme/ns/checkout/sa/web";
const STRIPPED: [&str; 6] =
    ["authorization", "x-api-key", "cookie", "forwarded", "baggage", "x-forwarded-client-cert"];

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Proxy {
    upstream: SocketAddr,
    name: ServerName<'static>,
    host: HeaderValue,
    bearer: HeaderValue,
    tls: TlsConnector,
    pool: Mutex<Vec<SendRequest<Incoming>>>,
    log: Mutex<(Vec<u8>, std::fs::File)>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut end = signal(SignalKind::terminate()).expect("a signal");
        let flags = Flags::read();
        tokio::select! {
            () = serve(&flags) => {}
            // A profile of the program is written when `main` returns.
            _ = end.recv() => {}
        }
    });
}

async fn serve(flags: &Flags) {
    let server =
        wire::server(flags.text("cert"), flags.text("key"), Some(flags.text("callers")), &["h2", "http/1.1"]);
    let name = flags.text("upstream-name").to_owned();
    let mut bearer =
        HeaderValue::try_from(format!("Bearer {}", flags.text("bearer"))).expect("a header value");
    bearer.set_sensitive(true);
    let proxy = Arc::new(Proxy {
        upstream: flags.text("upstream").parse().expect("an address"),
        host: HeaderValue::try_from(&name).expect("a header value"),
        name: ServerName::try_from(name).expect("a name"),
        bearer,
        tls: TlsConnector::from(Arc::new(wire::client(flags.text("ca"), None, &["http/1.1"]))),
        pool: Mutex::default(),
        log: Mutex::new((Vec::new(), std::fs::File::create(flags.text("log")).expect("a log"))),
    });
    let acceptor = TlsAcceptor::from(server);
    let listener = TcpListener::bind(flags.text("listen")).await.expect("listen");
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, proxy) = (acceptor.clone(), proxy.clone());
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            if is_caller(&stream) {
                // A task of its own, so that the handshake's memory is given back.
                tokio::spawn(connection(stream, proxy));
            }
        });
    }
}

/// The chain is verified by rustls; of the id it is enough here that it stands in the certificate.
fn is_caller(stream: &TlsStream<TcpStream>) -> bool {
    let chain = stream.get_ref().1.peer_certificates();
    chain.and_then(|chain| chain.first()).is_some_and(|leaf| memchr::memmem::find(leaf, CALLER).is_some())
}

async fn connection(stream: TlsStream<TcpStream>, proxy: Arc<Proxy>) {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { proxy.forward(request).await.map_err(std::io::Error::other) }
    });
    let io = TokioIo::new(stream);
    if h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

impl Proxy {
    async fn forward(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Logged>, Failure> {
        let begun = Instant::now();
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let method = request.method().clone();
        *request.uri_mut() = path.parse()?;
        *request.version_mut() = http::Version::HTTP_11;
        for name in STRIPPED {
            request.headers_mut().remove(name);
        }
        request.headers_mut().insert(header::HOST, self.host.clone());
        request.headers_mut().insert(header::AUTHORIZATION, self.bearer.clone());
        let mut sender = self.sender().await?;
        let response = sender.send_request(request).await?;
        let pool = self.clone();
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                pool.pool.lock().expect("pool").push(sender);
            }
        });
        let line = format!(
            "{{\"method\":\"{method}\",\"path\":\"{path}\",\"status\":{}",
            response.status().as_u16()
        );
        Ok(response.map(|body| Logged { body, proxy: self, begun, line, bytes: 0 }))
    }

    async fn sender(&self) -> Result<SendRequest<Incoming>, Failure> {
        while let Some(sender) = self.pop() {
            if sender.is_ready() {
                return Ok(sender);
            }
        }
        let tcp = TcpStream::connect(self.upstream).await?;
        tcp.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn pop(&self) -> Option<SendRequest<Incoming>> {
        self.pool.lock().expect("pool").pop()
    }
}

/// An answer whose access line is written when it ends.
struct Logged {
    body: Incoming,
    proxy: Arc<Proxy>,
    begun: Instant,
    line: String,
    bytes: usize,
}

impl Body for Logged {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let (buffer, file) = &mut *self.proxy.log.lock().expect("log");
        let micros = self.begun.elapsed().as_micros();
        let _ = writeln!(buffer, "{},\"bytes\":{},\"micros\":{micros}}}", self.line, self.bytes);
        if buffer.len() > 64 << 10 {
            let _ = file.write_all(buffer);
            buffer.clear();
        }
    }
}
