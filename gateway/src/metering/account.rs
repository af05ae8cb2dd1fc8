//! One request's account: what it is, what it held, what it used.
//!
//! **Invariant:** once the caller is proven, exactly one record counts the request, also when it is refused, panics, or its caller
//! goes away; and its hold is settled or released exactly once. Whoever closes an account gives it away, and one that is dropped closes
//! itself. What was sent and never reported settles at the hold.

mod charge;
mod tunnel;
mod turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use tollgate_policy::decision::Admission;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::name::ResourceId;
use tollgate_policy::operation::{HttpRequest, RequestLine};
use tollgate_policy::price::Units;
use tollgate_policy::target::{Target, TunnelEnd};

use super::answered::Answered;
use super::inspected_body::InspectedBody;
use super::permitted::PermittedCall;
use super::recorder::Ending;
use super::traffic::Traffic;
use crate::caller_body::{BodyDiscard, Leftover};
use crate::caller_occupancy::{CallSlot, CallsFull, OccupancySlot};
use crate::core::Core;
use crate::identity::CallerContext;
use crate::in_place::boxed;
use crate::key_health::SelectedKey;
use crate::ledger::{Attempt, Bounded, HoldLine, LedgerError, Outcome, Position, Record, RecordId};
use crate::quota::{Hold, RateHeaders};
use crate::reply;
use crate::snapshot::Snapshot;
use crate::trace::{AttemptConnection, CallTrace};
use crate::upstream::{ClientCert, Peer, Upload};

/// What was learnt of a call's usage.
#[derive(Debug)]
pub(crate) enum LearntUsage {
    /// The provider's own numbers.
    Reported { units: Units, told: AnswerFacts, drained: bool },
    /// It reported an error when it had begun to write: `units` are what it had reported, and what passed.
    Estimated { units: Units, told: AnswerFacts },
    /// It answered with an error, refused, or was never asked: nothing is billed.
    Unbilled,
    /// It was asked and did not tell; `units` are what passed, shown but not credited.
    Unknown { units: Units, told: AnswerFacts },
    /// A kind of call whose usage is its requests and bytes alone.
    Plain,
}

/// What an answer says of how it was made, whether or not it tells its usage.
#[derive(Debug, Default)]
pub(crate) struct AnswerFacts {
    pub(super) model: Option<String>,
    pub(super) tier: Option<String>,
    /// It bills something beside the units that has no price here.
    pub(super) unpriced: bool,
}

/// The account of one request.
#[derive(Debug)]
pub(crate) struct Account {
    core: Arc<Core>,
    pub(super) record: Record,
    started: Instant,
    phase: AccountPhase,
    /// Among the calls that its caller may have at once.
    place: Option<CallSlot>,
    call: Option<Arc<PermittedCall>>,
    upload: Option<Arc<Upload>>,
    /// When the connection was open that is passed through.
    opened: Option<Instant>,
    /// What counts the bytes that pass, where no body is read.
    passed: Option<Arc<Traffic>>,
    /// The client certificate that the call fails for.
    blamed: Option<ResourceId>,
    trace: CallTrace,
}

/// How far a request has come, as far as its account is concerned.
#[derive(Debug)]
enum AccountPhase {
    /// Nobody is proven: it is counted, and has no record.
    Unauthenticated,
    /// From here on it has one.
    Authenticated,
    /// What it may use is reserved. Nothing of it has left, or all of it came back.
    Held(Reservation),
    /// The provider may have it, and bill it.
    Sent(Reservation),
    /// The provider refused the gateway's credential: it was asked, and bills nothing.
    Rejected(Reservation),
    Closed,
}

#[derive(Debug)]
struct Reservation {
    hold: Hold,
    /// The line of the journal that has to be written before anything is sent.
    line: Option<Position>,
    /// What the answer says of the limits.
    rates: Option<RateHeaders>,
}

impl Account {
    /// Opens the account when the head has been read.
    pub(crate) fn open(core: Arc<Core>, method: &Method, headers: &HeaderMap) -> Box<Self> {
        core.recorder.began();
        let at = Timestamp::now();
        let (id, method) = (RecordId::made_at(at), Bounded::new(method.as_str()));
        let mut account = boxed(|| Self {
            record: Record::new(id, at, method),
            core,
            started: Instant::now(),
            phase: AccountPhase::Unauthenticated,
            place: None,
            call: None,
            upload: None,
            opened: None,
            passed: None,
            blamed: None,
            trace: CallTrace::default(),
        });
        if let Some(tracer) = &account.core.shared.tracer {
            let (id, second) = (account.record.id, account.record.at.as_second());
            account.trace = tracer.begin(id.as_bytes(), second, headers);
            account.record.trace = account.trace.id();
        }
        account
    }

    /// The instant that prices, windows and certificates are judged at.
    pub(crate) const fn begun(&self) -> Timestamp {
        self.record.at
    }

    /// When a call that may take `total` altogether is over; `None` where it takes as long as it takes.
    pub(crate) fn deadline(&self, total: Option<Duration>) -> Option<tokio::time::Instant> {
        total.and_then(|total| self.started.checked_add(total)).map(Into::into)
    }

    /// The caller is proven: from here on there is a record.
    ///
    /// # Errors
    /// `concurrency_limited` where the caller has as many calls under way as one caller may; `overloaded` where all have as many as all
    /// may, or this one has more of them than is left for others.
    pub(crate) fn identified(&mut self, context: &CallerContext, snapshot: &Snapshot) -> Result<(), Denial> {
        let caller = context.caller();
        self.record.caller = Some(caller.id().clone());
        self.record.proof = Some(caller.proof());
        self.record.generation = snapshot.generation;
        self.phase = AccountPhase::Authenticated;
        let place = context.usage().call().map_err(|full| {
            let (reason, detail) = match full {
                CallsFull::Caller => {
                    (Reason::ConcurrencyLimited, "this workload has too many calls under way at once")
                }
                CallsFull::Gateway => {
                    (Reason::Overloaded, "the gateway has as many calls under way as it takes at once")
                }
            };
            Denial::new(reason, detail).retry_after(Duration::from_secs(1)).repeatable(true)
        })?;
        self.place = Some(place);
        Ok(())
    }

    pub(crate) fn targeted(&mut self, target: &Target, request: &HttpRequest) {
        self.record.destination = Some(target.destination().name.clone());
        self.record.host = Some(Bounded::from(&target.host_shared()));
        self.record.port = Some(target.port());
        self.record.path = Some(Bounded::path(request.path_shared()));
    }

    /// What was asked for by a name that leads nowhere, in the caller's words.
    pub(crate) fn misdirected(&mut self, line: &RequestLine<'_>) {
        if self.record.host.is_none() {
            // Not among the hosts: reports add up by those, and anybody can make these up.
            self.record.path = Some(Bounded::path(&format!("{}{}", line.authority, line.path).into()));
        }
    }

    /// Where a tunnel leads that is refused; where that is nowhere, in the caller's words.
    pub(crate) fn tunnelled(&mut self, asked: &str, end: Option<&TunnelEnd>) {
        let Some(end) = end else {
            self.record.path = (!asked.is_empty()).then(|| Bounded::new(asked));
            return;
        };
        if let [destination] = end.destinations() {
            self.record.destination = Some(destination.name.clone());
        }
        if let TunnelEnd::Host(target) = end {
            self.record.host = Some(Bounded::from(&target.host_shared()));
            self.record.port = Some(target.port());
        }
    }

    /// What was asked for, also where it is refused.
    pub(crate) fn inspected(&mut self, body: &InspectedBody, admission: &Admission) {
        let facts = body.facts();
        self.record.model = facts.model.as_ref().map(Bounded::from);
        self.record.operation = admission.endpoint().and_then(|endpoint| endpoint.operation.clone());
        self.record.bytes_in = facts.body_bytes;
    }

    pub(crate) fn permitted(&mut self, call: &Arc<PermittedCall>) {
        let permit = &call.permit;
        self.record.grant = Some(permit.grant().name.clone());
        self.record.credential = permit.credential().map(|credential| credential.name.clone());
        self.call = Some(Arc::clone(call));
    }

    /// What the call may use is reserved, which may be another than the one that was permitted first.
    pub(crate) fn hold(&mut self, call: &Arc<PermittedCall>, hold: Hold) {
        self.call = Some(Arc::clone(call));
        self.record.model_sent = call.model_instead().map(Bounded::new);
        self.record.budget = hold.past().cloned();
        let rates = hold.rate_headers(self.record.at);
        self.phase = AccountPhase::Held(Reservation { hold, line: None, rates });
    }

    /// Appends the reservation to the journal.
    ///
    /// # Errors
    /// `ledger_unavailable`.
    pub(crate) fn journal_hold(&mut self) -> Result<(), Denial> {
        let (Some(call), Some(reservation)) = (&self.call, self.phase.reservation_mut()) else {
            return Err(Denial::new(Reason::Internal, "nothing is reserved for the call"));
        };
        let charges = reservation.hold.charges();
        // A connection may last for days: without a line nothing would be left of it after a crash.
        if charges.is_empty() && call.permit.http().is_some() {
            return self.core.journal.available().map_err(|error| unavailable(&error));
        }
        let permit = &call.permit;
        let line = HoldLine {
            id: self.record.id,
            at: reservation.hold.opened(),
            caller: permit.caller().id().clone(),
            destination: permit.destination().name.clone(),
            host: self.record.host.clone(),
            grant: permit.grant().name.clone(),
            credential: self.record.credential.clone(),
            model: self.record.model.clone(),
            charges: charges.into(),
            cost: call.bound.and_then(|bound| call.price().map(|_| bound.spend)),
            price_version: call.price_version(),
            generation: self.record.generation,
        };
        reservation.line = Some(self.core.journal.hold(&line).map_err(|error| unavailable(&error))?);
        Ok(())
    }

    /// The line of the journal that has to be written before anything is sent.
    pub(crate) fn line(&self) -> Option<Position> {
        self.phase.reservation().and_then(|reservation| reservation.line)
    }

    /// Waits until that line is written.
    ///
    /// # Errors
    /// `ledger_unavailable`: nothing was sent.
    pub(crate) async fn written(&mut self) -> Result<(), Denial> {
        let Some(line) = self.line() else { return Ok(()) };
        if let Err(error) = self.core.journal.written(line).await {
            self.unsent();
            return Err(unavailable(&error));
        }
        Ok(())
    }

    /// A connection is looked for.
    pub(crate) fn begin_attempt(&mut self) {
        self.trace.begin_attempt();
    }

    /// What traces the call.
    pub(crate) const fn trace(&self) -> &CallTrace {
        &self.trace
    }

    /// Without this client certificate there is no connection.
    pub(crate) fn blame(&mut self, certificate: &ResourceId) {
        self.blamed = Some(certificate.clone());
    }

    /// An attempt has a connection.
    pub(crate) fn attempt(&mut self, peer: &Peer, key: Option<&SelectedKey>, shown: Option<ClientCert<'_>>) {
        self.blamed = None;
        if let Some(ClientCert { credential, secret }) = shown {
            self.core.uses.shown(&self.record, &credential.name, secret);
        }
        let alias = key.and_then(|key| key.alias.clone());
        self.record.alias.clone_from(&alias);
        if let Some(key) = key {
            self.core.uses.injected(&self.record, &key.secret);
        }
        let version = key.map(|key| key.secret.version().shared());
        let source = Some(peer.source());
        self.trace.connected(
            || AttemptConnection::of(peer.remote(), peer.source(), peer.is_http2()),
            peer.opened(),
        );
        self.record.source.clone_from(&source);
        self.record.credential_version.clone_from(&version);
        self.record.attempts.push(Attempt {
            peer: Some(peer.remote()),
            source,
            alias,
            credential_version: version,
            ..Attempt::default()
        });
    }

    /// From here on the provider may bill.
    pub(crate) fn sent(&mut self) {
        self.shift(|mut reservation| {
            reservation.hold.sent();
            AccountPhase::Sent(reservation)
        });
    }

    /// The body streams; its bytes are counted as they leave.
    pub(crate) fn uploads(&mut self, upload: &Arc<Upload>) {
        self.upload = Some(Arc::clone(upload));
    }

    /// The request came back whole, or the provider refused it unread.
    pub(crate) fn unsent(&mut self) {
        self.shift(|mut reservation| {
            reservation.hold.unsent();
            AccountPhase::Held(reservation)
        });
    }

    /// The provider refused the gateway's credential: if it was asked, it bills nothing.
    pub(crate) fn rejected(&mut self) {
        if self.is_out() {
            self.shift(AccountPhase::Rejected);
        }
    }

    fn shift(&mut self, to: impl FnOnce(Reservation) -> AccountPhase) {
        self.phase = match std::mem::replace(&mut self.phase, AccountPhase::Closed) {
            AccountPhase::Held(reservation)
            | AccountPhase::Sent(reservation)
            | AccountPhase::Rejected(reservation) => to(reservation),
            other => other,
        };
    }

    /// Whether the call is billed by what it uses.
    pub(crate) fn is_metered(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.metered().is_some())
    }

    /// Whether the provider may have the call, and bill it.
    pub(crate) const fn is_out(&self) -> bool {
        matches!(self.phase, AccountPhase::Sent(_))
    }

    /// Whether a call that is out and fails for `reason` is charged here, or is very likely billed: it had all of its time.
    pub(crate) fn is_charged(&self, reason: Reason) -> bool {
        self.is_metered() && (self.line().is_some() || reason == Reason::UpstreamTimeout)
    }

    /// The last attempt failed.
    pub(crate) fn attempt_failed(&mut self, reason: Reason) {
        self.trace.failed(reason);
        if self.record.attempts.last().is_none_or(|last| last.status.is_some() || last.reason.is_some()) {
            self.record.attempts.push(Attempt::default());
        }
        if let Some(last) = self.record.attempts.last_mut() {
            last.reason = Some(reason);
        }
        self.record.outcome = Outcome::UpstreamFailed;
    }

    /// The last attempt has the head of an answer.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.record.first_byte = Some(self.elapsed());
        self.trace.answered(status);
        if let Some(last) = self.record.attempts.last_mut() {
            last.status = Some(status.as_u16());
        }
    }

    /// What the answer says of the caller's limits.
    pub(super) fn take_rates(&mut self) -> Option<RateHeaders> {
        self.phase.reservation_mut().and_then(|reservation| reservation.rates.take())
    }

    /// Leave to read the answer to its end although the caller has gone.
    pub(super) fn drain(&self) -> Option<OccupancySlot> {
        self.place.as_ref().and_then(|place| place.usage().drain())
    }

    /// For what an error leaves of a body, while its caller has not too many of these.
    pub(crate) fn discard(
        &self,
        leftover: Option<Leftover>,
        route: &Result<Box<Answered>, Denial>,
    ) -> Option<BodyDiscard> {
        let leftover = leftover?;
        let is_error = route.as_ref().map_or(true, |answered| answered.head.status.as_u16() >= 400);
        let usage = self.place.as_ref().filter(|_| is_error).map(CallSlot::usage);
        Some(BodyDiscard::new(leftover, usage?.linger()?))
    }

    /// Closes the account of a call that Tollgate refused or could not complete.
    pub(crate) fn refuse(mut self: Box<Self>, denial: &Denial) -> RecordId {
        let id = self.record.id;
        self.record.status = reply::status(denial.reason).as_u16();
        self.record.set_denial(denial);
        if denial.reason == Reason::Internal {
            self.record.outcome = Outcome::Panicked;
        }
        let usage = self.usage_unknown();
        // Nobody waits for a refusal's line; a journal that cannot be written has said so itself.
        let _ = self.finish(usage);
        id
    }

    /// Settles the hold, completes the record and appends it: where it stands in the journal, unless it is only counted.
    pub(super) fn close(mut self: Box<Self>, usage: LearntUsage) -> Result<Option<Position>, LedgerError> {
        self.finish(usage)
    }

    fn finish(&mut self, usage: LearntUsage) -> Result<Option<Position>, LedgerError> {
        // Closed from here on, whatever fails.
        let (reservation, was_sent) = match std::mem::replace(&mut self.phase, AccountPhase::Closed) {
            AccountPhase::Closed => return Ok(None),
            AccountPhase::Unauthenticated => {
                self.core.recorder.stranger(self.record.reason);
                return Ok(None);
            }
            AccountPhase::Authenticated => (None, false),
            AccountPhase::Held(reservation) => (Some(reservation), false),
            AccountPhase::Sent(reservation) | AccountPhase::Rejected(reservation) => {
                (Some(reservation), true)
            }
        };
        self.place = None;
        self.record.duration = self.elapsed();
        if let Some(upload) = &self.upload {
            self.record.bytes_in = upload.bytes();
        }
        if let Some(passed) = &self.passed {
            (self.record.bytes_in, self.record.bytes_out) = (passed.up(), passed.down());
        }
        // The hold is settled, or released; that cannot fail.
        let trace = std::mem::take(&mut self.trace);
        let call = if matches!(trace, CallTrace::Recorded(_)) { self.call.clone() } else { None };
        let model = self.call.as_ref().and_then(|call| call.price()).map(|price| price.model_shared());
        let line = reservation.as_ref().and_then(|reservation| reservation.line);
        self.book(usage, reservation.map(|reservation| reservation.hold), was_sent);
        // The record is final: it is counted or written, which only the journal can refuse.
        let left_nothing = !was_sent && line.is_none();
        let provider = call.as_ref().and_then(|call| call.provider());
        let ending = Ending { model, blamed: self.blamed.as_ref(), left_nothing, trace, provider };
        self.core.recorder.record(&self.record, ending)
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl AccountPhase {
    const fn reservation(&self) -> Option<&Reservation> {
        match self {
            Self::Held(reservation) | Self::Sent(reservation) | Self::Rejected(reservation) => {
                Some(reservation)
            }
            Self::Unauthenticated | Self::Authenticated | Self::Closed => None,
        }
    }

    const fn reservation_mut(&mut self) -> Option<&mut Reservation> {
        match self {
            Self::Held(reservation) | Self::Sent(reservation) | Self::Rejected(reservation) => {
                Some(reservation)
            }
            Self::Unauthenticated | Self::Authenticated | Self::Closed => None,
        }
    }
}

fn unavailable(_: &LedgerError) -> Denial {
    Denial::new(Reason::LedgerUnavailable, "usage cannot be recorded at the moment, so no call is made")
        .retry_after(Duration::from_secs(5))
}

impl Drop for Account {
    fn drop(&mut self) {
        if matches!(self.phase, AccountPhase::Closed) {
            return;
        }
        let panicked = std::thread::panicking();
        self.record.outcome = if panicked { Outcome::Panicked } else { Outcome::CallerGone };
        let usage = self.usage_unknown();
        // Nobody is left to be told.
        let _ = self.finish(usage);
    }
}
