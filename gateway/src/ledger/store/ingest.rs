//! Reading the journal into the store.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior, params};

use super::dimensions::Dimensions;
use super::{Cursor, Store};
use crate::ledger::LedgerError;
use crate::ledger::line::{Line, Row};
use crate::ledger::record::RecordId;
use crate::ledger::segment::{self, Lines};

/// Bytes of journal per transaction.
const BATCH: u64 = 8 << 20;

/// What charges of one window add up to: by limit, key, and the moment in milliseconds.
type Charged = HashMap<(Box<str>, Box<str>, i64), i64>;

impl Store {
    /// Reads everything that the journal has and the store has not, in segments whose names sort at `from` or after. Returns how many
    /// records were new. On an error nothing is half done; what was committed stays.
    pub(crate) fn ingest(&mut self, data_dir: &Path, from: &str) -> Result<u64, LedgerError> {
        let mut new = 0;
        for name in segment::list(data_dir)?.into_iter().filter(|name| **name >= *from) {
            let length = segment::length(data_dir, &name)?;
            while self.cursors.get(&name).map_or(0, |cursor| cursor.offset) < length {
                let Some(records) = self.batch(data_dir, &name)? else { break };
                new += records;
            }
        }
        Ok(new)
    }

    /// One transaction's worth of a segment; `None` if there was no whole line.
    fn batch(&mut self, data_dir: &Path, name: &Arc<str>) -> Result<Option<u64>, LedgerError> {
        let before = self.cursors.get(name).copied();
        let mut lines = Lines::open(data_dir, name, before.map_or(0, |cursor| cursor.offset))?;
        let result = self.transact(name, before, &mut lines);
        let (cursor, records) = match result {
            Ok(done) => done,
            Err(error) => {
                self.reload()?;
                return Err(error);
            }
        };
        if before.is_some_and(|before| before.offset == cursor.offset) {
            return Ok(None);
        }
        self.cursors.insert(Arc::clone(name), cursor);
        Ok(Some(records))
    }

    fn transact(
        &mut self,
        name: &Arc<str>,
        before: Option<Cursor>,
        lines: &mut Lines,
    ) -> Result<(Cursor, u64), LedgerError> {
        let failed = |source| LedgerError::store(&self.path, source);
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(failed)?;
        let cursor = match before {
            Some(cursor) => cursor,
            None => begin_segment(&transaction, name).map_err(failed)?,
        };
        let mut batch = Batch::new(&transaction, cursor.id, &mut self.dimensions).map_err(failed)?;
        let mut count = cursor.lines;
        loop {
            let offset = lines.offset();
            if offset > cursor.offset + BATCH {
                break;
            }
            let line = lines.next_line().map_err(|source| LedgerError::file("reading", &**name, source))?;
            let Some(line) = line else { break };
            count += 1;
            match Line::read(line) {
                Ok(Line::Hold(id)) => batch.hold(id, line),
                Ok(Line::Record(row)) => batch.record(&row, offset, &self.open).map_err(failed)?,
                Ok(Line::Other) => {}
                Err(error) => {
                    tracing::error!(segment = &**name, offset, %error, "a line of the journal cannot be read")
                }
            }
        }
        let cursor = Cursor { id: cursor.id, offset: lines.offset(), lines: count };
        let (added, removed, records) = batch.finish(cursor).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        for id in &removed {
            self.open.remove(id);
        }
        self.open.extend(added);
        Ok((cursor, records))
    }
}

/// What one transaction writes.
struct Batch<'a> {
    connection: &'a Connection,
    dimensions: &'a mut Dimensions,
    insert: CachedStatement<'a>,
    segment: i64,
    /// Holds whose record has not come yet.
    pending: HashMap<RecordId, Box<[u8]>>,
    /// Holds of earlier batches whose record has.
    ended: Vec<RecordId>,
    charged: Charged,
    records: u64,
}

impl<'a> Batch<'a> {
    fn new(
        connection: &'a Connection,
        segment: i64,
        dimensions: &'a mut Dimensions,
    ) -> rusqlite::Result<Self> {
        let insert = connection.prepare_cached(
            "INSERT INTO records (id, at, dimensions, status, input, cache_read, cache_write, output, reasoning, media,
             bytes_in, bytes_out, cost, unpriced, segment, offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) ON CONFLICT (id) DO NOTHING",
        )?;
        let (pending, charged) = (HashMap::new(), Charged::new());
        Ok(Self { connection, dimensions, insert, segment, pending, ended: Vec::new(), charged, records: 0 })
    }

    fn hold(&mut self, id: RecordId, line: &[u8]) {
        self.pending.insert(id, line.into());
    }

    fn record(&mut self, row: &Row<'_>, offset: u64, open: &HashSet<RecordId>) -> rusqlite::Result<()> {
        if self.pending.remove(&row.id).is_none() && open.contains(&row.id) {
            self.ended.push(row.id);
        }
        let units = &row.units;
        let new = self.insert.execute(params![
            row.id.as_bytes().as_slice(),
            row.at.as_microsecond(),
            self.dimensions.id(self.connection, row)?,
            row.status,
            units.input,
            units.cache_read,
            units.cache_write_5m.saturating_add(units.cache_write_1h),
            units.output,
            units.reasoning,
            units.media(),
            whole(row.bytes_in),
            whole(row.bytes_out),
            row.cost.unwrap_or_default().0,
            row.unpriced,
            self.segment,
            whole(offset),
        ])?;
        if new == 0 {
            return Ok(());
        }
        self.records += 1;
        if let Some(original) = row.corrects {
            let mut correct =
                self.connection.prepare_cached("INSERT INTO corrections (id, corrects) VALUES (?1, ?2)")?;
            correct.execute([row.id.as_bytes().as_slice(), original.as_bytes().as_slice()])?;
        }
        let opened = row.held_at.unwrap_or(row.at).as_millisecond();
        for charge in &row.charges {
            let granule = granule(&charge.limit);
            let key = (
                charge.limit.as_ref().into(),
                charge.key.as_ref().into(),
                opened - opened.rem_euclid(granule),
            );
            let sum = self.charged.entry(key).or_default();
            *sum = sum.saturating_add(charge.amount.0);
        }
        Ok(())
    }

    /// Writes what was collected, and gives the holds that are open now and those that no longer are, and how many records were new.
    fn finish(self, cursor: Cursor) -> rusqlite::Result<(Vec<RecordId>, Vec<RecordId>, u64)> {
        let mut charge = self.connection.prepare_cached(
            "INSERT INTO charges (limit_id, key, opened, amount) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET amount = min(max(amount, -(1 << 61)) + excluded.amount, 1 << 61)",
        )?;
        for ((limit, key, opened), amount) in &self.charged {
            charge.execute(params![limit, key, opened, amount.clamp(&-(1 << 61), &(1 << 61))])?;
        }
        let mut end = self.connection.prepare_cached("DELETE FROM holds WHERE id = ?1")?;
        for id in &self.ended {
            end.execute([id.as_bytes().as_slice()])?;
        }
        // A record may stand in a segment that sorts before that of its hold.
        let mut open = self.connection.prepare_cached(
            "INSERT INTO holds (id, line) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM records WHERE id = ?1)
             ON CONFLICT DO NOTHING",
        )?;
        let mut opened = Vec::new();
        for (id, line) in self.pending {
            if open.execute(params![id.as_bytes().as_slice(), line])? == 1 {
                opened.push(id);
            }
        }
        let mut advance =
            self.connection.prepare_cached("UPDATE segments SET offset = ?2, lines = ?3 WHERE id = ?1")?;
        advance.execute(params![cursor.id, whole(cursor.offset), whole(cursor.lines)])?;
        Ok((opened, self.ended, self.records))
    }
}

fn begin_segment(connection: &Connection, name: &str) -> rusqlite::Result<Cursor> {
    connection.execute("INSERT INTO segments (name, offset, lines) VALUES (?1, 0, 0)", [name])?;
    Ok(Cursor { id: connection.last_insert_rowid(), offset: 0, lines: 0 })
}

/// Charges are added up by this many milliseconds. It divides the slices and the calendar borders of the limit's windows, so a
/// charge stays in the slice in which its hold was taken: a slice is a sixtieth of a window.
fn granule(limit: &str) -> i64 {
    match limit.rsplit('/').nth(1) {
        Some("hour" | "day" | "week" | "month") => 60_000,
        Some("minute") => 1_000,
        _ => 1,
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
