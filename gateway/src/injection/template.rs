//! The request as it will leave, but for the secret: rebuilt from the target, so that what was matched is what is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, IF_RANGE, RANGE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, response};
use jiff::Timestamp;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::Carriers;
use tollgate_policy::operation::{HttpRequest, Upgrade};
use tollgate_policy::policy::{Credential, HttpDestination, Injection};

use super::packed_headers::PackedHeaders;
use super::sigv4;
use crate::caller_occupancy::BufferReservation;
use crate::identity::{self, AwsScope, RequestHead};
use crate::in_place::boxed;
use crate::trace::CallTrace;
use crate::upstream::{AlpnOffer, OutBody, TrailerFilter, Upload};
use crate::websocket::{Handshake, Switched};

/// In what forms the messages inside a body may come back (the gRPC and Connect protocols).
static MESSAGE_ENCODINGS: [HeaderName; 2] =
    [HeaderName::from_static("grpc-accept-encoding"), HeaderName::from_static("connect-accept-encoding")];

static RANGES: [HeaderName; 2] = [RANGE, IF_RANGE];

/// Names a call for whoever may get it twice (the IETF's draft-ietf-httpapi-idempotency-key-header; Stripe, OpenAI and others).
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Method, path, headers and body of every attempt of one call.
#[derive(Debug)]
pub(crate) struct Template {
    destination: Arc<HttpDestination>,
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    /// Where the request is signed for AWS: what for.
    pub(super) aws_scope: Option<AwsScope>,
    /// The caller's own, where the grant passes it on. Not among the headers, which are copied.
    pub(super) token: Option<HeaderValue>,
    /// Whether trailers of the answer are asked for.
    pub(super) takes_trailers: bool,
    headers: Option<HeaderMap>,
    packed: PackedHeaders,
    body: Option<OutBody>,
    replayable: bool,
    grpc: bool,
    room: BufferReservation,
    /// The trace that the destination is told of.
    context: HeaderMap,
    /// Where it asks for WebSocket.
    handshake: Option<Box<Handshake>>,
}

impl Template {
    /// # Errors
    /// `bad_request` where the target cannot be written as a request line, `caller_token` where the caller's own token cannot be passed on,
    /// `internal` where no request is permitted: a bug.
    pub(crate) fn new(
        mut head: Box<RequestHead>,
        permit: &Permit,
        now: Timestamp,
    ) -> Result<Box<Self>, Denial> {
        let token = head.credentials.passed_on(permit, now)?;
        let request = permit.http().ok_or_else(|| super::bug("the permit is for no request"))?;
        let carriers = request.destination().dialect.carriers();
        let own = permit.credential().map_or(&[][..], |credential| &credential.inject);
        let kept = |query| {
            let mut names = carriers.queries.clone();
            names.extend(own.iter().flat_map(Injection::queries).map(Box::from));
            identity::without(query, &names, permit.credential().is_some())
        };
        let path = line(head.path(), request.path(), request.query().and_then(kept).as_deref())?;
        let handshake = handshake(&mut head, permit)?;
        let (method, takes_trailers, mut headers) = (head.method, head.takes_trailers, head.headers);
        withhold(&mut headers, carriers, own, &unsearchable(permit), |_| false);
        // Usage is read off the answer, and a secret is looked for in it: it has to come as it is.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(handshake) = &handshake {
            handshake.write(&mut headers);
        }
        let aws_scope = match permit.credential().and_then(|credential| credential.sigv4()) {
            Some(_) if request.query().is_some_and(sigv4::is_presigned) => {
                let detail = "a presigned URL is not signed again; sign in the header";
                return Err(Denial::new(Reason::BadRequest, detail));
            }
            Some(_) if sigv4::reads_elsewhere(&headers) => {
                let detail = "a copy or rename reads a path that the grant does not decide on";
                return Err(Denial::new(Reason::PathNotAllowed, detail));
            }
            Some(aws) => {
                Some(sigv4::scope(aws, head.aws_scope.as_ref(), headers.get(sigv4::CONTENT_SHA256))?)
            }
            None => None,
        };
        Ok(boxed(|| Self {
            destination: Arc::clone(request.destination()),
            method,
            path,
            aws_scope,
            token,
            takes_trailers,
            packed: PackedHeaders::pack(&headers),
            grpc: is_grpc(&headers),
            headers: Some(headers),
            body: None,
            replayable: false,
            room: BufferReservation::default(),
            context: HeaderMap::new(),
            handshake,
        }))
    }

    /// Gives it the body to send, and the room that this takes up until it is no longer needed.
    pub(crate) fn carry(&mut self, (mut body, room): (OutBody, BufferReservation), permit: &Permit) {
        body.pass_trailers(|| Box::new(CallerTrailers::of(&self.destination, permit)));
        self.replayable = body.again().is_some();
        (self.body, self.room) = (Some(body), room);
    }

    /// The next attempt tells of the trace that the call belongs to.
    pub(crate) fn tell(&mut self, trace: &CallTrace) {
        self.context.clear();
        trace.pass_on(&mut self.context);
    }

    /// What its connection has to speak.
    pub(crate) fn offer(&self) -> AlpnOffer {
        match self.handshake {
            Some(_) => AlpnOffer::Http1,
            None => AlpnOffer::of(self.destination.version, self.grpc),
        }
    }

    /// Whether the provider goes on with WebSocket. `head` becomes what the caller is answered.
    ///
    /// # Errors
    /// As [`Handshake::judge`].
    pub(crate) fn switched(&self, head: &mut response::Parts) -> Result<Option<Switched>, Denial> {
        Handshake::judge(self.handshake.as_deref(), head)
    }

    /// How long its answer may take to begin.
    pub(crate) fn first_byte(&self) -> Duration {
        self.destination.first_byte
    }

    /// How long its call may take altogether.
    pub(crate) fn total(&self) -> Option<Duration> {
        self.destination.total
    }

    /// Whether a further attempt could be made.
    pub(crate) const fn replayable(&self) -> bool {
        self.replayable
    }

    /// Whether the call may be made twice: its method is idempotent (RFC 9110, section 9.2.2), or it has a key by which the provider knows
    /// it again; and its body is here.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.replayable && (is_idempotent(&self.method) || self.packed.has(&IDEMPOTENCY_KEY))
    }

    /// Whether its method alone says that it may be made twice.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// Whether it is a call that there is over HTTP/2 alone.
    pub(crate) const fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Takes back a body that never left.
    pub(crate) fn restore(&mut self, body: OutBody) {
        self.body = Some(body);
    }

    /// How far a body that streams has come.
    pub(crate) fn upload(&self) -> Option<Arc<Upload>> {
        self.body.as_ref().and_then(OutBody::upload)
    }

    pub(super) fn take_headers(&mut self) -> Option<HeaderMap> {
        let mut headers = self.headers.take().or_else(|| self.packed.unpack())?;
        for (name, value) in &self.context {
            headers.append(name, value.clone());
        }
        Some(headers)
    }

    pub(super) fn take_body(&mut self) -> Option<OutBody> {
        match self.body.as_ref()?.again() {
            Some(copy) => Some(copy),
            None => self.body.take(),
        }
    }
}

/// The target as it was matched, without what does not leave of its query: mostly as it `came`.
fn line(came: &PathAndQuery, path: &str, query: Option<&str>) -> Result<PathAndQuery, Denial> {
    if came.as_str() == path && query.is_none() {
        return Ok(came.clone());
    }
    let line = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::from_maybe_shared(Bytes::from(line))
        .map_err(|_| Denial::new(Reason::BadRequest, "the target cannot be written as a request line"))
}

/// What would have an answer come in a form in which a reflected secret is not found: half of it in each of two answers is in neither.
fn unsearchable(permit: &Permit) -> impl Iterator<Item = &'static HeaderName> + Clone + use<> {
    let (scrubs, ranges) = (permit.scrubs_bodies(), permit.grant().allow.range);
    let ranges = RANGES.iter().filter(move |_| !ranges);
    ranges.chain(&MESSAGE_ENCODINGS).filter(move |_| scrubs)
}

/// The handshake of a permitted upgrade. Compressed messages could not be searched for a key, or read for what is billed.
fn handshake(head: &mut RequestHead, permit: &Permit) -> Result<Option<Box<Handshake>>, Denial> {
    let Some(Upgrade::Websocket) = permit.http().and_then(HttpRequest::upgrade) else { return Ok(None) };
    let offer = head.offer().ok_or_else(|| super::bug("the upgrade has no handshake"))?;
    let is_metered = permit.endpoint().is_some_and(|endpoint| endpoint.session.is_some());
    let is_read = is_metered || permit.scrubs_bodies() || permit.scrubs_plain_bodies();
    offer.ask(!is_read).map(Box::new).map(Some)
}

fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || matches!(*method, Method::PUT | Method::DELETE)
}

/// Not gRPC-Web, whose content type goes on with a hyphen.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The rules for the trailers of one call: those of its head, and what a recipient may not take from a trailer.
#[derive(Debug)]
struct CallerTrailers {
    destination: Arc<HttpDestination>,
    credential: Option<Arc<Credential>>,
}

impl CallerTrailers {
    fn of(destination: &Arc<HttpDestination>, permit: &Permit) -> Self {
        Self { destination: Arc::clone(destination), credential: permit.credential().cloned() }
    }
}

impl TrailerFilter for CallerTrailers {
    fn clean(&self, trailers: &mut HeaderMap) {
        identity::strip_headers(trailers);
        let own = self.credential.as_ref().map_or(&[][..], |credential| &credential.inject);
        // What describes the content is decided on before it comes (RFC 9110, section 6.5.1).
        let describes = |name: &HeaderName| name.as_str().starts_with("content-");
        withhold(trailers, self.destination.dialect.carriers(), own, &std::iter::empty(), describes);
    }
}

/// Removes what carries a credential or chooses an account at this provider, however it is spelt: many read `_` as `-`. Likewise what stands
/// `beside` that, and what `goes` says.
fn withhold(
    headers: &mut HeaderMap,
    carriers: &Carriers,
    own: &[Injection],
    beside: &(impl Iterator<Item = &'static HeaderName> + Clone),
    goes: impl Fn(&HeaderName) -> bool,
) {
    let theirs = || carriers.headers.iter().chain(&carriers.account_headers).map(|carrier| &**carrier);
    let all = || {
        theirs()
            .chain(own.iter().flat_map(Injection::headers))
            .chain(beside.clone().map(|name| name.as_str()))
    };
    // Few names have the length and the last letter of a carrier.
    let bit = |name: &str| {
        let last = name.bytes().next_back().map_or(0, |last| if last == b'_' { b'-' } else { last });
        1_u64 << ((name.len() * 11 + usize::from(last & 0x1f)) % 64)
    };
    let known = all().fold(0, |known, carrier| known | bit(carrier));
    let carries = |name: &HeaderName| {
        let name = name.as_str();
        known & bit(name) != 0 && all().any(|carrier| identity::same_name(carrier, name))
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| carries(name) || goes(name)).cloned().collect();
    for name in gone {
        headers.remove(&name);
    }
}
