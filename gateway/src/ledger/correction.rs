//! Corrections: what is found out later about a call whose usage was presumed or estimated.
//!
//! A correction is an entry of its own that says the difference, dated when it is made: a period that was reported stays as it was. It
//! also says what the call was counted as, which it no longer is. The budgets of a running gateway do not change; the next start counts
//! the difference in the windows of the original.
//!
//! **Invariant:** a difference is one to all that was written before it, and nobody else writes corrections meanwhile.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tollgate_policy::limit::{LimitId, Unit};
use tollgate_policy::price::{Item, NanoUsd, Units};

use super::amount::{Amount, Amounts};
use super::batch::{Batches, EntryKind, NewBatch};
use super::entry::JournalEntry;
use super::fields::{CorrectedUsage, DETAILS, Detail, RowCharge};
use super::line::Row;
use super::record::{Bounded, Outcome, RecordId, UsageSource};
use super::segment::{self, Known, ProcessEpoch, SegmentEnd};
use super::sqlite::StoreReader;
use super::{LedgerError, offline, payload};

/// What a call really used.
#[derive(Debug, Clone, Copy)]
pub struct Correction {
    /// How many tokens, each counted once: what was read from a cache is no input, what was reasoning no output.
    pub units: Units,
    /// What the provider billed.
    pub cost: NanoUsd,
}

/// Who corrects, and why.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The user of the operating system.
    pub by: Bounded,
    /// What the correction is made for.
    pub note: Option<Bounded>,
    /// Even where the usage was reported, or there is none. That takes a note.
    pub force: bool,
}

/// What a segment of corrections has in its name where others have a core's number.
pub(super) const WHO: &str = "settle";

/// Writes how far the record of `id`, with all corrections of it that were written so far, is from `actual`, and returns the id of that
/// entry. May run beside a gateway; waits for others of its kind. Refuses a call whose usage is known, unless that is forced.
pub fn settle(
    data_dir: &Path,
    id: RecordId,
    actual: Correction,
    signature: &Signature,
) -> Result<RecordId, LedgerError> {
    let reader = StoreReader::open(data_dir)?;
    let _alone = offline::alone(data_dir)?;
    // Asked before the rest: what the store takes in meanwhile is then found twice, not missed.
    let known = reader.known()?;
    let mut corrections = history(data_dir, &reader, &known, id)?;
    let Some(original) = corrections.remove(&id) else {
        return Err(LedgerError::NoRecord(id.to_string()));
    };
    if original.corrects.is_some() {
        return Err(refused(id, "it is itself a correction: correct the original"));
    }
    let corrections: Vec<_> = corrections.into_values().collect();
    check(&original, &corrections, signature)?;
    let now = Timestamp::now();
    let by = signature.by.as_str().into();
    let note = signature.note.as_ref().map_or("", Bounded::as_str).into();
    let row = Row { by, note, ..difference(&original, &corrections, actual, now) };
    let epoch = ProcessEpoch::begin(data_dir, now)?;
    let tips = segment::tips(data_dir, &known)?;
    let (mut file, head, length) = epoch.create(WHO, now, &tips)?;
    let wrote = file.write_all(batch_of(&row, &head, length).bytes()).and_then(|()| file.sync_data());
    wrote.map_err(|source| LedgerError::file("writing", &*head.segment, source))?;
    Ok(row.id)
}

/// The batch behind the first entry of a segment, which is this long.
fn batch_of(row: &Row, first: &SegmentEnd, length: u64) -> NewBatch {
    let mut batch = NewBatch::at(length);
    payload::append(&mut batch, EntryKind::Record, &row.fields());
    batch.close(first.head);
    batch
}

/// What is known of a call is not changed without a word.
fn check(original: &Row, corrections: &[Row], signature: &Signature) -> Result<(), LedgerError> {
    let is = |source: UsageSource| &*original.usage_source == source.as_str();
    let is_open = is(UsageSource::Estimated) || is(UsageSource::Presumed) || original.unpriced.is_some();
    if corrections.is_empty() && is_open {
        return Ok(());
    }
    let what = match (signature.force, &signature.note) {
        (true, Some(_)) => return Ok(()),
        (true, None) => "to change what is known of it takes a note that says why (--note)",
        (false, _) if !corrections.is_empty() => {
            "it was corrected before; to correct it again takes --force, and --note with the reason"
        }
        (false, _) if is(UsageSource::None) => {
            "it has no usage to correct; to give it one takes --force, and --note with the reason"
        }
        (false, _) => {
            "the provider reported what it used; to change that takes --force, and --note with the reason"
        }
    };
    Err(refused(original.id, what))
}

fn refused(id: RecordId, what: &'static str) -> LedgerError {
    LedgerError::Record { id: id.to_string(), what }
}

/// The record of `id` and its corrections: those that the store knows, and those in the journal behind what the store has.
fn history(
    data_dir: &Path,
    reader: &StoreReader,
    known: &Known,
    id: RecordId,
) -> Result<BTreeMap<RecordId, Row>, LedgerError> {
    let mut rows = BTreeMap::new();
    rows.extend(read(data_dir, reader, id)?.map(|row| (id, row)));
    for correction in reader.corrections(id)? {
        let row = read(data_dir, reader, correction)?
            .ok_or_else(|| refused(correction, "the journal no longer has this correction"))?;
        rows.insert(correction, row);
    }
    offline::records(data_dir, known, |row| {
        if row.id == id || row.corrects == Some(id) {
            rows.insert(row.id, row);
        }
    })?;
    Ok(rows)
}

fn read(data_dir: &Path, reader: &StoreReader, id: RecordId) -> Result<Option<Row>, LedgerError> {
    for place in reader.find(id)? {
        let mut batches = Batches::open(&segment::file(data_dir, &place.segment), place.start)?;
        while batches.offset() < place.end {
            let failed = |source| LedgerError::file("reading", &*place.segment, source);
            let Some(batch) = batches.next_batch().map_err(failed)? else { break };
            for entry in batch.entries().flatten() {
                if let Ok(JournalEntry::Record(row)) = JournalEntry::read(&entry)
                    && row.id == id
                {
                    return Ok(Some(*row));
                }
            }
        }
    }
    Ok(None)
}

fn difference(original: &Row, corrections: &[Row], actual: Correction, now: Timestamp) -> Row {
    let lines = || std::iter::once(original).chain(corrections);
    let less = |actual: u64, so_far: i64| i64::try_from(actual).unwrap_or(i64::MAX).saturating_sub(so_far);
    // What is no token is as it was.
    let mut units = Amounts::default();
    for unit in Item::READ.into_iter().chain(Item::WRITTEN) {
        let so_far = lines().fold(0, |sum: i64, row| sum.saturating_add(row.units.get(unit)));
        units.set(unit, less(actual.units.get(unit), so_far));
    }
    let cost = lines().fold(0, |sum: i64, row| sum.saturating_add(row.cost.unwrap_or_default()));
    let charged = |charge: &RowCharge| {
        let same = lines()
            .flat_map(|row| &row.charges)
            .filter(|other| (&other.limit, &other.key) == (&charge.limit, &charge.key));
        same.fold(0, |sum: i64, other| sum.saturating_add(other.amount.0))
    };
    let charges = original.charges.iter().filter_map(|charge| {
        let actual = match LimitId::read(&charge.limit)?.unit {
            Unit::Tokens => actual.units.tokens(),
            Unit::InputTokens => actual.units.read(),
            Unit::OutputTokens => actual.units.written(),
            Unit::CachedTokens => actual.units.cached(),
            Unit::ReasoningTokens => actual.units.get(Item::Reasoning),
            Unit::Spend => actual.cost.0,
            Unit::Requests | Unit::Concurrency | Unit::Bytes | Unit::Seconds => return None,
        };
        Some(RowCharge { amount: Amount(less(actual, charged(charge))), ..charge.clone() })
    });
    let mut details: [Arc<str>; DETAILS] = Default::default();
    details[Detail::PriceVersion as usize].clone_from(&original.details[Detail::PriceVersion as usize]);
    Row {
        id: RecordId::new(),
        at: now,
        status: Some(0),
        count: None,
        duration: None,
        first_byte: None,
        reason: Arc::default(),
        outcome: Outcome::Adjustment.as_str().into(),
        units,
        usage_source: UsageSource::Reported.as_str().into(),
        cost: Some(less(actual.cost.0, cost)),
        unpriced: None,
        charges: charges.collect(),
        held_at: Some(original.held_at.unwrap_or(original.at)),
        bytes_in: Some(0),
        bytes_out: Some(0),
        port: None,
        path: Arc::default(),
        attempts: Vec::new(),
        details,
        corrects: Some(original.id),
        takes: Some(taken(original, corrections)),
        ..original.clone()
    }
}

/// What the call is counted as: what its record says, or, where a correction took it out of there, nothing that the difference is not
/// added to anyway.
fn taken(original: &Row, corrections: &[Row]) -> CorrectedUsage {
    let group = CorrectedUsage {
        outcome: original.outcome.clone(),
        reason: original.reason.clone(),
        usage_source: UsageSource::Reported.as_str().into(),
        status: original.status.unwrap_or_default(),
        ..CorrectedUsage::default()
    };
    if corrections.iter().any(|row| row.takes.is_some()) {
        return group;
    }
    CorrectedUsage {
        usage_source: original.usage_source.clone(),
        units: original.units,
        cost: Amount(original.cost.unwrap_or_default()),
        unpriced: original.unpriced.is_some(),
        bytes_in: original.bytes_in.unwrap_or_default(),
        bytes_out: original.bytes_out.unwrap_or_default(),
        ..group
    }
}
