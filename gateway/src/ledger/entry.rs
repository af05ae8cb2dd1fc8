//! What can stand in an entry of the journal, read back. What this version does not know is passed over.

use serde::de::IgnoredAny;

use super::batch::{BatchEntry, EntryKind};
use super::json::{Json, JsonObject};
use super::line::Row;
use super::payload::{self, Unreadable};
use super::record::RecordId;

/// An entry as far as anybody but the chain cares.
#[derive(Debug)]
pub(crate) enum JournalEntry {
    /// A hold of this id; [`hold`] has the rest.
    Hold(RecordId),
    /// A record.
    Record(Box<Row>),
    /// A first entry, texts, or of a kind that a later version has.
    Other,
}

impl JournalEntry {
    pub(crate) fn read(entry: &BatchEntry<'_>) -> Result<Self, Unreadable> {
        match entry.kind {
            Some(EntryKind::Hold) => payload::id_of(entry.payload).map(Self::Hold),
            Some(EntryKind::Record) => payload::read(entry).map(|row| Self::Record(Box::new(row))),
            _ => Ok(Self::Other),
        }
    }
}

/// Writes an entry as JSON. A list of texts is none: those who name it say what is in it.
pub(crate) fn write_json(entry: &BatchEntry<'_>, json: &mut Json<'_>) -> Result<(), Unreadable> {
    match entry.kind {
        Some(EntryKind::Hold) => payload::read(entry)?.fields().write_hold(json),
        Some(EntryKind::Record) => payload::read(entry)?.fields().write(json),
        Some(EntryKind::Segment | EntryKind::Audit) => {
            let is_line = !entry.payload.contains(&b'\n')
                && serde_json::from_slice::<IgnoredAny>(entry.payload).is_ok();
            json.line(Some(entry.payload).filter(|_| is_line).ok_or(Unreadable)?);
        }
        Some(EntryKind::Texts) | None => {}
    }
    Ok(())
}

/// Reads a hold.
pub(crate) fn hold(entry: &BatchEntry<'_>) -> Result<Row, Unreadable> {
    match entry.kind {
        Some(EntryKind::Hold) => payload::read(entry),
        _ => Err(Unreadable),
    }
}
