//! Secret, peer, injection, send: one attempt, and the few cases in which there is another.
//!
//! **Invariant:** another attempt is made only while no byte of an answer was released and the body can be sent again: with another key of
//! the pool where the provider refused one, once where there is a newer version of a secret that it rejected, and else as [`retry`] says.

mod client_certificate;
mod retry;

use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use jiff::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::name::ResourceId;

pub(crate) use self::client_certificate::certificate;
use self::client_certificate::newer;
use self::retry::RetryCount;
use crate::core::Core;
use crate::error;
use crate::fault::{Faults, Stage};
use crate::identity::CallerContext;
use crate::injection::{Injected, Template};
use crate::key_health::SelectedKey;
use crate::key_selector::KeySelector;
use crate::metering::{self, Account, PermittedCall};
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::upstream::{
    Answer, ClientCert, EndpointFailure, KeptConnection, Peer, PeerOptions, SendFailure, SendFate, TlsParams,
    Upload, UpstreamError,
};

/// Of what a failed connection says: a certificate may name thousands of hosts.
const CAUSE_CHARS: usize = 500;
/// How often a call that is under way is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What all attempts of a call have in common.
#[derive(Clone, Copy)]
pub(crate) struct Dispatch<'a> {
    pub(crate) core: &'a Core,
    pub(crate) session: &'a Session,
    pub(crate) context: &'a CallerContext,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) call: &'a PermittedCall,
    pub(crate) faults: Faults,
}

/// What one attempt has beside the call itself.
#[derive(Clone, Copy)]
struct AttemptOptions<'a> {
    key: Option<&'a SelectedKey>,
    certificate: Option<ClientCert<'a>>,
    /// It needs a connection that nothing was sent on before.
    fresh: bool,
    /// An endpoint that has just failed the call.
    except: Option<SocketAddr>,
}

/// Why an attempt has no answer, and so what may be done next.
enum Unsent {
    /// An endpoint let nobody speak to it while there are others, a connection was closing and the request came back whole, or the provider
    /// did not process it; why, where there is no more to be done.
    Again(Denial),
    /// A kept connection died before a byte of the answer.
    Died(Denial),
    /// The client certificate was refused: nothing of the request was looked at.
    Refused(Denial),
    Failed(Denial),
}

impl Dispatch<'_> {
    /// Sends `template` until there is an answer to pass on. With it comes the key that it answers to. A failure says whether the call may
    /// be made again, where that is known.
    pub(crate) async fn send(
        self,
        template: &mut Template,
        account: &mut Account,
    ) -> Result<(Box<Answer>, Option<SelectedKey>), Denial> {
        let sent = match account.deadline(template.total()) {
            None => self.answer(template, account).await,
            Some(deadline) => {
                let answer = timeout_at(deadline, self.answer(template, account)).await;
                answer.unwrap_or_else(|_| {
                    let over = UpstreamError::TotalTimeout { sent: account.is_out() };
                    Err(failed(self.core, &self.call.permit, &over, None, account))
                })
            }
        };
        sent.map_err(|denial| match account.is_out() {
            false if error::is_passing(denial.reason) => denial.repeatable(true),
            true if !template.is_repeatable() && account.is_charged(denial.reason) => {
                denial.repeatable(false)
            }
            _ => denial,
        })
    }

    async fn answer(
        self,
        template: &mut Template,
        account: &mut Account,
    ) -> Result<(Box<Answer>, Option<SelectedKey>), Denial> {
        // First the secrets: where one cannot be had, nothing is dialled.
        let core = self.core;
        self.faults.at(Stage::Secret);
        let mut selector = KeySelector::new(core, &self.call.permit);
        let mut key = selector.first().await?;
        let mut certificate =
            certificate(core, self.snapshot, self.call.permit.destination(), account).await?;
        let mut renewed = false;
        let mut retries = RetryCount::new(core, &self.call.permit);
        // Then attempts, until one has an answer or there is no reason for another.
        loop {
            self.faults.at(Stage::Connect);
            let shown = certificate.as_ref().map(|(credential, secret)| ClientCert { credential, secret });
            let (fresh, except) = (retries.need_fresh(), retries.except);
            let options = AttemptOptions { key: key.as_ref(), certificate: shown, fresh, except };
            let mut answer = match self.try_once(template, options, account).await {
                Ok(answer) => answer,
                Err(Unsent::Refused(denial)) => {
                    account.rejected();
                    let spent = renewed || !template.replayable();
                    let newer = Box::pin(newer(core, shown, spent)).await;
                    let (Some(newer), Some((_, secret))) = (newer, certificate.as_mut()) else {
                        return Err(denial);
                    };
                    renewed = true;
                    *secret = newer;
                    continue;
                }
                Err(Unsent::Again(_)) if retries.take() => continue,
                Err(Unsent::Died(_)) if retries.take_after_death(template, account) => continue,
                Err(Unsent::Again(denial) | Unsent::Died(denial) | Unsent::Failed(denial)) => {
                    return Err(denial);
                }
            };
            retries.note(&answer);
            // An answer is there: it is the caller's, unless it refuses the key and another may be tried.
            let verdict = match &key {
                Some(chosen) => selector.judge(chosen, &mut answer).await.map(|verdict| (chosen, verdict)),
                None => None,
            };
            let Some((chosen, verdict)) = verdict else {
                if retries.take_after(&answer, template, account) {
                    answer.discard();
                    continue;
                }
                return Ok((answer, key));
            };
            let next = Box::pin(selector.next(chosen, &verdict, template.replayable())).await;
            if next.is_none() && verdict.is_cooling() {
                // The provider's own limits are the caller's to know; what it says of our key is not.
                return Ok((answer, key));
            }
            answer.discard();
            account.rejected();
            key = Some(next.ok_or_else(|| selector.refusal())?);
        }
    }

    /// One attempt: a peer, the secret, the call, and the head of its answer.
    async fn try_once(
        &self,
        template: &mut Template,
        options: AttemptOptions<'_>,
        account: &mut Account,
    ) -> Result<Box<Answer>, Unsent> {
        let AttemptOptions { key, certificate: shown, fresh, except } = options;
        let Self { core, snapshot, call: PermittedCall { permit, .. }, .. } = *self;
        let fail = |account: &mut Account, error: &UpstreamError| {
            let denial = failed(core, permit, error, shown, account);
            match error {
                UpstreamError::CertificateRefused(_) => Unsent::Refused(denial),
                _ => Unsent::Failed(denial),
            }
        };
        // Connecting, and verifying the peer: nothing is sent, and a failure costs nothing.
        account.begin_attempt();
        let client = snapshot.tls(&permit.destination().name).ok_or_else(|| Unsent::Failed(no_tls()))?;
        let tls = TlsParams { client, client_cert: shown };
        let secret = key.map(|key| &*key.secret);
        let free = core.shared.usages.free_calls();
        let wanted = PeerOptions { offer: template.offer(), fresh, except, free };
        let peer = Peer::for_permit(&core.pool, &core.shared.rules, tls, permit, secret, wanted).await;
        let peer = peer.map_err(|error| match fail(account, &error) {
            Unsent::Failed(denial) if error.is_of_endpoint() && core.pool.has_endpoints(permit) => {
                Unsent::Again(denial)
            }
            failed => failed,
        })?;
        if peer.is_http2() {
            account.written().await.map_err(Unsent::Failed)?;
        }
        if core.shared.tracer.as_ref().is_some_and(|tracer| tracer.tells(&permit.destination().name)) {
            template.tell(account.trace());
        }
        // Injecting and sending: from here on the provider may bill what fails.
        let upload = template.upload();
        let kept = peer.kept();
        let outliers = &permit.destination().resilience.outlier_detection;
        let answer = self.inject_and_send(template, options, peer, account).map_err(Unsent::Failed)?;
        match self.first_byte(pin!(answer), template.first_byte(), upload.as_ref(), account).await {
            Err(NoAnswer::Timeout) => {
                kept.retire();
                kept.failed(EndpointFailure::Timeout, outliers);
                Err(fail(account, &UpstreamError::FirstByteTimeout))
            }
            Err(NoAnswer::Withdrawn(denial)) => Err(Unsent::Failed(denial)),
            Ok(Ok(answer)) if is_ambiguous(answer.response.headers()) => {
                Err(fail(account, &UpstreamError::Framing))
            }
            Ok(Ok(answer)) => {
                if let Some(shown) = shown.filter(|shown| shown.secret.is_rejected()) {
                    core.shared.secrets.taken(shown.credential, 0, shown.secret);
                }
                account.answered(answer.response.status());
                if let Some(upload) = upload {
                    upload.answered();
                }
                Ok(answer)
            }
            Ok(Err(unanswered)) => {
                account.written().await.map_err(Unsent::Failed)?;
                let is_callers = upload.as_ref().is_some_and(|upload| upload.is_broken());
                if let Some(denial) = upload.and_then(|upload| callers_fault(&upload)) {
                    return Err(Unsent::Failed(denial));
                }
                if !is_callers && unanswered.is_of_endpoint() {
                    kept.failed(EndpointFailure::Reset, outliers);
                }
                Err(unanswered_by(&kept, unanswered, template, account, fail))
            }
        }
    }

    /// Puts the secret on the call and hands it to its connection. The future waits for the answer.
    fn inject_and_send(
        &self,
        template: &mut Template,
        options: AttemptOptions<'_>,
        peer: Peer,
        account: &mut Account,
    ) -> Result<impl Future<Output = Result<Box<Answer>, SendFailure>> + use<>, Denial> {
        self.faults.at(Stage::Inject);
        self.still_permitted()?;
        let injected = Injected::new(template, &self.call.permit, options.key, &self.core.prepared, peer)?;
        account.attempt(injected.peer(), options.key, options.certificate);
        self.faults.at(Stage::Send);
        account.sent();
        Ok(injected.send(account.line()))
    }

    /// Waits for the head of the answer: the limit counts from the last byte of the request that left. A body that streams goes on only
    /// while it is permitted.
    async fn first_byte(
        &self,
        mut answer: Pin<&mut impl Future<Output = Result<Box<Answer>, SendFailure>>>,
        limit: Duration,
        upload: Option<&Arc<Upload>>,
        account: &mut Account,
    ) -> Result<Result<Box<Answer>, SendFailure>, NoAnswer> {
        let Some(upload) = upload else {
            let deadline = Instant::now() + limit;
            return self.core.timers.until(deadline, answer).await.map_err(|_| NoAnswer::Timeout);
        };
        account.uploads(upload);
        let (mut before, mut moved) = (0, Instant::now());
        loop {
            if let Ok(done) = timeout(LOOK_EVERY.min(limit), answer.as_mut()).await {
                return Ok(done);
            }
            self.still_permitted().map_err(NoAnswer::Withdrawn)?;
            if upload.bytes() > before {
                (before, moved) = (upload.bytes(), Instant::now());
            } else if moved.elapsed() >= limit {
                return Err(NoAnswer::Timeout);
            }
        }
    }

    /// A policy that came since the call was decided may have withdrawn what it was decided by, and its token may have ended since.
    fn still_permitted(&self) -> Result<(), Denial> {
        self.context.still_proven(&self.core.shared.trust)?;
        if self.core.shared.snapshots.generation() == self.snapshot.generation {
            return Ok(());
        }
        let current = self.core.snapshot()?;
        let (proofs, shared) = (&self.session.proofs, &self.core.shared);
        let (trust, usages, now) = (&shared.trust, &shared.usages, Timestamp::now());
        let context = proofs.reauthenticate(self.context, trust, usages, &current, now)?;
        if current.policy.reauthorize(context.grants(), &self.call.permit, self.call.model()) {
            return Ok(());
        }
        Err(Denial::new(Reason::NoGrant, "the grant was withdrawn before the call was complete"))
    }
}

/// What is to be done about a request without an answer; `fail` notes that its attempt failed.
fn unanswered_by(
    kept: &KeptConnection,
    mut unanswered: SendFailure,
    template: &mut Template,
    account: &mut Account,
    fail: impl Fn(&mut Account, &UpstreamError) -> Unsent,
) -> Unsent {
    let fate = unanswered.fate();
    let returned = unanswered.returned.take();
    match fate {
        SendFate::Unsent => {
            account.unsent();
            if let Some(body) = returned {
                template.restore(body);
            }
            Unsent::Again(error::upstream(&UpstreamError::Unsent))
        }
        SendFate::Unprocessed | SendFate::NeedsHttp1 => {
            account.unsent();
            if fate == SendFate::NeedsHttp1 && !template.is_grpc() {
                kept.need_http1();
            }
            match fail(account, &unanswered.into_error()) {
                Unsent::Failed(denial) if template.replayable() => Unsent::Again(denial),
                failed => failed,
            }
        }
        SendFate::Died => match fail(account, &unanswered.into_error()) {
            Unsent::Failed(denial) => Unsent::Died(denial),
            failed => failed,
        },
        SendFate::Unknown => fail(account, &unanswered.into_error()),
    }
}

/// Why there is no answer in time.
enum NoAnswer {
    Timeout,
    Withdrawn(Denial),
}

/// Why a body that streams broke off, where its caller is to blame. Also where half of it is on its way: nothing of a chunk that is none
/// has left.
fn callers_fault(upload: &Upload) -> Option<Denial> {
    if upload.is_malformed() {
        let detail = "the body is not in the signed chunks that its head announces";
        return Some(Denial::new(Reason::BodyInvalid, detail));
    }
    upload.is_slow().then(metering::too_slow)
}

pub(crate) fn no_tls() -> Denial {
    Denial::new(Reason::Internal, "the destination has no TLS configuration")
}

/// Why there is no connection, where an operator sees it; what comes later is the provider's doing and in the record.
#[cold]
fn log_failure(core: &Core, permit: &Permit, error: &UpstreamError, credential: Option<&ResourceId>) {
    let (destination, reason) = (&permit.destination().name, error::upstream_reason(error));
    let is_dial = matches!(
        error,
        UpstreamError::Dial(_)
            | UpstreamError::Proxy(_)
            | UpstreamError::Tls(_)
            | UpstreamError::ConnectTimeout
    );
    if is_dial || error.is_of_certificate() {
        log_unconnected(core, destination, reason, error, credential);
    } else {
        tracing::debug!(%destination, %error, "attempt failed");
    }
}

#[cold]
fn log_unconnected(
    core: &Core,
    destination: &ResourceId,
    reason: Reason,
    error: &dyn Display,
    credential: Option<&ResourceId>,
) {
    if core.shared.throttles.upstreams.is_due((destination.clone(), reason)) {
        let error: String = error.to_string().chars().take(CAUSE_CHARS).collect();
        let credential = credential.map(ResourceId::as_str);
        tracing::warn!(%destination, credential, reason = reason.as_str(), %error, "no connection; said once a minute");
    } else {
        tracing::debug!(%destination, %error, "attempt failed");
    }
}

/// Notes that an attempt failed. Gives the refusal for its caller.
pub(crate) fn failed(
    core: &Core,
    permit: &Permit,
    error: &UpstreamError,
    shown: Option<ClientCert<'_>>,
    account: &mut Account,
) -> Denial {
    account.attempt_failed(error::upstream_reason(error));
    let blamed = shown.filter(|_| error.is_of_certificate()).map(|shown| &shown.credential.name);
    log_failure(core, permit, error, blamed);
    if let Some(credential) = blamed {
        account.blame(credential);
    }
    error::upstream(error)
}

/// Whether two readers could find the end of the answer in two places (RFC 9112, section 6.3).
fn is_ambiguous(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return false };
    let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_some() || !digits || headers.contains_key(TRANSFER_ENCODING)
}
