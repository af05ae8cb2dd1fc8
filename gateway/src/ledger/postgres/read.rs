//! The database, as reports and other commands read it.
//!
//! **Invariant:** all that one reader reads is of one moment, and it changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::session::{DatabaseSession, PostgresServer, failed};
use super::{grouped, schema};
use crate::ledger::LedgerError;
use crate::ledger::calls::{Call, Object, Wanted};
use crate::ledger::charged::{BEFORE_HOLD, ChargedKey, ChargedSum, ChargedSums, ChargedWindow};
use crate::ledger::dimension::Dimension;
use crate::ledger::grouping::{GroupRow, Grouping, Summed};
use crate::ledger::record::RecordId;
use crate::ledger::segment::Known;

/// The database, opened for reading.
#[derive(Debug)]
pub struct SharedReader {
    session: DatabaseSession,
}

/// One of the replicas that write to the database.
#[derive(Debug, Clone)]
pub struct ReplicaState {
    /// That of its data directory.
    pub id: RecordId,
    /// What people call it.
    pub name: String,
    /// When it first came.
    pub first_seen: Timestamp,
    /// When it last said that it is there.
    pub last_seen: Timestamp,
    /// Seconds since then, by the clock of the database.
    pub silent: i64,
    /// Bytes of its journal that the database had not got then.
    pub waiting: u64,
    /// It ended in order.
    pub ended: bool,
    /// Somebody has said that it is gone for good.
    pub is_forgotten: bool,
}

/// Compiling a report's question takes the database longer than answering it, and its groups are to find room in memory.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'";
/// Calls that are fetched at once.
const FETCHED: usize = 1_000;
/// A replica that has said nothing for so many seconds is no longer there.
const SILENT: i64 = 60;

impl ReplicaState {
    /// Whether it is gone, and its journal may have calls that the database has not.
    pub fn is_left_behind(&self) -> bool {
        !self.is_forgotten && self.silent >= SILENT && (!self.ended || self.waiting > 0)
    }

    /// Whether it has said lately that it is there.
    pub(crate) fn is_there(&self) -> bool {
        self.silent < SILENT && !self.ended
    }

    /// How it is, in a word.
    pub fn word(&self) -> &'static str {
        match () {
            () if self.is_left_behind() => "left behind",
            () if self.is_forgotten => "forgotten",
            () if self.ended => "ended",
            () => "there",
        }
    }
}

impl SharedReader {
    /// Connects. Fails where no gateway has made the tables yet.
    pub fn open(server: &PostgresServer) -> Result<Self, LedgerError> {
        let mut session = DatabaseSession::open(server)?;
        session.run(async |client: &mut Client| {
            client.batch_execute(BEGIN).await?;
            schema::check(client).await
        })?;
        Ok(Self { session })
    }

    /// Asks for sums, and hands every row to `each`.
    pub(crate) fn grouped(
        &mut self,
        grouping: &Grouping,
        summed: Summed,
        mut each: impl FnMut(&GroupRow<'_>),
    ) -> Result<(), LedgerError> {
        let sql = grouped::sql(grouping, summed);
        self.session.run(async |client: &mut Client| {
            let nothing: [&(dyn ToSql + Sync); 0] = [];
            let mut rows = std::pin::pin!(client.query_raw(&sql, nothing).await?);
            while let Some(row) = rows.try_next().await? {
                each(&grouped::group(&row, summed)?);
            }
            Ok(())
        })
    }

    /// How much of each segment of a replica is in the database.
    pub(crate) fn known(&mut self, replica: RecordId) -> Result<Known, LedgerError> {
        let id = replica.to_string();
        let sql = "SELECT s.name, s.bytes, s.entries FROM tollgate.segments s
                   JOIN tollgate.replicas r ON r.id = s.replica WHERE r.uuid = $1::text::uuid";
        let rows = self.query(sql, &[&id])?;
        let mut known = HashMap::new();
        for row in rows {
            known.insert(row.try_get::<_, String>(0)?.into(), (unsigned(&row, 1)?, unsigned(&row, 2)?));
        }
        Ok(known)
    }

    /// The replicas, in the order in which they came.
    pub fn replicas(&mut self) -> Result<Vec<ReplicaState>, LedgerError> {
        let micros = |column: &str| format!("(extract(epoch from {column}) * 1000000)::bigint");
        let sql = format!(
            "SELECT replace(uuid::text, '-', ''), name, {}, {}, extract(epoch from now() - last_seen)::bigint, waiting, ended, forgotten_at IS NOT NULL
             FROM tollgate.replicas ORDER BY id",
            micros("first_seen"),
            micros("last_seen"),
        );
        let read = |row: &Row| {
            Ok(ReplicaState {
                id: id(row.try_get(0)?)?,
                name: row.try_get(1)?,
                first_seen: time(row, 2)?,
                last_seen: time(row, 3)?,
                silent: row.try_get(4)?,
                waiting: unsigned(row, 5)?,
                ended: row.try_get(6)?,
                is_forgotten: row.try_get(7)?,
            })
        };
        self.query(&sql, &[])?.iter().map(read).collect()
    }

    /// The calls that are asked for, newest last; of more than `most` the newest ones.
    pub fn calls(&mut self, wanted: &Wanted, most: usize) -> Result<Vec<Call>, LedgerError> {
        let since = wanted.since.max(Timestamp::UNIX_EPOCH);
        let open = format!(
            "DECLARE calls NO SCROLL CURSOR FOR SELECT replace(id::text, '-', ''), record::text FROM tollgate.records
             WHERE corrects IS NULL AND at >= '{since}' AND at < '{}' ORDER BY at DESC, id DESC",
            wanted.until
        );
        let mut calls = self.session.run(async |client: &mut Client| {
            client.batch_execute(&open).await?;
            let mut calls = Vec::new();
            loop {
                let rows = client.query(&format!("FETCH {FETCHED} FROM calls"), &[]).await?;
                for row in &rows {
                    let record = object(row, 1)?;
                    if wanted.is_record(&record) && calls.len() < most {
                        calls.push(Call::of_record(id(row.try_get(0)?)?, record));
                    }
                }
                if rows.len() < FETCHED || calls.len() >= most {
                    client.batch_execute("CLOSE calls").await?;
                    return Ok(calls);
                }
            }
        })?;
        calls.reverse();
        self.correct(&mut calls)?;
        Ok(calls)
    }

    /// The call with this id.
    pub fn find(&mut self, wanted: RecordId) -> Result<Option<Call>, LedgerError> {
        let text = wanted.to_string();
        let sql = "SELECT record::text FROM tollgate.records WHERE id = $1::text::uuid AND corrects IS NULL";
        let rows = self.query(sql, &[&text])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut call = [Call::of_record(wanted, object(row, 0)?)];
        self.correct(&mut call)?;
        Ok(call.into_iter().next())
    }

    /// The name of the replica that made the call with this id.
    pub fn replica_of(&mut self, call: RecordId) -> Result<Option<String>, LedgerError> {
        let text = call.to_string();
        let sql = "SELECT r.name FROM tollgate.records c JOIN tollgate.replicas r ON r.id = c.replica
                   WHERE c.id = $1::text::uuid";
        let rows = self.query(sql, &[&text])?;
        rows.first().map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// Who was charged what of these limits since their windows began, over all replicas. Corrections count where their calls do.
    pub(crate) fn charged(
        &mut self,
        windows: &[ChargedWindow],
        dimension: Dimension,
    ) -> Result<ChargedSums, LedgerError> {
        let sql = "SELECT coalesce(charge->>'key', ''), coalesce(record->>$4::text, ''), sum((charge->>'amount')::numeric)::bigint,
                       count(*) FILTER (WHERE corrects IS NULL)
                   FROM tollgate.records, json_array_elements(record->'charges') charge
                   WHERE at >= $3::text::timestamptz AND charge->>'limit' = $1
                       AND coalesce(record->>'held_at', record->>'at')::timestamptz >= $2::text::timestamptz
                   GROUP BY 1, 2";
        let mut sums = ChargedSums::new();
        for ChargedWindow { limit, since } in windows {
            let earliest = since.saturating_sub(BEFORE_HOLD).unwrap_or(*since).to_string();
            let (id, begun, name) = (&**limit, since.to_string(), dimension.as_str());
            let parameters: [&(dyn ToSql + Sync); 4] = [&id, &begun, &earliest, &name];
            for row in self.query(sql, &parameters)? {
                let (key, text): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
                let key = ChargedKey { limit: Arc::clone(limit), key: key.into(), text: text.into() };
                sums.insert(key, ChargedSum { amount: row.try_get(2)?, calls: row.try_get(3)? });
            }
        }
        Ok(sums)
    }

    /// Takes in what was found out later of these calls.
    fn correct(&mut self, calls: &mut [Call]) -> Result<(), LedgerError> {
        let ids: Vec<String> = calls.iter().map(|call| call.id.to_string()).collect();
        let sql = "SELECT replace(corrects::text, '-', ''), record::text FROM tollgate.records
                   WHERE corrects = ANY($1::text[]::uuid[])";
        let mut corrections: HashMap<RecordId, Vec<Object>> = HashMap::new();
        for row in self.query(sql, &[&ids])? {
            corrections.entry(id(row.try_get(0)?)?).or_default().push(object(&row, 1)?);
        }
        for call in calls {
            call.correct(corrections.remove(&call.id).unwrap_or_default());
        }
        Ok(())
    }

    pub(super) fn query(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        self.session.run(async |client: &mut Client| Ok(client.query(sql, parameters).await?))
    }
}

fn object(row: &Row, column: usize) -> Result<Object, LedgerError> {
    match serde_json::from_str(row.try_get(column)?) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(failed("database", "a record is no JSON object")),
    }
}

fn id(text: &str) -> Result<RecordId, LedgerError> {
    text.parse().map_err(|error| failed("database", error))
}

fn time(row: &Row, column: usize) -> Result<Timestamp, LedgerError> {
    Ok(Timestamp::from_microsecond(row.try_get(column)?).unwrap_or_default())
}

fn unsigned(row: &Row, column: usize) -> Result<u64, LedgerError> {
    Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
}
