//! The tables of the store.

use rusqlite::Connection;

/// Of this layout; another one is not touched.
const VERSION: i64 = 3;

/// Requests are not rows of their own: `sums` has what they add up to, by minute and by what they have in common, so the store stays
/// small however many there are. `stretches` says where in the journal the line of a given record can be.
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
    id              INTEGER PRIMARY KEY,
    hash            BLOB NOT NULL UNIQUE,
    caller          TEXT NOT NULL,
    namespace       TEXT NOT NULL,
    service_account TEXT NOT NULL,
    destination     TEXT NOT NULL,
    host            TEXT NOT NULL,
    grant_name      TEXT NOT NULL,
    credential      TEXT NOT NULL,
    alias           TEXT NOT NULL,
    model           TEXT NOT NULL,
    model_answered  TEXT NOT NULL,
    tier            TEXT NOT NULL,
    source          TEXT NOT NULL,
    reason          TEXT NOT NULL,
    outcome         TEXT NOT NULL,
    usage_source    TEXT NOT NULL
) STRICT;
CREATE TABLE sums (
    minute      INTEGER NOT NULL,
    dimensions  INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    requests    INTEGER NOT NULL,
    unpriced    INTEGER NOT NULL,
    input       INTEGER NOT NULL,
    cache_read  INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    reasoning   INTEGER NOT NULL,
    media       INTEGER NOT NULL,
    searches    INTEGER NOT NULL,
    sessions    INTEGER NOT NULL,
    images      INTEGER NOT NULL,
    seconds     INTEGER NOT NULL,
    characters  INTEGER NOT NULL,
    bytes_in    INTEGER NOT NULL,
    bytes_out   INTEGER NOT NULL,
    cost        INTEGER NOT NULL,
    PRIMARY KEY (minute, dimensions, status)
) STRICT, WITHOUT ROWID;
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

/// What each layout has more than the one before. Rows of an earlier one have none of it; the hashes of their words are never met again,
/// which costs a row each.
const CHANGES: [&str; 2] = [
    "ALTER TABLE dimensions ADD COLUMN alias TEXT NOT NULL DEFAULT '';",
    "ALTER TABLE dimensions ADD COLUMN tier TEXT NOT NULL DEFAULT '';
     ALTER TABLE sums ADD COLUMN searches INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE sums ADD COLUMN sessions INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE sums ADD COLUMN images INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE sums ADD COLUMN seconds INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE sums ADD COLUMN characters INTEGER NOT NULL DEFAULT 0;",
];

/// Makes the tables in an empty file, and adds to those of a layout before; refuses a file of another layout.
pub(super) fn ensure(connection: &Connection) -> rusqlite::Result<()> {
    let change = match version(connection)? {
        0 => TABLES.to_owned(),
        VERSION => return Ok(()),
        found => match usize::try_from(found - 1).ok().and_then(|from| CHANGES.get(from..)) {
            Some(changes) => changes.concat(),
            None => return check(connection),
        },
    };
    connection
        .execute_batch(&format!("BEGIN IMMEDIATE; {change} PRAGMA user_version = {VERSION}; COMMIT;"))?;
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
