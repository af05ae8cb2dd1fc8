//! What the process before this one left behind: its journal is read to the end, and every call that it had sent without hearing of
//! its end gets a record.
//!
//! **Invariant:** each hold without a record becomes exactly one record, under the hold's own id and charged at all it held, however
//! often recovery itself is interrupted: it is written to the journal first, and what the journal has is no orphan at the next start.

use std::path::Path;

use super::LedgerError;
use super::journal::Journal;
use super::line::{HoldRow, RECORD};
use super::store::Store;

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records that the journal had and the store had not.
    pub ingested: u64,
    /// Calls that got a record because they had none.
    pub presumed: u64,
}

/// Writes the records of orphaned calls to `journal`, which is of this run, and waits for the disk. All earlier segments have been
/// ingested.
pub(super) fn presume(data_dir: &Path, store: &mut Store, journal: &Journal) -> Result<u64, LedgerError> {
    let mut presumed = 0;
    for line in store.open_holds()? {
        match HoldRow::read(&line) {
            Ok(hold) => {
                let row = hold.presumed();
                tracing::warn!(id = %row.id, at = %row.at, "a call was under way when the gateway ended: it is charged at its hold");
                journal.append(RECORD, &row)?;
                presumed += 1;
            }
            Err(error) => tracing::error!(%error, "a hold cannot be read and stays open"),
        }
    }
    if presumed > 0 {
        journal.sync()?;
        store.ingest(data_dir, "")?;
    }
    Ok(presumed)
}
