//! The store that a report is made of: this replica's own, or that of several.
//!
//! **Invariant:** what the store has not taken in yet of the journal at hand is read from there, and counts once.

use std::path::{Path, PathBuf};

use super::grouping::{GroupRow, Grouping, Summed};
use super::postgres::{PostgresServer, ReplicaState, SharedReader};
use super::rollup::Rollup;
use super::segment::{self, Known};
use super::sqlite::StoreReader;
use super::{LedgerError, offline, replica};

/// A store, opened for reading. A closed set.
#[derive(Debug)]
enum Reader {
    Sqlite(StoreReader),
    Postgres(Box<SharedReader>),
}

/// What a report is made of.
#[derive(Debug)]
pub struct ReportStore {
    reader: Reader,
    data_dir: PathBuf,
}

impl ReportStore {
    /// Of the replica with this data directory alone.
    pub fn own(data_dir: &Path) -> Result<Self, LedgerError> {
        Ok(Self { reader: Reader::Sqlite(StoreReader::open(data_dir)?), data_dir: data_dir.to_owned() })
    }

    /// Of all replicas. The data directory may be of one of them, or none.
    pub fn shared(server: &PostgresServer, data_dir: &Path) -> Result<Self, LedgerError> {
        let reader = Reader::Postgres(Box::new(SharedReader::open(server)?));
        Ok(Self { reader, data_dir: data_dir.to_owned() })
    }

    /// The replicas that are gone, whose journals may have calls that are in no store.
    pub fn left_behind(&mut self) -> Result<Vec<ReplicaState>, LedgerError> {
        match &mut self.reader {
            Reader::Sqlite(_) => Ok(Vec::new()),
            Reader::Postgres(reader) => {
                let mut replicas = reader.replicas()?;
                replicas.retain(ReplicaState::is_left_behind);
                Ok(replicas)
            }
        }
    }

    /// Asks for sums, and hands every row to `each`.
    pub(crate) fn grouped(
        &mut self,
        grouping: &Grouping,
        summed: Summed,
        each: impl FnMut(&GroupRow<'_>),
    ) -> Result<(), LedgerError> {
        match &mut self.reader {
            Reader::Sqlite(reader) => reader.grouped(grouping, summed, each),
            Reader::Postgres(reader) => reader.grouped(grouping, summed, each),
        }
    }

    /// What the journal has behind the store, added up.
    pub(crate) fn tail(&mut self) -> Result<Rollup, LedgerError> {
        let known = match &mut self.reader {
            Reader::Sqlite(reader) => reader.known()?,
            Reader::Postgres(reader) => match replica::id(&self.data_dir)? {
                Some(id) => reader.known(id)?,
                // Nothing of a journal that is here was ever taken in.
                None => Known::new(),
            },
        };
        if !segment::directory(&self.data_dir).is_dir() {
            return Ok(Rollup::default());
        }
        offline::tail(&self.data_dir, &known)
    }
}
