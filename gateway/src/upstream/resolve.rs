//! Names to addresses, for one core.
//!
//! **Invariant:** a name is asked for once however many calls wait for it, and no longer than one of them does. A destination whose names
//! nobody answers for keeps none of another destination's waiting. No address is handed out longer than [`STALE`] after its time.
//!
//! Deliberately absent: a judgement of addresses; whoever dials them checks each.

mod ask;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tollgate_policy::map::Map;
use tollgate_policy::name::ResourceId;

use self::ask::Nameservers;

/// How long an answer holds at least and at most, whatever its time to live: it is used by many calls, and a name may move.
const HOLDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The same for "there is no such name".
const LACKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long after its time an answer is still used while nobody gives a newer one (RFC 8767, which allows days).
const STALE: Duration = Duration::from_secs(3600);
/// How long a call that has an old answer waits for a newer one.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long a server that answered with an error is not asked for the same name (RFC 9520, section 3.2: at least a second).
const PAUSE: Duration = Duration::from_secs(1);
/// After so long the question is asked anew by whoever still waits.
const ASKED_FOR: Duration = Duration::from_secs(5);
/// Lookups under way for one destination, which has names without number where it is a wildcard; more wait.
const PER_DESTINATION: usize = 8;
/// Of all destinations together: each has sockets.
const IN_ALL: usize = 256;
/// Names that are remembered.
const NAMES: usize = 4096;
/// How long an address that did not answer is tried after the others.
const AVOIDED: Duration = Duration::from_secs(60);
const AVOIDED_AT_ONCE: usize = 1024;

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("the name does not exist")]
    NoName,
    #[error("the name has no address")]
    NoAddress,
    #[error("the name could not be resolved: {0}")]
    Failed(Arc<str>),
    #[error("the name could not be resolved in time")]
    Timeout,
}

/// IPv4 or IPv6: each is asked for by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressFamily {
    V4,
    V6,
}

impl AddressFamily {
    pub(crate) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Stands for any address of the family.
    pub(crate) const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// The addresses of one family; none where the name has others only.
pub(crate) type LookupResult = Result<Arc<[IpAddr]>, LookupError>;

type PendingQuery = Pin<Box<dyn Future<Output = LookupResult> + Send>>;

/// What one core knows of names.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<ResolverInner>);

struct ResolverInner {
    servers: Nameservers,
    cache: Mutex<DnsCache>,
    lookups: Arc<Semaphore>,
    rotation: AtomicUsize,
}

#[derive(Default)]
struct DnsCache {
    names: Map<(Arc<str>, AddressFamily), CachedName>,
    per_destination: Map<ResourceId, Arc<Semaphore>>,
    avoided: Map<SocketAddr, Instant>,
}

#[derive(Default)]
struct CachedName {
    answer: Option<(LookupResult, Instant)>,
    /// The last question led to nothing, and until when it is not asked again.
    failed: Option<(LookupError, Instant)>,
    asking: Option<WeakShared<PendingQuery>>,
}

enum CacheLookup {
    Known(LookupResult),
    Pending(Shared<PendingQuery>, Option<Arc<[IpAddr]>>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks `servers`; where there are none, those of `/etc/resolv.conf`. `/etc/hosts` comes first.
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        let servers = Nameservers::new(servers);
        Self(Arc::new(ResolverInner {
            servers,
            cache: Mutex::default(),
            lookups: Arc::new(Semaphore::new(IN_ALL)),
            rotation: AtomicUsize::new(0),
        }))
    }

    /// The addresses of `host`, which `destination` has. It takes as long as its caller waits.
    ///
    /// # Errors
    /// Where the name does not exist, or the servers answer with an error.
    pub(crate) async fn lookup(
        &self,
        host: &str,
        family: AddressFamily,
        destination: &ResourceId,
    ) -> LookupResult {
        loop {
            let (asking, stale) = match self.look(host, family, destination) {
                CacheLookup::Known(found) => return found,
                CacheLookup::Pending(asking, stale) => (asking, stale),
            };
            let Some(stale) = stale else {
                match asking.await {
                    Err(LookupError::Timeout) => continue,
                    found => return found,
                }
            };
            return match timeout(STALE_AFTER, asking).await {
                Ok(found @ (Ok(_) | Err(LookupError::NoName))) => found,
                Ok(Err(_)) => Ok(stale),
                Err(_) => {
                    self.0.failed(&(host.into(), family), LookupError::Timeout, ASKED_FOR);
                    Ok(stale)
                }
            };
        }
    }

    fn look(&self, host: &str, family: AddressFamily, destination: &ResourceId) -> CacheLookup {
        let now = Instant::now();
        let key: (Arc<str>, AddressFamily) = (host.into(), family);
        let mut cache = self.0.lock();
        cache.make_room(now);
        let limit = cache.limit_of(destination);
        let entry = cache.names.entry(key.clone()).or_default();
        if let Some((found, until)) = &entry.answer
            && now < *until
        {
            return CacheLookup::Known(found.clone());
        }
        let stale = entry.stale(now);
        if let Some((error, until)) = &entry.failed
            && now < *until
        {
            return CacheLookup::Known(stale.ok_or_else(|| error.clone()));
        }
        if let Some(asking) = entry.under_way() {
            return CacheLookup::Pending(asking, stale);
        }
        let asking = Self::ask(Arc::clone(&self.0), key, limit).shared();
        entry.asking = asking.downgrade();
        CacheLookup::Pending(asking, stale)
    }

    /// Gone when nobody waits for it any more.
    fn ask(inner: Arc<ResolverInner>, key: (Arc<str>, AddressFamily), limit: Arc<Semaphore>) -> PendingQuery {
        Box::pin(async move {
            // Closed never.
            let _slot = limit.acquire().await;
            let _lookup = inner.lookups.acquire().await;
            let asked = timeout(ASKED_FOR, inner.servers.ask(&key.0, key.1)).await;
            let (found, holds) = match asked.unwrap_or(Err((LookupError::Timeout, Duration::ZERO))) {
                Ok((addresses, holds)) => (Ok(addresses), holds.clamp(HOLDS.0, HOLDS.1)),
                Err((LookupError::NoName, holds)) => {
                    (Err(LookupError::NoName), holds.clamp(LACKS.0, LACKS.1))
                }
                // Whoever asks next waits for as long as this one did.
                Err((LookupError::Timeout, _)) => return Err(LookupError::Timeout),
                Err((error, _)) => {
                    inner.failed(&key, error.clone(), PAUSE);
                    return Err(error);
                }
            };
            inner.answered(&key, found.clone(), holds);
            found
        })
    }

    /// The same addresses, beginning with another each time: all of them have their share of the connections.
    pub(crate) fn rotated(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut rotated = addresses.to_vec();
        if !rotated.is_empty() {
            let rotation = self.0.rotation.fetch_add(1, Ordering::Relaxed) % rotated.len();
            rotated.rotate_left(rotation);
        }
        rotated
    }

    /// `address` did not answer, or not before another.
    pub(crate) fn avoid(&self, address: SocketAddr) {
        let now = Instant::now();
        let mut cache = self.0.lock();
        if cache.avoided.len() >= AVOIDED_AT_ONCE {
            cache.avoided.retain(|_, until| now < *until);
        }
        if cache.avoided.len() < AVOIDED_AT_ONCE {
            cache.avoided.insert(address, now + AVOIDED);
        }
    }

    /// Whether others are tried first.
    pub(crate) fn avoids(&self, address: SocketAddr) -> bool {
        let cache = self.0.lock();
        cache.avoided.get(&address).is_some_and(|until| Instant::now() < *until)
    }
}

impl ResolverInner {
    fn answered(&self, key: &(Arc<str>, AddressFamily), found: LookupResult, holds: Duration) {
        let mut cache = self.lock();
        let entry = cache.names.entry(key.clone()).or_default();
        *entry = CachedName { answer: Some((found, Instant::now() + holds)), ..CachedName::default() };
    }

    fn failed(&self, key: &(Arc<str>, AddressFamily), error: LookupError, pause: Duration) {
        let mut cache = self.lock();
        let entry = cache.names.entry(key.clone()).or_default();
        entry.failed = Some((error, Instant::now() + pause));
    }

    /// It belongs to one core: the lock is never contended, and what it guards stays whole if a holder panics.
    fn lock(&self) -> MutexGuard<'_, DnsCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DnsCache {
    fn limit_of(&mut self, destination: &ResourceId) -> Arc<Semaphore> {
        if self.per_destination.len() > NAMES {
            self.per_destination.retain(|_, place| Arc::strong_count(place) > 1);
        }
        if let Some(place) = self.per_destination.get(destination) {
            return Arc::clone(place);
        }
        let place = Arc::new(Semaphore::new(PER_DESTINATION));
        self.per_destination.insert(destination.clone(), Arc::clone(&place));
        place
    }

    /// Names that are of no use go, and where that is not enough, all that nobody waits for.
    fn make_room(&mut self, now: Instant) {
        if self.names.len() < NAMES {
            return;
        }
        self.names.retain(|_, entry| entry.is_waited_for() || entry.stale(now).is_some());
        if self.names.len() >= NAMES {
            self.names.retain(|_, entry| entry.is_waited_for());
        }
    }
}

impl CachedName {
    /// The last answer, where it is not too old.
    fn stale(&self, now: Instant) -> Option<Arc<[IpAddr]>> {
        let (found, until) = self.answer.as_ref()?;
        let found = found.as_ref().ok().filter(|_| now < *until + STALE)?;
        Some(Arc::clone(found))
    }

    fn is_waited_for(&self) -> bool {
        self.under_way().is_some()
    }

    /// The question that somebody waits for; not one that has its answer, which its last caller may not have read yet.
    fn under_way(&self) -> Option<Shared<PendingQuery>> {
        self.asking.as_ref()?.upgrade().filter(|asking| asking.peek().is_none())
    }
}
