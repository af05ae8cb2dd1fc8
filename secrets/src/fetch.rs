//! Documents that anybody may know, such as the keys of an issuer of tokens, from where the settings say.
//!
//! **Invariant:** what is asked is one https URL, by the rules of every other connection of this crate: no redirect, no proxy, each address
//! checked, the body bounded.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Method, Request, Url};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::http::{Http, Reach, TlsFiles};
use crate::read::login_file;

/// Fetches documents as JSON.
pub struct Fetcher {
    http: Http,
    /// The file with the token that is shown, read anew for each request.
    token: Option<PathBuf>,
}

impl Fetcher {
    /// `ca`: the PEM file that verifies the server, `None`: the system's roots. `dialable` says which addresses may be dialled.
    #[must_use]
    pub fn new(
        ca: Option<PathBuf>,
        token: Option<PathBuf>,
        dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    ) -> Self {
        let tls = TlsFiles { ca, shown: None };
        Self { http: Http::new(Reach::of_store(tls, dialable)), token }
    }

    /// The body of the answer, of at most 1 MiB.
    ///
    /// # Errors
    /// Where there is no answer with status 200, or the URL is not https.
    pub async fn get(&self, url: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let url = url.parse::<Url>().ok().filter(|url| url.scheme() == "https" && url.has_host());
        let url = url.ok_or(Failure::Misconfigured("the URL is not https"))?;
        let mut request = Request::new(Method::GET, url);
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json, */*"));
        if let Some(file) = &self.token {
            let token = login_file(file.clone(), "the token file cannot be read").await?;
            let mut value = Zeroizing::new(b"Bearer ".to_vec());
            value.reserve_exact(token.len());
            value.extend_from_slice(&token);
            let mut value = HeaderValue::from_bytes(&value)
                .map_err(|_| Failure::Login("the token file does not hold one token"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = self.http.send(request).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(Failure::Status(answer.status)) }
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}
