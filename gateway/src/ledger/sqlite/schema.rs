//! The tables of the store.

use rusqlite::Connection;

use super::commit::MOST;
use crate::ledger::dimension::Dimension;
use crate::ledger::rollup::RollupSums;
use crate::ledger::timed_sums::TimeUnit;

/// Of this layout; another one is not touched. Dimensions and units do not change it.
const VERSION: i64 = 6;
/// Of these, sums by longer units of time are made of those by the minute.
const WITHOUT_ALL_SUMS: std::ops::Range<i64> = 4..VERSION;

/// Requests are not rows of their own: `sums` has what they add up to, by minute and by what they have in common, so the store stays
/// small however many there are; `usage` has a row for each unit of that. `stretches` says where in the journal the line of a given record can be.
const TABLES: &str = "
CREATE TABLE segments (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    offset INTEGER NOT NULL,
    lines  INTEGER NOT NULL
) STRICT;
CREATE TABLE stretches (
    id       INTEGER PRIMARY KEY,
    segment  INTEGER NOT NULL,
    start    INTEGER NOT NULL,
    end      INTEGER NOT NULL,
    least    BLOB NOT NULL,
    greatest BLOB NOT NULL
) STRICT;
CREATE TABLE dimensions (
    id   INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE charges (
    limit_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    opened   INTEGER NOT NULL,
    amount   INTEGER NOT NULL,
    PRIMARY KEY (limit_id, key, opened)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
    id      BLOB PRIMARY KEY,
    segment INTEGER NOT NULL,
    offset  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE corrections (
    id       BLOB PRIMARY KEY,
    corrects BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What calls add up to, by one unit of time: reports over weeks read hours and days.
fn sums(TimeUnit { suffix, column: time, .. }: TimeUnit) -> String {
    let counts: String = RollupSums::COLUMNS.map(|column| format!("{column} INTEGER NOT NULL, ")).concat();
    let key = format!("{time} INTEGER NOT NULL, dimensions INTEGER NOT NULL, status INTEGER NOT NULL");
    format!(
        "CREATE TABLE sums{suffix} ({key}, {counts}PRIMARY KEY ({time}, dimensions, status)) STRICT, WITHOUT ROWID;
         CREATE TABLE usage{suffix} ({key}, unit TEXT NOT NULL, amount INTEGER NOT NULL,
             PRIMARY KEY ({time}, dimensions, status, unit)) STRICT, WITHOUT ROWID;"
    )
}

/// Sums one after the other, as they are added to: all together could be more than a number holds.
fn fill(TimeUnit { minutes, suffix, column: time }: TimeUnit) -> String {
    let counts = RollupSums::COLUMNS;
    let added = |columns: &[&str]| {
        let each =
            columns.iter().map(|column| format!("{column} = min({column} + excluded.{column}, {MOST})"));
        each.collect::<Vec<_>>().join(", ")
    };
    format!(
        "INSERT INTO sums{suffix} ({time}, dimensions, status, {columns})
         SELECT minute / {minutes}, dimensions, status, {columns} FROM sums WHERE true ON CONFLICT DO UPDATE SET {};
         INSERT INTO usage{suffix} ({time}, dimensions, status, unit, amount)
         SELECT minute / {minutes}, dimensions, status, unit, amount FROM usage WHERE true ON CONFLICT DO UPDATE SET {};",
        added(&counts),
        added(&["amount"]),
        columns = counts.join(", "),
    )
}

/// Makes the tables in an empty file, and a column for each dimension that has none; takes the layouts before this one over, and refuses
/// any other.
pub(super) fn ensure(connection: &Connection) -> rusqlite::Result<()> {
    let change = match version(connection)? {
        0 => TABLES.to_owned() + &TimeUnit::ALL.map(sums).concat(),
        found if WITHOUT_ALL_SUMS.contains(&found) => {
            let mut change = String::new();
            for unit in TimeUnit::ALL {
                if !has_table(connection, &format!("sums{}", unit.suffix))? {
                    change += &(sums(unit) + &fill(unit));
                }
            }
            change
        }
        _ => String::new(),
    };
    if !change.is_empty() {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {change} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    }
    is_known(connection)?;
    let add =
        |column: &String| format!("ALTER TABLE dimensions ADD COLUMN {column} TEXT NOT NULL DEFAULT '';");
    let change: String = missing(connection)?.iter().map(add).collect();
    connection.execute_batch(&change)
}

/// Refuses a file of another layout, or one that has not all dimensions.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    is_known(connection)?;
    match missing(connection)?.as_slice() {
        [] => Ok(()),
        missing => Err(refused(format!("it has no {} yet: an older gateway writes it", missing.join(", ")))),
    }
}

fn is_known(connection: &Connection) -> rusqlite::Result<()> {
    match version(connection)? {
        VERSION => Ok(()),
        found => {
            Err(refused(format!("its layout is number {found}, this program knows number {VERSION} alone")))
        }
    }
}

/// The columns of dimensions that were not known when the file was last opened for writing. The rows from then have nothing in them.
fn missing(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('dimensions')")?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let is_missing = |dimension: &Dimension| !names.iter().any(|name| name == dimension.as_str());
    Ok(Dimension::ALL.into_iter().filter(is_missing).map(Dimension::column).collect())
}

fn refused(what: String) -> rusqlite::Error {
    rusqlite::Error::InvalidParameterName(what)
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let is_there = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    connection.query_row(is_there, [name], |row| row.get(0))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
