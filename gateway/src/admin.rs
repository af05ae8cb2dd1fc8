//! The admin port: health for anybody, everything else for whoever has the token.
//!
//! **Invariant:** what it shows is made from types that hold no secret; there is nothing to redact.

mod view;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

pub(crate) use self::view::Views;

const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// What is said where there is none to refresh.
pub(crate) const NO_CREDENTIAL: &str = "no such credential\n";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The admin server's own configuration.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) token: Zeroizing<String>,
    pub(crate) address: SocketAddr,
    pub(crate) views: Views,
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                let service = service_fn(move |request| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(admin.answer(&request).await) }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_headers(64);
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
            Err(error) => {
                tracing::warn!(%error, "admin accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
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
        if !self.is_addressed(request.headers()) {
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
            "/metrics" => match self.views.metrics() {
                Ok(metrics) => typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            "/debug/snapshot" => typed(StatusCode::OK, JSON, self.views.snapshot().to_string()),
            "/debug/credentials" => {
                typed(StatusCode::OK, JSON, serde_json::json!(self.views.credentials()).to_string())
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "/healthz /readyz /metrics /debug/snapshot /debug/credentials, POST /credentials/NAME/refresh\n",
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
    fn is_addressed(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next().and_then(|h| h.to_str().ok()), hosts.next()) else {
            return false;
        };
        let name = host.strip_suffix(&format!(":{}", self.address.port())).unwrap_or(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let known = name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok();
        let origin = headers.get(ORIGIN);
        known && origin.is_none_or(|o| o.as_bytes() == format!("http://{host}").as_bytes())
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        sent.is_some_and(|sent| {
            aws_lc_rs::constant_time::verify_slices_are_equal(sent, self.token.as_bytes()).is_ok()
        })
    }
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
