//! What records have in common, written once: who, where to, with what, and how it ended.

use std::collections::HashMap;

use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension};

use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::rollup::RollupKey;

/// Combinations remembered, so that callers who invent models cost memory only for a while.
const REMEMBERED: usize = 32 << 10;

/// Row ids by content.
#[derive(Debug, Default)]
pub(super) struct Dimensions(HashMap<Box<[u8]>, i64>);

impl Dimensions {
    /// The row with these texts, which `encoded` stands for; made if there is none.
    pub(super) fn id(
        &mut self,
        connection: &Connection,
        encoded: &[u8],
        key: &RollupKey<'_>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.0.get(encoded) {
            return Ok(*id);
        }
        let id = find_or_insert(connection, &key.texts)?;
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(encoded.into(), id);
        Ok(id)
    }
}

/// What a store tells these texts from others by.
pub(crate) fn hash_of(texts: &Texts<'_>) -> digest::Digest {
    let mut hash = digest::Context::new(&digest::SHA256);
    for text in texts {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finish()
}

fn find_or_insert(connection: &Connection, texts: &Texts<'_>) -> rusqlite::Result<i64> {
    let hash = hash_of(texts);
    let found = connection
        .prepare_cached("SELECT id FROM dimensions WHERE hash = ?1")?
        .query_row([hash.as_ref()], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    let sql = format!(
        "INSERT INTO dimensions (hash, {}) VALUES (?1{})",
        Dimension::ALL.map(Dimension::column).join(", "),
        (2..=Dimension::ALL.len() + 1).map(|number| format!(", ?{number}")).collect::<String>(),
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.raw_bind_parameter(1, hash.as_ref())?;
    for (index, text) in texts.iter().enumerate() {
        statement.raw_bind_parameter(index + 2, text)?;
    }
    statement.raw_execute()?;
    Ok(connection.last_insert_rowid())
}
