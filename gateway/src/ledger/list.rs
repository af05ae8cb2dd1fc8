//! Single calls, as their records in the journal have them: the store has sums only.

use std::collections::HashSet;
use std::path::Path;

use jiff::Timestamp;

use super::record::{RecordId, UsageSource};
use super::segment::{self, Known};
use super::{LedgerError, beside};

/// One call. Strings are empty where the record has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The record's id: what a correction names.
    pub id: RecordId,
    /// When the head of the request was read.
    pub at: Timestamp,
    /// SPIFFE id.
    pub caller: String,
    /// Name of the destination.
    pub destination: String,
    /// Name of the credential that was put on it.
    pub credential: String,
    /// Which of the credential's keys, where there are several.
    pub alias: String,
    /// Model asked for; where none was, the one that answered.
    pub model: String,
    /// How the provider says it served the call.
    pub tier: String,
    /// Searches that the provider ran.
    pub searches: i64,
    /// Images that it made.
    pub images: i64,
    /// The provider bills it, and no price for it is known.
    pub unpriced: bool,
    /// Where its usage comes from.
    pub usage_source: String,
    /// Nano-USD; absent where there is no price.
    pub cost: Option<i64>,
}

/// The calls since then, newest last. With `sources` only those whose usage comes from one of them and that nobody corrected since.
pub fn list(data_dir: &Path, since: Timestamp, sources: &[UsageSource]) -> Result<Vec<Listed>, LedgerError> {
    if !segment::directory(data_dir).is_dir() {
        return Err(LedgerError::Missing(data_dir.to_owned()));
    }
    let (mut calls, mut corrected) = (Vec::new(), HashSet::new());
    beside::records(data_dir, &Known::new(), |row| {
        if let Some(original) = row.corrects {
            corrected.insert(original);
            return;
        }
        let named = sources.is_empty() || sources.iter().any(|source| source.as_str() == row.usage_source);
        if row.at < since || !named {
            return;
        }
        let model = if row.model.is_empty() { row.model_answered } else { row.model };
        calls.push(Listed {
            id: row.id,
            at: row.at,
            caller: row.caller.into_owned(),
            destination: row.destination.into_owned(),
            credential: row.credential.into_owned(),
            alias: row.alias.into_owned(),
            model: model.into_owned(),
            tier: row.tier.into_owned(),
            searches: row.units.searches(),
            images: row.units.images,
            unpriced: row.unpriced,
            usage_source: row.usage_source.into_owned(),
            cost: row.cost.map(|cost| cost.0),
        });
    })?;
    if !sources.is_empty() {
        calls.retain(|call| !corrected.contains(&call.id));
    }
    calls.sort_by_key(|call| (call.at, call.id));
    Ok(calls)
}
