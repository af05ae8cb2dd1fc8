//! Single calls, as their records in the journal have them: the store has sums only.
//!
//! What a record says is handed on whole. A call that was corrected shows what is known of it now, which is
//! what reports count, and what its record said beside it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::batch::BatchEntry;
use super::dimension::{Dimension, Texts};
use super::entry::{JournalEntry, write_json};
use super::json::{Calendar, Json};
use super::line::Row;
use super::record::{RecordId, UsageSource};
use super::segment::{self, Known};
use super::{LedgerError, offline};

/// A JSON object of the journal.
pub type Object = Map<String, Value>;

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The record's id: what the caller was told, and what a correction names.
    pub id: RecordId,
    /// When the head of the request was read.
    pub at: Timestamp,
    /// What its record says, with all corrections in it. Absent while it is under way.
    pub record: Option<Object>,
    /// What the record said of usage and cost before it was corrected: the members `usage_source`, `units`, `cost` and `charges`.
    pub original: Option<Object>,
    /// The corrections, oldest first.
    pub corrections: Vec<Object>,
    /// What it reserved before it was sent, if it had to. Only looked for by [`find`].
    pub hold: Option<Object>,
}

/// What a correction changes.
const CHANGED: [&str; 5] = ["usage_source", "units", "cost", "charges", "unpriced"];

impl Call {
    /// A member of the record that is text; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.member(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A member of the record that is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.member(name).and_then(Value::as_i64)
    }

    /// How many of a unit the call used.
    pub fn unit(&self, name: &str) -> i64 {
        let units = self.member("units").and_then(Value::as_object);
        units.and_then(|units| units.get(name)).and_then(Value::as_i64).unwrap_or_default()
    }

    /// Whether the provider bills it, and no price for it is known.
    pub fn is_unpriced(&self) -> bool {
        self.member("unpriced").and_then(Value::as_bool).unwrap_or_default()
    }

    fn member(&self, name: &str) -> Option<&Value> {
        self.record.as_ref()?.get(name)
    }

    /// A call that has ended, as its record says.
    pub(crate) fn of_record(id: RecordId, record: Object) -> Self {
        let at = record.get("at").and_then(Value::as_str).and_then(|at| at.parse().ok());
        let at = at.unwrap_or_default();
        Self { id, at, record: Some(record), original: None, corrections: Vec::new(), hold: None }
    }

    /// Takes in what was found out later.
    pub(crate) fn correct(&mut self, corrections: Vec<Object>) {
        let corrections = in_order(corrections);
        let Some(record) = self.record.as_mut().filter(|_| !corrections.is_empty()) else { return };
        let before = CHANGED.iter().filter_map(|name| Some(((*name).to_owned(), record.get(*name)?.clone())));
        self.original = Some(before.collect());
        for correction in &corrections {
            let own = |name: &str| correction.get(name).cloned();
            let cost = |object: &Object| object.get("cost").and_then(Value::as_i64);
            let sum = cost(record).unwrap_or_default().saturating_add(cost(correction).unwrap_or_default());
            record.insert("cost".to_owned(), sum.into());
            record.remove("unpriced");
            let source = own("usage_source").unwrap_or_else(|| UsageSource::Reported.as_str().into());
            record.insert("usage_source".to_owned(), source);
            add_units(record, correction);
            add_charges(record, correction);
        }
        self.corrections = corrections;
    }
}

fn add_units(record: &mut Object, correction: &Object) {
    let parts = correction.get("units").and_then(Value::as_object);
    let units = record.entry("units").or_insert_with(|| Object::new().into());
    let (Some(units), Some(parts)) = (units.as_object_mut(), parts) else { return };
    for (name, part) in parts {
        let so_far = units.get(name).and_then(Value::as_i64).unwrap_or_default();
        units.insert(name.clone(), so_far.saturating_add(part.as_i64().unwrap_or_default()).into());
    }
    units.retain(|_, count| count.as_i64() != Some(0));
}

fn add_charges(record: &mut Object, correction: &Object) {
    let parts = correction.get("charges").and_then(Value::as_array);
    let charges = record.get_mut("charges").and_then(Value::as_array_mut);
    let (Some(charges), Some(parts)) = (charges, parts) else { return };
    for charge in charges {
        let is_same = |part: &&Value| part["limit"] == charge["limit"] && part["key"] == charge["key"];
        if let Some(part) = parts.iter().find(is_same) {
            let amount = |charge: &Value| charge["amount"].as_i64().unwrap_or_default();
            charge["amount"] = amount(charge).saturating_add(amount(part)).into();
        }
    }
}

/// Which calls are asked for. What is empty asks for nothing.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// From this instant on.
    pub since: Timestamp,
    /// Up to this instant, which is outside.
    pub until: Timestamp,
    /// What a dimension of the record is, where `*` stands for anything. The model is the one asked for or the one that answered.
    pub texts: Vec<(Dimension, String)>,
    /// Statuses: `429`, or `4xx` for all that begin so.
    pub statuses: Vec<String>,
}

impl Wanted {
    /// All calls since then.
    pub const fn since(since: Timestamp) -> Self {
        Self { since, until: Timestamp::MAX, texts: Vec::new(), statuses: Vec::new() }
    }

    fn is(&self, row: &Row) -> bool {
        self.is_call(row.at, &row.texts(), row.status.unwrap_or_default())
    }

    /// The same of a record as its JSON has it.
    pub(crate) fn is_record(&self, record: &Object) -> bool {
        let text = |name| record.get(name).and_then(Value::as_str).unwrap_or_default();
        let status = record.get("status").and_then(Value::as_i64).unwrap_or_default();
        let at = text("at").parse().unwrap_or_default();
        self.is_call(at, &Dimension::ALL.map(|dimension| text(dimension.as_str())), status)
    }

    fn is_call(&self, at: Timestamp, texts: &Texts<'_>, status: i64) -> bool {
        let is = |dimension, wanted: &str| like(wanted, texts[dimension as usize]);
        let text = |(dimension, wanted): &(Dimension, String)| {
            is(*dimension, wanted) || (*dimension == Dimension::Model && is(Dimension::ModelAnswered, wanted))
        };
        at >= self.since
            && at < self.until
            && self.texts.iter().all(text)
            && (self.statuses.is_empty()
                || self.statuses.iter().any(|wanted| is_status(wanted, &status.to_string())))
    }
}

/// Whether `text` is what `wanted` says, in which `*` is anything.
fn like(wanted: &str, text: &str) -> bool {
    let Some((start, rest)) = wanted.split_once('*') else { return wanted == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    match rest.rsplit_once('*') {
        None => text.ends_with(rest),
        Some((middles, end)) => {
            let found = middles.split('*').try_fold(text, |text, middle| {
                text.find(middle).and_then(|place| text.get(place + middle.len()..))
            });
            found.is_some_and(|text| text.ends_with(end))
        }
    }
}

fn is_status(wanted: &str, status: &str) -> bool {
    let digits = wanted.trim_end_matches(['x', 'X']);
    wanted.len() == status.len() && status.starts_with(digits)
}

/// Looks calls up, each entry of the journal once.
#[derive(Debug)]
pub struct CallLookup {
    known: Known,
}

impl CallLookup {
    /// Of everything.
    pub fn new() -> Self {
        Self { known: Known::new() }
    }

    /// The calls that are asked for and that were written since the last time, newest last; of more than `most` the newest ones.
    pub fn next(&mut self, data_dir: &Path, wanted: &Wanted, most: usize) -> Result<Vec<Call>, LedgerError> {
        if !segment::directory(data_dir).is_dir() {
            return Err(LedgerError::Missing(data_dir.to_owned()));
        }
        let mut calls = BTreeMap::new();
        let mut corrections: HashMap<RecordId, Vec<Object>> = HashMap::new();
        offline::entries(data_dir, &mut self.known, wanted.since, |entry| {
            let Ok(JournalEntry::Record(row)) = JournalEntry::read(entry) else { return };
            match row.corrects {
                Some(original) => corrections.entry(original).or_default().extend(object(entry)),
                None if wanted.is(&row) => {
                    calls.insert((row.at, row.id), object(entry));
                    if calls.len() > most {
                        calls.pop_first();
                    }
                }
                None => {}
            }
        })?;
        let calls = calls.into_iter().map(|((at, id), record)| {
            let mut call = Call { id, at, record, original: None, corrections: Vec::new(), hold: None };
            call.correct(corrections.remove(&id).unwrap_or_default());
            call
        });
        Ok(calls.collect())
    }
}

impl Default for CallLookup {
    fn default() -> Self {
        Self::new()
    }
}

/// The call with this id, if the journal has its record or at least its hold.
pub fn find(data_dir: &Path, id: RecordId) -> Result<Option<Call>, LedgerError> {
    if !segment::directory(data_dir).is_dir() {
        return Err(LedgerError::Missing(data_dir.to_owned()));
    }
    let named = memchr::memmem::Finder::new(id.as_bytes());
    let (mut record, mut hold, mut corrections) = (None, None, Vec::new());
    offline::entries(data_dir, &mut Known::new(), Timestamp::MIN, |entry| {
        if named.find(entry.payload).is_none() {
            return;
        }
        match JournalEntry::read(entry) {
            Ok(JournalEntry::Hold(held)) if held == id => hold = object(entry),
            Ok(JournalEntry::Record(row)) if row.id == id => {
                record = object(entry).map(|found| (row.at, found));
            }
            Ok(JournalEntry::Record(row)) if row.corrects == Some(id) => corrections.extend(object(entry)),
            _ => {}
        }
    })?;
    let held_at = hold.as_ref().and_then(|hold| hold.get("at")?.as_str()?.parse().ok());
    let Some(at) = record.as_ref().map(|(at, _)| *at).or(held_at) else { return Ok(None) };
    let record = record.map(|(_, record)| record);
    let mut call = Call { id, at, record, original: None, corrections: Vec::new(), hold };
    call.correct(corrections);
    Ok(Some(call))
}

fn in_order(mut corrections: Vec<Object>) -> Vec<Object> {
    corrections.sort_by_cached_key(|correction| {
        let text = |name: &str| correction.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("at"), text("id"))
    });
    corrections
}

fn object(entry: &BatchEntry<'_>) -> Option<Object> {
    let mut out = Vec::new();
    write_json(entry, &mut Json::new(&mut out, &mut Calendar::default())).ok()?;
    serde_json::from_slice(&out).ok()
}

#[cfg(test)]
mod tests;
