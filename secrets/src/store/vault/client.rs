//! Requests to one vault: where they go, and what each carries.
//!
//! **Invariant:** a token is only sent over TLS, or to a loopback address.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Request, Url};
use rustify::Endpoint;
use zeroize::Zeroizing;

use super::super::Dialable;
use crate::error::Failure;
use crate::http::{Answer, Http, Reach, literal};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

pub(super) struct Client {
    address: String,
    namespace: Option<String>,
    http: Http,
}

/// One endpoint of this vault, without what authenticates.
pub(super) struct Question {
    method: Method,
    url: Url,
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
    pub(super) fn new(
        address: String,
        namespace: Option<String>,
        ca: Option<PathBuf>,
        dialable: Dialable,
    ) -> Self {
        let http = Http::new(Reach {
            ca,
            dialable,
            addresses: [].into(),
            source_address: None,
            connect: CONNECT_TIMEOUT,
            read: READ_TIMEOUT,
            total: TOTAL_TIMEOUT,
        });
        Self { address, namespace, http }
    }

    /// Sends the question. Statuses are the caller's to judge; an `Err` is a failure to get an answer.
    pub(super) async fn ask(
        &self,
        question: &Question,
        token: Option<&HeaderValue>,
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(question.method.clone(), question.url.clone());
        request.headers_mut().insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            let namespace = HeaderValue::from_str(namespace)
                .map_err(|_| Failure::Misconfigured("the namespace is not a header value"))?;
            request.headers_mut().insert(NAMESPACE, namespace);
        }
        if let Some(token) = token {
            request.headers_mut().insert(TOKEN, token.clone());
        }
        *request.body_mut() = body.map(|body| Bytes::from_owner(body).into());
        self.http.send(request).await
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
}

#[cfg(test)]
mod tests;
