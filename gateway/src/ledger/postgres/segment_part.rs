//! A part of a segment, as it goes into the database at once: its records, and what they add up to.

use std::collections::HashSet;
use std::path::Path;

use crate::ledger::LedgerError;
use crate::ledger::batch::Batches;
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
    pub(super) json: String,
}

/// Whole batches of a segment.
#[derive(Debug, Default)]
pub(super) struct SegmentPart {
    pub(super) records: Vec<StoredRecord>,
    pub(super) rollup: Rollup,
    /// Where it ends.
    pub(super) end: SegmentOffset,
}

impl SegmentPart {
    /// What stands in a segment behind `from`, and at most up to `until`; `None` where nothing whole does.
    pub(super) fn read(
        data_dir: &Path,
        name: &str,
        from: SegmentOffset,
        until: SegmentOffset,
    ) -> Result<Option<Self>, LedgerError> {
        let mut stretch = Self::default();
        let (mut json, mut calendar) = (Vec::new(), Calendar::default());
        let end = each_record(data_dir, name, (from, until), |entry, row| {
            json.clear();
            // What can be read as a record can be written.
            if write_json(entry, &mut Json::new(&mut json, &mut calendar)).is_ok() {
                stretch.rollup.record(&row.fields());
                stretch.records.push(StoredRecord {
                    id: row.id,
                    at: row.at.as_microsecond(),
                    corrects: row.corrects,
                    json: String::from_utf8_lossy(&json).into_owned(),
                });
            }
        })?;
        stretch.end = end;
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

/// Hands on each record that can be read, and gives where that ended.
fn each_record(
    data_dir: &Path,
    name: &str,
    (from, until): (SegmentOffset, SegmentOffset),
    mut each: impl FnMut(&crate::ledger::batch::BatchEntry<'_>, &crate::ledger::line::Row),
) -> Result<SegmentOffset, LedgerError> {
    let mut batches = Batches::open(&segment::file(data_dir, name), from.0)?;
    let (mut end, mut entries) = from;
    while end < until.0 && end < from.0 + STRETCH {
        let batch = batches.next_batch().map_err(|source| LedgerError::file("reading", name, source))?;
        let Some(batch) = batch else { break };
        for entry in batch.entries().flatten() {
            if let Ok(JournalEntry::Record(row)) = JournalEntry::read(&entry) {
                each(&entry, &row);
            }
        }
        entries += batch.count;
        end = batches.offset();
    }
    Ok((end, entries))
}
