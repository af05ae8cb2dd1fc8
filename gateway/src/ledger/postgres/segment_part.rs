//! A part of a segment, as it goes into the database at once: its records, and what they add up to.

use std::collections::HashSet;
use std::path::Path;

use crate::ledger::LedgerError;
use crate::ledger::batch::Batches;
use crate::ledger::chain::ChainHead;
use crate::ledger::dimension::Number;
use crate::ledger::entry::{JournalEntry, write_json};
use crate::ledger::json::{Calendar, Json};
use crate::ledger::record::RecordId;
use crate::ledger::rollup::Rollup;
use crate::ledger::segment;

/// Bytes of journal that go in at once.
const STRETCH: u64 = 1 << 20;

/// Where a segment was read up to: bytes, and entries before them.
pub(super) type SegmentOffset = (u64, u64);

/// A record as the database has it.
#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) id: RecordId,
    /// Unix microseconds.
    pub(super) at: i64,
    pub(super) corrects: Option<RecordId>,
    /// As sums count it.
    pub(super) requests: i64,
    /// Nano-USD.
    pub(super) cost: i64,
    pub(super) json: String,
}

/// Whole batches of a segment.
#[derive(Debug)]
pub(super) struct SegmentPart {
    pub(super) records: Vec<StoredRecord>,
    pub(super) rollup: Rollup,
    /// Where it ends.
    pub(super) end: SegmentOffset,
    /// The head of the chain there.
    pub(super) head: ChainHead,
}

impl SegmentPart {
    /// What stands in a segment behind `from`, and at most up to `until`; `None` where nothing whole does.
    pub(super) fn read(
        data_dir: &Path,
        name: &str,
        from: SegmentOffset,
        until: SegmentOffset,
    ) -> Result<Option<Self>, LedgerError> {
        let (records, rollup) = (Vec::new(), Rollup::default());
        let mut stretch = Self { records, rollup, end: from, head: ChainHead::NONE };
        let (mut json, mut calendar) = (Vec::new(), Calendar::default());
        let (end, head) = each_record(data_dir, name, (from, until), |entry, row| {
            json.clear();
            // What can be read as a record can be written.
            if write_json(entry, &mut Json::new(&mut json, &mut calendar)).is_ok() {
                let fields = row.fields();
                stretch.rollup.record(&fields);
                stretch.records.push(StoredRecord {
                    id: row.id,
                    at: row.at.as_microsecond(),
                    corrects: row.corrects,
                    requests: fields.number(Number::Count).unwrap_or(1),
                    cost: fields.number(Number::Cost).unwrap_or_default(),
                    json: String::from_utf8_lossy(&json).into_owned(),
                });
            }
        })?;
        (stretch.end, stretch.head) = (end, head);
        Ok((end.1 > from.1).then_some(stretch))
    }

    /// What those of its records add up to whose ids are in `new`.
    pub(super) fn rollup_of(
        &self,
        data_dir: &Path,
        name: &str,
        from: SegmentOffset,
        mut new: HashSet<RecordId>,
    ) -> Result<Rollup, LedgerError> {
        let mut rollup = Rollup::default();
        each_record(data_dir, name, (from, self.end), |_, row| {
            if new.remove(&row.id) {
                rollup.record(&row.fields());
            }
        })?;
        Ok(rollup)
    }
}

/// Hands on each record that can be read, and gives where that ended, with the head of the chain there.
fn each_record(
    data_dir: &Path,
    name: &str,
    (from, until): (SegmentOffset, SegmentOffset),
    mut each: impl FnMut(&crate::ledger::batch::BatchEntry<'_>, &crate::ledger::line::Row),
) -> Result<(SegmentOffset, ChainHead), LedgerError> {
    let mut batches = Batches::open(&segment::file(data_dir, name), from.0)?;
    let ((mut end, mut entries), mut head) = (from, ChainHead::NONE);
    while end < until.0 && end < from.0 + STRETCH {
        let batch = batches.next_batch().map_err(|source| LedgerError::file("reading", name, source))?;
        let Some(batch) = batch else { break };
        for entry in batch.entries().flatten() {
            if let Ok(JournalEntry::Record(row)) = JournalEntry::read(&entry) {
                each(&entry, &row);
            }
        }
        (entries, head) = (entries + batch.count, batch.head);
        end = batches.offset();
    }
    Ok(((end, entries), head))
}
