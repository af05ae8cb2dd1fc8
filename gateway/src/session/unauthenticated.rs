//! Connections of a core that have proven nobody yet: those of strangers must not take the room of callers.
//!
//! **Invariant:** where one of them comes and its address, its network or the core is full, the oldest of them ends. A caller that has
//! proven who it is, by its certificate or its first token, counts no longer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use super::connection::Session;
use super::shutdown::Shutdown;
use crate::peer_scope::PeerScope;

/// Those that wait with their first token, the oldest first.
#[derive(Debug, Default)]
pub(super) struct UnauthenticatedConnections(HashMap<PeerScope, VecDeque<Weak<Session>>>);

impl UnauthenticatedConnections {
    /// One more, for which the oldest may have to end.
    pub(super) fn enter(&mut self, session: &Arc<Session>) {
        let scopes = PeerScope::of(session.address.ip());
        // The narrowest first: who floods makes room for its own.
        for scope in scopes.iter().rev() {
            let queue = self.0.entry(*scope).or_default();
            if queue.len() >= scope.most() {
                queue.retain(waits);
            }
            while queue.len() >= scope.most() {
                end_first(queue);
            }
            queue.push_back(Arc::downgrade(session));
        }
    }

    /// As many of the oldest end. False where there is none.
    pub(super) fn make_room(&mut self, places: usize) -> bool {
        let Some(all) = self.0.get_mut(&PeerScope::All) else { return false };
        all.retain(waits);
        let mut has_ended = false;
        for _ in 0..places {
            has_ended |= end_first(all);
        }
        has_ended
    }

    /// Forgets those that have ended or proven somebody. To be done about once a second.
    pub(super) fn forget(&mut self) {
        self.0.retain(|_, queue| {
            queue.retain(waits);
            !queue.is_empty()
        });
    }
}

fn end_first(queue: &mut VecDeque<Weak<Session>>) -> bool {
    let Some(session) = queue.pop_front().and_then(|first| first.upgrade()) else { return false };
    session.shutdown.send(Shutdown::Abort);
    true
}

fn waits(session: &Weak<Session>) -> bool {
    session.upgrade().is_some_and(|session| !session.proofs.has_proven())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller_occupancy::{Bounds, CallerOccupancies};
    use crate::identity::{Proofs, Trust};
    use crate::peer_scope::{MOST_OF_ADDRESS, MOST_OF_ALL};
    use crate::session::{Arrival, HeaderDeadline, ProxyMode};

    fn session(address: &str) -> Arc<Session> {
        let usages = CallerOccupancies::new(Bounds {
            connections: 1,
            calls: 1,
            all_calls: 1,
            held: 1,
            held_of_one: 1,
        });
        let trust = Trust::new(HashMap::new(), std::time::Duration::ZERO);
        let address = std::net::SocketAddr::new(address.parse().unwrap(), 1);
        let deadline = Arc::new(HeaderDeadline::new());
        let arrival = Arrival { address, mode: ProxyMode::Direct, http2: false, deadline };
        Arc::new(Session::new(arrival, Proofs::of(Vec::new(), &trust, &usages).unwrap()))
    }

    async fn is_told(session: &Session) -> bool {
        let told = tokio::time::timeout(std::time::Duration::ZERO, session.shutdown.received()).await;
        told == Ok(Some(Shutdown::Abort))
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_an_address_ends_for_the_next_and_no_other_address_feels_it() {
        let mut unauthenticated = UnauthenticatedConnections::default();
        let other = session("192.0.2.1");
        unauthenticated.enter(&other);
        let flood: Vec<_> = (0..MOST_OF_ADDRESS + 10).map(|_| session("10.0.0.1")).collect();
        flood.iter().for_each(|session| unauthenticated.enter(session));
        for (at, session) in flood.iter().enumerate() {
            assert_eq!(is_told(session).await, at < 10, "{at}");
        }
        assert!(!is_told(&other).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_everywhere_ends_the_oldest_and_what_ended_takes_no_room() {
        let mut unauthenticated = UnauthenticatedConnections::default();
        let ended: Vec<_> =
            (0..MOST_OF_ALL).map(|at| session(&format!("10.{}.{}.1", at >> 8, at & 255))).collect();
        ended.iter().for_each(|session| unauthenticated.enter(session));
        drop(ended);
        let flood: Vec<_> =
            (0..=MOST_OF_ALL).map(|at| session(&format!("172.{}.{}.1", at >> 8, at & 255))).collect();
        flood.iter().for_each(|session| unauthenticated.enter(session));
        assert!(is_told(&flood[0]).await);
        assert!(!is_told(&flood[1]).await);
        assert!(unauthenticated.make_room(2));
        assert!(is_told(&flood[1]).await && is_told(&flood[2]).await && !is_told(&flood[3]).await);
        drop(flood);
        unauthenticated.forget();
        assert!(unauthenticated.0.is_empty() && !unauthenticated.make_room(1));
    }
}
