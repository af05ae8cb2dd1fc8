//! An HTTP connection to a destination, kept or new, and one exchange on it.
//!
//! **Invariant:** a [`Peer`] is made of a [`Secured`] connection or taken from the pool of those; only injection may send on it.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use http::uri::Authority;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;
use tollgate_policy::decision::Permit;
use tollgate_policy::policy::OutlierDetection;
use tollgate_secrets::Secret;

use super::address::DialRules;
use super::alpn::AlpnOffer;
use super::answer::AnswerBody;
use super::body::OutBody;
use super::certificate::ClientCert;
use super::connect::Reach;
use super::connection_state::ConnectionState;
use super::error::UpstreamError;
use super::health::EndpointFailure;
use super::http_handshake::{Http1Sender, handshake};
use super::pool::{Bucket, Pool, PoolKey, Sender, StreamSlot};
use super::send_failure::SendFailure;
use super::tls::TlsClient;
use super::upstream_slot::UpstreamSlot;
use crate::in_place::boxed;
use crate::incoming::IncomingBody;
use crate::ledger::Position;
use crate::trace::Opened;

/// How a connection is made safe: what verifies the other side, and what it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsParams<'a> {
    pub(crate) client: &'a TlsClient,
    pub(crate) client_cert: Option<ClientCert<'a>>,
}

/// What kind of connection a call needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerOptions {
    pub(crate) offer: AlpnOffer,
    /// Not one that was kept.
    pub(crate) fresh: bool,
    /// An endpoint that has just failed the call: others are tried before it.
    pub(crate) except: Option<SocketAddr>,
    /// How many more calls the gateway takes.
    pub(crate) free: u64,
}

/// An upstream connection (one stream slot in HTTP/2) whose TLS name was verified.
#[derive(Debug)]
pub(crate) struct Peer {
    sender: Sender,
    state: Arc<ConnectionState>,
    bucket: Arc<Bucket>,
    reused: bool,
    /// Where it is a new connection.
    opened: Option<Opened>,
    place: UpstreamSlot,
}

/// What connections for this permit have in common, whichever source address has its turn.
fn key(permit: &Permit, secret: Option<&Secret>, tls: &TlsParams<'_>, offer: AlpnOffer) -> PoolKey {
    let (destination, target) = (permit.destination(), permit.target());
    PoolKey {
        destination: destination.name.clone(),
        host: target.host_shared(),
        port: target.port(),
        tls: tls.client.id,
        sources: destination.sources.clone(),
        turns: [None, None],
        credential: permit.credential().zip(secret).map(|(c, s)| (c.name.clone(), s.version().clone())),
        certificate: tls.client_cert.map(|cert| cert.key()),
        offer,
        proxy: destination.proxy.clone(),
    }
}

impl Peer {
    /// A kept connection for this permit, or a new one.
    pub(crate) async fn for_permit(
        pool: &Pool,
        rules: &DialRules,
        tls: TlsParams<'_>,
        permit: &Permit,
        secret: Option<&Secret>,
        wanted: PeerOptions,
    ) -> Result<Self, UpstreamError> {
        let destination = permit.destination();
        let target = permit.target();
        let caller = permit.caller().id();
        let plan = destination.sources.plan(caller, permit.credential().map(|credential| &credential.name));
        let is_had = |address| pool.sources.has(address);
        let mut key = PoolKey {
            turns: [false, true].map(|is_ipv4| plan.first(is_ipv4, is_had)),
            ..key(permit, secret, &tls, wanted.offer)
        };
        let mut bucket = pool.bucket(&key)?;
        if bucket.needs_http1() {
            key.offer = AlpnOffer::Http1;
            bucket = pool.bucket(&key)?;
        }
        let place = UpstreamSlot::take(&bucket, destination.resilience.circuit_breaker, wanted.free)?;
        let has_sources = destination.sources.rules().is_some();
        let usable = |state: &ConnectionState| state.is_usable(|own| !has_sources || is_had(own));
        if !wanted.fresh
            && let Some((sender, state)) = bucket.take(caller, usable)
        {
            return Ok(Self { sender, state, bucket, reused: true, opened: None, place });
        }
        // None is kept that is ready: a new one is dialled, secured and spoken on, and each of these may fail.
        pool.make_room(&destination.name);
        let config = match tls.client_cert {
            Some(cert) => pool.client_configs.config(&destination.name, tls.client, cert)?,
            None => Arc::clone(&tls.client.config),
        };
        let deadline = Instant::now() + destination.timeouts.connect;
        let dials = pool.dials(rules);
        let (host, offer) = (Arc::clone(&key.host), key.offer);
        // Boxed: most calls find a kept connection, and none should carry the handshake's state around.
        Box::pin(async move {
            let (rules, health) = (&destination.resilience.outlier_detection, Arc::clone(&bucket.health));
            let reach = Reach {
                destination,
                host: &health,
                towards: (&host, target.port()),
                sources: plan,
                except: wanted.except,
                proxy_tls: tls.client.proxy.as_ref(),
                deadline,
            };
            let reached = reach.connect(dials, || pool.shed(&destination.name)).await?;
            let dialled = Instant::now().into_std();
            let secured = reached.secure(Arc::clone(&host), offer.config(config), deadline).await?;
            let opened = Opened { dialled, secured: Instant::now().into_std() };
            let state = Arc::clone(secured.state());
            let new = handshake(secured, (offer, deadline), pool.answer_fields, &pool.journal).await;
            if new.as_ref().is_err_and(UpstreamError::is_unreached) {
                health.failed(state.endpoint.endpoint(), EndpointFailure::Connect, rules);
            }
            let sender = bucket.begin(new?, caller, &state);
            Ok(Self { sender, state, bucket, reused: false, opened: Some(opened), place })
        })
        .await
    }

    /// The name that the peer's certificate was verified for.
    pub(crate) fn host(&self) -> &str {
        &self.state.host
    }

    /// Host and port as a request names them, for HTTP/2 and for `Host`.
    pub(crate) fn authority(&self) -> &(Authority, HeaderValue) {
        &self.bucket.authority
    }

    /// The address and port that was dialled.
    pub(crate) fn remote(&self) -> Arc<str> {
        Arc::clone(&self.state.remote)
    }

    /// The address the call leaves from.
    pub(crate) fn source(&self) -> Arc<str> {
        Arc::clone(&self.state.source)
    }

    pub(crate) const fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(..))
    }

    /// When it came about, where it is a new one.
    pub(crate) const fn opened(&self) -> Option<Opened> {
        self.opened
    }

    /// The connection, for whoever has to say how it did.
    pub(crate) fn kept(&self) -> KeptConnection {
        KeptConnection { bucket: Arc::clone(&self.bucket), state: Arc::clone(&self.state) }
    }

    /// Hands the request over; the future waits for the head of the answer. Over HTTP/1 the request leaves only when the journal has the
    /// line `after`; over HTTP/2, where others share the connection, the caller has seen to that. Called by injection alone: what is sent
    /// carries the secret.
    pub(crate) fn exchange(
        self,
        request: Request<OutBody>,
        after: Option<Position>,
    ) -> impl Future<Output = Result<Box<Answer>, SendFailure>> + use<> {
        let Self { sender, state, bucket, reused, opened: _, place } = self;
        let received = state.received();
        let upload = request.body().upload();
        let done = move |sent: Result<Response<Incoming>, TrySendError<Request<OutBody>>>,
                         sender: SenderLease| match sent {
            Ok(response) => {
                let is_early = upload.is_some_and(|upload| !upload.is_whole());
                let lease = Lease { sender, state, bucket, is_early, _place: place };
                let version = response.version();
                let response = response.map(|body| IncomingBody::new(body, version).into());
                Ok(boxed(|| Answer { response, lease }))
            }
            Err(mut error) => Err(SendFailure {
                returned: error.take_message().map(Request::into_body),
                error: error.into_error(),
                refused: state.refusal().filter(|_| !reused),
                died: reused && sender.is_silent_since(received, &state),
            }),
        };
        // Not an `async` block: that would hold what it waits for twice.
        match sender {
            Sender::Http1(mut http1) => {
                http1.gate.close(after);
                let sent = http1.sender.try_send_request(request);
                sent.map(move |sent| done(sent, SenderLease::Http1(http1))).left_future()
            }
            Sender::Http2(mut sender, slot) => {
                let sent = sender.try_send_request(request);
                sent.map(move |sent| done(sent, SenderLease::Http2(slot))).right_future()
            }
        }
    }
}

/// A connection that a call was or is on, and those that are like it.
#[derive(Debug)]
pub(crate) struct KeptConnection {
    bucket: Arc<Bucket>,
    state: Arc<ConnectionState>,
}

impl KeptConnection {
    /// Hands none of those that are like it out again, as [`Bucket::retire`].
    pub(crate) fn retire(&self) {
        self.bucket.retire();
    }

    /// From now on such calls are to be made over HTTP/1.1.
    pub(crate) fn need_http1(&self) {
        self.bucket.need_http1();
    }

    /// The address and port at its other end.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.state.endpoint.endpoint().address()
    }

    /// Its endpoint answered as one that works.
    pub(crate) fn succeeded(&self) {
        self.state.endpoint.endpoint().succeeded();
    }

    /// Its endpoint failed a call.
    pub(crate) fn failed(&self, why: EndpointFailure, rules: &OutlierDetection) {
        self.bucket.health.failed(self.state.endpoint.endpoint(), why, rules);
    }
}

/// The head of an answer, with the connection it came on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<AnswerBody>,
    pub(crate) lease: Lease,
}

impl Answer {
    /// Lets go of an answer that nobody gets.
    pub(crate) fn discard(self: Box<Self>) {
        if self.response.body().is_here() {
            self.lease.finish();
        }
    }
}

#[derive(Debug)]
enum SenderLease {
    Http1(Http1Sender),
    Http2(#[expect(dead_code, reason = "held for its drop")] StreamSlot),
}

impl SenderLease {
    /// Whether nothing came since there were `received` bytes. Over HTTP/2 those of others are counted as well: nothing of this answer came.
    fn is_silent_since(&self, received: u64, state: &ConnectionState) -> bool {
        match self {
            Self::Http1(_) => state.received() == received,
            Self::Http2(_) => true,
        }
    }
}

/// A connection in use by one answer. Dropped, an HTTP/1 connection closes; [`Lease::finish`] gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: SenderLease,
    state: Arc<ConnectionState>,
    bucket: Arc<Bucket>,
    /// The answer came before the request was whole: what is still sent of it, the other side may take for the next one.
    is_early: bool,
    _place: UpstreamSlot,
}

impl Lease {
    /// The connection, for whoever has to say how it did.
    pub(crate) fn kept(&self) -> KeptConnection {
        KeptConnection { bucket: Arc::clone(&self.bucket), state: Arc::clone(&self.state) }
    }

    /// The answer was read to its end.
    pub(crate) fn finish(self) {
        if let SenderLease::Http1(http1) = self.sender
            && !self.is_early
        {
            self.bucket.put(http1, self.state);
        }
    }
}
