//! The open connections of a core, and which of them have to end or may be parked.
//!
//! **Invariant:** a connection whose chain has expired or lost its bundle is told at the next look; every request on it is refused
//! from that moment on anyway, and an answer that is under way is cut after its grace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;

use super::connection::{AwaitedRequest, Session};
use super::deadline::{HEAD_LIMIT, Late};
use super::shutdown::Shutdown;
use super::unauthenticated::UnauthenticatedConnections;
use crate::caller_occupancy::CallerOccupancies;
use crate::drain::Phase;
use crate::identity::{ProofEnded, Trust};

/// Seconds that a connection has for its first request before a drain tells it to end: its caller has just opened it to ask something.
const FIRST_REQUEST_GRACE: i64 = 5;

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
            let ordered = |proof| order(phase, proof, session.awaited_request(now), now);
            let told = match (session.late(now), session.proofs.ended(trust, usages, now)) {
                (Some(Late::Head), _) => Some(Shutdown::Abort),
                _ if session.writes.any_still(now) => Some(Shutdown::Abort),
                (Some(Late::Body), since) => {
                    session.shutdown.wake();
                    ordered(since)
                }
                (late, since) => ordered(since).or_else(|| late.map(|_| Shutdown::Graceful)),
            };
            match told {
                Some(order) => session.tell(order, now),
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

/// What a connection is told. `proof`: its proof has ended; `first`: its first request has not come.
fn order(
    phase: Phase,
    proof: Option<ProofEnded>,
    first: Option<AwaitedRequest>,
    now: Timestamp,
) -> Option<Shutdown> {
    if phase >= Phase::Cut || proof.is_some_and(|ended| ended.is_over(now)) {
        return Some(Shutdown::Abort);
    }
    if phase < Phase::Closing {
        return proof.map(|_| Shutdown::Graceful);
    }
    match first {
        // Over HTTP/1.1 its first answer says `connection: close`, over HTTP/2 the next look sends a GOAWAY.
        Some(first) if phase == Phase::Closing && first.opened_for < FIRST_REQUEST_GRACE => {
            proof.map(|_| Shutdown::Graceful)
        }
        // hyper ends a connection that is told to, unless its preface of HTTP/2 never comes.
        Some(first) if first.told_for.is_some_and(|seconds| seconds > HEAD_LIMIT) => Some(Shutdown::Abort),
        _ => Some(Shutdown::Graceful),
    }
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
            order(phase, Some(ProofEnded { since: ended, grace, reason }), None, now)
        };
        assert_eq!(told(Phase::Serving, 0), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Serving, grace.as_secs()), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Serving, grace.as_secs() + 1), Some(Shutdown::Abort));
        assert_eq!(told(Phase::Cutting, 0), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Cut, 0), Some(Shutdown::Abort));
        assert_eq!(order(Phase::Serving, None, None, ended), None);
        assert_eq!(order(Phase::Closing, None, None, ended), Some(Shutdown::Graceful));
    }

    #[test]
    fn a_drain_waits_a_little_for_a_first_request_and_then_ends_what_never_asks() {
        let now = Timestamp::from_second(1_000).unwrap();
        let told = |phase, opened_for, told_for| {
            order(phase, None, Some(AwaitedRequest { opened_for, told_for }), now)
        };
        assert_eq!(told(Phase::Leaving, HEAD_LIMIT + 1, None), None);
        assert_eq!(told(Phase::Closing, FIRST_REQUEST_GRACE - 1, None), None);
        assert_eq!(told(Phase::Closing, FIRST_REQUEST_GRACE, None), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Closing, 10 * HEAD_LIMIT, None), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Closing, 10 * HEAD_LIMIT, Some(HEAD_LIMIT)), Some(Shutdown::Graceful));
        assert_eq!(told(Phase::Closing, 10 * HEAD_LIMIT, Some(HEAD_LIMIT + 1)), Some(Shutdown::Abort));
        assert_eq!(told(Phase::Cutting, 0, None), Some(Shutdown::Graceful));
        let ended = ProofEnded { since: now, grace: SignedDuration::from_secs(7), reason: Reason::NoProof };
        let first = AwaitedRequest { opened_for: 0, told_for: None };
        assert_eq!(order(Phase::Closing, Some(ended), Some(first), now), Some(Shutdown::Graceful));
    }
}
