//! The open connections of a core, and which of them have to end.
//!
//! **Invariant:** a connection whose chain has expired or lost its bundle is told at the next look; every request on it is refused
//! from that moment on anyway, and an answer that is under way is cut after [`GRACE`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;

use super::connection::Session;
use super::deadline::Late;
use super::shutdown::Shutdown;
use crate::drain::Phase;
use crate::identity::Trust;

/// Seconds that what is under way has to end in, once its caller is proven no longer.
const GRACE: i64 = 60;

/// The open connections of a core.
#[derive(Debug, Default)]
pub(crate) struct ConnectionRegistry(Mutex<HashMap<usize, Weak<Session>>>);

impl ConnectionRegistry {
    pub(crate) fn enter(&self, session: &Arc<Session>) {
        self.sessions().insert(Arc::as_ptr(session).addr(), Arc::downgrade(session));
    }

    pub(crate) fn leave(&self, session: &Session) {
        self.sessions().remove(&std::ptr::from_ref(session).addr());
    }

    /// Looks at each of them, and tells those that have to end. To be done about once a second.
    pub(crate) fn review(&self, trust: &Trust, phase: Phase) {
        let mut sessions = self.sessions();
        // A connection whose task panicked did not leave.
        sessions.retain(|_, session| session.strong_count() > 0);
        let open: Vec<Arc<Session>> = sessions.values().filter_map(Weak::upgrade).collect();
        drop(sessions);
        let now = Timestamp::now();
        for session in open {
            let order = match (session.late(now), session.proofs.unproven_since(trust, now)) {
                (Some(Late::Head), _) => Some(Shutdown::Abort),
                _ if session.writes.any_still(now) => Some(Shutdown::Abort),
                (Some(Late::Body), since) => {
                    session.shutdown.wake();
                    order(phase, since, now)
                }
                (late, since) => order(phase, since, now).or_else(|| late.map(|_| Shutdown::Graceful)),
            };
            if let Some(order) = order {
                session.shutdown.send(order);
            }
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<usize, Weak<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection is told in this phase of the drain, whose caller is not proven `unproven_since` a time.
fn order(phase: Phase, unproven_since: Option<Timestamp>, now: Timestamp) -> Option<Shutdown> {
    let is_over = |since: Timestamp| now.as_second().saturating_sub(since.as_second()) > GRACE;
    if phase >= Phase::Cutting || unproven_since.is_some_and(is_over) {
        return Some(Shutdown::Abort);
    }
    (phase >= Phase::Closing || unproven_since.is_some()).then_some(Shutdown::Graceful)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_ends_a_minute_after_its_callers_proof() {
        let ended = Timestamp::from_second(1_000).unwrap();
        let told = |phase, after| {
            let now = Timestamp::from_second(1_000 + after).unwrap();
            order(phase, Some(ended), now)
        };
        assert_eq!(told(Phase::Serving, 0), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Serving, GRACE), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Serving, GRACE + 1), Some(Shutdown::Abort));
        assert_eq!(told(Phase::Cutting, 0), Some(Shutdown::Abort));
        assert_eq!(order(Phase::Serving, None, ended), None);
        assert_eq!(order(Phase::Closing, None, ended), Some(Shutdown::Graceful));
    }
}
