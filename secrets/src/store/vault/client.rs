//! The HTTP client towards one vault: which connections it makes, what it sends, and what its errors are called.
//!
//! **Invariant:** no redirect is followed, no proxy setting is read, and every address is checked right before it is
//! dialled, whether it came from DNS or stood in the definition. Bodies are bounded, and zeroized when read.

mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url, redirect};
use rustify::Endpoint;
use tollgate_policy::policy::VaultStore;
use tracing::warn;
use zeroize::Zeroizing;

use self::tls::{Stamp, TlsFiles};
use super::super::Dialable;
use super::super::read::off_runtime;
use crate::error::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);
/// The vault's own default limit for a request; no secret of it is larger.
const BODY_LIMIT: usize = 1024 * 1024;
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

pub(super) struct Client {
    address: String,
    namespace: Option<String>,
    files: TlsFiles,
    dialable: Dialable,
    /// Made on first use, after a TLS failure, and when one of its files changed.
    http: Mutex<Option<Made>>,
}

#[derive(Clone)]
struct Made {
    http: reqwest::Client,
    stamp: Stamp,
}

/// One endpoint of this vault, without what authenticates.
pub(super) struct Question {
    method: Method,
    url: Url,
}

pub(in crate::store) struct Answer {
    pub(in crate::store) status: u16,
    pub(in crate::store) body: Zeroizing<Vec<u8>>,
}

impl Question {
    /// Of a `vaultrs` endpoint only method, path and query are taken.
    pub(super) fn new(client: &Client, endpoint: &impl Endpoint) -> Result<Self, Failure> {
        let mut url = client.base()?;
        let request = endpoint.request(url.as_str()).map_err(|_| Failure::Internal)?;
        url.set_path(&format!("/v1/{}", request.uri().path().trim_start_matches('/')));
        url.set_query(request.uri().query().filter(|query| !query.is_empty()));
        Ok(Self { method: request.method().clone(), url })
    }

    /// To read what is at a path of the API, which has no empty, `.` or `..` segment.
    pub(super) fn get(client: &Client, path: &str) -> Result<Self, Failure> {
        Self::at(client, Method::GET, path)
    }

    /// To have something done at a path of the API.
    pub(super) fn post(client: &Client, path: &str) -> Result<Self, Failure> {
        Self::at(client, Method::POST, path)
    }

    fn at(client: &Client, method: Method, path: &str) -> Result<Self, Failure> {
        let mut url = client.base()?;
        // A `%` would otherwise stand for itself and what it encodes alike.
        url.set_path(&format!("/v1/{}", path.replace('%', "%25")));
        Ok(Self { method, url })
    }
}

impl Answer {
    /// Whether the body has this text: the only thing that is taken from what a vault says about a refusal.
    pub(super) fn mentions(&self, text: &str) -> bool {
        text.is_empty() || self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// A JSON object of strings, in a buffer that never grows.
pub(super) fn json(members: &[(&str, &[u8])]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Room for every byte escaped.
    let room: usize = members.iter().map(|(name, value)| 8 + name.len() + 6 * value.len()).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(2 + room));
    let mut before = b'{';
    for (name, value) in members {
        body.push(std::mem::replace(&mut before, b','));
        serde_json::to_writer(&mut *body, name).map_err(|_| Failure::Internal)?;
        body.push(b':');
        let text =
            std::str::from_utf8(value).map_err(|_| Failure::Login("what it is made with is not text"))?;
        serde_json::to_writer(&mut *body, text).map_err(|_| Failure::Internal)?;
    }
    body.extend_from_slice(if members.is_empty() { b"{}" } else { b"}" });
    Ok(body)
}

impl Client {
    pub(super) fn new(definition: &VaultStore, dialable: Dialable) -> Self {
        Self {
            address: definition.address.clone(),
            namespace: definition.namespace.clone(),
            files: TlsFiles { ca: definition.ca.clone(), shown: definition.client_certificate.clone() },
            dialable,
            http: Mutex::new(None),
        }
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Sends the question. Statuses are the caller's to judge; an `Err` is a failure to get an answer.
    pub(super) async fn ask(
        &self,
        question: &Question,
        token: Option<&HeaderValue>,
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Failure> {
        self.check_literal(&question.url)?;
        let http = self.http().await?;
        let mut request = http
            .request(question.method.clone(), question.url.clone())
            .header(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            let namespace = HeaderValue::from_str(namespace)
                .map_err(|_| Failure::Misconfigured("the namespace is not a header value"))?;
            request = request.header(NAMESPACE, namespace);
        }
        if let Some(token) = token {
            request = request.header(TOKEN, token.clone());
        }
        if let Some(body) = body {
            request = request.body(Bytes::from_owner(body));
        }
        let answer = async { receive(request.send().await?).await }.await;
        answer.unwrap_or_else(|error| {
            let failure = classify(&error);
            if matches!(failure, Failure::Tls(_)) {
                self.lock().take();
            }
            Err(failure)
        })
    }

    /// The address as a URL that endpoints can be put under.
    fn base(&self) -> Result<Url, Failure> {
        let url =
            Url::parse(&self.address).map_err(|_| Failure::Misconfigured("the address is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failure::Misconfigured("the address has a user name"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(Failure::Misconfigured("the address has more than scheme, host and port"));
        }
        let loopback =
            url.host_str() == Some("localhost") || literal(&url).is_some_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => Ok(url),
            // An agent beside the gateway; anywhere else the token would travel in the clear.
            "http" if loopback => Ok(url),
            _ => Err(Failure::Misconfigured("the address is not https; http is only for a loopback address")),
        }
    }

    /// Addresses that are written out never reach the resolver.
    fn check_literal(&self, url: &Url) -> Result<(), Failure> {
        match literal(url) {
            Some(address) if !(self.dialable)(address) => Err(Failure::AddressRefused),
            _ => Ok(()),
        }
    }

    async fn http(&self) -> Result<reqwest::Client, Failure> {
        let before = self.lock().clone();
        if let Some(made) = before.as_ref().filter(|_| self.files.is_empty()) {
            return Ok(made.http.clone());
        }
        let (files, dialable) = (self.files.clone(), Arc::clone(&self.dialable));
        let made = off_runtime(move || {
            let stamp = files.stamp();
            if let Some(made) = before.as_ref().filter(|made| made.stamp == stamp) {
                return Ok(made.clone());
            }
            match (files.config().and_then(|tls| build(tls, dialable)), before) {
                (Ok(http), _) => Ok(Made { http, stamp }),
                (Err(error), Some(made)) => {
                    warn!(%error, "the files of a vault's TLS changed and cannot be used; those before stay");
                    Ok(Made { stamp, ..made })
                }
                (Err(error), None) => Err(error),
            }
        })
        .await?;
        Ok(self.lock().insert(made).http.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Made>> {
        self.http.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(in crate::store) async fn receive(
    mut response: reqwest::Response,
) -> Result<Result<Answer, Failure>, reqwest::Error> {
    let status = response.status().as_u16();
    let expected = response.content_length().map_or(4096, |length| length.min(BODY_LIMIT as u64)) as usize;
    let mut body = Zeroizing::new(Vec::with_capacity(expected));
    while let Some(chunk) = response.chunk().await? {
        let filled = body.len() + chunk.len();
        if filled > BODY_LIMIT {
            return Ok(Err(Failure::Malformed("the store's answer is larger than 1 MiB")));
        }
        if filled > body.capacity() {
            // Growing in place would leave a copy that nobody zeroizes.
            let mut larger = Zeroizing::new(Vec::with_capacity(filled.max(2 * body.capacity())));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Ok(Answer { status, body }))
}

/// A client for what is no vault, verified by `ca` or the system's roots.
pub(in crate::store) fn plain(ca: Option<&Path>, dialable: Dialable) -> Result<reqwest::Client, Failure> {
    build(TlsFiles { ca: ca.map(Path::to_owned), shown: None }.config()?, dialable)
}

fn build(tls: rustls::ClientConfig, dialable: Dialable) -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .timeout(TOTAL_TIMEOUT)
        .pool_max_idle_per_host(2)
        .pool_idle_timeout(Duration::from_secs(60))
        .dns_resolver(CheckedResolver { dialable })
        .build()
        .map_err(|_| Failure::Internal)
}

pub(in crate::store) fn literal(url: &Url) -> Option<IpAddr> {
    let address: IpAddr = url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(address.to_canonical())
}

/// Resolves through the system and hands on only what may be dialled; the connection goes to one of just these.
struct CheckedResolver {
    dialable: Dialable,
}

/// Every address of the name was refused.
#[derive(Debug, thiserror::Error)]
#[error("address refused")]
struct Refused;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let dialable = Arc::clone(&self.dialable);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|address| dialable(address.ip().to_canonical())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Refused.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Only the kind is taken from an error: its text may quote what was sent or received.
pub(in crate::store) fn classify(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut kind = None;
    while let Some(error) = cause {
        if error.is::<Refused>() {
            return Failure::AddressRefused;
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Failure::Tls(tls::word(error));
        }
        cause = match error.downcast_ref::<io::Error>() {
            Some(error) => {
                kind = Some(error.kind());
                // `io::Error::source` skips the error that it wraps.
                error.get_ref().map(|wrapped| wrapped as &(dyn std::error::Error + 'static))
            }
            None => error.source(),
        };
    }
    if error.is_timeout() {
        return Failure::Timeout;
    }
    Failure::Unreachable(match kind {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused",
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "connection reset",
        Some(io::ErrorKind::UnexpectedEof) => "connection closed",
        Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => "no route",
        _ if error.is_dns() => "name not found",
        _ if error.is_connect() => "cannot connect",
        _ => "broken answer",
    })
}

#[cfg(test)]
mod tests;
