//! One request's account: what it is, what it held, what it used.
//!
//! **Invariant:** once the caller is proven, exactly one record counts the request, also when it is refused, panics, or its caller
//! goes away; and its hold is settled or released exactly once. What was sent and never reported settles at the hold.

mod book;

use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};
use jiff::Timestamp;
use tollgate_policy::decision::{Admission, Facts, Permit, Priced};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::Endpoint;
use tollgate_policy::name::Name;
use tollgate_policy::price::Units;
use tollgate_policy::target::Target;

use super::asked::Asked;
use super::estimate::Bound;
use super::refusals;
use crate::core::Core;
use crate::identity::CallerContext;
use crate::keys::Chosen;
use crate::ledger::{Attempt, Bounded, HoldLine, LedgerError, Outcome, Position, Record, RecordId};
use crate::load::{Load, Share};
use crate::quota::{Hold, RateHeaders};
use crate::snapshot::Snapshot;
use crate::telemetry::ACCESS;
use crate::upstream::{Peer, Shown, Upload};

/// What was learnt of a call's usage.
#[derive(Debug)]
pub(crate) enum Usage {
    /// The provider's own numbers.
    Reported { units: Units, told: Told, drained: bool },
    /// It reported an error when it had begun to write: `units` are what it had reported, and what passed.
    Estimated { units: Units, told: Told },
    /// It answered with an error, refused, or was never asked: nothing is billed.
    Unbilled,
    /// It was asked and did not tell; `units` are what passed, shown but not credited.
    Unknown { units: Units, told: Told },
    /// A kind of call whose usage is its requests and bytes alone.
    Plain,
}

/// What an answer says of how it was made, whether or not it tells its usage.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(super) model: Option<String>,
    pub(super) tier: Option<String>,
    /// It bills something beside the units that has no price here.
    pub(super) unpriced: bool,
}

/// The account of one request.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(super) core: Arc<Core>,
    pub(super) record: Box<Record>,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// The extra usage event is the gateway's own wish and is kept from the caller.
    pub(super) hides_usage: bool,
    pub(super) load: Option<Arc<Load>>,
    pub(super) rates: Option<RateHeaders>,
    pub(super) facts: Facts,
    started: Instant,
    price: Priced,
    bound: Option<Bound>,
    hold: Option<Hold>,
    line: Option<Position>,
    place: Option<Share>,
    upload: Option<Arc<Upload>>,
    sent: bool,
    rejected: bool,
    /// The client certificate that the call fails for.
    blamed: Option<Name>,
    closed: bool,
}

impl Meter {
    /// Opens the account when the head has been read.
    pub(crate) fn open(core: &Arc<Core>, method: &Method) -> Box<Self> {
        core.stats.began();
        Box::new(Self {
            core: Arc::clone(core),
            record: Box::new(Record::new(RecordId::new(), Timestamp::now(), Bounded::new(method.as_str()))),
            endpoint: None,
            hides_usage: false,
            load: None,
            rates: None,
            facts: Facts::default(),
            started: Instant::now(),
            price: Priced::Free,
            bound: None,
            hold: None,
            line: None,
            place: None,
            upload: None,
            sent: false,
            rejected: false,
            blamed: None,
            closed: false,
        })
    }

    /// The instant that prices, windows and certificates are judged at.
    pub(crate) const fn begun(&self) -> Timestamp {
        self.record.at
    }

    /// The caller is proven: from here on there is a record.
    ///
    /// # Errors
    /// `concurrency_limited` where the caller has as many calls under way as one caller may.
    pub(crate) fn identified(&mut self, context: &CallerContext, snapshot: &Snapshot) -> Result<(), Denial> {
        let caller = context.caller();
        self.record.caller = Some(caller.id().clone());
        self.record.proof = Some(caller.proof());
        self.record.generation = snapshot.generation;
        self.load = Some(Arc::clone(context.usage()));
        self.place = context.usage().call();
        if self.place.is_some() {
            return Ok(());
        }
        Err(Denial::new(Reason::ConcurrencyLimited, "this workload has too many calls under way at once")
            .retry_after(std::time::Duration::from_secs(1)))
    }

    pub(crate) fn targeted(&mut self, target: &Target) {
        self.record.destination = Some(target.destination().name.clone());
        self.record.host = Some(Bounded::from(&target.host_shared()));
        self.record.port = Some(target.port());
        self.record.path = Some(Bounded::path(target.path()));
    }

    /// What was asked for, also where it is refused.
    pub(crate) fn asked(&mut self, asked: &Asked, admission: &Admission) {
        let facts = asked.facts();
        self.record.model = facts.model.as_deref().map(Bounded::new);
        self.record.operation = admission.endpoint().and_then(|endpoint| endpoint.operation.clone());
        self.record.bytes_in = facts.body_bytes;
    }

    pub(crate) fn permitted(&mut self, permit: &Permit, asked: &Asked, bound: Option<&Bound>) {
        let facts = asked.facts();
        self.record.grant = Some(permit.grant().name.clone());
        self.record.credential = permit.credential().map(|credential| credential.name.clone());
        self.endpoint = permit.endpoint().cloned();
        self.price = permit.price().clone();
        self.bound = bound.copied();
        self.facts = facts.clone();
        self.hides_usage = asked.hides_usage();
    }

    /// Takes the reservation, and appends it to the journal.
    ///
    /// # Errors
    /// `ledger_unavailable`.
    pub(crate) fn hold(&mut self, hold: Hold, permit: &Permit) -> Result<(), Denial> {
        self.rates = hold.rate_headers(self.record.at);
        let charges = hold.charges().to_vec();
        let opened = hold.opened();
        self.hold = Some(hold);
        if charges.is_empty() {
            return self.core.journal.available().map_err(|error| unavailable(&error));
        }
        let line = HoldLine {
            id: self.record.id,
            at: opened,
            caller: permit.caller().id().clone(),
            destination: permit.destination().name.clone(),
            host: self.record.host.clone(),
            grant: permit.grant().name.clone(),
            credential: self.record.credential.clone(),
            model: self.record.model.clone(),
            charges,
            cost: self.bound.as_ref().and_then(|bound| self.priced().map(|_| bound.spend)),
            price_version: self.price_version(),
            generation: self.record.generation,
        };
        self.line = Some(self.core.journal.hold(&line).map_err(|error| unavailable(&error))?);
        Ok(())
    }

    /// The line of the journal that has to be written before anything is sent.
    pub(crate) const fn line(&self) -> Option<Position> {
        self.line
    }

    /// Waits until that line is written.
    ///
    /// # Errors
    /// `ledger_unavailable`: nothing was sent.
    pub(crate) async fn written(&mut self) -> Result<(), Denial> {
        let Some(line) = self.line else { return Ok(()) };
        if let Err(error) = self.core.journal.written(line).await {
            self.unsent();
            return Err(unavailable(&error));
        }
        Ok(())
    }

    /// Without this client certificate there is no connection.
    pub(crate) fn blame(&mut self, certificate: &Name) {
        self.blamed = Some(certificate.clone());
    }

    /// An attempt has a connection.
    pub(crate) fn attempt(&mut self, peer: &Peer, key: Option<&Chosen>, shown: Option<Shown<'_>>) {
        self.blamed = None;
        if let Some(Shown { credential, secret }) = shown {
            self.core.uses.shown(&self.record, &credential.name, secret);
        }
        let alias = key.and_then(|key| key.alias.clone());
        self.record.alias.clone_from(&alias);
        if let Some(key) = key {
            self.core.uses.injected(&self.record, &key.secret);
        }
        let version = key.map(|key| key.secret.version().shared());
        let source = Some(peer.source());
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
        self.sent = true;
        self.rejected = false;
        if let Some(hold) = &mut self.hold {
            hold.sent();
        }
    }

    /// The body streams; its bytes are counted as they leave.
    pub(crate) fn uploads(&mut self, upload: &Arc<Upload>) {
        self.upload = Some(Arc::clone(upload));
    }

    /// The request came back whole, or the provider refused it unread.
    pub(crate) fn unsent(&mut self) {
        self.sent = false;
        if let Some(hold) = &mut self.hold {
            hold.unsent();
        }
    }

    /// The provider refused the gateway's credential: it was asked, and bills nothing.
    pub(crate) fn rejected(&mut self) {
        self.rejected = true;
    }

    /// Whether the call is billed by what it uses.
    pub(crate) fn is_metered(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.metered)
    }

    /// Whether the provider may have the call, and bill it.
    pub(crate) const fn is_out(&self) -> bool {
        self.sent && !self.rejected
    }

    /// Whether a call that is out and fails for `reason` is charged here, or is very likely billed: it had all of its time.
    pub(crate) fn is_charged(&self, reason: Reason) -> bool {
        self.is_metered() && (self.line.is_some() || reason == Reason::UpstreamTimeout)
    }

    /// The model that was asked for.
    pub(crate) fn model(&self) -> Option<&str> {
        self.facts.model.as_deref()
    }

    /// The last attempt failed.
    pub(crate) fn attempt_failed(&mut self, reason: Reason) {
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
        if let Some(last) = self.record.attempts.last_mut() {
            last.status = Some(status.as_u16());
        }
    }

    /// Closes the account of a call that Tollgate refused or could not complete.
    pub(crate) fn refuse(mut self: Box<Self>, denial: &Denial) -> RecordId {
        let id = self.record.id;
        self.record.status = crate::reply::status(denial.reason).as_u16();
        self.record.reason = Some(denial.reason);
        self.core.uses.refused(&self.record, self.blamed.as_ref(), denial.reason);
        if denial.reason == Reason::Internal {
            self.record.outcome = Outcome::Panicked;
        }
        let usage = self.untold();
        // Nobody waits for a refusal's line; a journal that cannot be written has said so itself.
        let _ = self.close(usage);
        id
    }

    /// Settles the hold, completes the record and appends it.
    pub(super) fn close(&mut self, usage: Usage) -> Result<Option<Position>, LedgerError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(None);
        }
        self.core.stats.ended();
        self.place = None;
        self.record.duration = self.elapsed();
        if let Some(upload) = &self.upload {
            self.record.bytes_in = upload.bytes();
        }
        if self.record.caller.is_none() {
            self.core.stats.stranger(self.record.reason.unwrap_or(Reason::Internal));
            return Ok(None);
        }
        self.book(usage);
        let model = self.priced().map(|price| price.model_shared());
        self.core.stats.call(&self.record, model);
        let countable = !self.sent && self.line.is_none() && refusals::is_countable(&self.record);
        let journal = &self.core.journal;
        if countable && !self.core.refusals.is_told(&self.record, journal.space_is_short()) {
            return Ok(None);
        }
        journal.record_seen(&self.record, log).map(Some)
    }

    /// The account for whoever goes on with it; what stays behind is closed.
    pub(super) fn hand_over(&mut self) -> Box<Self> {
        let closed = std::mem::replace(&mut self.closed, true);
        Box::new(Self {
            core: Arc::clone(&self.core),
            record: Box::new((*self.record).clone()),
            endpoint: self.endpoint.take(),
            hides_usage: self.hides_usage,
            load: self.load.take(),
            rates: None,
            facts: std::mem::take(&mut self.facts),
            started: self.started,
            price: std::mem::replace(&mut self.price, Priced::Free),
            bound: self.bound.take(),
            hold: self.hold.take(),
            line: self.line,
            place: self.place.take(),
            upload: self.upload.take(),
            sent: self.sent,
            rejected: self.rejected,
            blamed: self.blamed.take(),
            closed,
        })
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn unavailable(_: &LedgerError) -> Denial {
    Denial::new(Reason::LedgerUnavailable, "usage cannot be recorded at the moment, so no call is made")
        .retry_after(std::time::Duration::from_secs(5))
}

/// The access log has of the record what it begins with in the journal.
pub(super) fn log(record: &[u8]) {
    tracing::info!(target: ACCESS, record);
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let panicked = std::thread::panicking();
        self.record.outcome = if panicked { Outcome::Panicked } else { Outcome::CallerGone };
        let usage = self.untold();
        // Nobody is left to be told.
        let _ = self.close(usage);
    }
}
