//! Handshakes under way on one core: a stranger must not keep the others out.
//!
//! They are counted for all, by the address they come from (of IPv6 its /64, which is one machine's) and by its network (/24, /48). Where
//! one of these is full, the oldest that has said nothing yet gives way: a caller that means it says who it is at once.
//!
//! **Invariant:** the place of a handshake is given back once, by its own end or by its giving way.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Handshakes under way: all, of one address, of one network.
const MOST: [usize; 3] = [2_048, 256, 512];

/// Where a handshake counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    All,
    Address(u128),
    Network(u128),
}

impl Source {
    fn of(address: IpAddr) -> [Self; 3] {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = u128::from(address.to_bits());
                // Apart from every IPv6 prefix: ::/64 is nobody's.
                [Self::All, Self::Address(bits + 1), Self::Network((bits >> 8) + 1)]
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                [Self::All, Self::Address(bits >> 64 << 64), Self::Network(bits >> 80 << 80)]
            }
        }
    }

    const fn most(self) -> usize {
        match self {
            Self::All => MOST[0],
            Self::Address(_) => MOST[1],
            Self::Network(_) => MOST[2],
        }
    }
}

/// The handshakes of one core.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    under_way: HashMap<u64, Arc<Talk>>,
    queues: HashMap<Source, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    count: usize,
    /// In the order in which they came; some of them have spoken or ended since.
    silent: VecDeque<u64>,
}

/// What is known of one handshake by those who wait and by whoever makes room.
#[derive(Debug)]
pub(super) struct Talk {
    sources: [Source; 3],
    spoke: AtomicBool,
    gone: AtomicBool,
    told: Notify,
}

impl Talk {
    /// Bytes came.
    pub(super) fn heard(&self) {
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
pub(super) struct Place {
    all: Arc<Handshakes>,
    id: u64,
    pub(super) talk: Arc<Talk>,
}

impl Place {
    /// Waits until it has to give way to another.
    pub(super) async fn gives_way(&self) {
        self.talk.told().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.state().end(self.id);
    }
}

impl Handshakes {
    /// A place for a connection from `address`. `None`: all that could give way have spoken.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let sources = Source::of(address);
        let mut state = self.state();
        // The narrowest first: who floods makes room for its own.
        for source in sources.iter().rev() {
            if state.queues.get(source).is_some_and(|queue| queue.count >= source.most())
                && !state.make_room(*source)
            {
                return None;
            }
        }
        state.last += 1;
        let id = state.last;
        let talk = Arc::new(Talk {
            sources,
            spoke: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            told: Notify::new(),
        });
        state.under_way.insert(id, Arc::clone(&talk));
        for source in sources {
            state.enter(source, id);
        }
        Some(Place { all: Arc::clone(self), id, talk })
    }

    /// As many of the oldest that have said nothing end. False where there is none.
    pub(super) fn make_room(&self, places: usize) -> bool {
        let mut state = self.state();
        (0..places).filter(|_| state.make_room(Source::All)).count() > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, source: Source, id: u64) {
        let Self { under_way, queues, .. } = self;
        let queue = queues.entry(source).or_default();
        queue.count += 1;
        queue.silent.push_back(id);
        // Those that ended are not waited for at the front alone.
        if queue.silent.len() > 2 * source.most() {
            queue.silent.retain(|id| under_way.get(id).is_some_and(|talk| is_silent(talk)));
        }
    }

    /// The oldest of a source that has said nothing ends. False where there is none.
    fn make_room(&mut self, source: Source) -> bool {
        while let Some(id) = self.queues.get_mut(&source).and_then(|queue| queue.silent.pop_front()) {
            if self.under_way.get(&id).is_some_and(|talk| is_silent(talk))
                && let Some(talk) = self.end(id)
            {
                talk.gone.store(true, Ordering::Relaxed);
                talk.told.notify_one();
                return true;
            }
        }
        false
    }

    fn end(&mut self, id: u64) -> Option<Arc<Talk>> {
        let talk = self.under_way.remove(&id)?;
        for source in talk.sources {
            if let Some(queue) = self.queues.get_mut(&source) {
                queue.count -= 1;
                if queue.count == 0 {
                    self.queues.remove(&source);
                }
            }
        }
        Some(talk)
    }
}

fn is_silent(talk: &Talk) -> bool {
    !talk.spoke.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(handshakes: &Arc<Handshakes>, address: &str) -> Option<Place> {
        handshakes.admit(address.parse().unwrap())
    }

    fn gone(places: &[Place]) -> usize {
        places.iter().filter(|place| place.talk.gone.load(Ordering::Relaxed)).count()
    }

    #[test]
    fn silent_connections_give_way_to_whoever_comes() {
        let handshakes = Arc::new(Handshakes::default());
        let silent: Vec<_> = (0..4)
            .flat_map(|net| (0..600).map(move |_| format!("10.0.{net}.1")))
            .filter_map(|address| admit(&handshakes, &address))
            .collect();
        assert_eq!(silent.len(), 2_400, "each that comes is let in");
        assert_eq!(silent.len() - gone(&silent), 4 * MOST[1]);
        let victim = admit(&handshakes, "192.0.2.1").unwrap();
        victim.talk.heard();
        let more: Vec<_> =
            (0..4_000).map(|n| admit(&handshakes, &format!("172.16.{}.{}", n % 250, n % 249))).collect();
        assert!(more.iter().all(Option::is_some));
        assert!(!victim.talk.gone.load(Ordering::Relaxed), "it has spoken");
        assert_eq!(handshakes.state().under_way.len(), MOST[0]);
    }

    #[test]
    fn those_that_have_spoken_stay_and_their_source_alone_is_full() {
        let handshakes = Arc::new(Handshakes::default());
        let spoken: Vec<_> = (0..MOST[1])
            .map(|_| {
                let place = admit(&handshakes, "10.0.0.1").unwrap();
                place.talk.heard();
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
        assert_eq!(places.len() - gone(&places), MOST[1]);
        let wider: Vec<_> =
            (0..1_000).map(|n| admit(&handshakes, &format!("2001:db8:0:{n:x}::1")).unwrap()).collect();
        assert_eq!(places.len() + wider.len() - gone(&places) - gone(&wider), MOST[2]);
    }

    #[tokio::test]
    async fn one_that_gives_way_is_told() {
        let handshakes = Arc::new(Handshakes::default());
        let first = admit(&handshakes, "10.0.0.1").unwrap();
        let _others: Vec<_> = (0..MOST[1]).map(|_| admit(&handshakes, "10.0.0.1")).collect();
        first.gives_way().await;
    }
}
