//! Who is told that a request is over.
//!
//! **Invariant:** a record goes to all of them once, and is final: its hold is settled. The counters come first, so that they have what no
//! journal takes; a line of the access log is one of the journal too, and stands there before anybody may wait for it.
//!
//! A sink that is added here hears of every request; whoever closes an account knows none of them.

use std::sync::Arc;

use jiff::Timestamp;
use tollgate_policy::denial::Reason;
use tollgate_policy::name::ResourceId;

use super::refusals::{self, Refusals};
use crate::audit::Uses;
use crate::ledger::{Journal, LedgerError, Position, Record};
use crate::otlp::Sinks;
use crate::stats::Stats;
use crate::telemetry;
use crate::trace::CallTrace;

/// The sinks of one core.
#[derive(Debug)]
pub(crate) struct Recorder {
    journal: Arc<Journal>,
    stats: Arc<Stats>,
    uses: Arc<Uses>,
    refusals: Refusals,
    exported: Option<Sinks>,
}

/// What a record does not say of its request.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    /// The model's name in the catalog, if it has one.
    pub(super) model: Option<Arc<str>>,
    /// The client certificate that the request failed for.
    pub(super) blamed: Option<&'a ResourceId>,
    /// Nothing of it was sent, and no hold was written.
    pub(super) left_nothing: bool,
    pub(super) trace: CallTrace,
    /// Whose API the destination's is.
    pub(super) provider: Option<&'a str>,
}

impl Recorder {
    /// `exported`: where telemetry is exported.
    pub(crate) fn new(
        journal: &Arc<Journal>,
        stats: &Arc<Stats>,
        uses: &Arc<Uses>,
        exported: Option<Sinks>,
    ) -> Self {
        Self {
            journal: Arc::clone(journal),
            stats: Arc::clone(stats),
            uses: Arc::clone(uses),
            refusals: Refusals::default(),
            exported,
        }
    }

    /// A request has begun.
    pub(super) fn began(&self) {
        self.stats.began();
    }

    /// It is over, and its caller was never proven: there is no record of it.
    pub(super) fn stranger(&self, reason: Option<Reason>) {
        self.stats.ended();
        self.stats.stranger(reason.unwrap_or(Reason::Internal));
    }

    /// It is over, and this is its record. Gives its place in the journal, if it has a line of its own.
    ///
    /// # Errors
    /// What those who wait for the line are told: it is not written.
    pub(super) fn record(
        &self,
        record: &Record,
        ending: Ending<'_>,
    ) -> Result<Option<Position>, LedgerError> {
        self.stats.ended();
        let is_recorded = matches!(ending.trace, CallTrace::Recorded(_));
        self.stats.call(record, ending.model, is_recorded);
        if let Some(reason) = record.reason {
            self.uses.refused(record, ending.blamed, reason);
        }
        if let (Some(exported), CallTrace::Recorded(call)) = (&self.exported, ending.trace) {
            exported.call(record, call, ending.provider);
        }
        let is_countable = ending.left_nothing && refusals::is_countable(record);
        if is_countable && !self.refusals.is_told(record, self.journal.space_is_short()) {
            return Ok(None);
        }
        self.write(record).map(Some)
    }

    /// Writes the refusals that were counted in the minutes before; once a second. While space is short they stay where they are.
    pub(crate) fn tell(&self) {
        if self.journal.available().is_ok() && !self.journal.space_is_short() {
            self.refusals.count(&self.write_all(self.refusals.take(Timestamp::now())));
        }
    }

    /// Writes all that was counted: the core has ended.
    pub(crate) fn tell_all(&self) {
        let unwritten = self.write_all(self.refusals.take_all());
        let calls: u64 = unwritten.iter().map(|record| record.count).sum();
        if calls > 0 {
            tracing::error!(calls, "refused calls could not be recorded: the journal's disk is full");
        }
    }

    /// What could not be written because the disk has filled up. A journal that is broken keeps what it was given, and says so itself.
    fn write_all(&self, records: Vec<Record>) -> Vec<Record> {
        let is_full = |record: &Record| matches!(self.write(record), Err(LedgerError::Full));
        records.into_iter().filter(is_full).collect()
    }

    /// To the journal, and what stands first on its line to the access log.
    fn write(&self, record: &Record) -> Result<Position, LedgerError> {
        if let Some(exported) = &self.exported {
            exported.access(record);
        }
        self.journal.record_seen(record, telemetry::access)
    }
}
