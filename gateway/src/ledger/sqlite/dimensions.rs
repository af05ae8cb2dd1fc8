//! What records have in common, written once: who, where to, with what, and how it ended.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension};

use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::free_texts::{FREE, FreeTexts};
use crate::ledger::rollup::RollupKey;

/// Combinations remembered, so that callers who invent models cost memory only for a while.
const REMEMBERED: usize = 32 << 10;

/// Row ids by content.
#[derive(Debug, Default)]
pub(super) struct Dimensions {
    ids: HashMap<Box<[u8]>, i64>,
    /// Read when the first row is made.
    free: Option<FreeTexts>,
}

impl Dimensions {
    /// The row with these texts, which `encoded` stands for, or with those of them that are not too many; made if there is none.
    pub(super) fn id(
        &mut self,
        connection: &Connection,
        encoded: &[u8],
        key: &RollupKey<'_>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.get(encoded) {
            return Ok(*id);
        }
        let id = match find(connection, &key.texts)? {
            Some(id) => id,
            None => match self.make(connection, key)? {
                (id, true) => id,
                // Another day may have room for them.
                (id, false) => return Ok(id),
            },
        };
        if self.ids.len() >= REMEMBERED {
            self.ids.clear();
        }
        self.ids.insert(encoded.into(), id);
        Ok(id)
    }

    /// Also says whether the row has all texts as they are.
    fn make(&mut self, connection: &Connection, key: &RollupKey<'_>) -> rusqlite::Result<(i64, bool)> {
        let free = match &mut self.free {
            Some(free) => free,
            none => none.insert(known(connection)?),
        };
        let texts = free.bounded(key.texts, key.minute);
        let id = match find(connection, &texts)? {
            Some(id) => id,
            None => insert(connection, &texts)?,
        };
        Ok((id, texts == key.texts))
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

/// The texts that come from outside and are there already.
fn known(connection: &Connection) -> rusqlite::Result<FreeTexts> {
    let mut known: [HashSet<Box<str>>; FREE.len()] = Default::default();
    for (dimension, known) in FREE.into_iter().zip(&mut known) {
        let sql = format!("SELECT DISTINCT {} FROM dimensions", dimension.column());
        let mut statement = connection.prepare(&sql)?;
        let texts = statement.query_map([], |row| row.get::<_, String>(0))?;
        *known = texts.map(|text| text.map(Into::into)).collect::<Result<_, _>>()?;
    }
    Ok(FreeTexts::new(known))
}

fn find(connection: &Connection, texts: &Texts<'_>) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM dimensions WHERE hash = ?1")?
        .query_row([hash_of(texts).as_ref()], |row| row.get(0))
        .optional()
}

fn insert(connection: &Connection, texts: &Texts<'_>) -> rusqlite::Result<i64> {
    let hash = hash_of(texts);
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
