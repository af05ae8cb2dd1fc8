//! What the process before this one left behind: its journal is read to the end, and every call that it had sent without hearing of
//! its end gets a record.
//!
//! **Invariant:** each hold without a record becomes exactly one record, under the hold's own id and charged at all it held, however
//! often recovery itself is interrupted: it is written to the journal first, and what the journal has is no orphan at the next start.

use std::path::Path;

use super::batch::SegmentReader;
use super::journal::Journal;
use super::payload::Unreadable;
use super::segment;
use super::sqlite::{Store, Until};
use super::{LedgerError, entry};

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records that the journal had and the store had not.
    pub ingested: u64,
    /// Calls that got a record because they had none.
    pub presumed: u64,
}

/// Takes in every segment to its end. One that its core left behind after a failure ends where its successor says.
pub(super) fn read_all(data_dir: &Path, store: &mut Store) -> Result<u64, LedgerError> {
    let left = segment::left_behind(data_dir)?;
    let mut records = 0;
    for name in segment::list(data_dir)? {
        records += store.read(data_dir, &name, Until { bytes: None, entries: left.get(&name).copied() })?;
    }
    Ok(records)
}

/// Writes the records of orphaned calls to `journal`, which is of this epoch, and waits for the disk. All earlier segments have been
/// taken in.
pub(super) fn presume(data_dir: &Path, store: &mut Store, journal: &Journal) -> Result<u64, LedgerError> {
    let mut presumed = 0;
    for (segment, offset) in store.open_holds()? {
        let mut reader = SegmentReader::open(&segment::file(data_dir, &segment))?;
        let found = reader.entry_at(offset);
        let found = found.map_err(|source| LedgerError::file("reading", &*segment, source))?;
        match found.as_ref().map_or(Err(Unreadable), entry::hold) {
            Ok(hold) => {
                let row = hold.presumed();
                tracing::warn!(id = %row.id, at = %row.at, "a call was under way when the gateway ended: it is charged at its hold");
                journal.row(&row);
                presumed += 1;
            }
            Err(error) => {
                tracing::error!(segment = &*segment, offset, %error, "a hold cannot be read and stays open");
            }
        }
    }
    if presumed > 0 {
        journal.sync()?;
        store.read(data_dir, &journal.end().segment, Until::default())?;
    }
    Ok(presumed)
}
