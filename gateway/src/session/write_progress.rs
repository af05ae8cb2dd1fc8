//! Whether a caller still takes the answer it asked for.
//!
//! **Invariant:** an answer that has bytes for its caller, who takes none for [`STILL`], holds its budget and its place no longer: its
//! connection is cut. One that holds what others share has to be taken at the minimum rate. HTTP/2 stops asking for more while the caller's
//! window is closed, so the body itself would never notice.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;

use crate::min_rate::MinRate;

/// Milliseconds that a caller may leave an answer untouched.
const STILL: i64 = 120_000;
const WAITS_FOR_US: i64 = i64::MAX;

/// When one answer was last taken from, in milliseconds.
#[derive(Debug)]
pub(crate) struct WriteProgress {
    handed: AtomicI64,
    /// How much longer its caller may be slow.
    credit: AtomicI64,
    min: Option<MinRate>,
    begun: i64,
}

impl WriteProgress {
    pub(crate) fn new(min: Option<MinRate>) -> Self {
        let credit = min.map_or(STILL, |min| millis(min.patience));
        Self {
            handed: AtomicI64::new(WAITS_FOR_US),
            credit: AtomicI64::new(credit),
            min,
            begun: Timestamp::now().as_millisecond(),
        }
    }

    /// A frame was handed over; the caller has to take it before it gets another.
    pub(crate) fn handed(&self, bytes: usize) {
        self.handed_at(bytes, Timestamp::now().as_millisecond());
    }

    fn handed_at(&self, bytes: usize, now: i64) {
        let left = self.left(now);
        let credit = match &self.min {
            Some(rate) => millis(rate.patience).min(left.saturating_add(millis(rate.time_for(bytes)))),
            None => STILL,
        };
        self.credit.store(credit, Ordering::Relaxed);
        self.handed.store(now, Ordering::Relaxed);
    }

    /// The caller has everything that there is.
    pub(crate) fn waits(&self) {
        if self.handed.load(Ordering::Relaxed) != WAITS_FOR_US {
            self.waits_at(Timestamp::now().as_millisecond());
        }
    }

    fn waits_at(&self, now: i64) {
        self.credit.store(self.left(now), Ordering::Relaxed);
        self.handed.store(WAITS_FOR_US, Ordering::Relaxed);
    }

    /// What is left of the credit at `now`.
    fn left(&self, now: i64) -> i64 {
        let since = self.handed.load(Ordering::Relaxed).min(now);
        self.credit.load(Ordering::Relaxed).saturating_sub(now.saturating_sub(since))
    }

    fn is_still(&self, now: i64) -> bool {
        let over = self.min.is_some_and(|rate| now.saturating_sub(self.begun) > millis(rate.lifetime));
        over || self.left(now) < 0
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The answers under way on a connection.
#[derive(Debug, Default)]
pub(super) struct Writes(Mutex<Vec<Weak<WriteProgress>>>);

impl Writes {
    pub(super) fn add(&self, write: Weak<WriteProgress>) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if writes.len() == writes.capacity() {
            writes.retain(|write| write.strong_count() > 0);
        }
        writes.push(write);
    }

    /// Whether some answer is left untouched.
    pub(super) fn any_still(&self, now: Timestamp) -> bool {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writes.retain(|write| write.strong_count() > 0);
        writes.iter().filter_map(Weak::upgrade).any(|write| write.is_still(now.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_answer_is_still_only_while_its_caller_does_not_take_what_was_handed_over() {
        let writes = Writes::default();
        let write = Arc::new(WriteProgress::new(None));
        writes.add(Arc::downgrade(&write));
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(STILL / 1_000 + 2);
        assert!(!writes.any_still(later), "the provider says nothing");
        write.handed(1);
        assert!(!writes.any_still(Timestamp::now()));
        assert!(writes.any_still(later));
        write.waits();
        assert!(!writes.any_still(later));
        write.handed(1);
        drop(write);
        assert!(!writes.any_still(later));
    }

    const LEAST: MinRate =
        MinRate { bytes: 1_000, patience: Duration::from_secs(30), lifetime: Duration::from_secs(3_600) };

    #[test]
    fn a_caller_that_sips_what_others_share_is_cut() {
        let write = WriteProgress::new(Some(LEAST));
        let begun = write.begun;
        let cut = (1..100).find(|second| {
            write.handed_at(10, begun + second * 1_000);
            write.is_still(begun + second * 1_000 + 999)
        });
        assert!(cut.is_some_and(|second| (29..=32).contains(&second)), "{cut:?}");
    }

    #[test]
    fn a_slow_provider_costs_its_caller_nothing_and_the_min_rate_is_enough() {
        let write = WriteProgress::new(Some(LEAST));
        let mut now = write.begun;
        for _ in 0..60 {
            write.handed_at(10, now);
            write.waits_at(now + 5);
            now += 55_000;
            assert!(!write.is_still(now));
        }
        let write = WriteProgress::new(Some(LEAST));
        for second in 0..3_000 {
            write.handed_at(1_000, write.begun + second * 1_000);
            assert!(!write.is_still(write.begun + second * 1_000 + 999));
        }
        assert!(write.is_still(write.begun + 3_601_000), "all has an end");
    }
}
