//! Requests of the gateway's own to an endpoint that its operator names, under the rules that hold for stores.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, Request, Url};
use zeroize::Zeroizing;

use super::{Http, Reach, TlsFiles};
use crate::error::Failure;

/// Sends with `POST`: no redirect is followed, no proxy setting is read, and each address is checked right before it is dialled. It gives up
/// after 3 s without a connection, 5 s without a byte and 8 s in all.
pub struct PostClient(Http);

/// What was answered.
pub struct PostAnswer {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before the next request (`Retry-After` in seconds), where the answer says so.
    pub retry_after: Option<Duration>,
    /// At most 1 MiB.
    pub body: Zeroizing<Vec<u8>>,
}

impl PostClient {
    /// `ca` verifies the server, in PEM, and is read anew when it changes; `None`: the system's authorities do. `dialable` says which addresses
    /// may be dialled.
    #[must_use]
    pub fn new(ca: Option<PathBuf>, dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) -> Self {
        Self(Http::new(Reach::of_store(TlsFiles { ca, shown: None }, dialable)))
    }

    /// Sends `body` with `headers`.
    ///
    /// # Errors
    /// Where there is no answer. A status is the caller's to judge.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: Vec<u8>) -> Result<PostAnswer, Failure> {
        let url = Url::parse(url).map_err(|_| Failure::Misconfigured("the URL cannot be read"))?;
        let mut request = Request::new(Method::POST, url);
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        let answer = self.0.send(request).await?;
        let seconds =
            answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Ok(PostAnswer {
            status: answer.status,
            retry_after: seconds.map(Duration::from_secs),
            body: answer.body,
        })
    }
}

impl fmt::Debug for PostClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostClient").finish_non_exhaustive()
    }
}
