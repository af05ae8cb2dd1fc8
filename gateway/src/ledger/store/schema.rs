//! The tables of the store.

use rusqlite::Connection;

/// Of this layout; another one is not touched.
const VERSION: i64 = 1;

/// `records` is clustered by id, which begins with the time: a range of time is a range of rows. Everything that repeats stands once,
/// in `dimensions`. The line itself stays in the journal, where `segment` and `offset` point.
const TABLES: &str = "
CREATE TABLE segments (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    offset INTEGER NOT NULL,
    lines  INTEGER NOT NULL
) STRICT;
CREATE TABLE dimensions (
    id              INTEGER PRIMARY KEY,
    hash            BLOB NOT NULL UNIQUE,
    caller          TEXT NOT NULL,
    namespace       TEXT NOT NULL,
    service_account TEXT NOT NULL,
    destination     TEXT NOT NULL,
    host            TEXT NOT NULL,
    grant_name      TEXT NOT NULL,
    credential      TEXT NOT NULL,
    model           TEXT NOT NULL,
    model_answered  TEXT NOT NULL,
    source          TEXT NOT NULL,
    reason          TEXT NOT NULL,
    outcome         TEXT NOT NULL,
    usage_source    TEXT NOT NULL
) STRICT;
CREATE TABLE records (
    id          BLOB PRIMARY KEY,
    at          INTEGER NOT NULL,
    dimensions  INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    input       INTEGER NOT NULL,
    cache_read  INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    reasoning   INTEGER NOT NULL,
    media       INTEGER NOT NULL,
    bytes_in    INTEGER NOT NULL,
    bytes_out   INTEGER NOT NULL,
    cost        INTEGER NOT NULL,
    unpriced    INTEGER NOT NULL,
    segment     INTEGER NOT NULL,
    offset      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE corrections (
    id       BLOB PRIMARY KEY,
    corrects BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE charges (
    limit_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    opened   INTEGER NOT NULL,
    amount   INTEGER NOT NULL,
    PRIMARY KEY (limit_id, key, opened)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
    id   BLOB PRIMARY KEY,
    line BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Makes the tables in an empty file; refuses a file of another layout.
pub(super) fn ensure(connection: &Connection) -> rusqlite::Result<()> {
    if version(connection)? == 0 {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    }
    check(connection)
}

/// Refuses a file of another layout.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    match version(connection)? {
        VERSION => Ok(()),
        found => Err(rusqlite::Error::InvalidParameterName(format!(
            "its layout is number {found}, this program knows number {VERSION}"
        ))),
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
