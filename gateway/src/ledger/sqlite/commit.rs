//! Taking in one stretch of a segment: all of it, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::dimensions::Dimensions;
use super::{Cursor, Store};
use crate::ledger::LedgerError;
use crate::ledger::record::RecordId;
use crate::ledger::rollup::{ChargeKey, Rollup, RollupSums};
use crate::ledger::timed_sums::{SumKey, TimeUnit, TimedSums};

/// Stretches are joined up to this many bytes: what has to be read to find one record.
const STRETCH: u64 = 1 << 20;
/// The largest sum that is kept, so that adding to it cannot fail.
pub(super) const MOST: i64 = 1 << 61;

impl Store {
    /// Adds what a stretch came to and moves the segment's cursor behind it, which has `lines` lines before it.
    pub(super) fn commit(
        &mut self,
        name: &Arc<str>,
        until: u64,
        lines: u64,
        rollup: &Rollup,
    ) -> Result<(), LedgerError> {
        let ended: Vec<RecordId> = rollup.ended.iter().filter(|id| self.open.contains(id)).copied().collect();
        let cursor = match self.transact(name, until, lines, rollup, &ended) {
            Ok(cursor) => cursor,
            Err(source) => {
                let failed = self.failed(source);
                self.reload()?;
                return Err(failed);
            }
        };
        for id in &ended {
            self.open.remove(id);
        }
        self.open.extend(rollup.open.keys());
        self.cursors.insert(Arc::clone(name), cursor);
        Ok(())
    }

    fn transact(
        &mut self,
        name: &Arc<str>,
        until: u64,
        lines: u64,
        rollup: &Rollup,
        ended: &[RecordId],
    ) -> rusqlite::Result<Cursor> {
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut cursor = match self.cursors.get(name) {
            Some(cursor) => *cursor,
            None => begin_segment(&transaction, name)?,
        };
        add_sums(&transaction, &mut self.dimensions, rollup)?;
        add_charges(&transaction, rollup)?;
        add_ids(&transaction, cursor.id, rollup, ended)?;
        if let Some(ids) = rollup.ids {
            cursor.stretch = Some(add_stretch(&transaction, &cursor, until, ids)?);
        }
        let before = std::mem::replace(&mut cursor.offset, until);
        cursor.lines = lines;
        let mut advance = transaction
            .prepare_cached("UPDATE segments SET offset = ?2, lines = ?3 WHERE id = ?1 AND offset = ?4")?;
        // Somebody else took these lines in: nothing of them counts again.
        match advance.execute(params![cursor.id, whole(until), whole(lines), whole(before)])? {
            1 => drop(advance),
            other => return Err(rusqlite::Error::StatementChangedRows(other)),
        }
        transaction.commit()?;
        Ok(cursor)
    }
}

fn add_sums(connection: &Connection, known: &mut Dimensions, rollup: &Rollup) -> rusqlite::Result<()> {
    let sums = TimedSums::of(rollup, |texts, key| known.id(connection, texts, key))?;
    for (table, sums) in sums.tables() {
        add_rows(connection, table, sums)?;
    }
    Ok(())
}

fn add_rows(
    connection: &Connection,
    TimeUnit { suffix, column: time, .. }: TimeUnit,
    rows: &BTreeMap<SumKey, RollupSums>,
) -> rusqlite::Result<()> {
    let added =
        RollupSums::COLUMNS.map(|column| format!("{column} = min({column} + excluded.{column}, {MOST})"));
    let mut add = connection.prepare_cached(&format!(
        "INSERT INTO sums{suffix} ({time}, dimensions, status, {}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET {}",
        RollupSums::COLUMNS.join(", "),
        added.join(", "),
    ))?;
    let mut use_up = connection.prepare_cached(&format!(
        "INSERT INTO usage{suffix} ({time}, dimensions, status, unit, amount) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET amount = min(amount + excluded.amount, {MOST})",
    ))?;
    for ((time, dimensions, status), sums) in rows {
        let [requests, unpriced, bytes_in, bytes_out, cost] =
            sums.columns().map(|sum| sum.clamp(-MOST, MOST));
        add.execute(params![time, dimensions, status, requests, unpriced, bytes_in, bytes_out, cost])?;
        for (unit, amount) in sums.usage.entries() {
            use_up.execute(params![time, dimensions, status, unit.as_str(), amount.clamp(-MOST, MOST)])?;
        }
    }
    Ok(())
}

fn add_charges(connection: &Connection, rollup: &Rollup) -> rusqlite::Result<()> {
    let mut charge = connection.prepare_cached(&format!(
        "INSERT INTO charges (limit_id, key, opened, amount) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET amount = max(-{MOST}, min(amount + excluded.amount, {MOST}))",
    ))?;
    for (encoded, amount) in &rollup.charges {
        let Some(key) = ChargeKey::decode(encoded) else { continue };
        charge.execute(params![key.limit, key.key, key.opened, (*amount).clamp(-MOST, MOST)])?;
    }
    Ok(())
}

fn add_ids(
    connection: &Connection,
    segment: i64,
    rollup: &Rollup,
    ended: &[RecordId],
) -> rusqlite::Result<()> {
    let mut end = connection.prepare_cached("DELETE FROM holds WHERE id = ?1")?;
    for id in ended {
        end.execute([id.as_bytes().as_slice()])?;
    }
    // The last line of a hold that grew has all of it.
    let mut open = connection.prepare_cached(
        "INSERT INTO holds (id, segment, offset) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET segment = excluded.segment, offset = excluded.offset
         WHERE (excluded.segment, excluded.offset) > (segment, offset)",
    )?;
    for (id, offset) in &rollup.open {
        open.execute(params![id.as_bytes().as_slice(), segment, whole(*offset)])?;
    }
    let mut correct = connection
        .prepare_cached("INSERT INTO corrections (id, corrects) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    for (id, original) in &rollup.corrections {
        correct.execute([id.as_bytes().as_slice(), original.as_bytes().as_slice()])?;
    }
    Ok(())
}

/// Says where these ids are: in the row of the stretch before, if both together are short. Gives that row, and where it begins.
fn add_stretch(
    connection: &Connection,
    before: &Cursor,
    until: u64,
    (least, greatest): (RecordId, RecordId),
) -> rusqlite::Result<(i64, u64)> {
    let (least, greatest) = (least.as_bytes().as_slice(), greatest.as_bytes().as_slice());
    if let Some((id, start)) = before.stretch.filter(|(_, start)| until.saturating_sub(*start) <= STRETCH) {
        let mut extend = connection.prepare_cached(
            "UPDATE stretches SET end = ?2, least = min(least, ?3), greatest = max(greatest, ?4) WHERE id = ?1",
        )?;
        extend.execute(params![id, whole(until), least, greatest])?;
        return Ok((id, start));
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO stretches (segment, start, end, least, greatest) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    insert.execute(params![before.id, whole(before.offset), whole(until), least, greatest])?;
    Ok((connection.last_insert_rowid(), before.offset))
}

fn begin_segment(connection: &Connection, name: &str) -> rusqlite::Result<Cursor> {
    connection.execute("INSERT INTO segments (name, offset, lines) VALUES (?1, 0, 0)", [name])?;
    Ok(Cursor { id: connection.last_insert_rowid(), offset: 0, lines: 0, stretch: None })
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
