//! A server in front of the API server that hands everything on, until it is told to fail.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Cluster;
use crate::ca::client_config;
use crate::client::{Failure, full};

/// How it fails. With each change what is under way breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Every request is answered with this status, and `Retry-After` with so many seconds where there are some.
    Status(u16, Option<u64>),
    /// Every list, and nothing else, is answered with 410.
    GoneList,
    /// Every watch is answered with 410.
    GoneWatch,
    /// Every watch begins, and says 410 as its first event.
    GoneEvent,
    /// Nothing is answered.
    Hang,
    /// What is read breaks off in the middle of its first line.
    Cut,
    /// What has this in its path is not known, as a kind that has no definition.
    Unknown(&'static str),
    /// Watches with this in their path are not answered.
    Mute(&'static str),
}

/// The server; it ends when it is dropped.
pub struct FaultyServer {
    kubeconfig: PathBuf,
    fault: watch::Sender<Fault>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    task: JoinHandle<()>,
}

type Body = Either<Full<Bytes>, Channel<Bytes, std::io::Error>>;

struct Upstream {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl FaultyServer {
    /// In front of `cluster`, with a kubeconfig for `user` that leads here.
    pub async fn start(cluster: &Cluster, user: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let text = std::fs::read_to_string(cluster.kubeconfig(user)).expect("kubeconfig");
        let kubeconfig = cluster.folder.join(format!("{user}-{port}.kubeconfig"));
        std::fs::write(&kubeconfig, text.replace(&cluster.url(), &format!("https://127.0.0.1:{port}")))
            .expect("kubeconfig");
        let (fault, told) = watch::channel(Fault::None);
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let tls = client_config(cluster.credentials.roots(), None, &[]);
        let upstream = Arc::new(Upstream { address: cluster.address(), tls, asked: asked.clone() });
        let acceptor = TlsAcceptor::from(cluster.credentials.server().server_config(&["http/1.1"], None));
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, upstream, told) = (acceptor.clone(), upstream.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(|request| answer(&upstream, told.clone(), request));
                    let mut http = hyper::server::conn::http1::Builder::new();
                    let _ = http.half_close(true).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { kubeconfig, fault, asked, task }
    }

    /// The kubeconfig that leads here.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Fails so from now on.
    pub fn fail(&self, fault: Fault) {
        self.asked.lock().expect("asked").clear();
        self.fault.send_replace(fault);
    }

    /// When something was asked whose path and query contain `part`, since it was last told how to fail.
    pub fn asked(&self, part: &str) -> Vec<Instant> {
        let asked = self.asked.lock().expect("asked");
        asked.iter().filter(|(target, _)| target.contains(part)).map(|(_, at)| *at).collect()
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn status(code: u16, message: &str) -> String {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code,
        "reason": if code == 410 { "Expired" } else { "" }, "message": message,
    });
    status.to_string()
}

fn refused(code: u16, retry_after: Option<u64>) -> Response<Body> {
    let text = full_body(status(code, "told to fail"));
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if let Some(seconds) = retry_after {
        response = response.header("retry-after", seconds);
    }
    response.body(text).expect("a response")
}

/// Nothing, until it is to fail otherwise.
async fn silence(mut told: watch::Receiver<Fault>) -> Response<Body> {
    let _ = told.changed().await;
    refused(503, None)
}

fn full_body(text: String) -> Body {
    Either::Left(Full::new(text.into()))
}

async fn answer(
    upstream: &Upstream,
    mut told: watch::Receiver<Fault>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let fault = *told.borrow_and_update();
    let target = request.uri().to_string();
    let is_watch = target.contains("watch=true");
    let is_list = !is_watch && target.contains("limit=");
    upstream.asked.lock().expect("asked").push((target.clone(), Instant::now()));
    Ok(match fault {
        Fault::Unknown(part) if target.contains(part) => refused(404, None),
        Fault::Status(code, retry_after) => refused(code, retry_after),
        Fault::GoneList if is_list => refused(410, None),
        Fault::GoneWatch if is_watch => refused(410, None),
        Fault::GoneEvent if is_watch => {
            let status = status(410, "too old resource version");
            Response::new(full_body(format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n")))
        }
        Fault::Hang => silence(told).await,
        Fault::Mute(part) if is_watch && target.contains(part) => silence(told).await,
        _ => {
            let is_cut = fault == Fault::Cut && *request.method() == Method::GET;
            match upstream.pass(request, told, is_cut).await {
                Ok(response) => response,
                Err(error) => {
                    let mut response = Response::new(full_body(error.to_string()));
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                    response
                }
            }
        }
    })
}

impl Upstream {
    async fn pass(
        &self,
        request: Request<Incoming>,
        told: watch::Receiver<Fault>,
        is_cut: bool,
    ) -> Result<Response<Body>, Failure> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (mut head, body) = request.into_parts();
        head.uri =
            head.uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string).parse::<Uri>()?;
        let body = body.collect().await?.to_bytes();
        let response = sender.send_request(Request::from_parts(head, full(body))).await?;
        let (mut head, body) = response.into_parts();
        head.headers.remove("transfer-encoding");
        let (to, channel) = Channel::new(1);
        tokio::spawn(hand_on(body, to, told, is_cut));
        Ok(Response::from_parts(head, Either::Right(channel)))
    }
}

/// Hands a body on until there is another fault, or the half of what comes first.
async fn hand_on(
    mut body: Incoming,
    mut to: Sender<Bytes, std::io::Error>,
    mut told: watch::Receiver<Fault>,
    is_cut: bool,
) {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = told.changed() => return to.abort(std::io::Error::other("told to fail")),
        };
        let Some(Ok(frame)) = frame else { return };
        let Ok(bytes) = frame.into_data() else { continue };
        if is_cut {
            let _ = to.send_data(bytes.slice(..bytes.len() / 2)).await;
            // What was handed over leaves first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return to.abort(std::io::Error::other("cut"));
        }
        if to.send_data(bytes).await.is_err() {
            return;
        }
    }
}
