//! Which ranges are taken in: what a core added up itself, or what is read from a segment's file.

use std::path::Path;
use std::sync::Arc;

use super::Store;
use crate::ledger::LedgerError;
use crate::ledger::batch::{Batch, Batches, Damaged};
use crate::ledger::entry::JournalEntry;
use crate::ledger::rollup::Rollup;
use crate::ledger::segment::{self, SegmentEnd};

/// Bytes of journal that are read for one transaction.
const BATCH: u64 = 8 << 20;

/// What was written to a segment since the last range.
#[derive(Debug)]
pub(crate) struct SegmentRange {
    /// How far it goes, in entries.
    pub(crate) end: SegmentEnd,
    /// The bytes that it stands in.
    pub(crate) from: u64,
    pub(crate) until: u64,
    /// What it adds up to; absent where that has to be read from the file.
    pub(crate) rollup: Option<Rollup>,
}

/// Where reading a segment's file ends, if not where the file does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Until {
    pub(crate) bytes: Option<u64>,
    pub(crate) entries: Option<u64>,
}

impl Store {
    /// Takes in a range of this process.
    pub(crate) fn take(&mut self, data_dir: &Path, range: &SegmentRange) -> Result<(), LedgerError> {
        let name = &range.end.segment;
        let cursor = self.cursors.get(name).map_or(0, |cursor| cursor.offset);
        match &range.rollup {
            Some(rollup) if cursor == range.from => self.commit(name, range.until, range.end.entries, rollup),
            _ => self.read(data_dir, name, Until { bytes: Some(range.until), entries: None }).map(drop),
        }
    }

    /// Takes in what a segment's file has beyond the cursor, as whole batches. Returns how many records that were.
    pub(crate) fn read(
        &mut self,
        data_dir: &Path,
        name: &Arc<str>,
        until: Until,
    ) -> Result<u64, LedgerError> {
        let mut records = 0;
        loop {
            let (offset, before) =
                self.cursors.get(name).map_or((0, 0), |cursor| (cursor.offset, cursor.lines));
            let mut batches = Batches::open(&segment::file(data_dir, name), offset)?;
            let mut rollup = Rollup::default();
            let (mut end, mut count) = (offset, before);
            let more = |end: u64, count: u64| {
                end < offset + BATCH
                    && until.bytes.is_none_or(|bytes| end < bytes)
                    && until.entries.is_none_or(|entries| count < entries)
            };
            while more(end, count) {
                let batch =
                    batches.next_batch().map_err(|source| LedgerError::file("reading", &**name, source))?;
                let Some(batch) = batch else { break };
                add_up(name, count, &batch, &mut rollup);
                count += batch.count;
                end = batches.offset();
            }
            if count == before {
                return Ok(records);
            }
            records += rollup.records;
            self.commit(name, end, count, &rollup)?;
        }
    }
}

/// Adds up what can be read of a batch that has `before` entries before it, and says on the log what cannot.
fn add_up(segment: &str, before: u64, batch: &Batch<'_>, rollup: &mut Rollup) {
    if batch.passed_over > 0 {
        let (bytes, offset) = (batch.passed_over, batch.start - batch.passed_over);
        tracing::error!(segment, entry = before + 1, offset, bytes, "a part of the journal is damaged");
    }
    for (number, entry) in (before + 1..).zip(batch.entries()) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Damaged { offset }) => {
                tracing::error!(segment, entry = number, offset, "an entry of the journal is damaged");
                continue;
            }
        };
        match JournalEntry::read(&entry) {
            Ok(JournalEntry::Hold(id)) => rollup.hold(id, entry.offset),
            Ok(JournalEntry::Record(row)) => rollup.record(&row.fields()),
            Ok(JournalEntry::Other) => {}
            Err(error) => {
                let offset = entry.offset;
                tracing::error!(segment, entry = number, offset, %error, "an entry of the journal cannot be read");
            }
        }
    }
}
