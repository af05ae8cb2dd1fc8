//! Which of many like events are worth a line in the log.
//!
//! **Invariant:** of one kind there is at most one line a minute, and what is remembered is bounded whoever causes the events.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);
const KINDS: usize = 1024;

/// When each kind was last said. For failures only: there is a lock in it.
#[derive(Debug)]
pub(crate) struct LogThrottle<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for LogThrottle<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> LogThrottle<K> {
    /// Whether this one is to be said.
    pub(crate) fn is_due(&self, kind: K) -> bool {
        self.is_due_at(kind, Instant::now())
    }

    fn is_due_at(&self, kind: K, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < EVERY;
        if said.get(&kind).is_some_and(|at| is_recent(*at)) {
            return false;
        }
        if said.len() >= KINDS {
            said.retain(|_, at| is_recent(*at));
            if said.len() >= KINDS {
                return false;
            }
        }
        said.insert(kind, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_said_once_a_minute_and_hides_no_other() {
        let throttle = LogThrottle::default();
        let now = Instant::now();
        assert!(throttle.is_due_at("tls", now));
        assert!(!throttle.is_due_at("tls", now + Duration::from_secs(59)));
        assert!(throttle.is_due_at("dial", now + Duration::from_secs(59)));
        assert!(throttle.is_due_at("tls", now + Duration::from_secs(60)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let throttle = LogThrottle::default();
        let now = Instant::now();
        let said = (0..5000).filter(|kind| throttle.is_due_at(*kind, now)).count();
        assert_eq!(said, KINDS);
        assert!(throttle.is_due_at(9999, now + EVERY), "the old ones make room");
    }
}
