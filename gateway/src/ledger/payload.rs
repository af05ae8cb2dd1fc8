//! The payloads of holds and records.
//!
//! An entry of either kind names four [lists](super::batch) of texts: the dimensions, the details, limit and key of each charge, and the names
//! of the units. Its payload is the id (16 bytes); when it began, in microseconds from the time in the id; 0, or 1 more than when the hold was
//! taken, in microseconds from when it began; one bit for each number that it has, and the numbers; the amount of each charge; the amount
//! of each unit; the path; twice the number of attempts, and 1 more where it is a correction; the attempts; the
//! correction; where it belongs to a trace, 16 and the 16 bytes of the trace's id.
//!
//! Integers are LEB128, signed ones zigzag. A text is its length and its bytes.
//!
//! **Invariant:** a number, a dimension, a detail or a unit that this version does not know is passed over, and so is what
//! stands behind all this.

use std::sync::Arc;

use jiff::Timestamp;

use super::amount::{Amount, Amounts, Unit};
use super::batch::{BatchEntry, EntryKind, NewBatch, ROLES, TextList};
use super::fields::{AttemptFields, CorrectedUsage, CorrectionFields, DETAILS, Fields, RowCharge};
use super::line::{Row, RowAttempt};
use super::record_id::RecordId;
use super::varint::{self, write_text as text};
use crate::trace::TraceId;

/// Bytes of the id of a trace, which stands behind this number.
const TRACE_BYTES: u64 = 16;

/// It is no payload of its kind, or a list that it names cannot be read.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is not of the form of its kind, or names texts that cannot be read")]
pub(crate) struct Unreadable;

/// Where something was appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    /// Where its entry begins in the batch.
    pub(crate) start: usize,
    pub(crate) named: NamedLists,
}

/// Where in the file the lists begin that an entry names. In one segment another list begins elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamedLists {
    /// Its dimensions.
    pub(crate) texts: u64,
    /// Limit and key of each charge.
    pub(crate) charges: u64,
}

/// Appends a hold or a record.
pub(crate) fn append(batch: &mut NewBatch, kind: EntryKind, fields: &Fields<'_>) -> Appended {
    let units = &fields.units;
    let role = if kind == EntryKind::Hold { 0 } else { ROLES / 2 };
    let lists = [
        batch.list(role, |out| all(&fields.texts, out)),
        batch.list(role + 1, |out| all(&fields.details, out)),
        batch.list(role + 2, |out| {
            fields.charges.each(|limit, key, _| {
                text(limit, out);
                text(key, out);
            });
        }),
        batch.list(role + 3, |out| units.entries().for_each(|(unit, _)| text(unit.as_str(), out))),
    ];
    let start = batch.append(kind, &lists, |out| write(fields, out));
    Appended { start, named: NamedLists { texts: lists[0], charges: lists[2] } }
}

/// All of them, unless all are empty.
fn all(texts: &[&str], out: &mut Vec<u8>) {
    let known = texts.iter().rposition(|text| !text.is_empty()).map_or(0, |last| last + 1);
    texts[..known].iter().for_each(|one| text(one, out));
}

fn write(fields: &Fields<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(fields.id.as_bytes());
    let at = fields.at.as_microsecond();
    varint::write_signed(at.saturating_sub(micros_of(fields.id)), out);
    let held = fields.held_at.map_or(0, |held| varint::zigzag(held.as_microsecond() - at).saturating_add(1));
    varint::write(held, out);
    let bits = fields.numbers.iter().rev().fold(0, |bits, number| bits << 1 | u64::from(number.is_some()));
    varint::write(bits, out);
    fields.numbers.iter().flatten().for_each(|number| varint::write_signed(*number, out));
    fields.charges.each(|_, _, amount| varint::write_signed(amount, out));
    fields.units.entries().for_each(|(_, amount)| varint::write_signed(amount, out));
    text(fields.path, out);
    varint::write((fields.attempts.len() as u64) << 1 | u64::from(fields.correction.is_some()), out);
    fields.attempts.iter().for_each(|attempt| write_attempt(attempt, out));
    if let Some(correction) = &fields.correction {
        write_correction(correction, out);
    }
    if let Some(trace) = fields.trace {
        varint::write(TRACE_BYTES, out);
        out.extend_from_slice(trace.as_bytes());
    }
}

fn write_attempt(attempt: &AttemptFields<'_>, out: &mut Vec<u8>) {
    let AttemptFields { peer, source, alias, credential_version, reason, status } = attempt;
    [peer, source, alias, credential_version, reason].into_iter().for_each(|one| text(one, out));
    varint::write(status.unwrap_or_default().into(), out);
}

fn write_correction(correction: &CorrectionFields<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(correction.corrects.as_bytes());
    text(correction.by, out);
    text(correction.note, out);
    out.push(correction.takes.is_some().into());
    let Some(takes) = correction.takes else { return };
    [&takes.outcome, &takes.reason, &takes.usage_source].into_iter().for_each(|one| text(one, out));
    for number in [takes.status, takes.cost.0, i64::from(takes.unpriced), takes.bytes_in, takes.bytes_out] {
        varint::write_signed(number, out);
    }
    varint::write(takes.units.entries().count() as u64, out);
    for (unit, amount) in takes.units.entries() {
        text(unit.as_str(), out);
        varint::write_signed(amount, out);
    }
}

/// The time in an id, in Unix microseconds.
fn micros_of(id: RecordId) -> i64 {
    i64::try_from(id.millis()).unwrap_or(i64::MAX).saturating_mul(1_000)
}

/// The id of a hold or a record, without the rest of it.
pub(crate) fn id_of(payload: &[u8]) -> Result<RecordId, Unreadable> {
    Input(payload).id().ok_or(Unreadable)
}

/// Reads the payload of a hold or a record.
pub(crate) fn read(entry: &BatchEntry<'_>) -> Result<Row, Unreadable> {
    let mut lists = [(); 4].map(|()| TextList::default());
    for (place, list) in lists.iter_mut().enumerate() {
        *list = entry.list(place).ok_or(Unreadable)?;
    }
    row(Input(entry.payload), &lists).ok_or(Unreadable)
}

fn row(mut input: Input<'_>, [texts, details, limits, units]: &[TextList; 4]) -> Option<Row> {
    let id = input.id()?;
    let at = micros_of(id).checked_add(input.signed()?)?;
    let held = input.integer()?;
    let mut row = Row::new(id, Timestamp::from_microsecond(at).ok()?);
    if let Some(held) = held.checked_sub(1) {
        row.held_at = Some(Timestamp::from_microsecond(at.checked_add(varint::unzigzag(held))?).ok()?);
    }
    row.set_texts(texts);
    for (own, detail) in row.details.iter_mut().zip(details.iter().take(DETAILS)) {
        own.clone_from(detail);
    }
    let mut bits = input.integer()?;
    let mut numbers = row.numbers();
    for place in 0.. {
        if bits == 0 {
            break;
        }
        if bits & 1 == 1 {
            let number = input.signed()?;
            if let Some(own) = numbers.get_mut(place) {
                *own = Some(number);
            }
        }
        bits >>= 1;
    }
    row.set_numbers(numbers);
    for pair in limits.chunks_exact(2) {
        let amount = Amount(input.signed()?);
        row.charges.push(RowCharge { limit: Arc::clone(&pair[0]), key: Arc::clone(&pair[1]), amount });
    }
    for unit in units.iter() {
        let amount = input.signed()?;
        if let Unit(Some(unit)) = Unit::from(&**unit) {
            row.units.set(unit, amount);
        }
    }
    row.path = input.text()?.into();
    let attempts = input.integer()?;
    for _ in 0..attempts >> 1 {
        row.attempts.push(attempt(&mut input)?);
    }
    if attempts & 1 == 1 {
        correction(&mut input, &mut row)?;
    }
    row.trace = trace(input);
    Some(row)
}

/// The trace at the end, if there is one.
fn trace(mut input: Input<'_>) -> Option<TraceId> {
    (input.integer()? == TRACE_BYTES).then_some(())?;
    TraceId::of(*input.0.first_chunk()?)
}

fn attempt(input: &mut Input<'_>) -> Option<RowAttempt> {
    let mut attempt = RowAttempt {
        peer: input.text()?.into(),
        source: input.text()?.into(),
        alias: input.text()?.into(),
        credential_version: input.text()?.into(),
        reason: input.text()?.into(),
        status: None,
    };
    attempt.status = u16::try_from(input.integer()?).ok().filter(|status| *status > 0);
    Some(attempt)
}

fn correction(input: &mut Input<'_>, row: &mut Row) -> Option<()> {
    row.corrects = Some(input.id()?);
    row.by = input.text()?.into();
    row.note = input.text()?.into();
    if input.integer()? == 0 {
        return Some(());
    }
    let mut takes = CorrectedUsage {
        outcome: input.text()?.into(),
        reason: input.text()?.into(),
        usage_source: input.text()?.into(),
        status: input.signed()?,
        cost: Amount(input.signed()?),
        unpriced: input.signed()? != 0,
        bytes_in: input.signed()?,
        bytes_out: input.signed()?,
        units: Amounts::default(),
    };
    for _ in 0..input.integer()? {
        let unit = Unit::from(input.text()?);
        let amount = input.signed()?;
        if let Unit(Some(unit)) = unit {
            takes.units.set(unit, amount);
        }
    }
    row.takes = Some(takes);
    Some(())
}

/// What is left of a payload.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn integer(&mut self) -> Option<u64> {
        varint::read(&mut self.0)
    }

    fn signed(&mut self) -> Option<i64> {
        self.integer().map(varint::unzigzag)
    }

    fn id(&mut self) -> Option<RecordId> {
        let (id, rest) = self.0.split_first_chunk::<16>()?;
        self.0 = rest;
        Some(RecordId::from(*id))
    }

    fn text(&mut self) -> Option<&'a str> {
        varint::read_text(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::record::Record;
    use crate::ledger::samples::{self, read_back};
    use crate::ledger::{Bounded, RecordId};

    #[test]
    fn a_hold_and_its_record_together_take_less_than_200_bytes_once_their_texts_are_known() {
        let hold = samples::hold(RecordId::new());
        let record = samples::record(&hold);
        let mut batch = NewBatch::at(8);
        append(&mut batch, EntryKind::Hold, &hold.fields());
        append(&mut batch, EntryKind::Record, &record.fields());
        let before = batch.len();
        append(&mut batch, EntryKind::Hold, &hold.fields());
        append(&mut batch, EntryKind::Record, &record.fields());
        let more = batch.len() - before;
        assert!(more < 200, "{more} bytes");
    }

    #[test]
    fn what_is_written_is_read_back_whatever_it_is() {
        let mut record = samples::record(&samples::hold(RecordId::new()));
        (record.bytes_in, record.duration, record.count) = (u64::MAX, 0, 7);
        (record.unpriced, record.port, record.first_byte) = (true, Some(443), Some(1));
        record.trace = TraceId::of([7; 16]);
        let bare = Record::new(RecordId::new(), Timestamp::UNIX_EPOCH, Bounded::new(""));
        for record in [record, bare] {
            let row = read_back(&record);
            let (written, read) = (record.fields(), row.fields());
            assert_eq!((written.id, written.texts, written.numbers), (read.id, read.texts, read.numbers));
            assert_eq!((written.details, written.path, written.units), (read.details, read.path, read.units));
            assert_eq!(written.at.as_microsecond(), read.at.as_microsecond());
            assert_eq!((written.trace, record.trace), (read.trace, read.trace));
        }
    }

    #[test]
    fn numbers_units_and_texts_of_another_version_are_passed_over() {
        let list = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect::<TextList>();
        let mut bytes = RecordId::new().as_bytes().to_vec();
        varint::write_signed(5, &mut bytes);
        varint::write(0, &mut bytes);
        // The first number, and one that nobody knows.
        varint::write(1 | 1 << 40, &mut bytes);
        for number in [7, -7, 11, 12] {
            varint::write_signed(number, &mut bytes);
        }
        text("/v1", &mut bytes);
        varint::write(0, &mut bytes);
        bytes.extend_from_slice(b"of a later version");
        let lists = [list(&["a"; 30]), list(&["b"; 30]), list(&[]), list(&["thoughts", "output"])];
        let row = row(Input(&bytes), &lists).unwrap();
        assert_eq!((row.duration, &*row.path, &*row.usage_source), (Some(7), "/v1", "a"));
        assert_eq!(row.units.entries().collect::<Vec<_>>(), [(tollgate_policy::price::Item::Output, 12)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let list: TextList = vec!["a".into(); 3].into();
            row(Input(&bytes), &[list.clone(), list.clone(), list.clone(), list]);
        }
    }
}
