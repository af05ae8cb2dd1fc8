//! How many calls may be sent again: a share of those of the last ten seconds, so that a destination in trouble is not asked much more
//! than one that works.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tollgate_policy::policy::Retries;

use super::lock;

/// Half of the time that is looked back on.
const HALF: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct RetryBudget {
    window: Mutex<Window>,
    taken: AtomicU64,
    refused: AtomicU64,
}

/// The half that runs, and the one before it.
#[derive(Debug)]
struct Window {
    since: Instant,
    /// Calls ever begun, when the half before began, and when this one did.
    begun: [u64; 2],
    /// Of both halves.
    retries: [u64; 2],
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> Self {
        let window = Window { since: now, begun: [0; 2], retries: [0; 2] };
        Self { window: Mutex::new(window), taken: AtomicU64::default(), refused: AtomicU64::default() }
    }

    /// `begun`: how many calls there ever were, those that are sent again among them.
    pub(super) fn take(&self, rules: &Retries, begun: u64, now: Instant) -> bool {
        let mut window = lock(&self.window);
        window.turn(begun, now);
        let retries: u64 = window.retries.iter().sum();
        let calls = begun.saturating_sub(window.begun[0]).saturating_sub(retries);
        let most = calls.saturating_mul(u64::from(rules.budget_percent)) / 100
            + u64::from(rules.min_per_second) * 2 * HALF.as_secs();
        let is_within = retries < most;
        window.retries[1] += u64::from(is_within);
        drop(window);
        let counted = if is_within { &self.taken } else { &self.refused };
        counted.fetch_add(1, Ordering::Relaxed);
        is_within
    }

    /// How many were sent again, and how many were not.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.taken.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

impl Window {
    fn turn(&mut self, begun: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < HALF {
            return;
        }
        let is_next = passed < HALF * 2;
        // Nobody looked for longer: as many calls in this time as in any other.
        let calls = u128::from(begun.saturating_sub(self.begun[1])) * HALF.as_millis() / passed.as_millis();
        let lately = begun.saturating_sub(u64::try_from(calls).unwrap_or(u64::MAX));
        self.begun = [if is_next { self.begun[1] } else { lately }, begun];
        self.retries = if is_next { [self.retries[1], 0] } else { [0; 2] };
        self.since = now;
    }
}
