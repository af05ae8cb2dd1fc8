//! Putting the secret on the call, and taking it off the answer.
//!
//! **Invariant:** a request that carries a secret exists only as [`Injected`]: built from the permit's own secret, bound to a peer that
//! was verified as the permit's target, and sent nowhere else.

mod form;
mod prepared;
mod scrub;
mod spare;
mod template;

use http::header::HeaderName;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri, Version};
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::Credential;
use tollgate_secrets::Secret;

pub(crate) use self::prepared::Prepared;
use self::prepared::Ready;
pub(crate) use self::scrub::answer_head;
pub(crate) use self::template::Template;
use crate::identity;
use crate::ledger::Position;
use crate::upstream::{Answer, OutBody, Peer, Unanswered};

/// Whether `secret` can be put on a call as `credential` says.
pub(crate) fn fits(credential: &Credential, secret: &Secret) -> bool {
    prepared::ready(&credential.inject, secret).is_some()
}

/// One attempt, ready to leave. No `Debug`: its request line may hold the secret.
pub(crate) struct Injected {
    peer: Peer,
    request: Request<OutBody>,
}

impl Injected {
    /// Puts `secret` on a copy of `template` for `peer`.
    ///
    /// # Errors
    /// `internal` where peer, secret or template are not the permit's: a bug, found before anything leaves.
    pub(crate) fn new(
        template: &mut Template,
        permit: &Permit,
        secret: Option<&Secret>,
        prepared: &Prepared,
        peer: Peer,
    ) -> Result<Self, Denial> {
        if peer.host() != permit.target().host() {
            return Err(bug("the peer is not the permit's"));
        }
        let ready = match (permit.credential(), secret) {
            (None, None) => None,
            (Some(credential), Some(secret)) => {
                let ready = prepared.ready(credential, secret);
                Some(ready.ok_or_else(|| bug("the secret is not the permit's, or cannot be put on a call"))?)
            }
            _ => return Err(bug("the secret is not the permit's")),
        };
        let body = template.take_body().ok_or_else(|| bug("the body was sent before"))?;
        let mut request = Request::new(body);
        *request.method_mut() = template.method.clone();
        *request.headers_mut() =
            template.take_headers().ok_or_else(|| bug("the headers cannot be read back"))?;
        let mut path = template.path.clone();
        match ready {
            Some(Ready::Header(name, value)) => {
                request.headers_mut().insert(&name, value);
                if !is_alone(request.headers(), &name) {
                    return Err(bug("the injected header is not the only one of its name"));
                }
            }
            Some(Ready::Query(pair)) => {
                path = form::with_pair(&path, &pair).ok_or_else(|| bug("the query is too long"))?;
            }
            None => {}
        }
        let (authority, host) = peer.authority();
        if peer.is_http2() {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = absolute(authority.clone(), path).ok_or_else(|| bug("no URI"))?;
        } else {
            request.headers_mut().insert(http::header::HOST, host.clone());
            *request.uri_mut() = Uri::from(path);
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
    ) -> impl Future<Output = Result<Answer, Unanswered>> + use<> {
        self.peer.exchange(self.request, after)
    }
}

/// Whether no other header can be read as this one.
fn is_alone(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().filter(|other| identity::same_name(other.as_str(), name.as_str())).count() == 1
        && headers.get_all(name).iter().count() == 1
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
