//! Secret, peer, injection, send: one attempt, and the few cases in which there is another.
//!
//! **Invariant:** another attempt is made only while no byte of an answer was released and the body can be sent again: for free where a
//! kept connection returned the request unsent, with another key of the pool where the provider refused one, and once where there is a
//! newer version of a secret that it rejected.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, response};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};

use crate::core::Core;
use crate::error;
use crate::fault::{Faults, Stage};
use crate::injection::{Injected, Scrubber, Template};
use crate::keys::{Chosen, Turn};
use crate::listener::Connection;
use crate::metering::Meter;
use crate::snapshot::Snapshot;
use crate::upstream::{Answer, AnswerBody, Lease, Peer, Unanswered, Upload, UpstreamError};

/// How often a request that a closing connection returned is put on another one.
const RESENDS: usize = 3;
/// Of what a failed connection says: a certificate may name thousands of hosts.
const CAUSE_CHARS: usize = 500;
/// How often a call that is under way is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The head of the provider's answer and what is needed to pass the rest on.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) head: response::Parts,
    pub(crate) body: AnswerBody,
    pub(crate) lease: Lease,
    pub(crate) permit: Permit,
    pub(crate) key: Option<Chosen>,
    /// What the body has to go through.
    pub(crate) scrubber: Option<Scrubber>,
    pub(crate) faults: Faults,
}

impl Answered {
    pub(crate) fn new(answer: Answer, permit: Permit, key: Option<Chosen>, faults: Faults) -> Box<Self> {
        let (head, body) = answer.response.into_parts();
        Box::new(Self { head, body, lease: answer.lease, permit, key, scrubber: None, faults })
    }
}

/// What all attempts of a call have in common.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) faults: Faults,
}

enum Unsent {
    /// A kept connection was closing; the request came back whole.
    Again,
    Failed(Denial),
}

impl Way<'_> {
    /// Sends `template` until there is an answer to pass on. With it comes the key that it answers to.
    pub(crate) async fn send(
        self,
        permit: &Permit,
        template: &mut Template,
        meter: &mut Meter,
    ) -> Result<(Answer, Option<Chosen>), Denial> {
        let core = &*self.connection.core;
        self.faults.at(Stage::Secret);
        let mut turn = Turn::new(core, permit);
        let mut key = turn.first().await?;
        let mut resends = 0;
        loop {
            self.faults.at(Stage::Connect);
            let mut answer = match self.once(permit, template, key.as_ref(), meter).await {
                Ok(answer) => answer,
                Err(Unsent::Again) if resends < RESENDS => {
                    resends += 1;
                    continue;
                }
                Err(Unsent::Again) => return Err(error::upstream(&UpstreamError::Unsent)),
                Err(Unsent::Failed(denial)) => return Err(denial),
            };
            let Some(chosen) = &key else { return Ok((answer, None)) };
            let Some(said) = turn.hear(chosen, &mut answer).await else { return Ok((answer, key)) };
            let next = Box::pin(turn.next(chosen, &said, template.replayable())).await;
            if next.is_none() && turn.passes_on(&answer) {
                return Ok((answer, key));
            }
            answer.discard();
            meter.rejected();
            key = Some(next.ok_or_else(|| turn.refusal())?);
        }
    }

    async fn once(
        &self,
        permit: &Permit,
        template: &mut Template,
        key: Option<&Chosen>,
        meter: &mut Meter,
    ) -> Result<Answer, Unsent> {
        let Self { connection, snapshot, .. } = *self;
        let core = &*connection.core;
        let fail = |meter: &mut Meter, error: &UpstreamError| {
            meter.attempt_failed(error::upstream_reason(error));
            log_failure(core, permit, error);
            Unsent::Failed(error::upstream(error))
        };
        let tls = snapshot.tls(&permit.destination().name).ok_or_else(|| Unsent::Failed(no_tls()))?;
        let peer =
            Peer::for_permit(&core.pool, &core.shared.rules, tls, permit, key.map(|key| &*key.secret)).await;
        let peer = peer.map_err(|error| fail(meter, &error))?;
        if peer.is_http2() {
            meter.written().await.map_err(Unsent::Failed)?;
        }
        let upload = template.upload();
        let answer = self.leave(permit, template, key, peer, meter).map_err(Unsent::Failed)?;
        match self.first_byte(pin!(answer), upload, permit, meter).await {
            Err(Late::Timeout) => Err(fail(meter, &UpstreamError::FirstByteTimeout)),
            Err(Late::Withdrawn(denial)) => Err(Unsent::Failed(denial)),
            Ok(Ok(answer)) if is_ambiguous(answer.response.headers()) => {
                Err(fail(meter, &UpstreamError::Framing))
            }
            Ok(Ok(answer)) => {
                meter.answered(answer.response.status());
                Ok(answer)
            }
            Ok(Err(unanswered)) => {
                meter.written().await.map_err(Unsent::Failed)?;
                match unanswered.returned {
                    Some(body) => {
                        template.restore(body);
                        meter.unsent();
                        Err(Unsent::Again)
                    }
                    None => Err(fail(meter, &UpstreamError::Broken(unanswered.error))),
                }
            }
        }
    }

    /// Puts the secret on the call and hands it to its connection. The future waits for the answer.
    fn leave(
        &self,
        permit: &Permit,
        template: &mut Template,
        key: Option<&Chosen>,
        peer: Peer,
        meter: &mut Meter,
    ) -> Result<impl Future<Output = Result<Answer, Unanswered>> + use<>, Denial> {
        self.faults.at(Stage::Inject);
        self.still_permitted(permit, meter)?;
        let core = &*self.connection.core;
        let injected = Injected::new(template, permit, key, &core.prepared, peer)?;
        meter.attempt(injected.peer(), key);
        self.faults.at(Stage::Send);
        meter.sent();
        Ok(injected.send(meter.line()))
    }

    /// Waits for the head of the answer: the limit counts from the last byte of the request that left. A body that streams goes on only
    /// while it is permitted.
    async fn first_byte(
        &self,
        mut answer: Pin<&mut impl Future<Output = Result<Answer, Unanswered>>>,
        upload: Option<Arc<Upload>>,
        permit: &Permit,
        meter: &mut Meter,
    ) -> Result<Result<Answer, Unanswered>, Late> {
        let limit = permit.destination().timeouts.first_byte;
        let Some(upload) = upload else {
            return timeout(limit, answer).await.map_err(|_| Late::Timeout);
        };
        meter.uploads(&upload);
        let (mut before, mut moved) = (0, Instant::now());
        loop {
            if let Ok(done) = timeout(LOOK_EVERY.min(limit), answer.as_mut()).await {
                return Ok(done);
            }
            self.still_permitted(permit, meter).map_err(Late::Withdrawn)?;
            if upload.bytes() > before {
                (before, moved) = (upload.bytes(), Instant::now());
            } else if moved.elapsed() >= limit {
                return Err(Late::Timeout);
            }
        }
    }

    /// A policy that came since the call was decided may have withdrawn what it was decided by.
    fn still_permitted(&self, permit: &Permit, meter: &Meter) -> Result<(), Denial> {
        let snapshots = &self.connection.core.shared.snapshots;
        if snapshots.generation() == self.snapshot.generation {
            return Ok(());
        }
        let current = self.connection.core.snapshot()?;
        let grants = self.connection.caller(&current, Timestamp::now())?.grants;
        if current.policy.reauthorise(&grants, permit, meter.model()) {
            return Ok(());
        }
        Err(Denial::new(Reason::NoGrant, "the grant was withdrawn before the call was complete"))
    }
}

/// Why there is no answer in time.
enum Late {
    Timeout,
    Withdrawn(Denial),
}

fn no_tls() -> Denial {
    Denial::new(Reason::Internal, "the destination has no TLS configuration")
}

/// Why there is no connection, where an operator sees it; what comes later is the provider's doing and in the record.
#[cold]
fn log_failure(core: &Core, permit: &Permit, error: &UpstreamError) {
    let (destination, reason) = (&permit.destination().name, error::upstream_reason(error));
    let is_dial =
        matches!(error, UpstreamError::Dial(_) | UpstreamError::Tls(_) | UpstreamError::ConnectTimeout);
    if is_dial && core.shared.said.upstreams.is_due((destination.clone(), reason)) {
        let error: String = error.to_string().chars().take(CAUSE_CHARS).collect();
        tracing::warn!(%destination, reason = reason.as_str(), %error, "no connection; said once a minute");
    } else {
        tracing::debug!(%destination, %error, "attempt failed");
    }
}

/// Whether two readers could find the end of the answer in two places (RFC 9112, section 6.3).
fn is_ambiguous(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return false };
    let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_some() || !digits || headers.contains_key(TRANSFER_ENCODING)
}
