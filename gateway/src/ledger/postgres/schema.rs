//! The tables in the database, and the months that calls are kept in.
//!
//! **Invariant:** tables are made and changed by one replica at a time, and those of a later version are left alone.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use tokio_postgres::Client;

use super::session::failed;
use crate::ledger::LedgerError;
use crate::ledger::dimension::Dimension;
use crate::ledger::rollup::RollupSums;
use crate::ledger::timed_sums::TimeUnit;

/// Of this layout; another one is not touched. Dimensions and units do not change it.
const VERSION: i64 = 2;
/// The largest sum that is kept, so that adding to it cannot fail.
pub(super) const MOST: i64 = 1 << 61;
/// What replicas agree on who changes tables with: `toll` and `gate` in ASCII.
const LOCK: i64 = 0x746f_6c6c_6761_7465;

/// `records` has a row for each call, as its JSON; `sums` and `usage` what calls add up to by the minute, those that end with
/// `_by_hour` and `_by_day` by longer units; `charges` what each replica was charged of each limit, `vouched` what was taken in of each in a
/// month, by which the rest is checked. Of a replica `process` is the last one that had shares of limits, `settled` the last of which they
/// were given back. All but what calls have in common are rows of one replica, so that several never wait for one another.
fn tables() -> String {
    let text = format!(
        "CREATE TABLE tollgate.layout (version bigint NOT NULL, records_from timestamptz NOT NULL);
         INSERT INTO tollgate.layout VALUES ({VERSION}, 'epoch');
         CREATE TABLE tollgate.replicas (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             uuid uuid NOT NULL UNIQUE,
             name text NOT NULL,
             first_seen timestamptz NOT NULL DEFAULT now(),
             last_seen timestamptz NOT NULL DEFAULT now(),
             waiting bigint NOT NULL DEFAULT 0,
             ended boolean NOT NULL DEFAULT false,
             process bigint NOT NULL DEFAULT 0,
             settled bigint NOT NULL DEFAULT 0,
             forgotten_at timestamptz,
             forgotten_by text
         );
         CREATE TABLE tollgate.segments (
             replica bigint NOT NULL REFERENCES tollgate.replicas,
             name text NOT NULL,
             bytes bigint NOT NULL,
             entries bigint NOT NULL,
             head bytea,
             PRIMARY KEY (replica, name)
         );
         CREATE TABLE tollgate.dimensions (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             hash bytea NOT NULL UNIQUE
         );
         CREATE TABLE tollgate.records (
             id uuid NOT NULL,
             at timestamptz NOT NULL,
             replica bigint NOT NULL,
             corrects uuid,
             record json NOT NULL,
             PRIMARY KEY (id, at)
         ) PARTITION BY RANGE (at);
         CREATE INDEX ON tollgate.records (at);
         CREATE INDEX ON tollgate.records (corrects) WHERE corrects IS NOT NULL;
         CREATE TABLE tollgate.charges (
             replica bigint NOT NULL,
             limit_id text NOT NULL,
             key text NOT NULL,
             opened bigint NOT NULL,
             amount bigint NOT NULL,
             PRIMARY KEY (replica, limit_id, key, opened)
         );
         CREATE TABLE tollgate.vouched (
             replica bigint NOT NULL,
             month date NOT NULL,
             records bigint NOT NULL,
             requests bigint NOT NULL,
             cost bigint NOT NULL,
             PRIMARY KEY (replica, month)
         );"
    );
    text + &TimeUnit::ALL.map(sums).concat()
}

/// What calls add up to, by one unit of time.
fn sums(TimeUnit { suffix, column: time, .. }: TimeUnit) -> String {
    let counts = RollupSums::COLUMNS.map(|column| format!("{column} bigint NOT NULL")).join(", ");
    let key = "replica bigint NOT NULL, dimensions bigint NOT NULL, status bigint NOT NULL";
    format!(
        "CREATE TABLE tollgate.sums{suffix} ({time} bigint NOT NULL, {key}, {counts},
             PRIMARY KEY ({time}, replica, dimensions, status));
         CREATE TABLE tollgate.usage{suffix} ({time} bigint NOT NULL, {key},
             unit text NOT NULL, amount bigint NOT NULL,
             PRIMARY KEY ({time}, replica, dimensions, status, unit));"
    )
}

/// Makes the tables where there are none, and a column for each dimension that has none.
pub(super) async fn ensure(client: &mut Client) -> Result<(), LedgerError> {
    check_encoding(client).await?;
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let exists = "SELECT to_regnamespace('tollgate') IS NOT NULL, to_regclass('tollgate.layout') IS NOT NULL";
    let row = transaction.query_one(exists, &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        transaction.batch_execute("CREATE SCHEMA tollgate").await?;
    }
    if !row.try_get::<_, bool>(1)? {
        transaction.batch_execute(&tables()).await?;
    }
    is_known(transaction.query_one("SELECT version FROM tollgate.layout", &[]).await?.try_get(0)?)?;
    let columns = columns(&transaction.query(COLUMNS, &[]).await?)?;
    for dimension in Dimension::ALL.into_iter().filter(|dimension| !columns.contains(dimension.as_str())) {
        let column = dimension.column();
        let add = format!("ALTER TABLE tollgate.dimensions ADD COLUMN {column} text NOT NULL DEFAULT ''");
        transaction.batch_execute(&add).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Refuses a database that cannot hold every text: a name that a caller makes up would stop all that comes after it.
async fn check_encoding(client: &Client) -> Result<(), LedgerError> {
    let encoding: String = client.query_one("SHOW server_encoding", &[]).await?.try_get(0)?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(failed("database", format!("its encoding is {encoding}: make it with ENCODING 'UTF8'")))
}

/// Refuses tables of another layout, or those that have not all dimensions. Makes nothing.
pub(super) async fn check(client: &Client) -> Result<(), LedgerError> {
    let exists = client.query_one("SELECT to_regclass('tollgate.layout') IS NOT NULL", &[]).await?;
    if !exists.try_get::<_, bool>(0)? {
        return Err(failed("database", "no gateway has made its tables there yet"));
    }
    is_known(client.query_one("SELECT version FROM tollgate.layout", &[]).await?.try_get(0)?)?;
    let columns = columns(&client.query(COLUMNS, &[]).await?)?;
    let missing: Vec<_> =
        Dimension::ALL.map(Dimension::as_str).into_iter().filter(|name| !columns.contains(*name)).collect();
    match missing.as_slice() {
        [] => Ok(()),
        missing => {
            let missing = missing.join(", ");
            Err(failed("database", format!("its tables have no {missing} yet: older gateways write them")))
        }
    }
}

const COLUMNS: &str = "SELECT attname::text FROM pg_attribute
    WHERE attrelid = 'tollgate.dimensions'::regclass AND attnum > 0 AND NOT attisdropped";

fn columns(rows: &[tokio_postgres::Row]) -> Result<BTreeSet<String>, LedgerError> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn is_known(version: i64) -> Result<(), LedgerError> {
    if version == VERSION {
        return Ok(());
    }
    let what = format!(
        "the layout of its tables is number {version}, this program knows number {VERSION} alone: use the version of \
         Tollgate that made them, or another database"
    );
    Err(failed("database", what))
}

/// A month of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Month(Date);

impl Month {
    /// The one in which this moment is, in UTC.
    pub(super) fn of(at: Timestamp) -> Self {
        Self(at.to_zoned(TimeZone::UTC).date().first_of_month())
    }

    /// The month behind it.
    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1.month()).first_of_month())
    }

    fn table(self) -> String {
        format!("records_{}", self.0.strftime("%Y_%m"))
    }

    /// The month of a table.
    fn of_table(name: &str) -> Option<Self> {
        let (year, month) = name.strip_prefix("records_")?.split_once('_')?;
        Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok().map(Self)
    }

    /// When it is over.
    fn end(self) -> Timestamp {
        self.next().0.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |end| end.timestamp())
    }
}

impl std::fmt::Display for Month {
    /// Its first day.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, out)
    }
}

/// Makes the tables of these months where there are none. Months that were given up stay so.
pub(super) async fn ensure_months(client: &mut Client, months: &BTreeSet<Month>) -> Result<(), LedgerError> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    for month in months {
        let (table, from, until) = (month.table(), month.0, month.next().0);
        let make = format!(
            "CREATE TABLE IF NOT EXISTS tollgate.{table} PARTITION OF tollgate.records
             FOR VALUES FROM ('{from} 00:00:00+00') TO ('{until} 00:00:00+00')"
        );
        transaction.batch_execute(&make).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Drops the months whose calls are all older than they are kept, and notes it: what comes of them later counts nowhere.
pub(super) async fn drop_months(
    client: &mut Client,
    keep: Duration,
    now: Timestamp,
) -> Result<usize, LedgerError> {
    let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
    let oldest = now.saturating_sub(keep).unwrap_or_default().max(Timestamp::UNIX_EPOCH);
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'tollgate.records'::regclass";
    let mut dropped = 0;
    for row in transaction.query(sql, &[]).await? {
        let name: String = row.try_get(0)?;
        let Some(month) = Month::of_table(&name).filter(|month| month.end() <= oldest) else { continue };
        transaction.batch_execute(&format!("DROP TABLE tollgate.{}", month.table())).await?;
        dropped += 1;
    }
    let border = Month::of(oldest).0;
    let note =
        format!("UPDATE tollgate.layout SET records_from = greatest(records_from, '{border} 00:00:00+00')");
    transaction.batch_execute(&note).await?;
    transaction.commit().await?;
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_where_the_one_before_ends_and_its_table_names_it() {
        let month = |text: &str| Month::of(text.parse().unwrap());
        let december = month("2026-12-31T23:59:59.999999Z");
        assert_eq!(december.table(), "records_2026_12");
        assert_eq!(december.next(), month("2027-01-01T00:00:00Z"));
        assert_eq!(december.end(), "2027-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(Month::of_table("records_2026_12"), Some(december));
        for other in ["records", "records_x", "records_2026_13", "sums_2026_12"] {
            assert_eq!(Month::of_table(other), None, "{other}");
        }
    }

    #[test]
    fn the_tables_have_a_column_for_each_sum() {
        for text in TimeUnit::ALL.map(sums) {
            for column in RollupSums::COLUMNS {
                assert!(text.contains(&format!("{column} bigint NOT NULL")), "{column}: {text}");
            }
        }
    }
}
