//! Handshakes under way on one core: a stranger must not keep the others out.
//!
//! They are counted by [`PeerScope`]. Where one of these is full, the oldest that has said nothing yet gives way: a caller that means it
//! says who it is at once.
//!
//! **Invariant:** the place of a handshake is given back once, by its own end or by its giving way.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::peer_scope::PeerScope;

/// The handshakes of one core.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<HandshakeTable>);

#[derive(Debug, Default)]
struct HandshakeTable {
    last: u64,
    under_way: HashMap<u64, Arc<HandshakeSignal>>,
    queues: HashMap<PeerScope, HandshakeQueue>,
}

#[derive(Debug, Default)]
struct HandshakeQueue {
    count: usize,
    /// In the order in which they came; some of them have spoken or ended since.
    silent: VecDeque<u64>,
}

/// What is known of one handshake by those who wait and by whoever makes room.
#[derive(Debug)]
pub(super) struct HandshakeSignal {
    scopes: [Option<PeerScope>; 3],
    spoke: AtomicBool,
    gone: AtomicBool,
    told: Notify,
}

impl HandshakeSignal {
    /// Bytes came.
    pub(super) fn on_bytes(&self) {
        self.spoke.store(true, Ordering::Relaxed);
    }

    /// Waits until it has to give way.
    async fn told(&self) {
        while !self.gone.load(Ordering::Relaxed) {
            self.told.notified().await;
        }
    }
}

/// The place of a handshake; given back on drop.
#[derive(Debug)]
pub(super) struct HandshakeSlot {
    all: Arc<Handshakes>,
    id: u64,
    pub(super) signal: Arc<HandshakeSignal>,
}

impl HandshakeSlot {
    /// Waits until it has to give way to another.
    pub(super) async fn gives_way(&self) {
        self.signal.told().await;
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.all.state().end(self.id);
    }
}

impl Handshakes {
    /// A place for a connection from `address`. `None`: all that could give way have spoken.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<HandshakeSlot> {
        self.admit_to(PeerScope::of(address).map(Some))
    }

    /// A place for a connection from a listed proxy until it has said whose it is: everybody comes from its address.
    pub(super) fn admit_proxy(self: &Arc<Self>) -> Option<HandshakeSlot> {
        self.admit_to([Some(PeerScope::All), None, None])
    }

    fn admit_to(self: &Arc<Self>, scopes: [Option<PeerScope>; 3]) -> Option<HandshakeSlot> {
        let mut state = self.state();
        // The narrowest first: who floods makes room for its own.
        for scope in scopes.iter().rev().flatten() {
            if state.queues.get(scope).is_some_and(|queue| queue.count >= scope.most())
                && !state.make_room(*scope)
            {
                return None;
            }
        }
        state.last += 1;
        let id = state.last;
        let signal = Arc::new(HandshakeSignal {
            scopes,
            spoke: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            told: Notify::new(),
        });
        state.under_way.insert(id, Arc::clone(&signal));
        for scope in scopes.into_iter().flatten() {
            state.enter(scope, id);
        }
        Some(HandshakeSlot { all: Arc::clone(self), id, signal })
    }

    /// As many of the oldest that have said nothing end. False where there is none.
    pub(super) fn make_room(&self, places: usize) -> bool {
        let mut state = self.state();
        (0..places).filter(|_| state.make_room(PeerScope::All)).count() > 0
    }

    fn state(&self) -> MutexGuard<'_, HandshakeTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandshakeTable {
    fn enter(&mut self, scope: PeerScope, id: u64) {
        let Self { under_way, queues, .. } = self;
        let queue = queues.entry(scope).or_default();
        queue.count += 1;
        queue.silent.push_back(id);
        // Those that ended are not waited for at the front alone.
        if queue.silent.len() > 2 * scope.most() {
            queue.silent.retain(|id| under_way.get(id).is_some_and(|signal| is_silent(signal)));
        }
    }

    /// The oldest of a scope that has said nothing ends. False where there is none.
    fn make_room(&mut self, scope: PeerScope) -> bool {
        while let Some(id) = self.queues.get_mut(&scope).and_then(|queue| queue.silent.pop_front()) {
            if self.under_way.get(&id).is_some_and(|signal| is_silent(signal))
                && let Some(signal) = self.end(id)
            {
                signal.gone.store(true, Ordering::Relaxed);
                signal.told.notify_one();
                return true;
            }
        }
        false
    }

    fn end(&mut self, id: u64) -> Option<Arc<HandshakeSignal>> {
        let signal = self.under_way.remove(&id)?;
        for scope in signal.scopes.into_iter().flatten() {
            if let Some(queue) = self.queues.get_mut(&scope) {
                queue.count -= 1;
                if queue.count == 0 {
                    self.queues.remove(&scope);
                }
            }
        }
        Some(signal)
    }
}

fn is_silent(signal: &HandshakeSignal) -> bool {
    !signal.spoke.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer_scope::{MOST_OF_ADDRESS, MOST_OF_ALL, MOST_OF_NETWORK};

    fn admit(handshakes: &Arc<Handshakes>, address: &str) -> Option<HandshakeSlot> {
        handshakes.admit(address.parse().unwrap())
    }

    fn gone(places: &[HandshakeSlot]) -> usize {
        places.iter().filter(|place| place.signal.gone.load(Ordering::Relaxed)).count()
    }

    #[test]
    fn silent_connections_give_way_to_whoever_comes() {
        let handshakes = Arc::new(Handshakes::default());
        let silent: Vec<_> = (0..4)
            .flat_map(|net| (0..600).map(move |_| format!("10.0.{net}.1")))
            .filter_map(|address| admit(&handshakes, &address))
            .collect();
        assert_eq!(silent.len(), 2_400, "each that comes is let in");
        assert_eq!(silent.len() - gone(&silent), 4 * MOST_OF_ADDRESS);
        let victim = admit(&handshakes, "192.0.2.1").unwrap();
        victim.signal.on_bytes();
        let more: Vec<_> =
            (0..4_000).map(|n| admit(&handshakes, &format!("172.16.{}.{}", n % 250, n % 249))).collect();
        assert!(more.iter().all(Option::is_some));
        assert!(!victim.signal.gone.load(Ordering::Relaxed), "it has spoken");
        assert_eq!(handshakes.state().under_way.len(), MOST_OF_ALL);
    }

    #[test]
    fn those_that_have_spoken_stay_and_their_source_alone_is_full() {
        let handshakes = Arc::new(Handshakes::default());
        let spoken: Vec<_> = (0..MOST_OF_ADDRESS)
            .map(|_| {
                let place = admit(&handshakes, "10.0.0.1").unwrap();
                place.signal.on_bytes();
                place
            })
            .collect();
        assert!(admit(&handshakes, "10.0.0.1").is_none());
        assert!(admit(&handshakes, "::ffff:10.0.0.1").is_none(), "the same address");
        assert!(admit(&handshakes, "10.0.0.2").is_some());
        drop(spoken);
        assert!(admit(&handshakes, "10.0.0.1").is_some());
        let state = handshakes.state();
        assert!(state.under_way.is_empty() && state.queues.is_empty());
    }

    #[test]
    fn a_whole_ipv6_prefix_is_one_source() {
        let handshakes = Arc::new(Handshakes::default());
        let places: Vec<_> =
            (0..1_000).map(|n| admit(&handshakes, &format!("2001:db8:0:1::{n:x}")).unwrap()).collect();
        assert_eq!(places.len() - gone(&places), MOST_OF_ADDRESS);
        let wider: Vec<_> =
            (0..1_000).map(|n| admit(&handshakes, &format!("2001:db8:0:{n:x}::1")).unwrap()).collect();
        assert_eq!(places.len() + wider.len() - gone(&places) - gone(&wider), MOST_OF_NETWORK);
    }

    #[tokio::test]
    async fn one_that_gives_way_is_told() {
        let handshakes = Arc::new(Handshakes::default());
        let first = admit(&handshakes, "10.0.0.1").unwrap();
        let _others: Vec<_> = (0..MOST_OF_ADDRESS).map(|_| admit(&handshakes, "10.0.0.1")).collect();
        first.gives_way().await;
    }
}
