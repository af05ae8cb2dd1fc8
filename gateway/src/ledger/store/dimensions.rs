//! What records have in common, written once: who, where to, with what, and how it ended.

use std::collections::HashMap;

use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension};
use tollgate_policy::caller::Identity;

use crate::ledger::tally::{Key, WORDS};

/// The text columns of the table `dimensions`, in order: the words of a key, with two more behind the first.
pub(crate) const COLUMNS: [&str; WORDS + 2] = [
    "caller",
    "namespace",
    "service_account",
    "destination",
    "host",
    "grant_name",
    "credential",
    "alias",
    "model",
    "model_answered",
    "tier",
    "source",
    "reason",
    "outcome",
    "usage_source",
];

/// Combinations remembered, so that callers who invent models cost memory only for a while.
const REMEMBERED: usize = 32 << 10;

/// Row ids by content.
#[derive(Debug, Default)]
pub(super) struct Dimensions(HashMap<Box<[u8]>, i64>);

impl Dimensions {
    /// The row with these words, which `encoded` stands for; made if there is none.
    pub(super) fn id(
        &mut self,
        connection: &Connection,
        encoded: &[u8],
        key: &Key<'_>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.0.get(encoded) {
            return Ok(*id);
        }
        let id = find_or_insert(connection, &key.words)?;
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(encoded.into(), id);
        Ok(id)
    }
}

/// The columns of these words.
pub(crate) fn columns(words: &[&str; WORDS]) -> [String; COLUMNS.len()] {
    let [caller, rest @ ..] = words;
    let id: Option<Identity> = caller.parse().ok();
    let namespace = id.as_ref().and_then(Identity::namespace).unwrap_or_default();
    let service_account = id.as_ref().and_then(Identity::service_account).unwrap_or_default();
    let mut texts = [*caller, namespace, service_account].into_iter().chain(rest.iter().copied());
    [(); COLUMNS.len()].map(|()| texts.next().unwrap_or_default().to_owned())
}

fn find_or_insert(connection: &Connection, words: &[&str; WORDS]) -> rusqlite::Result<i64> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for word in words {
        hash.update(&(word.len() as u64).to_be_bytes());
        hash.update(word.as_bytes());
    }
    let hash = hash.finish();
    let found = connection
        .prepare_cached("SELECT id FROM dimensions WHERE hash = ?1")?
        .query_row([hash.as_ref()], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    let sql = format!(
        "INSERT INTO dimensions (hash, {}) VALUES (?1{})",
        COLUMNS.join(", "),
        (2..=COLUMNS.len() + 1).map(|number| format!(", ?{number}")).collect::<String>(),
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.raw_bind_parameter(1, hash.as_ref())?;
    for (index, text) in columns(words).iter().enumerate() {
        statement.raw_bind_parameter(index + 2, text)?;
    }
    statement.raw_execute()?;
    Ok(connection.last_insert_rowid())
}
