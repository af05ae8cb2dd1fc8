//! Refusals that come in numbers, told together.
//!
//! Of one caller and reason the first few have a record and a line in the access log each; the others are counted and get one record for
//! a minute, with their number. So totals stay exact, and whoever is refused in a loop fills neither the disk nor the log.
//!
//! **Invariant:** only calls are counted here of which nothing was sent and no hold was written, so no line of the journal waits for their
//! records. What is remembered is bounded whoever calls. A process that is killed loses the counts of its last minute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tollgate_policy::caller::Identity;
use tollgate_policy::denial::Reason;
use tollgate_policy::map::Map;
use tollgate_policy::name::ResourceId;

use crate::ledger::{Bounded, Outcome, Record, RecordId};

/// Refusals of one caller for one reason that are told each, at once and then per minute, on one core.
const EACH: u32 = 100;
const EACH_PER_MINUTE: u32 = 10;
/// The same of all callers together.
const ALL: u32 = 1_000;
const ALL_PER_MINUTE: u32 = 300;
/// Kinds that are told apart on one core; further callers are counted together.
const KINDS: usize = 4_096;

/// The refusals of one core that have no record yet.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<RefusalCounts>);

#[derive(Debug)]
struct RefusalCounts {
    /// Minutes since the epoch.
    minute: i64,
    /// Refusals that may be told before they are counted.
    left: u32,
    left_of: Map<(Option<Identity>, Option<Reason>), u32>,
    counted: Map<RefusalKind, Record>,
}

impl Default for RefusalCounts {
    fn default() -> Self {
        Self { minute: 0, left: ALL, left_of: Map::default(), counted: Map::default() }
    }
}

/// What refusals that are told together have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct RefusalKind {
    caller: Option<Identity>,
    reason: Option<Reason>,
    destination: Option<ResourceId>,
    grant: Option<ResourceId>,
    limited_by: Option<Arc<str>>,
    status: u16,
    outcome: &'static str,
}

impl Refusals {
    /// Whether `record` is to be written by itself. If not, it is counted. With `space` short none is.
    pub(super) fn is_told(&self, record: &Record, space_is_short: bool) -> bool {
        let mut state = self.state();
        if !space_is_short && state.spend(record) {
            return true;
        }
        state.count(record);
        false
    }

    /// Counts on what was taken and could not be written.
    pub(super) fn count(&self, records: &[Record]) {
        let mut state = self.state();
        records.iter().for_each(|record| state.count(record));
    }

    /// What was counted in the minutes before that of `now`.
    pub(super) fn take(&self, now: Timestamp) -> Vec<Record> {
        let mut state = self.state();
        let minute = now.as_second().div_euclid(60);
        if minute == state.minute {
            return Vec::new();
        }
        let passed = u32::try_from(minute.saturating_sub(state.minute)).unwrap_or(u32::MAX);
        state.minute = minute;
        state.left = ALL.min(state.left.saturating_add(passed.saturating_mul(ALL_PER_MINUTE)));
        state.left_of.retain(|_, left| {
            *left = left.saturating_add(passed.saturating_mul(EACH_PER_MINUTE));
            *left < EACH
        });
        state.take()
    }

    /// All that was counted.
    pub(super) fn take_all(&self) -> Vec<Record> {
        self.state().take()
    }

    fn state(&self) -> MutexGuard<'_, RefusalCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusalCounts {
    fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.counted).into_values().collect()
    }

    fn spend(&mut self, record: &Record) -> bool {
        let Some(rest) = self.left.checked_sub(1) else { return false };
        let kind = (record.caller.clone(), record.reason);
        if self.left_of.len() >= KINDS && !self.left_of.contains_key(&kind) {
            return false;
        }
        let left = self.left_of.entry(kind).or_insert(EACH);
        let Some(less) = left.checked_sub(1) else { return false };
        *left = less;
        self.left = rest;
        true
    }

    fn count(&mut self, record: &Record) {
        let (reason, status, outcome) = (record.reason, record.status, record.outcome.as_str());
        let kind = RefusalKind {
            caller: record.caller.clone(),
            reason,
            destination: record.destination.clone(),
            grant: record.grant.clone(),
            limited_by: record.limited_by.clone(),
            status,
            outcome,
        };
        let full = self.counted.len() >= KINDS && !self.counted.contains_key(&kind);
        let kind =
            if full { RefusalKind { reason, status, outcome, ..RefusalKind::default() } } else { kind };
        match self.counted.get_mut(&kind) {
            Some(sum) => {
                sum.count = sum.count.saturating_add(record.count);
                sum.bytes_in = sum.bytes_in.saturating_add(record.bytes_in);
            }
            None => {
                let sum = first_of(&kind, record);
                self.counted.insert(kind, sum);
            }
        }
    }
}

/// The record of a kind whose first refusal is `record`: what all of them have in common.
fn first_of(kind: &RefusalKind, record: &Record) -> Record {
    let mut first = Record::new(RecordId::new(), record.at, Bounded::new("*"));
    first.caller.clone_from(&kind.caller);
    first.proof = record.proof.filter(|_| kind.caller.is_some());
    first.destination.clone_from(&kind.destination);
    first.grant.clone_from(&kind.grant);
    first.limited_by.clone_from(&kind.limited_by);
    (first.reason, first.status, first.outcome) = (record.reason, record.status, record.outcome);
    (first.count, first.bytes_in, first.generation) = (record.count, record.bytes_in, record.generation);
    first
}

/// Whether calls that end so say nothing that a count does not: they were refused, or their caller left, before anything was sent.
pub(super) fn is_countable(record: &Record) -> bool {
    let answered = record.attempts.iter().any(|attempt| attempt.status.is_some());
    let outcome = matches!(record.outcome, Outcome::Refused | Outcome::CallerGone | Outcome::UpstreamFailed);
    outcome && !answered && record.charges.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(caller: &str, reason: Reason, at: i64) -> Record {
        let at = Timestamp::from_second(at).unwrap();
        let mut record = Record::new(RecordId::new(), at, Bounded::new("POST"));
        record.caller = Some(caller.parse().unwrap());
        record.reason = Some(reason);
        record.status = 403;
        record.bytes_in = 2;
        record
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn refusals_by_two_limits_are_counted_apart() {
        let refusals = Refusals::default();
        let by = |limit: &str| {
            let mut record = refused("spiffe://prod.acme/web", Reason::BudgetExhausted, 600);
            record.limited_by = Some(limit.into());
            record
        };
        let (tokens, spend) = ("grant/a/tokens/day/shared", "grant/a/spend/month/shared");
        refusals.count(&[by(tokens), by(spend), by(spend)]);
        let mut told: Vec<(Option<Arc<str>>, _)> =
            refusals.take_all().into_iter().map(|record| (record.limited_by, record.count)).collect();
        told.sort_unstable();
        assert_eq!(told, [(Some(spend.into()), 2), (Some(tokens.into()), 1)]);
    }

    #[test]
    fn the_first_refusals_are_told_each_and_the_rest_in_one_record_that_counts_them() {
        let refusals = Refusals::default();
        refusals.take(at(600));
        let told = |caller: &str, reason, count: u32| {
            (0..count).filter(|_| refusals.is_told(&refused(caller, reason, 600), false)).count()
        };
        assert_eq!(told("spiffe://a/x", Reason::NoGrant, 10_000), 100);
        assert_eq!(told("spiffe://a/x", Reason::PathNotAllowed, 5), 5, "another reason");
        assert_eq!(told("spiffe://a/y", Reason::NoGrant, 5), 5, "another caller");
        assert!(refusals.take(at(659)).is_empty(), "the minute is not over");
        let records = refusals.take(at(660));
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!((record.count, record.bytes_in, record.reason), (9_900, 19_800, Some(Reason::NoGrant)));
        assert_eq!(record.caller.as_ref().unwrap().as_str(), "spiffe://a/x");
        assert_eq!(told("spiffe://a/x", Reason::NoGrant, 50), 10, "a few more each minute");
        assert_eq!(refusals.take_all()[0].count, 40);
    }

    #[test]
    fn what_is_remembered_and_told_is_bounded_and_every_refusal_counts() {
        let refusals = Refusals::default();
        refusals.take(at(600));
        let callers = 20_000;
        let told: usize = (0..callers)
            .map(|n| refused(&format!("spiffe://a/{n}"), Reason::NoGrant, 600))
            .filter(|record| refusals.is_told(record, false))
            .count();
        assert_eq!(told, 1_000);
        let records = refusals.take(at(660));
        assert_eq!(records.len(), KINDS + 1);
        assert_eq!(records.iter().map(|record| record.count).sum::<u64>(), callers - 1_000);
        assert!(records.iter().any(|record| record.caller.is_none()));
    }

    #[test]
    fn what_could_not_be_written_is_counted_on() {
        let refusals = Refusals::default();
        let one = refused("spiffe://a/x", Reason::NoGrant, 600);
        refusals.count(&[one.clone(), one.clone()]);
        let [two] = &refusals.take_all()[..] else { panic!() };
        refusals.count(&[one, two.clone()]);
        let [three] = &refusals.take_all()[..] else { panic!() };
        assert_eq!((three.count, three.bytes_in), (3, 6));
    }

    #[test]
    fn while_space_is_short_refusals_are_only_counted() {
        let refusals = Refusals::default();
        assert!(!refusals.is_told(&refused("spiffe://a/x", Reason::NoGrant, 600), true));
        assert_eq!(refusals.take_all().len(), 1);
    }
}
