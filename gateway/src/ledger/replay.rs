//! Taking in again what a journal has: a database that was lost, or what a replica that is gone left behind.

use std::path::Path;

use super::offline::{alone, written};
use super::postgres::{self, PostgresServer, SharedReader};
use super::sqlite::{Store, StoreReader};
use super::{Ledger, LedgerError, recover, replica, segment};
use crate::files::{DirectoryLock, LockError};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Records that the database had not.
    pub new: usize,
    /// Calls that were left open and got a record.
    pub presumed: u64,
    /// A gateway has the directory: calls that are open there are under way.
    pub is_served: bool,
}

/// Takes the whole journal of a data directory into the database of several replicas, whatever that has of it. `name` is what the replica is
/// called if the database does not know it.
///
/// Where no gateway has the directory, each call that was left open gets its record first, as at a start.
pub fn replay(server: &PostgresServer, data_dir: &Path, name: Option<&str>) -> Result<Replayed, LedgerError> {
    let _alone = alone(data_dir)?;
    let lock = match DirectoryLock::take(data_dir) {
        Ok(lock) => Some(lock),
        Err(LockError::Taken(..)) => None,
        Err(LockError::Io(path, source)) => return Err(LedgerError::file("locking", path, source)),
    };
    // A copy is not locked, and neither is a directory that another host serves.
    let is_served = lock.is_none() || is_there(server, data_dir)?;
    let presumed = match is_served {
        true => {
            written(data_dir);
            0
        }
        false if segment::directory(data_dir).is_dir() => settle_orphans(data_dir)?,
        false => 0,
    };
    let known = StoreReader::open(data_dir)?.known()?;
    segment::sync_all(data_dir)?;
    let new = postgres::replay(server, data_dir, (name, &known), !is_served)?;
    Ok(Replayed { new, presumed, is_served })
}

/// Whether the replica of the directory has told the database lately that it is there.
fn is_there(server: &PostgresServer, data_dir: &Path) -> Result<bool, LedgerError> {
    let Some(own) = replica::id(data_dir)? else { return Ok(false) };
    // A database without tables knows of nobody.
    let Ok(mut reader) = SharedReader::open(server) else { return Ok(false) };
    Ok(reader.replicas()?.iter().any(|known| known.id == own && known.is_there()))
}

/// Gives each call a record that the last process left open. The directory is locked.
fn settle_orphans(data_dir: &Path) -> Result<u64, LedgerError> {
    let mut store = Store::open(data_dir)?;
    recover::read_all(data_dir, &mut store)?;
    if store.open_holds()?.is_empty() {
        return Ok(0);
    }
    drop(store);
    // Its seals are made by who has their key.
    let (ledger, _) = Ledger::open(data_dir, None, 1)?;
    ledger.close()?;
    Ok(ledger.recovered().presumed)
}
