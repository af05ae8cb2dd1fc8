//! The ledger's files, read behind the gateway's back.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::gateway::Gateway;

/// The ids of all records in the store, as 32 hex digits, once the store has caught up with the journal.
pub fn ids(gateway: &Gateway) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..60 {
        let now = column(gateway, "select lower(hex(id)) from records order by id");
        if !now.is_empty() && now.len() == ids.len() {
            return now;
        }
        ids = now;
        std::thread::sleep(Duration::from_secs(1));
    }
    panic!("the store does not come to rest");
}

/// One text column of a query on the store.
pub fn column(gateway: &Gateway, sql: &str) -> Vec<String> {
    let path = gateway.home().join("data/ledger.sqlite");
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the store");
    let mut statement = store.prepare(sql).expect("a query");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// The journal's segments, oldest first.
pub fn segments(gateway: &Gateway) -> Vec<PathBuf> {
    let mut folders = vec![gateway.home().join("data")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "jsonl")
                && !path.ends_with("heads.jsonl")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
