//! Requests to one vault: where they go, and what each carries.
//!
//! **Invariant:** a token is only sent over TLS, or to a loopback address.

use bytes::Bytes;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Request, Url};
use rustify::Endpoint;
use tollgate_policy::policy::VaultStore;
use zeroize::Zeroizing;

use crate::dial::Dialable;
use crate::error::Failure;
use crate::http::{Answer, Http, Reach, TlsFiles, literal};
use crate::read::FileStamp;

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

    /// To read what is at a path of the API, which has no empty, `.` or `..` segment.
    pub(super) fn get(client: &Client, path: &str) -> Result<Self, Failure> {
        Self::at(client, Method::GET, path)
    }

    /// To have something done at a path of the API.
    pub(super) fn post(client: &Client, path: &str) -> Result<Self, Failure> {
        Self::at(client, Method::POST, path)
    }

    /// What it asks for.
    pub(super) fn url(&self) -> &[u8] {
        self.url.as_str().as_bytes()
    }

    fn at(client: &Client, method: Method, path: &str) -> Result<Self, Failure> {
        let mut url = client.base()?;
        // A `%` would otherwise stand for itself and what it encodes alike.
        url.set_path(&format!("/v1/{}", path.replace('%', "%25")));
        Ok(Self { method, url })
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
        let tls = TlsFiles { ca: definition.ca.clone(), shown: definition.client_certificate.clone() };
        let http = Http::new(Reach::of_store(tls, dialable));
        Self { address: definition.address.clone(), namespace: definition.namespace.clone(), http }
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The state that the files are in which every connection is made with.
    pub(super) async fn stamp(&self) -> Result<FileStamp, Failure> {
        self.http.stamp().await
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
