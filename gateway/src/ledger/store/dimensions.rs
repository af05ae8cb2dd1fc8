//! What records have in common, written once: who, where to, with what, and how it ended.

use std::collections::HashMap;

use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension};
use tollgate_policy::caller::SpiffeId;

use crate::ledger::line::Row;

/// The text columns of the table `dimensions`, in order.
pub(crate) const COLUMNS: [&str; 13] = [
    "caller",
    "namespace",
    "service_account",
    "destination",
    "host",
    "grant_name",
    "credential",
    "model",
    "model_answered",
    "source",
    "reason",
    "outcome",
    "usage_source",
];

/// Combinations remembered, so that callers who invent models cost memory only for a while.
const REMEMBERED: usize = 32 << 10;

/// Row ids by content.
#[derive(Debug, Default)]
pub(super) struct Dimensions {
    known: HashMap<Box<[u8]>, i64>,
    key: Vec<u8>,
}

impl Dimensions {
    /// The row that says what this record says; made if there is none.
    pub(super) fn id(&mut self, connection: &Connection, row: &Row<'_>) -> rusqlite::Result<i64> {
        let own: [&str; 11] = [
            &row.caller,
            &row.destination,
            &row.host,
            &row.grant,
            &row.credential,
            &row.model,
            &row.model_answered,
            &row.source,
            &row.reason,
            &row.outcome,
            &row.usage_source,
        ];
        self.key.clear();
        for text in own {
            self.key.extend_from_slice(&text.len().to_ne_bytes());
            self.key.extend_from_slice(text.as_bytes());
        }
        if let Some(id) = self.known.get(&*self.key) {
            return Ok(*id);
        }
        let id = find_or_insert(connection, &own)?;
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(self.key.as_slice().into(), id);
        Ok(id)
    }
}

fn find_or_insert(connection: &Connection, own: &[&str; 11]) -> rusqlite::Result<i64> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for text in own {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let hash = hash.finish();
    let found = connection
        .prepare_cached("SELECT id FROM dimensions WHERE hash = ?1")?
        .query_row([hash.as_ref()], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    let [caller, rest @ ..] = own;
    let id: Option<SpiffeId> = caller.parse().ok();
    let namespace = id.as_ref().and_then(SpiffeId::namespace).unwrap_or_default();
    let service_account = id.as_ref().and_then(SpiffeId::service_account).unwrap_or_default();
    let texts = [*caller, namespace, service_account].into_iter().chain(rest.iter().copied());
    let sql = format!(
        "INSERT INTO dimensions (hash, {}) VALUES (?1{})",
        COLUMNS.join(", "),
        (2..=COLUMNS.len() + 1).map(|number| format!(", ?{number}")).collect::<String>(),
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.raw_bind_parameter(1, hash.as_ref())?;
    for (index, text) in texts.enumerate() {
        statement.raw_bind_parameter(index + 2, text)?;
    }
    statement.raw_execute()?;
    Ok(connection.last_insert_rowid())
}
