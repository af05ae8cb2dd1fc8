//! The ledger's SQLite file: what reports and opening balances are read from.
//!
//! It is an extract of the journal and nothing more: lost or removed, it is built again from the segments.
//!
//! **Invariant:** a line counts once: what a stretch of lines adds up to and how far its segment was read change in one transaction.
//! Each record has one line that counts: what a segment has behind the place where its core left it is passed over.

mod commit;
mod dimensions;
mod grouped;
mod ingest;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use dimensions::Dimensions;
pub(crate) use dimensions::hash_of;
pub(crate) use ingest::{SegmentRange, Until};

use super::grouping::{GroupRow, Grouping, Summed};
use super::record::{Charge, RecordId};
use super::segment::Known;
use super::{Balances, LONGEST_WINDOW, LedgerError};

/// How long it is waited for another process that has the file locked, when the gateway starts or a report is made.
const PATIENCE: Duration = Duration::from_secs(5);

/// The store, opened for writing. One at a time: the data directory is locked.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    path: PathBuf,
    cursors: HashMap<Arc<str>, Cursor>,
    dimensions: Dimensions,
    /// Ids in the table of open holds.
    open: HashSet<RecordId>,
}

/// How far a segment was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    id: i64,
    offset: u64,
    lines: u64,
    /// The row of `stretches` that may be extended, and where its stretch begins.
    stretch: Option<(i64, u64)>,
}

/// A part of a segment, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) segment: Arc<str>,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Where the store of a data directory is.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger.sqlite")
}

const BALANCES: &str =
    "SELECT limit_id, key, opened, amount FROM charges WHERE opened >= ?1 AND amount > 0 ORDER BY opened";

fn charge(row: &rusqlite::Row<'_>, since: Timestamp) -> rusqlite::Result<(Timestamp, Charge)> {
    let (limit, key): (String, String) = (row.get(0)?, row.get(1)?);
    let opened = Timestamp::from_millisecond(row.get(2)?).unwrap_or(since);
    let amount = u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default();
    Ok((opened, Charge { limit: limit.into(), key: key.into(), amount }))
}

impl Store {
    /// Opens the store, and makes it if it is not there.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, LedgerError> {
        let path = path(data_dir);
        // What SQLite puts beside the file gets the file's own mode.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        made.map_err(|source| LedgerError::file("creating", &path, source))?;
        let open = || {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            schema::ensure(&connection)?;
            Ok(connection)
        };
        let connection = open().map_err(|source| LedgerError::store(&path, source))?;
        let mut store = Self {
            connection,
            path,
            cursors: HashMap::new(),
            dimensions: Dimensions::default(),
            open: HashSet::new(),
        };
        store.reload()?;
        Ok(store)
    }

    /// From now on somebody else's lock is an error at once: what cannot be done now is done at the next turn.
    pub(crate) fn impatient(&self) -> Result<(), LedgerError> {
        self.connection.busy_timeout(Duration::ZERO).map_err(|source| self.failed(source))
    }

    /// How much of each segment is in the store.
    pub(crate) fn known(&self) -> Known {
        self.cursors.iter().map(|(name, cursor)| (Arc::clone(name), (cursor.offset, cursor.lines))).collect()
    }

    /// Where the lines of holds without a record begin, in the order of their ids.
    pub(crate) fn open_holds(&self) -> Result<Vec<(Arc<str>, u64)>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT s.name, h.offset FROM holds h JOIN segments s ON s.id = h.segment ORDER BY h.id",
            )?;
            let rows =
                statement.query_map([], |row| Ok((row.get::<_, String>(0)?.into(), unsigned(row, 1)?)))?;
            rows.collect::<Result<_, _>>()
        };
        read().map_err(|source| self.failed(source))
    }

    /// What was charged since `since`, by the moment in which the hold was taken: to a minute, or finer where the limit's window is.
    pub(crate) fn balances(&self, since: Timestamp) -> Result<Balances, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(BALANCES)?;
            let rows = statement.query_map([since.as_millisecond()], |row| charge(row, since))?;
            rows.collect::<Result<_, _>>()
        };
        read().map_err(|source| self.failed(source))
    }

    /// The longest window that anything of the last month was charged to, by its stopwatch and with a day to spare.
    pub(crate) fn longest_window(&self) -> Result<SignedDuration, LedgerError> {
        let since = Timestamp::now().saturating_sub(LONGEST_WINDOW).unwrap_or(Timestamp::MIN);
        let read = || {
            let mut statement =
                self.connection.prepare("SELECT DISTINCT limit_id FROM charges WHERE opened >= ?1")?;
            let limits = statement.query_map([since.as_millisecond()], |row| row.get::<_, String>(0))?;
            limits.collect::<Result<Vec<_>, _>>()
        };
        let limits = read().map_err(|source| self.failed(source))?;
        Ok(limits.iter().map(|limit| window_of(limit)).max().unwrap_or(SignedDuration::ZERO))
    }

    /// Forgets where the lines of a segment are that is gone. What they added up to stays.
    pub(crate) fn forget(&mut self, name: &Arc<str>) -> Result<(), LedgerError> {
        let Some(cursor) = self.cursors.get(name).copied() else { return Ok(()) };
        let forget = || {
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM stretches WHERE segment = ?1", [cursor.id])?;
            transaction.execute("DELETE FROM segments WHERE id = ?1", [cursor.id])?;
            transaction.commit()
        };
        forget().map_err(|source| self.failed(source))?;
        self.cursors.remove(name);
        Ok(())
    }

    /// [`Store::forget`] for every segment that is not among `present`, unless a call that is under way has its hold there.
    pub(crate) fn forget_missing(&mut self, present: &[Arc<str>]) -> Result<(), LedgerError> {
        let held: Vec<_> = self.open_holds()?.into_iter().map(|(segment, _)| segment).collect();
        let gone = |name: &&Arc<str>| !present.contains(name) && !held.contains(name);
        let missing: Vec<_> = self.cursors.keys().filter(gone).cloned().collect();
        missing.iter().try_for_each(|name| self.forget(name))
    }

    fn reload(&mut self) -> Result<(), LedgerError> {
        self.cursors = self.cursors().map_err(|source| self.failed(source))?;
        self.open = self.open_ids().map_err(|source| self.failed(source))?;
        self.dimensions = Dimensions::default();
        Ok(())
    }

    fn cursors(&self) -> rusqlite::Result<HashMap<Arc<str>, Cursor>> {
        let mut statement = self.connection.prepare("SELECT name, id, offset, lines FROM segments")?;
        let cursors = statement.query_map([], |row| {
            let name: String = row.get(0)?;
            Ok((
                Arc::from(name),
                Cursor {
                    id: row.get(1)?,
                    offset: unsigned(row, 2)?,
                    lines: unsigned(row, 3)?,
                    stretch: None,
                },
            ))
        })?;
        cursors.collect()
    }

    fn open_ids(&self) -> rusqlite::Result<HashSet<RecordId>> {
        let mut statement = self.connection.prepare("SELECT id FROM holds")?;
        statement.query_map([], |row| row.get::<_, [u8; 16]>(0).map(RecordId::from))?.collect()
    }

    fn failed(&self, source: rusqlite::Error) -> LedgerError {
        LedgerError::store(&self.path, source)
    }
}

/// How long the window of a limit is at most, by the word for it in the limit's id.
pub(crate) fn window_of(limit: &str) -> SignedDuration {
    match limit.rsplit('/').nth(1) {
        Some("second" | "minute" | "hour") => SignedDuration::from_hours(2),
        Some("day") => SignedDuration::from_hours(2 * 24),
        Some("week") => SignedDuration::from_hours(8 * 24),
        _ => LONGEST_WINDOW,
    }
}

fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or_default())
}

/// The store, opened for reading beside a gateway that may be writing it: all that is read is of one moment.
#[derive(Debug)]
pub(crate) struct StoreReader {
    connection: Connection,
    path: PathBuf,
}

impl StoreReader {
    /// Fails with [`LedgerError::Missing`] where there is no ledger.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, LedgerError> {
        let path = path(data_dir);
        if !path.exists() {
            return Err(LedgerError::Missing(data_dir.to_owned()));
        }
        let open = || {
            let connection = connect(&path)?;
            connection.execute_batch("BEGIN")?;
            schema::check(&connection)?;
            Ok(connection)
        };
        match open() {
            Ok(connection) => Ok(Self { connection, path }),
            Err(source) => Err(LedgerError::store(&path, source)),
        }
    }

    /// As [`Store::balances`].
    pub(crate) fn balances(&self, since: Timestamp) -> Result<Balances, LedgerError> {
        let mut balances = Balances::new();
        self.query(BALANCES, &[&since.as_millisecond()], |row| {
            balances.push(charge(row, since)?);
            Ok(())
        })?;
        Ok(balances)
    }

    /// Runs a query and hands every row to `each`.
    pub(crate) fn query(
        &self,
        sql: &str,
        parameters: &[&dyn rusqlite::ToSql],
        mut each: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), LedgerError> {
        let mut run = || {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query(parameters)?;
            while let Some(row) = rows.next()? {
                each(row)?;
            }
            Ok(())
        };
        run().map_err(|source| LedgerError::store(&self.path, source))
    }

    /// Asks for sums, and hands every row to `each`.
    pub(crate) fn grouped(
        &self,
        grouping: &Grouping,
        summed: Summed,
        each: impl FnMut(&GroupRow<'_>),
    ) -> Result<(), LedgerError> {
        grouped::grouped(self, grouping, summed, each)
    }

    /// How much of each segment is in the store.
    pub(crate) fn known(&self) -> Result<Known, LedgerError> {
        let mut known = Known::new();
        self.query("SELECT name, offset, lines FROM segments", &[], |row| {
            let count =
                |column| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or_default());
            known.insert(row.get::<_, String>(0)?.into(), (count(1)?, count(2)?));
            Ok(())
        })?;
        Ok(known)
    }

    /// The corrections of this record.
    pub(crate) fn corrections(&self, id: RecordId) -> Result<Vec<RecordId>, LedgerError> {
        let mut corrections = Vec::new();
        self.query("SELECT id FROM corrections WHERE corrects = ?1", &[&id.as_bytes().as_slice()], |row| {
            corrections.push(RecordId::from(row.get::<_, [u8; 16]>(0)?));
            Ok(())
        })?;
        Ok(corrections)
    }

    /// Where the line of this record can be.
    pub(crate) fn find(&self, id: RecordId) -> Result<Vec<Extent>, LedgerError> {
        let mut places = Vec::new();
        let sql = "SELECT s.name, t.start, t.end FROM stretches t JOIN segments s ON s.id = t.segment
                   WHERE t.least <= ?1 AND t.greatest >= ?1";
        self.query(sql, &[&id.as_bytes().as_slice()], |row| {
            let segment: String = row.get(0)?;
            places.push(Extent { segment: segment.into(), start: unsigned(row, 1)?, end: unsigned(row, 2)? });
            Ok(())
        })?;
        Ok(places)
    }
}

/// Read-only. Without anybody writing, and in a directory that cannot be written, SQLite cannot set up what readers of a
/// write-ahead log share; then the file is whole by itself and is read as it is.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    let works = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let log = path.with_extension("sqlite-wal");
    if works.is_ok() || log.metadata().is_ok_and(|log| log.len() > 0) {
        return works.map(|()| connection);
    }
    immutable(path)
}

fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let escaped: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                char::from(*byte).to_string()
            }
            byte => format!("%{byte:02x}"),
        })
        .collect();
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
}
