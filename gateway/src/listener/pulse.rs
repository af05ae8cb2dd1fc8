//! Whether a caller still takes the answer it asked for.
//!
//! **Invariant:** an answer that has bytes for its caller, who takes none for [`STILL`], holds its budget and its place no longer: its
//! connection is cut. HTTP/2 stops asking for more while the caller's window is closed, so the body itself would never notice.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

use jiff::Timestamp;

/// Seconds that a caller may leave an answer untouched.
const STILL: i64 = 120;
const WAITS_FOR_US: i64 = i64::MAX;

/// When one answer was last taken from.
#[derive(Debug)]
pub(crate) struct Pulse(AtomicI64);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(AtomicI64::new(WAITS_FOR_US))
    }

    /// A frame was handed over; the caller has to take it before it gets another.
    pub(crate) fn handed(&self) {
        self.0.store(Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// The caller has everything that there is.
    pub(crate) fn waits(&self) {
        self.0.store(WAITS_FOR_US, Ordering::Relaxed);
    }

    fn is_still(&self, now: i64) -> bool {
        now.saturating_sub(self.0.load(Ordering::Relaxed)) > STILL
    }
}

/// The answers under way on a connection.
#[derive(Debug, Default)]
pub(super) struct Pulses(Mutex<Vec<Weak<Pulse>>>);

impl Pulses {
    pub(super) fn add(&self, pulse: Weak<Pulse>) {
        let mut pulses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pulses.len() == pulses.capacity() {
            pulses.retain(|pulse| pulse.strong_count() > 0);
        }
        pulses.push(pulse);
    }

    /// Whether some answer is left untouched.
    pub(super) fn any_still(&self, now: Timestamp) -> bool {
        let mut pulses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.iter().filter_map(Weak::upgrade).any(|pulse| pulse.is_still(now.as_second()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_answer_is_still_only_while_its_caller_does_not_take_what_was_handed_over() {
        let pulses = Pulses::default();
        let pulse = Arc::new(Pulse::new());
        pulses.add(Arc::downgrade(&pulse));
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(STILL + 2);
        assert!(!pulses.any_still(later), "the provider says nothing");
        pulse.handed();
        assert!(!pulses.any_still(Timestamp::now()));
        assert!(pulses.any_still(later));
        pulse.waits();
        assert!(!pulses.any_still(later));
        pulse.handed();
        drop(pulse);
        assert!(!pulses.any_still(later));
    }
}
