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
    token: Option<FetchToken>,
}

/// A token that is shown to some servers and to no other, wherever one of them sends us.
#[derive(Debug)]
pub struct FetchToken {
    /// The file that has it, read anew for each request.
    file: PathBuf,
    /// As `https://HOST:PORT`, without a port that is the scheme's own.
    shown_to: Vec<String>,
}

impl FetchToken {
    /// The token in `file`, for the servers of these URLs: scheme, host and port of each.
    #[must_use]
    pub fn new<'a>(file: PathBuf, servers: impl Iterator<Item = &'a str>) -> Self {
        let servers = servers.filter_map(|url| url.parse::<Url>().ok());
        Self { file, shown_to: servers.filter(Url::has_host).map(|url| origin(&url)).collect() }
    }

    fn is_for(&self, url: &Url) -> bool {
        self.shown_to.contains(&origin(url))
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

impl Fetcher {
    /// `ca`: the PEM file that verifies the server, `None`: the system's roots. `dialable` says which addresses may be dialled.
    #[must_use]
    pub fn new(
        ca: Option<PathBuf>,
        token: Option<FetchToken>,
        dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    ) -> Self {
        let tls = TlsFiles { ca, shown: None };
        Self { http: Http::new(Reach::of_store(tls, dialable)), token }
    }

    /// Whether there is a token that the server of this URL is not shown.
    #[must_use]
    pub fn hides_token(&self, url: &str) -> bool {
        let is_for = |token: &FetchToken| url.parse().is_ok_and(|url| token.is_for(&url));
        self.token.as_ref().is_some_and(|token| !is_for(token))
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
        if let Some(token) = self.token.as_ref().filter(|token| token.is_for(request.url())) {
            let token = login_file(token.file.clone(), "the token file cannot be read").await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_the_servers_that_were_named_and_no_other() {
        let servers = ["https://issuer.example/realm", "https://10.0.0.1:6443", "nonsense", "data:,x"];
        let token = FetchToken::new("token".into(), servers.into_iter());
        let is_for = |url: &str| token.is_for(&url.parse().unwrap());
        for url in
            ["https://issuer.example/keys", "https://ISSUER.example:443/", "https://10.0.0.1:6443/jwks"]
        {
            assert!(is_for(url), "{url}");
        }
        let others = [
            "https://issuer.example:8443/keys",
            "http://issuer.example/keys",
            "https://issuer.example.evil.test/",
            "https://issuer.example@evil.test/",
            "https://10.0.0.1/jwks",
            "data:,y",
        ];
        for url in others {
            assert!(!is_for(url), "{url}");
        }
    }
}
