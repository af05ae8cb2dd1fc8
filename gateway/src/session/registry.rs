//! The open connections of a core, and which of them have to end or may be parked.
//!
//! **Invariant:** a connection whose chain has expired or lost its bundle is told at the next look; every request on it is refused
//! from that moment on anyway, and an answer that is under way is cut after its grace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;

use super::connection::Session;
use super::deadline::Late;
use super::shutdown::Shutdown;
use super::unauthenticated::UnauthenticatedConnections;
use crate::caller_occupancy::CallerOccupancies;
use crate::drain::Phase;
use crate::identity::{ProofEnded, Trust};

/// The open connections of a core.
#[derive(Debug, Default)]
pub(crate) struct ConnectionRegistry {
    all: Mutex<HashMap<usize, Weak<Session>>>,
    unauthenticated: Mutex<UnauthenticatedConnections>,
}

impl ConnectionRegistry {
    pub(crate) fn enter(&self, session: &Arc<Session>) {
        self.sessions().insert(Arc::as_ptr(session).addr(), Arc::downgrade(session));
        if !session.proofs.has_proven() {
            self.unauthenticated().enter(session);
        }
    }

    /// As many of the oldest that have proven nobody end. False where there is none.
    pub(crate) fn make_room(&self, places: usize) -> bool {
        self.unauthenticated().make_room(places)
    }

    pub(crate) fn leave(&self, session: &Session) {
        self.sessions().remove(&std::ptr::from_ref(session).addr());
    }

    /// Looks at each of them, and tells those that have to end. To be done about once a second.
    pub(crate) fn review(&self, trust: &Trust, usages: &CallerOccupancies, phase: Phase) {
        let mut sessions = self.sessions();
        // A connection whose task panicked did not leave.
        sessions.retain(|_, session| session.strong_count() > 0);
        let open: Vec<Arc<Session>> = sessions.values().filter_map(Weak::upgrade).collect();
        drop(sessions);
        self.unauthenticated().forget();
        let now = Timestamp::now();
        for session in open {
            // Its first answer tells its caller to leave.
            let is_early = phase == Phase::Closing && session.awaits_first_request(now);
            let phase = if is_early { Phase::Leaving } else { phase };
            let order = match (session.late(now), session.proofs.ended(trust, usages, now)) {
                (Some(Late::Head), _) => Some(Shutdown::Abort),
                _ if session.writes.any_still(now) => Some(Shutdown::Abort),
                (Some(Late::Body), since) => {
                    session.shutdown.wake();
                    order(phase, since, now)
                }
                (late, since) => order(phase, since, now).or_else(|| late.map(|_| Shutdown::Graceful)),
            };
            match order {
                Some(order) => session.shutdown.send(order),
                None if session.can_park(now) => session.shutdown.wake(),
                None => {}
            }
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<usize, Weak<Session>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unauthenticated(&self) -> MutexGuard<'_, UnauthenticatedConnections> {
        self.unauthenticated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection is told in this phase of the drain, whose proof may have ended.
fn order(phase: Phase, proof: Option<ProofEnded>, now: Timestamp) -> Option<Shutdown> {
    if phase >= Phase::Cut || proof.is_some_and(|ended| ended.is_over(now)) {
        return Some(Shutdown::Abort);
    }
    (phase >= Phase::Closing || proof.is_some()).then_some(Shutdown::Graceful)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use tollgate_policy::denial::Reason;

    use super::*;

    #[test]
    fn what_is_under_way_ends_after_its_grace() {
        let (grace, reason) = (SignedDuration::from_secs(7), Reason::CertificateExpired);
        let ended = Timestamp::from_second(1_000).unwrap();
        let told = |phase, after| {
            let now = Timestamp::from_second(1_000 + after).unwrap();
            order(phase, Some(ProofEnded { since: ended, grace, reason }), now)
        };
        assert_eq!(told(Phase::Serving, 0), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Serving, grace.as_secs()), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Serving, grace.as_secs() + 1), Some(Shutdown::Abort));
        assert_eq!(told(Phase::Cutting, 0), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Cut, 0), Some(Shutdown::Abort));
        assert_eq!(order(Phase::Serving, None, ended), None);
        assert_eq!(order(Phase::Closing, None, ended), Some(Shutdown::Graceful));
    }
}
