//! The HTTP client of this crate: which connections are made towards stores and token endpoints, and what errors are called.
//!
//! **Invariant:** no redirect is followed, no proxy setting is read, and every address is checked right before it is
//! dialled, whether it came from DNS or stood in a definition. Bodies are bounded, and zeroized when read.

mod post;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::{Request, Url, redirect};
use tracing::warn;
use zeroize::Zeroizing;

pub use self::post::{PostAnswer, PostClient};
pub(crate) use self::tls::TlsFiles;
pub(crate) use self::tls::word as tls_word;
use crate::dial::Dialable;
use crate::error::Failure;
use crate::read::{FileStamp, off_runtime};

/// The default limit of a vault for a request; no secret of it, and no token, is larger.
const BODY_LIMIT: usize = 1024 * 1024;

const STORE_CONNECT: Duration = Duration::from_secs(3);
const STORE_READ: Duration = Duration::from_secs(5);
const STORE_TOTAL: Duration = Duration::from_secs(8);

/// Whom to connect to, and how long that may take.
pub(crate) struct Reach {
    pub(crate) tls: TlsFiles,
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

impl Reach {
    /// For a secret store: where DNS says, and not for long.
    pub(crate) fn of_store(tls: TlsFiles, dialable: Dialable) -> Self {
        Self {
            tls,
            dialable,
            addresses: [].into(),
            source_address: None,
            connect: STORE_CONNECT,
            read: STORE_READ,
            total: STORE_TOTAL,
        }
    }
}

pub(crate) struct Http {
    reach: Arc<Reach>,
    /// Made on first use, after a TLS failure, and when one of its files changed.
    made: Mutex<Option<Made>>,
}

#[derive(Clone)]
struct Made {
    client: reqwest::Client,
    stamp: FileStamp,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Whether the body has this text: the only thing that is taken from what a server says about a refusal.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        text.is_empty() || self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Http {
    pub(crate) fn new(reach: Reach) -> Self {
        Self { reach: Arc::new(reach), made: Mutex::new(None) }
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

    /// The state that the files of the TLS are in.
    pub(crate) async fn stamp(&self) -> Result<FileStamp, Failure> {
        let reach = Arc::clone(&self.reach);
        off_runtime(move || Ok(reach.tls.stamp())).await
    }

    async fn client(&self) -> Result<reqwest::Client, Failure> {
        let before = self.lock().clone();
        if let Some(made) = before.as_ref().filter(|_| self.reach.tls.is_empty()) {
            return Ok(made.client.clone());
        }
        let reach = Arc::clone(&self.reach);
        let made = off_runtime(move || {
            let stamp = reach.tls.stamp();
            if let Some(made) = before.as_ref().filter(|made| made.stamp == stamp) {
                return Ok(made.clone());
            }
            match (build(&reach), before) {
                (Ok(client), _) => Ok(Made { client, stamp }),
                (Err(error), Some(made)) => {
                    warn!(%error, "the TLS files of a store or a token endpoint changed and cannot be used; those before stay");
                    Ok(Made { stamp, ..made })
                }
                (Err(error), None) => Err(error),
            }
        })
        .await?;
        Ok(self.lock().insert(made).client.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn receive(
    mut response: reqwest::Response,
) -> Result<Result<Answer, Failure>, reqwest::Error> {
    let (status, length) = (response.status().as_u16(), response.content_length());
    let headers = std::mem::take(response.headers_mut());
    let expected = length.map_or(4096, |length| length.min(BODY_LIMIT as u64)) as usize;
    let mut body = Zeroizing::new(Vec::with_capacity(expected));
    while let Some(chunk) = response.chunk().await? {
        let filled = body.len() + chunk.len();
        if filled > BODY_LIMIT {
            return Ok(Err(Failure::Foreign("it is larger than 1 MiB")));
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

pub(crate) fn build(reach: &Reach) -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(reach.tls.config()?)
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
struct NotDialable;

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
                return Err(NotDialable.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Only the kind is taken from an error: its text may quote what was sent or received.
pub(crate) fn classify(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut kind = None;
    while let Some(error) = cause {
        if error.is::<NotDialable>() {
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
