//! What can go wrong with the ledger.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// Why the ledger could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The journal's disk is full: nothing new may begin.
    #[error("the journal's disk is full")]
    Full,
    /// The journal cannot be written.
    #[error("the journal cannot be written")]
    Unavailable,
    /// An entry cannot be encoded; none of ours can fail to be.
    #[error("an entry of the journal cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// A file could not be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done, e.g. `reading`.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// SQLite refused.
    #[error("the store {} fails; if it is damaged, move it away: it is built again from the journal", path.display())]
    Store {
        /// The store's file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The database that several replicas share cannot be used.
    #[error("ledger.postgres.{field}: {what}")]
    Postgres {
        /// The setting below `ledger.postgres` that it is about.
        field: &'static str,
        /// What is wrong.
        what: String,
    },
    /// There is no ledger at this place.
    #[error("there is no ledger in {}", .0.display())]
    Missing(PathBuf),
    /// There is no audit trail at this place.
    #[error("there is no audit trail in {}", .0.display())]
    NoTrail(PathBuf),
    /// The key of the seals is unfit.
    #[error("the seal key (ledger.sealKeyFile) {} is unfit: {what}", path.display())]
    SealKey {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There are seals, and the key is not the one that they were made with.
    #[error(
        "the seal key (ledger.sealKeyFile) {} {what} {}: put the right key back, or move {} and {} away to begin a new chain of seals",
        path.display(), seals.display(), seals.display(), anchor.display()
    )]
    OtherSealKey {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// The seals' file.
        seals: PathBuf,
        /// Where the latest seal stands beside the key.
        anchor: PathBuf,
    },
    /// The ledger has no record with the id that was asked for.
    #[error("record {0}: there is none with this id")]
    NoRecord(String),
    /// A record that was asked for is not one that can be corrected.
    #[error("record {id}: {what}")]
    Record {
        /// The id asked for.
        id: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl LedgerError {
    pub(crate) fn file(doing: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::File { doing, path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn store(path: &Path, source: rusqlite::Error) -> Self {
        Self::Store { path: path.to_owned(), source }
    }
}

/// An error with its causes, for one field of a log line.
pub(crate) fn chain(error: &LedgerError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
