//! Corrections: what is found out later about a call whose usage was presumed or estimated.
//!
//! A correction is a line of its own that says the difference, dated when it is made: a period that was reported stays as it was. The
//! budgets of a running gateway do not change; the next start counts the difference in the windows of the original.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use tollgate_policy::price::NanoUsd;

use super::LedgerError;
use super::line::{Amount, Line, RECORD, Row, RowCharge, RowUnits};
use super::record::{Outcome, RecordId, UsageSource};
use super::segment::{self, Lines, Run};
use super::store::Reader;

/// What a call really used.
#[derive(Debug, Clone, Copy)]
pub struct Correction {
    /// Tokens read, uncached.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
    /// What the provider billed.
    pub cost: NanoUsd,
}

/// Writes how far the record of `id`, with the corrections that the store has of it, is from `actual`, and returns the id of that line.
/// May run beside a gateway.
pub fn settle(data_dir: &Path, id: RecordId, actual: Correction) -> Result<RecordId, LedgerError> {
    let reader = Reader::open(data_dir)?;
    let original = read(data_dir, &reader, id)?;
    if original.corrects.is_some() {
        return Err(refused(id, "it is itself a correction: correct the original"));
    }
    let mut corrections = Vec::new();
    for correction in reader.corrections(id)? {
        corrections.push(read(data_dir, &reader, correction)?);
    }
    let now = Timestamp::now();
    let row = difference(&original, &corrections, actual, now);
    let run = Run::begin(data_dir, now)?;
    let tips = segment::tips(data_dir, &reader.known()?)?;
    let (mut file, head, _) = run.create("settle", now, &tips)?;
    let mut line = RECORD.to_vec();
    serde_json::to_writer(&mut line, &row).map_err(LedgerError::Encode)?;
    head.head.close(&mut line, 0);
    let wrote = file.write_all(&line).and_then(|()| file.sync_data());
    wrote.map_err(|source| LedgerError::file("writing", &*head.segment, source))?;
    Ok(row.id)
}

fn refused(id: RecordId, what: &'static str) -> LedgerError {
    LedgerError::Record { id: id.to_string(), what }
}

fn read(data_dir: &Path, reader: &Reader, id: RecordId) -> Result<Row<'static>, LedgerError> {
    for place in reader.find(id)? {
        let mut lines = Lines::open(data_dir, &place.segment, place.start)?;
        while lines.offset() < place.end {
            let failed = |source| LedgerError::file("reading", &*place.segment, source);
            let Some(line) = lines.next_line().map_err(failed)? else { break };
            if let Ok(Line::Record(row)) = Line::read(line)
                && row.id == id
            {
                return Ok(row.into_owned());
            }
        }
    }
    Err(refused(id, "there is none with this id"))
}

fn difference(
    original: &Row<'static>,
    corrections: &[Row<'static>],
    actual: Correction,
    now: Timestamp,
) -> Row<'static> {
    let lines = || std::iter::once(original).chain(corrections);
    let sum = |part: fn(&Row<'static>) -> i64| lines().fold(0, |sum: i64, row| sum.saturating_add(part(row)));
    let less = |actual: u64, so_far: i64| i64::try_from(actual).unwrap_or(i64::MAX).saturating_sub(so_far);
    let units = RowUnits {
        input: less(actual.input, sum(|row| row.units.input)),
        cache_read: less(0, sum(|row| row.units.cache_read)),
        cache_write_5m: less(0, sum(|row| row.units.cache_write_5m)),
        cache_write_1h: less(0, sum(|row| row.units.cache_write_1h)),
        output: less(actual.output, sum(|row| row.units.output)),
        reasoning: less(0, sum(|row| row.units.reasoning)),
        audio_in: less(0, sum(|row| row.units.audio_in)),
        audio_out: less(0, sum(|row| row.units.audio_out)),
        image_in: less(0, sum(|row| row.units.image_in)),
        image_out: less(0, sum(|row| row.units.image_out)),
    };
    let charged = |charge: &RowCharge<'static>| {
        let same = lines()
            .flat_map(|row| &row.charges)
            .filter(|other| (&other.limit, &other.key) == (&charge.limit, &charge.key));
        same.fold(0, |sum: i64, other| sum.saturating_add(other.amount.0))
    };
    let charges = original.charges.iter().filter_map(|charge| {
        // "<owner>/<unit>/<per>/<key>"
        let actual = match charge.limit.rsplit('/').nth(2)? {
            "tokens" => actual.input.saturating_add(actual.output),
            "spend" => actual.cost.0,
            _ => return None,
        };
        Some(RowCharge { amount: Amount(less(actual, charged(charge))), ..charge.clone() })
    });
    Row {
        id: RecordId::new(),
        at: now,
        status: 0,
        reason: Cow::default(),
        outcome: Cow::Borrowed(Outcome::Adjustment.as_str()),
        units,
        usage_source: Cow::Borrowed(UsageSource::Reported.as_str()),
        cost: Some(Amount(less(actual.cost.0, sum(|row| row.cost.unwrap_or_default().0)))),
        unpriced: false,
        charges: charges.collect(),
        held_at: Some(original.held_at.unwrap_or(original.at)),
        bytes_in: 0,
        bytes_out: 0,
        corrects: Some(original.id),
        ..original.clone()
    }
}
