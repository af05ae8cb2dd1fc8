//! The account of one turn of a session, which is billed by itself.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tollgate_policy::denial::Denial;

use super::{Account, AccountPhase};
use crate::caller_occupancy::{CallSlot, CallerOccupancy};
use crate::ledger::{Attempt, Record, RecordId};
use crate::metering::permitted::PermittedCall;
use crate::quota::Hold;
use crate::trace::CallTrace;

impl Account {
    /// Opens the account of a turn of the session that this one is of: it is called by the same caller, under the same grant, on the same
    /// connection. What it may use is held, and stands in the journal.
    ///
    /// # Errors
    /// As the hold of a call, and `ledger_unavailable`.
    pub(in crate::metering) fn turn(&self, call: &Arc<PermittedCall>) -> Result<Box<Self>, Denial> {
        let now = Timestamp::now();
        let hold = self.core.shared.quota.hold(&call.permit, call.model(), &call.demand(), now);
        let hold = hold.map_err(|denial| call.explained(denial))?;
        let mut turn = self.turn_holding(hold, call);
        turn.journal_hold()?;
        Ok(turn)
    }

    /// Opens the account of a turn that has begun and cannot be held: it holds nothing, so all that it is charged exceeds that. No line stands
    /// in the journal but its record.
    pub(in crate::metering) fn turn_past_limits(&self, call: &Arc<PermittedCall>) -> Box<Self> {
        let hold = self.core.shared.quota.hold_nothing(&call.permit, Timestamp::now());
        self.turn_holding(hold, call)
    }

    fn turn_holding(&self, hold: Hold, call: &Arc<PermittedCall>) -> Box<Self> {
        self.core.recorder.began();
        let session = &self.record;
        let mut record = Record::new(RecordId::new(), hold.opened(), session.method.clone());
        record.caller.clone_from(&session.caller);
        record.proof = session.proof;
        record.generation = session.generation;
        record.destination.clone_from(&session.destination);
        record.host.clone_from(&session.host);
        record.port = session.port;
        record.path.clone_from(&session.path);
        record.operation.clone_from(&session.operation);
        record.model.clone_from(&session.model);
        record.source.clone_from(&session.source);
        record.alias.clone_from(&session.alias);
        record.credential_version.clone_from(&session.credential_version);
        record.status = session.status;
        record.trace = session.trace;
        record.attempts = session
            .attempts
            .last()
            .map(|last| Attempt {
                peer: last.peer.clone(),
                source: last.source.clone(),
                alias: last.alias.clone(),
                credential_version: last.credential_version.clone(),
                ..Attempt::default()
            })
            .into_iter()
            .collect();
        let mut turn = Box::new(Self {
            core: Arc::clone(&self.core),
            record,
            started: Instant::now(),
            phase: AccountPhase::Authenticated,
            place: None,
            call: None,
            upload: None,
            passed: None,
            opened: None,
            blamed: None,
            trace: CallTrace::default(),
        });
        turn.permitted(call);
        turn.hold(call, hold);
        turn
    }

    /// What its caller occupies.
    pub(in crate::metering) fn caller_occupancy(&self) -> Option<Arc<CallerOccupancy>> {
        self.place.as_ref().map(CallSlot::usage).map(Arc::clone)
    }
}
