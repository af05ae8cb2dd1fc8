//! Requests to the API server without a client of Kubernetes between.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ca::client_config;
use crate::client::{Failure, full};
use crate::process::local;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads it.
    Get,
    /// Makes a new one.
    Post,
    /// Replaces it.
    Put,
    /// A merge patch (RFC 7386).
    Merge,
    /// A server-side apply that takes fields over from others.
    Apply,
    /// Deletes it.
    Delete,
}

/// What the API server answered.
#[derive(Debug)]
pub struct Told {
    /// The status.
    pub status: StatusCode,
    /// The object, or what is wrong.
    pub body: Value,
}

impl Told {
    /// The object.
    ///
    /// # Panics
    ///
    /// Where the request failed, with what was said.
    pub fn expect(self, what: &str) -> Value {
        assert!(self.status.is_success(), "{what}: {} {}", self.status, self.body);
        self.body
    }
}

pub(super) struct Api {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    token: String,
}

impl Api {
    pub(super) fn new(port: u16, roots: RootCertStore, token: &str) -> Self {
        Self { address: local(port), tls: client_config(roots, None, &[]), token: token.to_owned() }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn is_ready(&self) -> bool {
        self.send(&self.token, Verb::Get, "/readyz", &Value::Null).await.is_ok_and(|told| told.status == 200)
    }

    pub(super) async fn call(&self, token: &str, verb: Verb, path: &str, body: &Value) -> Told {
        self.send(token, verb, path, body).await.unwrap_or_else(|error| panic!("{verb:?} {path}: {error}"))
    }

    async fn send(&self, token: &str, verb: Verb, path: &str, body: &Value) -> Result<Told, Failure> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (method, content_type) = match verb {
            Verb::Get => (Method::GET, "application/json"),
            Verb::Post => (Method::POST, "application/json"),
            Verb::Put => (Method::PUT, "application/json"),
            Verb::Delete => (Method::DELETE, "application/json"),
            Verb::Merge => (Method::PATCH, "application/merge-patch+json"),
            // JSON is YAML.
            Verb::Apply => (Method::PATCH, "application/apply-patch+yaml"),
        };
        let query = if verb == Verb::Apply { "?fieldManager=tests&force=true" } else { "" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}{query}"))
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", content_type)
            // Keys of an issuer come in a type of their own.
            .header("accept", "application/json, */*")
            .body(full(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&bytes).into_owned());
        Ok(Told { status, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) })
    }
}
