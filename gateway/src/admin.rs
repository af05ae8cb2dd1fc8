//! The admin port: health for anybody, everything else for whoever has the token.
//!
//! **Invariant:** what it shows is made from types that hold no secret; there is nothing to redact. Its connections are bounded and take
//! nothing from calls, nor calls from it.

mod view;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub(crate) use self::view::AdminViews;

/// From one answer, or the connection's begin, to the end of the next request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Of a connection, whatever it does.
const LIFETIME: Duration = Duration::from_secs(300);
/// Connections at once.
const CONNECTIONS: usize = 64;
/// Descriptors put aside.
const SPARE: usize = 16;
/// What is said where there is none to refresh.
pub(crate) const NO_CREDENTIAL: &str = "no such credential\n";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The admin server's own configuration.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) token: Zeroizing<String>,
    pub(crate) address: SocketAddr,
    pub(crate) views: Arc<AdminViews>,
}

/// Serves until the process ends. At most [`CONNECTIONS`]: the oldest gives way, so whoever comes is answered.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut open: VecDeque<AbortOnDrop> = VecDeque::new();
    let mut spare = Spare::default();
    spare.fill();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.0.is_finished());
                if open.len() >= CONNECTIONS {
                    open.pop_front();
                }
                open.push_back(AbortOnDrop(tokio::spawn(converse(stream, Arc::clone(&admin)))));
                spare.fill();
            }
            Err(error) => {
                // Without a descriptor to be had, what was put aside is for this.
                if spare.release() {
                    continue;
                }
                tracing::warn!(%error, "admin accept failed");
                open.pop_front();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, admin: Arc<Admin>) {
    let service = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
    });
    let mut builder = http1::Builder::new();
    // Also how long a connection may be idle.
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_headers(64);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    // Whoever does not take an answer keeps nothing.
    let _ = tokio::time::timeout(LIFETIME, served).await;
}

/// A connection that ends when it is forgotten.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Descriptors that calls cannot take from this port.
#[derive(Debug, Default)]
struct Spare(Vec<File>);

impl Spare {
    fn fill(&mut self) {
        while self.0.len() < SPARE
            && let Ok(file) = File::open("/dev/null")
        {
            self.0.push(file);
        }
    }

    /// Frees one; false where there is none.
    fn release(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let refreshed = path.strip_prefix("/credentials/").and_then(|rest| rest.strip_suffix("/refresh"));
        match (request.method(), refreshed) {
            (&Method::GET, None) | (&Method::POST, Some(_)) => {}
            _ => {
                return text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "only GET, and POST to /credentials/NAME/refresh\n",
                );
            }
        }
        if !self.is_addressed(request) {
            return text(StatusCode::FORBIDDEN, "Host or Origin is not this port's\n");
        }
        match path {
            "/healthz" => return text(StatusCode::OK, "ok\n"),
            "/readyz" => return self.ready(),
            _ => {}
        }
        if !self.is_authorized(request.headers()) {
            return text(StatusCode::UNAUTHORIZED, "a bearer token is needed; see admin.tokenFile\n");
        }
        if let Some(name) = refreshed {
            return match self.views.refresh(name).await {
                Some(done) => typed(StatusCode::OK, JSON, serde_json::json!(done).to_string()),
                None => text(StatusCode::NOT_FOUND, NO_CREDENTIAL),
            };
        }
        match path {
            "/metrics" if takes_openmetrics(request.headers()) => {
                typed(StatusCode::OK, OPENMETRICS, self.views.openmetrics())
            }
            "/metrics" => match self.views.metrics() {
                Ok(metrics) => typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            "/debug/snapshot" => typed(StatusCode::OK, JSON, self.views.snapshot().to_string()),
            "/debug/budgets" => {
                typed(StatusCode::OK, JSON, serde_json::json!(self.views.budgets()).to_string())
            }
            "/debug/credentials" => {
                typed(StatusCode::OK, JSON, serde_json::json!(self.views.credentials()).to_string())
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "/healthz /readyz /metrics /debug/snapshot /debug/credentials /debug/budgets, POST /credentials/NAME/refresh\n",
            ),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        match self.views.unready() {
            None => {
                let said: Vec<_> = std::iter::once("ready".to_owned()).chain(self.views.remarks()).collect();
                text(StatusCode::OK, &format!("{}\n", said.join("; ")))
            }
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
        }
    }

    /// Keeps pages of other origins from reaching the port through a browser on this machine (DNS rebinding).
    fn is_addressed(&self, request: &Request<Incoming>) -> bool {
        let headers = request.headers();
        let origin = headers.get(ORIGIN);
        // No browser leaves out the host. Balancers do when they look whether the gateway is ready.
        if request.version() == Version::HTTP_10 && !headers.contains_key(HOST) && origin.is_none() {
            return true;
        }
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next().and_then(|h| h.to_str().ok()), hosts.next()) else {
            return false;
        };
        let name = host.strip_suffix(&format!(":{}", self.address.port())).unwrap_or(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let known = name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok();
        known && origin.is_none_or(|o| o.as_bytes() == format!("http://{host}").as_bytes())
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        sent.is_some_and(|sent| {
            aws_lc_rs::constant_time::verify_slices_are_equal(sent, self.token.as_bytes()).is_ok()
        })
    }
}

/// Whether a scraper lists OpenMetrics among what it takes: Prometheus does where it stores exemplars.
fn takes_openmetrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|kind| kind.trim().starts_with("application/openmetrics-text"))
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    typed(status, TEXT, body.to_owned())
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
