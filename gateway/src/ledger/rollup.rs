//! What a stretch of a journal adds up to: all that the store keeps of it.
//!
//! A core adds up its own lines as it appends them, so nobody has to read them back; what was written before this process, or by
//! another one, is read from the file and added up here too.
//!
//! **Invariant:** the roll-up of a record is that of its line read back.

use jiff::Timestamp;
use tollgate_policy::limit::{LimitId, Per};
use tollgate_policy::map::Map;

use super::amount::Amounts;
use super::dimension::{Dimension, Number, Texts};
use super::fields::{CorrectedUsage, CorrectionFields, Fields};
use super::payload::NamedLists;
use super::record::RecordId;
use super::varint;

/// What records of one key add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RollupSums {
    pub(crate) requests: i64,
    pub(crate) unpriced: i64,
    pub(crate) bytes_in: i64,
    pub(crate) bytes_out: i64,
    /// Nano-USD.
    pub(crate) cost: i64,
    pub(crate) usage: Amounts,
}

impl RollupSums {
    /// The columns of [`RollupSums::columns`].
    pub(crate) const COLUMNS: [&str; 5] = ["requests", "unpriced", "bytes_in", "bytes_out", "cost"];

    /// All but the usage, in the order of [`RollupSums::COLUMNS`].
    pub(crate) const fn columns(&self) -> [i64; Self::COLUMNS.len()] {
        [self.requests, self.unpriced, self.bytes_in, self.bytes_out, self.cost]
    }

    fn of(columns: [i64; Self::COLUMNS.len()], usage: Amounts) -> Self {
        let [requests, unpriced, bytes_in, bytes_out, cost] = columns;
        Self { requests, unpriced, bytes_in, bytes_out, cost, usage }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let Self { requests, unpriced, bytes_in, bytes_out, cost, usage } = self;
        let columns = [requests, unpriced, bytes_in, bytes_out, cost];
        for (sum, part) in columns.into_iter().zip(other.columns()) {
            *sum = sum.saturating_add(part);
        }
        usage.add(&other.usage);
    }

    fn negated(&self) -> Self {
        Self::of(self.columns().map(i64::saturating_neg), self.usage.negated())
    }
}

/// The lines of one stretch, added up.
#[derive(Debug, Default)]
pub(crate) struct Rollup {
    /// By what [`RollupKey`] encodes.
    pub(crate) sums: Map<Box<[u8]>, RollupSums>,
    /// By what [`ChargeKey`] encodes.
    pub(crate) charges: Map<Box<[u8]>, i64>,
    /// Holds without a record in this stretch, by where their lines begin.
    pub(crate) open: Map<RecordId, u64>,
    /// Records whose hold, if they had one, is in an earlier stretch.
    pub(crate) ended: Vec<RecordId>,
    /// Corrections, and what they correct.
    pub(crate) corrections: Vec<(RecordId, RecordId)>,
    /// The least and the greatest id of a record.
    pub(crate) ids: Option<(RecordId, RecordId)>,
    pub(crate) records: u64,
    pending: PendingSums,
    key: Vec<u8>,
}

/// Each value with its key as it is encoded.
type ByPlace<K, V> = Map<K, (Box<[u8]>, V)>;

/// So many sums wait at most. The same lists stand at a new place after every batch that they are forgotten in.
const MOST_PENDING: usize = 1024;

/// What is not added to the sums yet: by where the texts of its keys begin in the journal, so that nothing is encoded for most records.
#[derive(Debug, Default)]
struct PendingSums {
    sums: ByPlace<(u64, u16, i64), RollupSums>,
    charges: ByPlace<(u64, usize, i64), i64>,
    limits: Map<(u64, usize), LimitTerms>,
}

/// What the id of a limit says of its charges.
#[derive(Debug, Clone, Copy)]
struct LimitTerms {
    granule: i64,
    /// A hold of it grows while its call lasts.
    in_pieces: bool,
}

impl Rollup {
    /// Adds a hold whose line begins at `offset`.
    pub(crate) fn hold(&mut self, id: RecordId, offset: u64) {
        self.open.insert(id, offset);
    }

    /// Adds a record that was read back.
    pub(crate) fn record(&mut self, record: &Fields<'_>) {
        self.add(record, None);
    }

    /// Adds a record that is being written and names these lists of its segment. [`Rollup::closed`] has it in the sums.
    pub(crate) fn record_naming(&mut self, record: &Fields<'_>, lists: NamedLists) {
        if self.pending.sums.len().max(self.pending.charges.len()) >= MOST_PENDING {
            self.add_pending();
        }
        self.add(record, Some(lists));
    }

    /// With all that was added in the sums.
    pub(crate) fn closed(mut self) -> Self {
        self.add_pending();
        self
    }

    fn add_pending(&mut self) {
        let PendingSums { sums, charges, limits: _ } = std::mem::take(&mut self.pending);
        for (key, part) in sums.into_values() {
            self.sums.entry(key).or_default().add(&part);
        }
        for (key, part) in charges.into_values() {
            let sum = self.charges.entry(key).or_default();
            *sum = sum.saturating_add(part);
        }
    }

    fn add(&mut self, record: &Fields<'_>, lists: Option<NamedLists>) {
        let number = |number| record.number(number).unwrap_or_default();
        let sums = RollupSums {
            requests: record.number(Number::Count).unwrap_or(1),
            unpriced: number(Number::Unpriced),
            bytes_in: number(Number::BytesIn),
            bytes_out: number(Number::BytesOut),
            cost: number(Number::Cost),
            usage: record.units,
        };
        let status = status(number(Number::Status));
        let key = RollupKey { texts: record.texts, status, minute: minute(record.at) };
        match &record.correction {
            Some(CorrectionFields { takes: Some(taken), .. }) => self.correction(taken, key, &sums),
            _ => match lists {
                Some(lists) => self.sum_naming(lists.texts, key, &sums),
                None => self.sum(key, &sums),
            },
        }
        let mut has_grown = false;
        let opened = record.held_at.unwrap_or(record.at).as_millisecond();
        let mut index = 0;
        record.charges.each(|limit, key, amount| {
            let key = ChargeKey { limit, key, opened };
            has_grown |= match lists {
                Some(lists) => self.charge_naming((lists.charges, index), key, amount),
                None => self.charge(key, amount),
            };
            index += 1;
        });
        self.seen(record.id, has_grown);
        if let Some(correction) = &record.correction {
            self.corrections.push((record.id, correction.corrects));
        }
    }

    /// Moves a call from the group that it was counted in to that of what is known of it now. The correction itself is only counted.
    fn correction(&mut self, taken: &CorrectedUsage, own: RollupKey<'_>, difference: &RollupSums) {
        let texts = |usage_source| {
            let mut texts: Texts<'_> = own.texts;
            texts[Dimension::Reason as usize] = &taken.reason;
            texts[Dimension::Outcome as usize] = &taken.outcome;
            texts[Dimension::UsageSource as usize] = usage_source;
            texts
        };
        let group = |usage_source| RollupKey {
            texts: texts(usage_source),
            status: status(taken.status),
            minute: own.minute,
        };
        let before = RollupSums {
            requests: 1,
            unpriced: i64::from(taken.unpriced),
            bytes_in: taken.bytes_in,
            bytes_out: taken.bytes_out,
            cost: taken.cost.0,
            usage: taken.units,
        };
        self.sum(group(&taken.usage_source), &before.negated());
        let mut after = before;
        after.add(difference);
        // The same one call, and what it cost is known.
        (after.requests, after.unpriced) = (1, 0);
        self.sum(group(own.texts[Dimension::UsageSource as usize]), &after);
        self.sum(own, &RollupSums { requests: 1, ..RollupSums::default() });
    }

    fn sum(&mut self, key: RollupKey<'_>, sums: &RollupSums) {
        key.encode(&mut self.key);
        match self.sums.get_mut(&*self.key) {
            Some(known) => known.add(sums),
            None => drop(self.sums.insert(self.key.as_slice().into(), *sums)),
        }
    }

    fn sum_naming(&mut self, texts: u64, key: RollupKey<'_>, sums: &RollupSums) {
        let make = || {
            key.encode(&mut self.key);
            (self.key.as_slice().into(), RollupSums::default())
        };
        self.pending.sums.entry((texts, key.status, key.minute)).or_insert_with(make).1.add(sums);
    }

    /// `has_grown`: its hold may have lines in an earlier stretch as well as in this one.
    fn seen(&mut self, id: RecordId, has_grown: bool) {
        if self.open.remove(&id).is_none() || has_grown {
            self.ended.push(id);
        }
        self.ids = Some(self.ids.map_or((id, id), |(least, greatest)| (least.min(id), greatest.max(id))));
        self.records += 1;
    }

    /// Whether a hold of this limit grows while its call lasts. The key has the moment itself.
    fn charge(&mut self, key: ChargeKey<'_>, amount: i64) -> bool {
        let terms = LimitTerms::of(key.limit);
        terms.rounded(key).encode(&mut self.key);
        match self.charges.get_mut(&*self.key) {
            Some(sum) => *sum = sum.saturating_add(amount),
            None => drop(self.charges.insert(self.key.as_slice().into(), amount)),
        }
        terms.in_pieces
    }

    /// [`Rollup::charge`] of the charge at this place of this list.
    fn charge_naming(&mut self, at: (u64, usize), key: ChargeKey<'_>, amount: i64) -> bool {
        let terms = *self.pending.limits.entry(at).or_insert_with(|| LimitTerms::of(key.limit));
        let key = terms.rounded(key);
        let make = || {
            key.encode(&mut self.key);
            (self.key.as_slice().into(), 0)
        };
        let (_, sum) = self.pending.charges.entry((at.0, at.1, key.opened)).or_insert_with(make);
        *sum = sum.saturating_add(amount);
        terms.in_pieces
    }
}

impl LimitTerms {
    fn of(limit: &str) -> Self {
        let id = LimitId::read(limit);
        let in_pieces = id.as_ref().is_some_and(|id| id.unit.is_taken_in_pieces());
        Self { granule: granule(id.as_ref()), in_pieces }
    }

    const fn rounded<'a>(&self, key: ChargeKey<'a>) -> ChargeKey<'a> {
        ChargeKey { opened: key.opened - key.opened.rem_euclid(self.granule), ..key }
    }
}

/// What one row of sums is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RollupKey<'a> {
    pub(crate) texts: Texts<'a>,
    pub(crate) status: u16,
    /// Minutes since the epoch.
    pub(crate) minute: i64,
}

impl<'a> RollupKey<'a> {
    /// Bytes behind the texts.
    const TAIL: usize = 10;

    fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        for text in self.texts {
            varint::write_text(text, out);
        }
        out.extend_from_slice(&self.status.to_be_bytes());
        out.extend_from_slice(&self.minute.to_be_bytes());
    }

    /// The part of an encoded key that stands for the texts.
    pub(crate) fn texts_of(key: &[u8]) -> &[u8] {
        &key[..key.len().saturating_sub(Self::TAIL)]
    }

    /// Reads what `encode` wrote.
    pub(crate) fn decode(mut key: &'a [u8]) -> Option<Self> {
        let mut texts = Texts::default();
        for text in &mut texts {
            *text = varint::read_text(&mut key)?;
        }
        let (status, minute) = key.split_at_checked(2)?;
        Some(Self {
            texts,
            status: u16::from_be_bytes(status.try_into().ok()?),
            minute: i64::from_be_bytes(minute.try_into().ok()?),
        })
    }
}

/// A window of a limit, by when its holds were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChargeKey<'a> {
    pub(crate) limit: &'a str,
    pub(crate) key: &'a str,
    /// Unix milliseconds, rounded down to the limit's [`granule`].
    pub(crate) opened: i64,
}

impl<'a> ChargeKey<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        varint::write_text(self.limit, out);
        varint::write_text(self.key, out);
        out.extend_from_slice(&self.opened.to_be_bytes());
    }

    /// Reads what `encode` wrote.
    pub(crate) fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let (limit, key) = (varint::read_text(&mut bytes)?, varint::read_text(&mut bytes)?);
        Some(Self { limit, key, opened: i64::from_be_bytes(bytes.try_into().ok()?) })
    }
}

/// Charges are added up by this many milliseconds. It divides the slices and the calendar borders of the limit's windows, so a
/// charge stays in the slice in which its hold was taken: a slice is a sixtieth of a window.
fn granule(limit: Option<&LimitId<'_>>) -> i64 {
    match limit.and_then(|id| id.per) {
        Some(Per::Hour | Per::Day | Per::Week | Per::Month) => 60_000,
        Some(Per::Minute) => 1_000,
        Some(Per::Second) | None => 1,
    }
}

fn minute(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

fn status(number: i64) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::Record;
    use crate::ledger::samples::{hold, read_back, record};

    #[test]
    fn the_rollup_of_a_record_is_that_of_its_line_read_back() {
        let mut full = record(&hold(RecordId::new()));
        full.alias = Some("team-a".parse().unwrap());
        full.source = Some("2001:db8::7".into());
        full.reason = Some(tollgate_policy::denial::Reason::UpstreamTimeout);
        full.model_answered = Some(crate::ledger::Bounded::new("gpt-5-mini-2025-08-07 \"é\""));
        full.unpriced = true;
        (full.bytes_in, full.bytes_out) = (u64::MAX, 7);
        full.cost = Some(tollgate_policy::price::NanoUsd(u64::MAX));
        full.tier = Some(crate::ledger::Bounded::new("priority+us"));
        for (count, item) in (1..).zip(tollgate_policy::price::Item::ALL) {
            full.units.set(*item, count);
        }
        full.held_at = None;
        full.count = 7;
        let empty = Record::new(RecordId::new(), Timestamp::now(), crate::ledger::Bounded::new("GET"));
        for record in [full, empty] {
            let (mut written, mut read) = (Rollup::default(), Rollup::default());
            written.record(&record.fields());
            read.record(&read_back(&record).fields());
            let mut named = Rollup::default();
            // Twice, so that what is remembered is used; the second list takes the place of the first.
            for texts in [7, 7, 8] {
                named.record_naming(&record.fields(), NamedLists { texts, charges: texts });
            }
            let named = named.closed();
            let mut thrice = Rollup::default();
            (0..3).for_each(|_| thrice.record(&record.fields()));
            assert_eq!((named.sums, named.charges), (thrice.sums, thrice.charges));
            assert_eq!(written.sums, read.sums);
            assert_eq!(written.charges, read.charges);
            assert_eq!((written.ended, written.ids), (read.ended, read.ids));
        }
    }

    #[test]
    fn what_is_summed_by_place_is_the_same_however_many_places_there_are() {
        let one = record(&hold(RecordId::new()));
        let mut other = record(&hold(RecordId::new()));
        other.source = Some("10.0.0.1".into());
        let (mut by_place, mut by_text) = (Rollup::default(), Rollup::default());
        for (place, record) in (0..3 * MOST_PENDING as u64).zip([&one, &other].into_iter().cycle()) {
            for _ in 0..2 {
                by_place.record_naming(&record.fields(), NamedLists { texts: place, charges: place });
                by_text.record(&record.fields());
            }
            assert!(by_place.pending.sums.len() <= MOST_PENDING);
        }
        let by_place = by_place.closed();
        assert_eq!(by_text.sums.len(), 2);
        assert_eq!((by_place.sums, by_place.charges), (by_text.sums, by_text.charges));
    }

    #[test]
    fn a_source_that_is_absent_does_not_inherit_that_of_the_record_before() {
        let mut rollup = Rollup::default();
        let mut first = record(&hold(RecordId::new()));
        rollup.record(&first.fields());
        first.source = Some("10.0.0.1".into());
        rollup.record(&first.fields());
        first.source = None;
        rollup.record(&first.fields());
        let counts: Vec<_> = rollup
            .sums
            .iter()
            .map(|(key, sums)| {
                (RollupKey::decode(key).unwrap().texts[Dimension::Source as usize], sums.requests)
            })
            .collect();
        assert!(counts.contains(&("", 2)) && counts.contains(&("10.0.0.1", 1)), "{counts:?}");
    }

    #[test]
    fn keys_read_back_and_words_never_run_into_one_another() {
        let mut key = Vec::new();
        let mut texts = Texts::default();
        (texts[0], texts[1]) = ("ab", "c");
        let one = RollupKey { texts, status: 200, minute: -7 };
        one.encode(&mut key);
        assert_eq!(RollupKey::decode(&key), Some(one));
        let mut other = Vec::new();
        (texts[0], texts[1]) = ("a", "bc");
        RollupKey { texts, ..one }.encode(&mut other);
        assert_ne!(RollupKey::texts_of(&key), RollupKey::texts_of(&other));
        let charge = ChargeKey { limit: "a/b", key: "c", opened: 5 };
        charge.encode(&mut key);
        assert_eq!(ChargeKey::decode(&key), Some(charge));
    }

    #[test]
    fn charges_are_added_up_by_a_part_of_the_slices_of_their_window() {
        for (per, millis) in
            [("second", 1), ("minute", 1_000), ("hour", 60_000), ("month", 60_000), ("eon", 1)]
        {
            assert_eq!(granule(LimitId::read(&format!("grant/a/b/tokens/{per}/shared")).as_ref()), millis);
        }
        assert_eq!(granule(LimitId::read("month").as_ref()), 1);
    }
}
