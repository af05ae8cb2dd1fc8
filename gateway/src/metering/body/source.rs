//! What the provider sends, read for its usage, and the account that is closed by it.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_policy::denial::Reason;

use crate::ledger::{Outcome, Wait};
use crate::metering::account::{Account, AnswerFacts, LearntUsage};
use crate::metering::bound;
use crate::metering::permitted::PermittedCall;
use crate::metering::usage::{Output, UsageReader, UsageReading};
use crate::upstream::{AnswerBody, Lease};

/// The part that a drain takes over.
#[derive(Debug)]
pub(super) struct AnswerSource {
    pub(super) incoming: Option<AnswerBody>,
    /// Apart, so that an answer stays small.
    pub(super) reader: Option<Box<UsageReader>>,
    pub(super) lease: Option<Lease>,
    pub(super) call: Arc<PermittedCall>,
    /// `None`: it is closed.
    pub(super) account: Option<Box<Account>>,
    pub(super) billed: bool,
    /// The caller has gone.
    pub(super) drained: bool,
}

impl AnswerSource {
    pub(super) fn feed(&mut self, chunk: Bytes, output: &mut Output) {
        match &mut self.reader {
            Some(reader) => reader.feed(chunk, output),
            None => output.ready.push_back(chunk),
        }
    }

    /// Closes the account, if that was not done. `None`: the journal took nothing, which only a strict caller could mind.
    /// `waiting` bytes are still to go out.
    pub(super) fn record(
        &mut self,
        reading: Option<UsageReading>,
        outcome: Outcome,
        reason: Option<Reason>,
        waiting: u64,
    ) -> Option<Wait> {
        let mut account = self.account.take()?;
        let says_error = reading.as_ref().is_some_and(|reading| reading.error_event);
        let is_whole = outcome == Outcome::Completed;
        account.record.outcome = if says_error && is_whole { Outcome::ProviderError } else { outcome };
        account.record.reason = reason.or_else(|| says_error.then_some(Reason::UpstreamError));
        account.record.bytes_out += waiting;
        let usage = self.usage(reading);
        account.close(usage).ok().flatten().map(Wait::new)
    }

    fn usage(&self, reading: Option<UsageReading>) -> LearntUsage {
        if !self.billed {
            return LearntUsage::Unbilled;
        }
        let Some(endpoint) = self.call.metered() else {
            return LearntUsage::Plain;
        };
        let mut reading = reading.unwrap_or_default();
        let told = AnswerFacts {
            model: reading.model.take(),
            tier: reading.tier.take(),
            unpriced: reading.unpriced,
        };
        let estimate = || bound::estimate(&self.call.facts, endpoint, &reading);
        match reading.units {
            Some(units) => LearntUsage::Reported { units, told, drained: self.drained },
            None if reading.error_event && reading.wrote => {
                LearntUsage::Estimated { units: estimate(), told }
            }
            // It ended before the model wrote: what it reported by then is all there is.
            None if reading.error_event => match reading.partial {
                Some(units) => LearntUsage::Reported { units, told, drained: self.drained },
                None => LearntUsage::Unbilled,
            },
            None => LearntUsage::Unknown { units: estimate(), told },
        }
    }
}
