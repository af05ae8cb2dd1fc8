//! What commands need that run beside a gateway, or where none runs.
//!
//! **Invariant:** commands take turns. Only who has the data directory's lock writes the store, and a command has it for no longer than
//! it takes to read what the journal has.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::batch::{BatchEntry, Batches};
use super::entry::JournalEntry;
use super::line::Row;
use super::rollup::Rollup;
use super::segment::{self, Known};
use super::sqlite::{Store, StoreReader};
use super::{Balances, LONGEST_WINDOW, LedgerError, recover};
use crate::files::{DirectoryLock, LockError};

/// Waits until no other command is at work on this ledger, and keeps it so until the file is dropped.
pub(super) fn alone(data_dir: &Path) -> Result<File, LedgerError> {
    let path = data_dir.join("commands.lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let locked = open.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| LedgerError::file("locking", &path, source))
}

/// How long a running gateway keeps entries in memory that nobody waits for, such as those of refusals, with a margin.
const IN_MEMORY: Duration = Duration::from_millis(300);

/// Waits until what a gateway has in memory now is in its journal, if one runs.
pub fn written(data_dir: &Path) {
    if DirectoryLock::is_taken(data_dir) {
        std::thread::sleep(IN_MEMORY);
    }
}

/// Reads into the store what the journal has, unless a gateway runs: that does so itself, several times a second. Makes nothing where
/// there is no ledger.
pub fn catch_up(data_dir: &Path) -> Result<(), LedgerError> {
    if !segment::directory(data_dir).is_dir() {
        return Ok(());
    }
    written(data_dir);
    let _alone = alone(data_dir)?;
    let _lock = match DirectoryLock::take(data_dir) {
        Ok(lock) => lock,
        Err(LockError::Taken(..)) => return Ok(()),
        Err(LockError::Io(path, source)) => return Err(LedgerError::file("locking", path, source)),
    };
    recover::read_all(data_dir, &mut Store::open(data_dir)?).map(drop)
}

/// What windows were charged, as the store of a data directory has it; `None` where there is no ledger.
pub(crate) fn recorded_balances(data_dir: &Path) -> Result<Option<Balances>, LedgerError> {
    let since = Timestamp::now().saturating_sub(LONGEST_WINDOW).unwrap_or(Timestamp::MIN);
    match StoreReader::open(data_dir) {
        Err(LedgerError::Missing(_)) => Ok(None),
        opened => opened?.balances(since).map(Some),
    }
}

/// What the journal has behind `known`, added up.
pub(super) fn tail(data_dir: &Path, known: &Known) -> Result<Rollup, LedgerError> {
    let mut rollup = Rollup::default();
    records(data_dir, known, |row| rollup.record(&row.fields()))?;
    Ok(rollup)
}

/// Hands every record to `each` that the journal has behind `known`, segment by segment. What cannot be read counts nowhere and is passed
/// over.
pub(super) fn records(data_dir: &Path, known: &Known, mut each: impl FnMut(Row)) -> Result<(), LedgerError> {
    entries(data_dir, &mut known.clone(), Timestamp::MIN, |entry| {
        if let Ok(JournalEntry::Record(row)) = JournalEntry::read(entry) {
            each(*row);
        }
    })
}

/// Hands every entry to `each` that the journal has behind `known` and that counts, segment by segment, and says in `known` how far that
/// was. Segments that nobody has written to since then are passed over, and so is what is damaged.
pub(super) fn entries(
    data_dir: &Path,
    known: &mut Known,
    since: Timestamp,
    mut each: impl FnMut(&BatchEntry<'_>),
) -> Result<(), LedgerError> {
    let left = segment::left_behind(data_dir)?;
    for name in segment::list(data_dir)? {
        let (offset, mut count) = known.get(&name).copied().unwrap_or_default();
        let end = left.get(&name).copied().unwrap_or(u64::MAX);
        let written = segment::written(data_dir, &name)?;
        if written.is_none_or(|(length, last)| length <= offset || last < since) {
            continue;
        }
        let mut batches = Batches::open(&segment::file(data_dir, &name), offset)?;
        while count < end {
            let batch =
                batches.next_batch().map_err(|source| LedgerError::file("reading", &*name, source))?;
            let Some(batch) = batch else { break };
            batch.entries().flatten().for_each(|entry| each(&entry));
            count += batch.count;
        }
        known.insert(name, (batches.offset(), count));
    }
    Ok(())
}
