//! Going on in another segment, so that retention can remove the one before.
//!
//! **Invariant:** no entry is in neither or in both, and each core's segments name the one before.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::sink::Sink;
use super::{Journal, JournalState};
use crate::ledger::LedgerError;
use crate::ledger::segment::SegmentEnd;

/// A segment this large, or begun this long ago, is followed by another, so that retention can remove it.
const SEGMENT_BYTES: u64 = 64 << 20;
pub(super) const SEGMENT_TIME: SignedDuration = SignedDuration::from_hours(24);
impl Journal {
    /// Begins another segment where this one is large or old. Gives the head of the one that is over, which is durable. Blocks: for the
    /// control plane.
    pub(crate) fn rotate(&self, now: Timestamp) -> Result<Option<SegmentEnd>, LedgerError> {
        let is_due = |state: &JournalState| {
            let old = now.duration_since(state.begun) >= SEGMENT_TIME && state.written.entries > 1;
            state.broken.is_none() && (old || state.length >= SEGMENT_BYTES)
        };
        let full = match &*self.state() {
            state if is_due(state) => state.written.clone(),
            _ => return Ok(None),
        };
        // The file is made without the lock, as above; what is appended meanwhile belongs to the old one.
        let (file, written, length) = self.epoch.follow(&self.who, now, full)?;
        let (old, head) = {
            let mut state = self.state();
            state.write(&self.reserve);
            if state.broken.is_some() {
                return Err(LedgerError::Unavailable);
            }
            let range = state.range();
            state.ranges.push(range);
            (state.begun, state.counted) = (now, 0);
            let old = std::mem::replace(&mut state.sink, Sink::File(Arc::new(file)));
            state.leave_unsynced();
            state.length = length;
            state.batch.restart(length);
            state.dirty = true;
            (old, std::mem::replace(&mut state.written, written))
        };
        match old.sync() {
            Ok(()) => {
                self.state().unsynced.retain(|(segment, _)| *segment != head.segment);
                Ok(Some(head))
            }
            Err(error) => Err(LedgerError::file("syncing", &*head.segment, error)),
        }
    }

    /// Tries again to make segments durable that this journal has gone on from.
    pub(super) fn sync_earlier(&self) {
        let unsynced = self.state().unsynced.clone();
        for (segment, _) in unsynced {
            if self.epoch.sync(&segment).is_ok() {
                self.state().unsynced.retain(|(known, _)| *known != segment);
            }
        }
    }
}
