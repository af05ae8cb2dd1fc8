//! Putting the secret on the call, and taking it off the answer.
//!
//! **Invariant:** a request that carries a secret exists only as [`Injected`]: built from the permit's own secret, bound to a peer that
//! was verified as the permit's target, and sent nowhere else.

mod cache;
mod form;
mod hmac;
mod messages;
mod packed_headers;
mod scrub;
mod sigv4;
mod template;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use jiff::Timestamp;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::Credential;
use tollgate_secrets::Secret;

pub(crate) use self::cache::InjectionCache;
use self::cache::{PreparedPart, RequestSigner};
pub(crate) use self::messages::Messages;
pub(crate) use self::scrub::{Scrubber, Seen, answer_head, answer_trailers, forget_digests};
pub(crate) use self::sigv4::has_digest;
pub(crate) use self::template::{Template, is_grpc};
#[cfg(any(test, fuzzing))]
pub use self::{scrub::fuzz::scrub as fuzz_scrub, sigv4::fuzz::sigv4_chunks as fuzz_sigv4_chunks};
use crate::identity;
use crate::key_health::SelectedKey;
use crate::ledger::Position;
use crate::upstream::{Answer, OutBody, Peer, SendFailure};

/// Whether `secret` can be put on a call as `credential` says.
pub(crate) fn fits(credential: &Credential, secret: &Secret) -> bool {
    credential.inject.iter().all(|way| cache::prepare(way, secret).is_some())
}

/// One attempt, ready to leave. No `Debug`: its request line may hold the secret.
pub(crate) struct Injected {
    peer: Peer,
    request: Request<OutBody>,
}

impl Injected {
    /// Puts the secret of `key` on a copy of `template` for `peer`.
    ///
    /// # Errors
    /// `internal` where peer, key, secret or template are not the permit's: a bug, found before anything leaves.
    pub(crate) fn new(
        template: &mut Template,
        permit: &Permit,
        key: Option<&SelectedKey>,
        prepared: &InjectionCache,
        peer: Peer,
    ) -> Result<Self, Denial> {
        // Peer, key and secret are the permit's, or nothing is built.
        if peer.host() != permit.target().host() {
            return Err(bug("the peer is not the permit's"));
        }
        let parts = match (permit.credential(), key) {
            (None, None) => None,
            (Some(credential), Some(key)) => {
                let parts = prepared.parts(credential, key);
                Some(parts.ok_or_else(|| bug("the secret is not the permit's, or cannot be put on a call"))?)
            }
            _ => return Err(bug("the secret is not the permit's")),
        };
        let parts = parts.as_deref().unwrap_or_default();
        // From here on there is a request: the template's, and then what carries the secret. A header that is not put on alone is a bug.
        let body = template.take_body().ok_or_else(|| bug("the body was sent before"))?;
        let mut request = Request::new(body);
        *request.method_mut() = template.method.clone();
        *request.headers_mut() =
            template.take_headers().ok_or_else(|| bug("the headers cannot be read back"))?;
        if let Some(token) = &template.token {
            put(request.headers_mut(), &AUTHORIZATION, token.clone())?;
        }
        let (authority, host) = peer.authority();
        let path = add(parts, request.headers_mut(), template.path.clone())?;
        let signer = parts.iter().find_map(|part| match part {
            PreparedPart::Signer(signer) => Some(signer),
            _ => None,
        });
        let path = match signer {
            Some(RequestSigner::Hmac(signer)) => {
                signer.sign(&mut request, path, authority.as_str(), Timestamp::now())?
            }
            Some(RequestSigner::SigV4(_)) | None => path,
        };
        // The request line, as the peer's protocol has it.
        if peer.is_http2() {
            *request.version_mut() = Version::HTTP_2;
            if template.takes_trailers {
                request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
            }
            *request.uri_mut() = absolute(authority.clone(), path).ok_or_else(|| bug("no URI"))?;
        } else {
            request.headers_mut().insert(http::header::HOST, host.clone());
            *request.uri_mut() = Uri::from(path);
        }
        // AWS's signature is over the whole line that leaves.
        if let Some(RequestSigner::SigV4(signer)) = signer {
            let scope = template.aws_scope.as_ref().ok_or_else(|| bug("nothing to sign for"))?;
            signer.sign(&mut request, authority.as_str(), scope, Timestamp::now())?;
        }
        Ok(Self { peer, request })
    }

    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Hands it to its connection, to leave over HTTP/1 once the journal has the line `after`; the future waits for the head of the answer.
    #[expect(clippy::disallowed_methods, reason = "the one place that sends what carries a secret")]
    pub(crate) fn send(
        self,
        after: Option<Position>,
    ) -> impl Future<Output = Result<Box<Answer>, SendFailure>> + use<> {
        self.peer.exchange(self.request, after)
    }
}

/// Adds everything to `headers`, or to `path`, which is given back.
fn add(
    parts: &[PreparedPart],
    headers: &mut HeaderMap,
    mut path: PathAndQuery,
) -> Result<PathAndQuery, Denial> {
    for part in parts {
        match part {
            PreparedPart::Header(name, value) => put(headers, name, value.clone())?,
            PreparedPart::Query(pair) => {
                path = form::with_pair(&path, pair).ok_or_else(|| bug("the query is too long"))?;
            }
            PreparedPart::Cookie(_) | PreparedPart::Signer(_) => {}
        }
    }
    let cookies = parts.iter().filter_map(|part| match part {
        PreparedPart::Cookie(pair) => Some(pair.as_slice()),
        _ => None,
    });
    if cookies.clone().next().is_some() {
        let cookies = form::cookies(cookies).ok_or_else(|| bug("the cookie cannot be put on a call"))?;
        put(headers, &COOKIE, cookies)?;
    }
    Ok(path)
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) -> Result<(), Denial> {
    headers.insert(name, value);
    let alone = is_alone(headers, name);
    alone.then_some(()).ok_or_else(|| bug("the injected header is not the only one of its name"))
}

/// Whether no other header can be read as this one, of which there is one value.
fn is_alone(headers: &HeaderMap, name: &HeaderName) -> bool {
    let name = name.as_str();
    headers.keys().filter(|other| identity::same_name(other.as_str(), name)).count() == 1
}

fn absolute(host: Authority, path: PathAndQuery) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(host);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

fn bug(detail: &'static str) -> Denial {
    Denial::new(Reason::Internal, detail)
}
