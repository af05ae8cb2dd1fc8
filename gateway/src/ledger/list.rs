//! Calls whose usage is not known: what is left to settle.

use std::path::Path;

use jiff::Timestamp;

use super::LedgerError;
use super::calls::{Call, CallLookup, Wanted};
use super::postgres::{PostgresServer, SharedReader};
use super::record::UsageSource;

/// The calls since then, newest last: those of the database of several replicas, or of this data directory. With `sources` only those
/// whose usage comes from one of them; that of a call that was corrected is reported.
pub fn list(
    data_dir: &Path,
    shared: Option<&PostgresServer>,
    since: Timestamp,
    sources: &[UsageSource],
) -> Result<Vec<Call>, LedgerError> {
    let wanted = Wanted::since(since);
    let mut calls = match shared {
        Some(server) => SharedReader::open(server)?.calls(&wanted, usize::MAX)?,
        None => CallLookup::new().next(data_dir, &wanted, usize::MAX)?,
    };
    let is_named = |call: &Call| sources.iter().any(|source| source.as_str() == call.text("usage_source"));
    calls.retain(|call| sources.is_empty() || is_named(call));
    Ok(calls)
}
