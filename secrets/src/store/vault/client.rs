//! The HTTP client towards one vault: which connections it makes, what it sends, and what its errors are called.
//!
//! **Invariant:** no redirect is followed, no proxy setting is read, and every address is checked right before it is
//! dialled, whether it came from DNS or stood in the definition. Bodies are bounded, and zeroized when read.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url, redirect};
use rustify::Endpoint;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

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
    ca: Option<PathBuf>,
    dialable: Dialable,
    /// Made on first use and again after a TLS failure, so that a renewed CA file is picked up.
    http: Mutex<Option<reqwest::Client>>,
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
}

impl Client {
    pub(super) const fn new(
        address: String,
        namespace: Option<String>,
        ca: Option<PathBuf>,
        dialable: Dialable,
    ) -> Self {
        Self { address, namespace, ca, dialable, http: Mutex::new(None) }
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
        if let Some(http) = self.lock().as_ref() {
            return Ok(http.clone());
        }
        let (ca, dialable) = (self.ca.clone(), Arc::clone(&self.dialable));
        let http = off_runtime(move || build(ca.as_deref(), dialable)).await?;
        Ok(self.lock().insert(http).clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<reqwest::Client>> {
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

pub(in crate::store) fn build(ca: Option<&Path>, dialable: Dialable) -> Result<reqwest::Client, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Failure::Internal)?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
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

fn roots(ca: Option<&Path>) -> Result<rustls::RootCertStore, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    let Some(path) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() {
            Err(Failure::Misconfigured("this system has no trusted roots"))
        } else {
            Ok(roots)
        };
    };
    let pem = std::fs::read(path).map_err(|_| Failure::Misconfigured("the CA file cannot be read"))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| Failure::Misconfigured("the CA file is not PEM"))?;
        roots
            .add(certificate)
            .map_err(|_| Failure::Misconfigured("the CA file has a certificate that is no CA"))?;
    }
    if roots.is_empty() { Err(Failure::Misconfigured("the CA file has no certificate")) } else { Ok(roots) }
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
            return Failure::Tls(tls_word(error));
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

fn tls_word(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::UnknownIssuer) => "certificate of an unknown issuer",
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "certificate expired"
        }
        Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "certificate for another name",
        Error::InvalidCertificate(_) => "certificate not accepted",
        Error::AlertReceived(_) => "the store ended the handshake",
        _ => "handshake failed",
    }
}

#[cfg(test)]
mod tests;
