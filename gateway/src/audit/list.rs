//! Reading the trail back.

use std::path::Path;

use jiff::Timestamp;

use super::{Entry, directory};
use crate::ledger::segment;
use crate::ledger::{Batches, EntryKind, LedgerError};

/// What happened since then, in the order of time (of what is counted, that of the last); with `credential` only what is about that one, or about a store as a whole. What cannot be
/// read is passed over: verifying finds it.
pub(crate) fn list(
    data_dir: &Path,
    since: Timestamp,
    credential: Option<&str>,
) -> Result<Vec<Entry>, LedgerError> {
    let directory = directory(data_dir);
    if !segment::directory(&directory).is_dir() {
        return Err(LedgerError::NoTrail(data_dir.to_owned()));
    }
    let is_about = |entry: &Entry| {
        let names = &entry.credentials;
        credential.is_none_or(|name| {
            (names.is_empty() && entry.limit.is_empty()) || names.iter().any(|other| other == name)
        })
    };
    let left = segment::left_behind(&directory)?;
    let mut entries = Vec::new();
    for name in segment::list(&directory)? {
        let end = left.get(&name).copied().unwrap_or(u64::MAX);
        let mut batches = Batches::open(&segment::file(&directory, &name), 0)?;
        let mut count = 0;
        while count < end {
            let batch =
                batches.next_batch().map_err(|source| LedgerError::file("reading", &*name, source))?;
            let Some(batch) = batch else { break };
            count += batch.count;
            for entry in batch.entries().flatten().filter(|entry| entry.kind == Some(EntryKind::Audit)) {
                if let Ok(audit) = serde_json::from_slice::<Entry>(entry.payload)
                    && audit.at >= since
                    && is_about(&audit)
                {
                    entries.push(audit);
                }
            }
        }
    }
    entries.sort_by_key(|entry| entry.last.unwrap_or(entry.at));
    Ok(entries)
}
