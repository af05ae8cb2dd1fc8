//! The HTTP client of this crate: which connections are made towards stores and token endpoints, and what errors are called.
//!
//! **Invariant:** no redirect is followed, no proxy setting is read, and every address is checked right before it is
//! dialled, whether it came from DNS or stood in a definition. Bodies are bounded, and zeroized when read.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::{Request, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::store::Dialable;
use crate::store::read::off_runtime;

/// The default limit of a vault for a request; no secret of it, and no token, is larger.
const BODY_LIMIT: usize = 1024 * 1024;

/// Whom to connect to, and how long that may take.
pub(crate) struct Reach {
    /// The certificate authorities that verify it, in PEM; `None`: the system's.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) dialable: Dialable,
    /// Dialled instead of what DNS says; empty: DNS decides.
    pub(crate) addresses: Arc<[IpAddr]>,
    /// The local address; `None`: the system's choice.
    pub(crate) source_address: Option<IpAddr>,
    pub(crate) connect: Duration,
    /// Between two pieces of the answer, its head included.
    pub(crate) read: Duration,
    /// For everything together.
    pub(crate) total: Duration,
}

pub(crate) struct Http {
    reach: Arc<Reach>,
    /// Made on first use and again after a TLS failure, so that a renewed CA file is picked up.
    client: Mutex<Option<reqwest::Client>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Http {
    pub(crate) fn new(reach: Reach) -> Self {
        Self { reach: Arc::new(reach), client: Mutex::new(None) }
    }

    /// Sends the request. Statuses are the caller's to judge; an `Err` is a failure to get an answer.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, Failure> {
        // Addresses that are written out never reach the resolver.
        if literal(request.url()).is_some_and(|address| !(self.reach.dialable)(address)) {
            return Err(Failure::AddressRefused);
        }
        let client = self.client().await?;
        let answer = async { receive(client.execute(request).await?).await }.await;
        answer.unwrap_or_else(|error| {
            let failure = classify(&error);
            if matches!(failure, Failure::Tls(_)) {
                self.lock().take();
            }
            Err(failure)
        })
    }

    async fn client(&self) -> Result<reqwest::Client, Failure> {
        if let Some(client) = self.lock().as_ref() {
            return Ok(client.clone());
        }
        let reach = Arc::clone(&self.reach);
        let client = off_runtime(move || build(&reach)).await?;
        Ok(self.lock().insert(client).clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<reqwest::Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(mut response: reqwest::Response) -> Result<Result<Answer, Failure>, reqwest::Error> {
    let (status, length) = (response.status().as_u16(), response.content_length());
    let headers = std::mem::take(response.headers_mut());
    let expected = length.map_or(4096, |length| length.min(BODY_LIMIT as u64)) as usize;
    let mut body = Zeroizing::new(Vec::with_capacity(expected));
    while let Some(chunk) = response.chunk().await? {
        let filled = body.len() + chunk.len();
        if filled > BODY_LIMIT {
            return Ok(Err(Failure::Malformed("the answer is larger than 1 MiB")));
        }
        if filled > body.capacity() {
            // Growing in place would leave a copy that nobody zeroizes.
            let mut larger = Zeroizing::new(Vec::with_capacity(filled.max(2 * body.capacity())));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Ok(Answer { status, headers, body }))
}

fn build(reach: &Reach) -> Result<reqwest::Client, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Failure::Internal)?
        .with_root_certificates(roots(reach.ca.as_deref())?)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .retry(reqwest::retry::never())
        .connect_timeout(reach.connect)
        .read_timeout(reach.read)
        .timeout(reach.total)
        .local_address(reach.source_address)
        .pool_max_idle_per_host(2)
        .pool_idle_timeout(Duration::from_secs(60))
        .dns_resolver(CheckedResolver {
            dialable: Arc::clone(&reach.dialable),
            addresses: Arc::clone(&reach.addresses),
        })
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

pub(crate) fn literal(url: &Url) -> Option<IpAddr> {
    let address: IpAddr = url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(address.to_canonical())
}

/// Resolves through the system, or to the addresses that are given instead, and hands on only what may be dialled; the
/// connection goes to one of just these.
struct CheckedResolver {
    dialable: Dialable,
    addresses: Arc<[IpAddr]>,
}

/// Every address of the name was refused.
#[derive(Debug, thiserror::Error)]
#[error("address refused")]
struct Refused;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (dialable, given) = (Arc::clone(&self.dialable), Arc::clone(&self.addresses));
        Box::pin(async move {
            let found: Vec<SocketAddr> = match given.is_empty() {
                true => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
                false => given.iter().map(|address| SocketAddr::new(*address, 0)).collect(),
            };
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
fn classify(error: &reqwest::Error) -> Failure {
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
        Error::AlertReceived(_) => "the server ended the handshake",
        _ => "handshake failed",
    }
}
