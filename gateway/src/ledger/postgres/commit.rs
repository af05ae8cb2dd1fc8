//! Taking in one stretch of a segment: all of it, or nothing.
//!
//! **Invariant:** a record counts once, whoever brings it and however often. What a stretch adds up to goes in with its records and
//! with how far its segment was read, in one transaction, and of records that are there already nothing is added.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Transaction};

use super::schema::{MOST, Month, ensure_months};
use super::segment_part::{SegmentOffset, SegmentPart};
use super::session::failed;
use super::{charges, vouched};
use crate::ledger::LedgerError;
use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::free_texts::{FREE, FreeTexts};
use crate::ledger::record::RecordId;
use crate::ledger::rollup::{Rollup, RollupKey, RollupSums};
use crate::ledger::sqlite::hash_of;
use crate::ledger::timed_sums::{SumKey, TimeUnit, TimedSums};

/// Combinations remembered, so that callers who invent models cost memory only for a while.
const REMEMBERED: usize = 32 << 10;

/// What one replica knows of the database while it is connected.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    months: BTreeSet<Month>,
    dimensions: HashMap<Box<[u8]>, i64>,
    /// Read when the first row is made.
    free: Option<FreeTexts>,
}

/// Where a stretch comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct StretchOrigin<'a> {
    pub(super) data_dir: &'a Path,
    /// The replica's row.
    pub(super) replica: i64,
    pub(super) segment: &'a str,
    /// Where the stretch begins.
    pub(super) from: SegmentOffset,
}

/// Takes a stretch in. How many of its records were new; `None` where somebody else has moved the segment's place meanwhile.
pub(super) async fn commit(
    client: &mut Client,
    remembered: &mut Remembered,
    origin: StretchOrigin<'_>,
    stretch: &SegmentPart,
) -> Result<Option<usize>, LedgerError> {
    remembered.prepare(client, stretch).await?;
    let transaction = client.transaction().await?;
    if !advance(&transaction, origin, stretch).await? {
        transaction.rollback().await?;
        return Ok(None);
    }
    let new = insert(&transaction, origin.replica, stretch).await?;
    let count = new.len();
    if count > 0 {
        vouched::add(&transaction, origin.replica, stretch, &new).await?;
    }
    if count == stretch.records.len() {
        add_sums(&transaction, remembered, origin.replica, &stretch.rollup).await?;
    } else if count > 0 {
        let rollup = stretch.rollup_of(origin.data_dir, origin.segment, origin.from, new)?;
        add_sums(&transaction, remembered, origin.replica, &rollup).await?;
    }
    transaction.commit().await?;
    Ok(Some(count))
}

impl Remembered {
    /// Makes what the rows of a stretch refer to. It stays if the stretch itself does not come to be.
    async fn prepare(&mut self, client: &mut Client, stretch: &SegmentPart) -> Result<(), LedgerError> {
        let at = |micros| Timestamp::from_microsecond(micros).unwrap_or_default();
        let months: BTreeSet<_> = stretch.records.iter().map(|record| Month::of(at(record.at))).collect();
        self.months(client, months).await?;
        if self.dimensions.len() > REMEMBERED {
            self.dimensions.clear();
        }
        let mut missing = MissingRows::new();
        for encoded in stretch.rollup.sums.keys() {
            let texts = RollupKey::texts_of(encoded);
            if let Some(key) = RollupKey::decode(encoded).filter(|_| !self.dimensions.contains_key(texts)) {
                missing.insert(hash_of(&key.texts).as_ref().to_vec(), (vec![texts], key));
            }
        }
        for (hash, id) in find(client, missing.keys()).await? {
            if let Some((encoded, _)) = missing.remove(&hash) {
                self.dimensions.extend(encoded.into_iter().map(|texts| (texts.into(), id)));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let free = match &mut self.free {
            Some(free) => free,
            none => none.insert(known(client).await?),
        };
        let mut bounded = MissingRows::new();
        for (encoded, key) in missing.into_values() {
            let key = RollupKey { texts: free.bounded(key.texts, key.minute), ..key };
            let hash = hash_of(&key.texts).as_ref().to_vec();
            bounded.entry(hash).or_insert_with(|| (Vec::new(), key)).0.extend(encoded);
        }
        insert_rows(client, &bounded).await?;
        for (hash, id) in find(client, bounded.keys()).await? {
            if let Some((encoded, _)) = bounded.remove(&hash) {
                self.dimensions.extend(encoded.into_iter().map(|texts| (texts.into(), id)));
            }
        }
        Ok(())
    }

    /// Makes the tables of months that are not known to be there.
    pub(super) async fn months(
        &mut self,
        client: &mut Client,
        mut months: BTreeSet<Month>,
    ) -> Result<(), LedgerError> {
        months.retain(|month| !self.months.contains(month));
        if !months.is_empty() {
            ensure_months(client, &months).await?;
            self.months.extend(months);
        }
        Ok(())
    }
}

/// By hash: what is to have a row, and the encoded texts that it is the row of.
type MissingRows<'a> = BTreeMap<Vec<u8>, (Vec<&'a [u8]>, RollupKey<'a>)>;

/// The texts that come from outside and are there already.
async fn known(client: &Client) -> Result<FreeTexts, LedgerError> {
    let mut known: [HashSet<Box<str>>; FREE.len()] = Default::default();
    for (dimension, known) in FREE.into_iter().zip(&mut known) {
        let sql = format!("SELECT DISTINCT {} FROM tollgate.dimensions", dimension.column());
        for row in client.query(&sql, &[]).await? {
            let text: &str = row.try_get(0)?;
            known.insert(text.into());
        }
    }
    Ok(FreeTexts::new(known))
}

/// The rows that are there, by hash.
async fn find(
    client: &Client,
    hashes: impl Iterator<Item = &Vec<u8>>,
) -> Result<Vec<(Vec<u8>, i64)>, LedgerError> {
    let hashes: Vec<&[u8]> = hashes.map(Vec::as_slice).collect();
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    let find = "SELECT hash, id FROM tollgate.dimensions WHERE hash = ANY($1)";
    let rows = client.query(find, &[&hashes]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Makes the rows with these texts. All replicas go through them in the same order, so that none waits for one that waits for it.
async fn insert_rows(client: &Client, missing: &MissingRows<'_>) -> Result<(), LedgerError> {
    let hashes: Vec<&[u8]> = missing.keys().map(Vec::as_slice).collect();
    let columns = Dimension::ALL.map(Dimension::column).join(", ");
    let arrays: String =
        (2..=Dimension::ALL.len() + 1).map(|number| format!(", ${number}::text[]")).collect();
    let insert = format!(
        "INSERT INTO tollgate.dimensions (hash, {columns}) SELECT * FROM unnest($1::bytea[]{arrays})
         ON CONFLICT (hash) DO NOTHING"
    );
    let texts: Vec<Vec<String>> = Dimension::ALL
        .into_iter()
        .map(|dimension| missing.values().map(|(_, key)| storable(&key.texts, dimension)).collect())
        .collect();
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&hashes];
    parameters.extend(texts.iter().map(|texts| texts as &(dyn ToSql + Sync)));
    client.execute(&insert, &parameters).await?;
    Ok(())
}

/// PostgreSQL has no text with a zero byte.
fn storable(texts: &Texts<'_>, dimension: Dimension) -> String {
    texts[dimension as usize].replace('\0', "\u{fffd}")
}

/// Moves the segment's place behind the stretch; whether it still was where the stretch begins.
async fn advance(
    transaction: &Transaction<'_>,
    origin: StretchOrigin<'_>,
    stretch: &SegmentPart,
) -> Result<bool, LedgerError> {
    let begin = "INSERT INTO tollgate.segments (replica, name, bytes, entries) VALUES ($1, $2, 0, 0)
                 ON CONFLICT DO NOTHING";
    let StretchOrigin { replica, segment, from, .. } = origin;
    if from == (0, 0) {
        transaction.execute(begin, &[&replica, &segment]).await?;
    }
    let advance = "UPDATE tollgate.segments SET bytes = $3, entries = $4, head = $6
                   WHERE replica = $1 AND name = $2 AND bytes = $5";
    let (bytes, entries, before) = (whole(stretch.end.0), whole(stretch.end.1), whole(from.0));
    let head = stretch.head.as_bytes().as_slice();
    Ok(transaction.execute(advance, &[&replica, &segment, &bytes, &entries, &before, &head]).await? == 1)
}

/// Inserts the records that are not there, of months that are not given up. Their ids.
async fn insert(
    transaction: &Transaction<'_>,
    replica: i64,
    stretch: &SegmentPart,
) -> Result<HashSet<RecordId>, LedgerError> {
    if stretch.records.is_empty() {
        return Ok(HashSet::new());
    }
    let mut records: Vec<_> = stretch.records.iter().collect();
    records.sort_by_key(|record| record.id);
    let ids: Vec<String> = records.iter().map(|record| record.id.to_string()).collect();
    let at: Vec<i64> = records.iter().map(|record| record.at).collect();
    let corrects: Vec<Option<String>> =
        records.iter().map(|record| record.corrects.map(|id| id.to_string())).collect();
    let json: Vec<&str> = records.iter().map(|record| record.json.as_str()).collect();
    let sql = "INSERT INTO tollgate.records (id, at, replica, corrects, record)
               SELECT r.id::uuid, r.at, $1::bigint, r.corrects::uuid, r.record::json
               FROM (SELECT id, timestamptz 'epoch' + micros * interval '1 microsecond' AS at, corrects, record
                     FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[]) AS t (id, micros, corrects, record)) r
               WHERE r.at >= (SELECT records_from FROM tollgate.layout)
               ON CONFLICT (id, at) DO NOTHING RETURNING replace(id::text, '-', '')";
    let rows = transaction.query(sql, &[&replica, &ids, &at, &corrects, &json]).await?;
    let id = |row: &Row| {
        let text: &str = row.try_get(0)?;
        text.parse().map_err(|error| failed("database", error))
    };
    rows.iter().map(id).collect()
}

async fn add_sums(
    transaction: &Transaction<'_>,
    remembered: &Remembered,
    replica: i64,
    rollup: &Rollup,
) -> Result<(), LedgerError> {
    let sums = TimedSums::of(rollup, |texts, _| {
        let row = remembered.dimensions.get(texts).copied();
        row.ok_or_else(|| failed("database", "a combination of dimensions has no row"))
    })?;
    for (table, sums) in sums.tables() {
        add_counts(transaction, table, replica, sums).await?;
        add_usage(transaction, table, replica, sums).await?;
    }
    charges::add(transaction, replica, rollup).await
}

async fn add_counts(
    transaction: &Transaction<'_>,
    TimeUnit { suffix, column: time, .. }: TimeUnit,
    replica: i64,
    sums: &BTreeMap<SumKey, RollupSums>,
) -> Result<(), LedgerError> {
    let columns = RollupSums::COLUMNS;
    let arrays: String = (5..5 + columns.len()).map(|number| format!(", ${number}::bigint[]")).collect();
    let added = columns.map(|column| format!("{column} = least(s.{column} + excluded.{column}, {MOST})"));
    let sql = format!(
        "INSERT INTO tollgate.sums{suffix} AS s ({time}, dimensions, status, {names}, replica)
         SELECT t.*, $1::bigint FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]{arrays}) AS t
         ON CONFLICT ({time}, replica, dimensions, status) DO UPDATE SET {added}",
        names = columns.join(", "),
        added = added.join(", "),
    );
    let keys = transposed(sums.keys().map(|(time, dimensions, status)| [*time, *dimensions, *status]));
    let counts = transposed(sums.values().map(|sums| sums.columns().map(|sum| sum.clamp(-MOST, MOST))));
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&replica];
    parameters.extend(keys.iter().chain(&counts).map(|column| column as &(dyn ToSql + Sync)));
    transaction.execute(&sql, &parameters).await?;
    Ok(())
}

async fn add_usage(
    transaction: &Transaction<'_>,
    TimeUnit { suffix, column: time, .. }: TimeUnit,
    replica: i64,
    sums: &BTreeMap<SumKey, RollupSums>,
) -> Result<(), LedgerError> {
    let used = || {
        sums.iter().flat_map(|(key, sums)| {
            sums.usage.entries().map(move |(unit, amount)| (*key, unit.as_str(), amount.clamp(-MOST, MOST)))
        })
    };
    let units: Vec<&str> = used().map(|(_, unit, _)| unit).collect();
    if units.is_empty() {
        return Ok(());
    }
    let [times, dimensions, statuses, amounts] =
        transposed(used().map(|((time, dimensions, status), _, amount)| [time, dimensions, status, amount]));
    let sql = format!(
        "INSERT INTO tollgate.usage{suffix} AS s ({time}, dimensions, status, unit, amount, replica)
         SELECT t.*, $1::bigint FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[]) AS t
         ON CONFLICT ({time}, replica, dimensions, status, unit)
         DO UPDATE SET amount = least(s.amount + excluded.amount, {MOST})"
    );
    transaction.execute(&sql, &[&replica, &times, &dimensions, &statuses, &units, &amounts]).await?;
    Ok(())
}

/// A list for each column of the rows.
fn transposed<const N: usize>(rows: impl Iterator<Item = [i64; N]>) -> [Vec<i64>; N] {
    let mut columns = std::array::from_fn(|_| Vec::new());
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

/// As the database counts.
pub(super) fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
