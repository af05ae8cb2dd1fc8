//! The far side: from a permit to a verified connection, and back into the pool.
//!
//! **Invariant:** a [`Peer`] exists only after the TLS handshake verified the target's own name, and only injection may send on it.

mod address;
mod answer;
mod body;
mod certificate;
mod dial;
mod heard;
mod offer;
mod pool;
mod resolve;
mod speak;
mod tls;
mod unanswered;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use http::uri::Authority;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tollgate_policy::caller::Identity;
use tollgate_policy::decision::Permit;
use tollgate_secrets::Secret;

pub use self::address::{DialRules, local_addresses};
pub(crate) use self::answer::{AnswerBody, Unreadable};
pub(crate) use self::body::{BodyError, Malformed, OutBody, Recode, Stall, Trailers, Upload};
pub(crate) use self::certificate::{BadCertificate, Shown, dated, ends, fits};
use self::dial::{Dial, Reach};
pub(crate) use self::dial::{DialError, KEEPALIVE};
use self::heard::{alert, refusal};
pub(crate) use self::offer::Offer;
pub(crate) use self::pool::{Bucket, Pool};
use self::pool::{Key, Line, StreamSlot, Verified};
pub(crate) use self::resolve::{LookupError, Resolver};
pub(crate) use self::tls::{CaState, TlsClient, TlsClients, ca_state};
pub(crate) use self::unanswered::{Fate, Unanswered};
use crate::ledger::{Gate, Position};

/// Why there is no connection, or no answer on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS handshake failed: {0}")]
    Tls(std::io::Error),
    #[error("the client certificate cannot be shown: {0}")]
    Certificate(#[from] BadCertificate),
    #[error("the destination refused the client certificate: {0:?}")]
    CertificateRefused(AlertDescription),
    #[error("connect timed out")]
    ConnectTimeout,
    #[error("the connection closed before the request could leave")]
    Unsent,
    #[error("the provider refused the request unread: {0}")]
    Unprocessed(hyper::Error),
    #[error("it does not speak the HTTP that was asked for; `http` in its resource says which")]
    OtherHttp,
    #[error("no answer in time")]
    FirstByteTimeout,
    #[error("the HTTP handshake failed: {0}")]
    Handshake(hyper::Error),
    #[error("the answer's framing is ambiguous")]
    Framing,
    #[error("the answer cannot be read: {0}")]
    Unreadable(Unreadable),
    #[error("the provider broke off: {0}")]
    Broken(hyper::Error),
}

impl UpstreamError {
    /// A handshake that failed.
    fn handshake(error: std::io::Error) -> Self {
        if alert(&error) == Some(AlertDescription::NoApplicationProtocol) {
            return Self::OtherHttp;
        }
        refusal(&error).map_or(Self::Tls(error), Self::CertificateRefused)
    }

    /// A connection that broke off before the first request.
    fn spoken(error: hyper::Error, verified: &Verified) -> Self {
        let refused = verified.refused.get().copied();
        refused.map_or(Self::Handshake(error), Self::CertificateRefused)
    }

    /// Whether it is about the certificate that we show.
    pub(crate) const fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::CertificateRefused(_))
    }
}

/// How a connection is made safe: what verifies the other side, and what it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tls<'a> {
    pub(crate) client: &'a TlsClient,
    pub(crate) shown: Option<Shown<'a>>,
}

/// What kind of connection a call needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) offer: Offer,
    /// Not one that was kept.
    pub(crate) fresh: bool,
}

/// An upstream connection (one stream slot in HTTP/2) whose TLS name was verified.
#[derive(Debug)]
pub(crate) struct Peer {
    line: Line,
    verified: Arc<Verified>,
    bucket: Arc<Bucket>,
    reused: bool,
}

impl Peer {
    /// A kept connection for this permit, or a new one.
    pub(crate) async fn for_permit(
        pool: &Pool,
        rules: &DialRules,
        tls: Tls<'_>,
        permit: &Permit,
        secret: Option<&Secret>,
        wanted: Wanted,
    ) -> Result<Self, UpstreamError> {
        let destination = permit.destination();
        let target = permit.target();
        let mut key = Key {
            destination: destination.name.clone(),
            host: target.host_shared(),
            port: target.port(),
            tls: tls.client.id,
            source: destination.source_address,
            credential: permit.credential().zip(secret).map(|(c, s)| (c.name.clone(), s.version().clone())),
            certificate: tls.shown.map(|shown| shown.key()),
            offer: wanted.offer,
        };
        let host = Arc::clone(&key.host);
        let mut bucket = pool.bucket(&key);
        if bucket.needs_http1() {
            key.offer = Offer::Http1;
            bucket = pool.bucket(&key);
        }
        let caller = permit.caller().id();
        if !wanted.fresh
            && let Some((line, verified)) = bucket.take(caller)
        {
            return Ok(Self { line, verified, bucket, reused: true });
        }
        pool.make_room(&destination.name);
        let config = match tls.shown {
            Some(shown) => pool.showing.config(&destination.name, tls.client, shown)?,
            None => Arc::clone(&tls.client.config),
        };
        let dial = Dial {
            destination: &destination.name,
            host: &host,
            port: target.port(),
            fixed: &destination.addresses,
            source: destination.source_address,
            timeout: destination.timeouts.connect,
        };
        let gate = Arc::new(Gate::new(&pool.journal));
        // Boxed: most calls find a kept connection, and none should carry the handshake's state around.
        let reach = Reach { rules, resolver: &pool.resolver };
        let config = key.offer.config(config);
        Box::pin(Self::open(dial, reach, (config, key.offer), caller, bucket, gate)).await
    }

    async fn open(
        dial: Dial<'_>,
        reach: Reach<'_>,
        (config, offer): (Arc<ClientConfig>, Offer),
        caller: &Identity,
        bucket: Arc<Bucket>,
        gate: Arc<Gate>,
    ) -> Result<Self, UpstreamError> {
        let deadline = Instant::now() + dial.timeout;
        let tcp = dial.connect(reach).await?;
        let bare = dial.host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|error| UpstreamError::Tls(std::io::Error::other(error)))?;
        let host: Arc<str> = dial.host.into();
        let verified = |tcp: &TcpStream| -> std::io::Result<Verified> {
            let (remote, source) = (tcp.peer_addr()?.to_string(), tcp.local_addr()?.ip().to_string());
            let authority = authority(dial.host, dial.port).map_err(std::io::Error::other)?;
            let (remote, source) = (remote.into(), source.into());
            let (refused, heard, moves) = (OnceLock::new(), AtomicU64::new(0), Notify::new());
            Ok(Verified { host, authority, remote, source, gate, refused, heard, moves })
        };
        let verified =
            Arc::new(verified(&tcp).map_err(|error| UpstreamError::Dial(DialError::Connect(error)))?);
        let connector = TlsConnector::from(config);
        let stream = timeout_at(deadline, connector.connect(name, tcp))
            .await
            .map_err(|_| UpstreamError::ConnectTimeout)?
            .map_err(UpstreamError::handshake)?;
        let line = speak::speak(stream, (offer, deadline), caller, &bucket, &verified).await?;
        Ok(Self { line, verified, bucket, reused: false })
    }

    /// The name that the peer's certificate was verified for.
    pub(crate) fn host(&self) -> &str {
        &self.verified.host
    }

    /// Host and port as a request names them, for HTTP/2 and for `Host`.
    pub(crate) fn authority(&self) -> &(Authority, HeaderValue) {
        &self.verified.authority
    }

    /// The address and port that was dialled.
    pub(crate) fn remote(&self) -> Arc<str> {
        Arc::clone(&self.verified.remote)
    }

    /// The address the call leaves from.
    pub(crate) fn source(&self) -> Arc<str> {
        Arc::clone(&self.verified.source)
    }

    pub(crate) const fn is_http2(&self) -> bool {
        matches!(self.line, Line::Http2(..))
    }

    /// The connections that it is one of.
    pub(crate) fn bucket(&self) -> Arc<Bucket> {
        Arc::clone(&self.bucket)
    }

    /// Hands the request over; the future waits for the head of the answer. Over HTTP/1 the request leaves only when the journal has the
    /// line `after`; over HTTP/2, where others share the connection, the caller has seen to that. Called by injection alone: what is sent
    /// carries the secret.
    pub(crate) fn exchange(
        self,
        request: Request<OutBody>,
        after: Option<Position>,
    ) -> impl Future<Output = Result<Answer, Unanswered>> + use<> {
        let Self { line, verified, bucket, reused } = self;
        let heard = verified.heard();
        if let Line::Http1(_) = line {
            verified.gate.close(after);
        }
        let done = move |sent: Result<Response<Incoming>, TrySendError<Request<OutBody>>>, line| match sent {
            Ok(response) => {
                let lease = Lease { line, verified, bucket };
                Ok(Answer { response: response.map(AnswerBody::from), lease })
            }
            Err(mut error) => Err(Unanswered {
                returned: error.take_message().map(Request::into_body),
                error: error.into_error(),
                refused: verified.refused.get().copied().filter(|_| !reused),
                died: reused && line.is_silent_since(heard, &verified),
            }),
        };
        // Not an `async` block: that would hold what it waits for twice.
        match line {
            Line::Http1(mut sender) => {
                let sent = sender.try_send_request(request);
                sent.map(move |sent| done(sent, Lent::Http1(sender))).left_future()
            }
            Line::Http2(mut sender, slot) => {
                let sent = sender.try_send_request(request);
                sent.map(move |sent| done(sent, Lent::Http2(slot))).right_future()
            }
        }
    }
}

/// Without the port that HTTPS implies.
fn authority(host: &str, port: u16) -> Result<(Authority, HeaderValue), http::Error> {
    let authority = match port {
        443 => Authority::try_from(host)?,
        port => Authority::try_from(format!("{host}:{port}"))?,
    };
    let host = HeaderValue::from_str(authority.as_str())?;
    Ok((authority, host))
}

/// The head of an answer, with the connection it came on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<AnswerBody>,
    pub(crate) lease: Lease,
}

impl Answer {
    /// Lets go of an answer that nobody gets.
    pub(crate) fn discard(self) {
        if self.response.body().is_here() {
            self.lease.finish();
        }
    }
}

#[derive(Debug)]
enum Lent {
    Http1(http1::SendRequest<OutBody>),
    Http2(#[expect(dead_code, reason = "held for its drop")] StreamSlot),
}

impl Lent {
    /// Whether nothing came since `heard`. Over HTTP/2 others are heard as well: nothing of this answer did.
    fn is_silent_since(&self, heard: u64, verified: &Verified) -> bool {
        match self {
            Self::Http1(_) => verified.heard() == heard,
            Self::Http2(_) => true,
        }
    }
}

/// A connection in use by one answer. Dropped, an HTTP/1 connection closes; [`Lease::finish`] gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    line: Lent,
    verified: Arc<Verified>,
    bucket: Arc<Bucket>,
}

impl Lease {
    /// The answer was read to its end.
    pub(crate) fn finish(self) {
        if let Lent::Http1(sender) = self.line {
            self.bucket.put(sender, self.verified);
        }
    }
}
