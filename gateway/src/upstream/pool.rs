//! Connections to upstreams that are kept, per core.
//!
//! **Invariant:** a connection serves one key only: destination, verified name, port, TLS configuration, source addresses,
//! credential version, client certificate and what it offers. An HTTP/1 connection is handed out again only when hyper reports it idle: the whole request written,
//! the whole answer read, nothing left to read. Otherwise it is closed. An HTTP/2 connection serves one caller only: answers that its caller does
//! not take stop, or end, all that is on it.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use hyper::client::conn::http2;
use tokio::time::Instant;
use tollgate_policy::caller::Identity;
use tollgate_policy::decision::Permit;
use tollgate_policy::map::Map;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{Credential, Proxy, SourcePool};
use tollgate_secrets::{Secret, Version};

use super::address::DialRules;
use super::alpn::AlpnOffer;
use super::body::OutBody;
use super::certificate::ClientConfigCache;
use super::connection_state::ConnectionState;
use super::dial::DialContext;
use super::health::{HostHealth, UpstreamHealth};
use super::http_handshake::{Http1Sender, Negotiated, StreamLimit};
use super::resolve::Resolver;
use super::source::SourceAddresses;
use crate::ledger::Journal;

/// An idle connection older than this is closed: below the 60 s after which common load balancers close theirs.
const IDLE_LIMIT: Duration = Duration::from_secs(55);
const IDLE_PER_KEY: usize = 512;
/// Of all hosts and keys of one destination. A wildcard has hosts without number, and this machine ports and descriptors with one.
const IDLE_PER_DESTINATION: usize = 1024;
/// How many stay where there were too many: the search for the oldest is worth it.
const LEFT_PER_DESTINATION: usize = IDLE_PER_DESTINATION / 8 * 7;
/// Streams on one HTTP/2 connection before another is opened, where the other side allows as many; 100 is the least that RFC 9113 recommends.
const STREAMS_PER_CONNECTION: usize = 100;

/// What two calls must agree on to share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolKey {
    pub(crate) destination: ResourceId,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) tls: u64,
    pub(crate) sources: SourcePool,
    /// Whose turn it is among them, of IPv6 and of IPv4: a connection that leaves from where another call does is not shared.
    pub(crate) turns: [Option<IpAddr>; 2],
    pub(crate) credential: Option<(ResourceId, Version)>,
    pub(crate) certificate: Option<(ResourceId, Version)>,
    pub(crate) offer: AlpnOffer,
    pub(crate) proxy: Option<Arc<Proxy>>,
}

impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Host, version and address tell keys apart; the rest rarely differs and is left to `Eq`.
        self.host.hash(state);
        self.port.hash(state);
        if self.turns != [None, None] {
            self.turns.hash(state);
        }
        if let Some((_, version)) = &self.credential {
            version.as_str().hash(state);
        }
    }
}

#[derive(Debug)]
struct IdleHttp1 {
    http1: Http1Sender,
    state: Arc<ConnectionState>,
    since: Instant,
}

#[derive(Debug)]
struct SharedHttp2 {
    sender: http2::SendRequest<OutBody>,
    state: Arc<ConnectionState>,
    streams: Arc<AtomicUsize>,
    allowed: StreamLimit,
    used: Instant,
}

/// A place on an HTTP/2 connection; given back on drop.
#[derive(Debug)]
pub(crate) struct StreamSlot(Arc<AtomicUsize>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection as the pool hands it out, for one exchange.
#[derive(Debug)]
pub(super) enum Sender {
    Http1(Http1Sender),
    Http2(http2::SendRequest<OutBody>, StreamSlot),
}

/// All connections of one key.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Host and port as a request names them, for HTTP/2 and for `Host`.
    pub(super) authority: (Authority, HeaderValue),
    http1: Mutex<Vec<IdleHttp1>>,
    http2: Mutex<Map<Identity, Vec<SharedHttp2>>>,
    /// The other side wants these calls over HTTP/1.1.
    needs_http1: AtomicBool,
    /// How the host does that it leads to.
    pub(super) health: Arc<HostHealth>,
}

impl Bucket {
    fn new(key: &PoolKey, health: Arc<HostHealth>) -> Result<Self, http::Error> {
        let authority = authority(&key.host, key.port)?;
        let (http1, http2, needs_http1) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Self { authority, http1, http2, needs_http1, health })
    }

    /// The connection used last that is ready for a call of `caller`, if any. Those that are not `usable` any more are closed: their local
    /// address is gone, or their endpoint is ejected.
    pub(super) fn take(
        &self,
        caller: &Identity,
        usable: impl Fn(&ConnectionState) -> bool,
    ) -> Option<(Sender, Arc<ConnectionState>)> {
        let mut idle = lock(&self.http1);
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let sender = &idle[at].http1.sender;
            let is_usable = usable(&idle[at].state);
            if is_usable && sender.is_ready() {
                let IdleHttp1 { http1, state, .. } = idle.remove(at);
                return Some((Sender::Http1(http1), state));
            }
            if !is_usable || sender.is_closed() {
                idle.remove(at);
            }
        }
        drop(idle);
        let mut by_caller = lock(&self.http2);
        let shared = by_caller.get_mut(caller)?;
        shared.retain(|c| !c.sender.is_closed() && usable(&c.state));
        let open = shared.iter_mut().find(|c| c.has_room())?;
        open.used = Instant::now();
        Some((Sender::Http2(open.sender.clone(), slot(&open.streams)), Arc::clone(&open.state)))
    }

    /// Keeps an HTTP/1 connection whose answer was read to its end.
    pub(super) fn put(&self, http1: Http1Sender, state: Arc<ConnectionState>) {
        let mut idle = lock(&self.http1);
        if idle.len() < IDLE_PER_KEY && !http1.sender.is_closed() {
            idle.push(IdleHttp1 { http1, state, since: Instant::now() });
        }
    }

    /// Takes the first exchange on a new connection. One of HTTP/2 is shared among the calls of `caller` from now on.
    pub(super) fn begin(&self, new: Negotiated, caller: &Identity, state: &Arc<ConnectionState>) -> Sender {
        let (sender, allowed) = match new {
            Negotiated::Http1(http1) => return Sender::Http1(http1),
            Negotiated::Http2(sender, allowed) => (sender, allowed),
        };
        let streams = Arc::new(AtomicUsize::new(0));
        let first = slot(&streams);
        let (state, used) = (Arc::clone(state), Instant::now());
        let kept = SharedHttp2 { sender: sender.clone(), state, streams, allowed, used };
        lock(&self.http2).entry(caller.clone()).or_default().push(kept);
        Sender::Http2(sender, first)
    }

    /// Hands none of its connections out again: one of them did not answer, and the others lead to the same place. What is under way on
    /// them goes on.
    pub(crate) fn retire(&self) {
        lock(&self.http1).clear();
        lock(&self.http2).clear();
    }

    /// From now on its calls are to be made over HTTP/1.1.
    pub(crate) fn need_http1(&self) {
        self.needs_http1.store(true, Ordering::Relaxed);
    }

    pub(crate) fn needs_http1(&self) -> bool {
        self.needs_http1.load(Ordering::Relaxed)
    }

    /// Closes what has been idle since `border` or before, and returns how many connections are kept.
    fn sweep(&self, border: Instant) -> usize {
        let is_wanted = self.health.destination.occupancy.is_wanted();
        let border = if is_wanted { Instant::now() } else { border };
        let mut idle = lock(&self.http1);
        idle.retain(|c| !c.http1.sender.is_closed() && c.since > border);
        let mut shared = lock(&self.http2);
        shared.retain(|_, own| {
            own.retain(|c| !c.sender.is_closed() && (!c.is_idle() || c.used > border));
            !own.is_empty()
        });
        idle.len() + shared.values().map(Vec::len).sum::<usize>()
    }

    /// Adds since when each of its connections has been idle, and returns how many are kept.
    fn idle_since(&self, since: &mut Vec<Instant>) -> usize {
        let idle = lock(&self.http1);
        since.extend(idle.iter().map(|c| c.since));
        let shared = lock(&self.http2);
        since.extend(shared.values().flatten().filter(|c| c.is_idle()).map(|c| c.used));
        idle.len() + shared.values().map(Vec::len).sum::<usize>()
    }
}

impl SharedHttp2 {
    fn is_idle(&self) -> bool {
        self.streams.load(Ordering::Relaxed) == 0
    }

    /// Whether the other side takes another stream now. More would wait in the connection, and count as sent.
    fn has_room(&self) -> bool {
        self.streams.load(Ordering::Relaxed) < self.allowed.now().min(STREAMS_PER_CONNECTION)
    }
}

/// Without the port that HTTPS implies.
fn authority(host: &str, port: u16) -> Result<(Authority, HeaderValue), http::Error> {
    let authority = match port {
        443 => Authority::try_from(host)?,
        port => Authority::try_from(format!("{host}:{port}"))?,
    };
    let host = HeaderValue::from_str(authority.as_str())?;
    Ok((authority, host))
}

fn slot(streams: &Arc<AtomicUsize>) -> StreamSlot {
    streams.fetch_add(1, Ordering::Relaxed);
    StreamSlot(Arc::clone(streams))
}

/// The buckets of one core.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) journal: Arc<Journal>,
    pub(super) client_configs: ClientConfigCache,
    pub(super) resolver: Resolver,
    pub(super) sources: SourceAddresses,
    pub(crate) health: UpstreamHealth,
    /// Most fields of an answer over HTTP/1.1.
    pub(super) answer_fields: usize,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets(Map<PoolKey, Arc<Bucket>>);

impl Pool {
    /// `answer_fields`: most fields of an answer over HTTP/1.1.
    pub(crate) fn new(
        journal: Arc<Journal>,
        resolver: Resolver,
        (sources, health): (SourceAddresses, UpstreamHealth),
        answer_fields: usize,
    ) -> Self {
        Self {
            journal,
            client_configs: ClientConfigCache::default(),
            resolver,
            sources,
            health,
            answer_fields,
            buckets: Mutex::default(),
        }
    }

    /// What a dial needs to know beside what it dials.
    pub(super) const fn dials<'a>(&'a self, rules: &'a DialRules) -> DialContext<'a> {
        DialContext { rules, resolver: &self.resolver, sources: &self.sources }
    }

    /// The bucket of `key`, made if need be.
    ///
    /// # Errors
    /// Where host and port cannot be written as an authority.
    pub(crate) fn bucket(&self, key: &PoolKey) -> Result<Arc<Bucket>, http::Error> {
        let mut buckets = lock(&self.buckets);
        if let Some(known) = buckets.0.get(key) {
            return Ok(Arc::clone(known));
        }
        let health = self.health.host(&key.destination, &key.host);
        let new = Arc::new(Bucket::new(key, health)?);
        Ok(Arc::clone(buckets.0.entry(key.clone()).or_insert(new)))
    }

    /// Whether another endpoint of where this permit leads may do better than the one that failed.
    pub(crate) fn has_endpoints(&self, permit: &Permit) -> bool {
        self.health.host(&permit.destination().name, &permit.target().host_shared()).has_working()
    }

    /// To be called before a connection to `destination` is opened: closes the oldest idle ones where there are too many.
    pub(crate) fn make_room(&self, destination: &ResourceId) {
        lock(&self.buckets).make_room(destination);
    }

    /// Closes the connections to `destination` that nobody uses, and says whether there was one.
    pub(super) fn shed(&self, destination: &ResourceId) -> bool {
        let buckets = lock(&self.buckets);
        let own = buckets.0.iter().filter(|(key, _)| key.destination == *destination);
        let kept = |bucket: &Bucket| lock(&bucket.http1).len() + lock(&bucket.http2).len();
        let now = Instant::now();
        own.fold(false, |shed, (_, bucket)| {
            let before = kept(bucket);
            bucket.sweep(now);
            shed || kept(bucket) < before
        })
    }

    /// Lets go of client certificates: the policy changed. Connections that showed one are not handed out for another.
    pub(crate) fn forget_certificates(&self) {
        self.client_configs.clear();
    }

    /// Lets go of client certificates of which `current` says that they are in force no longer.
    pub(crate) fn retain_certificates(&self, current: impl Fn(&Credential, usize) -> Option<Arc<Secret>>) {
        self.client_configs.retain(current);
    }

    /// Closes what has been idle for too long and returns how many connections are kept.
    pub(crate) fn sweep(&self) -> usize {
        let now = Instant::now();
        lock(&self.buckets).sweep(now.checked_sub(IDLE_LIMIT).unwrap_or(now))
    }
}

impl Buckets {
    fn sweep(&mut self, border: Instant) -> usize {
        let mut kept = 0;
        self.0.retain(|_, bucket| {
            let open = bucket.sweep(border);
            kept += open;
            open > 0 || Arc::strong_count(bucket) > 1
        });
        kept
    }

    fn make_room(&mut self, destination: &ResourceId) {
        let mut since = Vec::new();
        // What is empty goes, so that each bucket is looked at for nothing only once.
        self.0.retain(|key, bucket| {
            key.destination != *destination
                || bucket.idle_since(&mut since) > 0
                || Arc::strong_count(bucket) > 1
        });
        if since.len() < IDLE_PER_DESTINATION {
            return;
        }
        let newest = since.len() - LEFT_PER_DESTINATION;
        let (_, border, _) = since.select_nth_unstable(newest);
        for (_, bucket) in self.0.iter().filter(|(key, _)| key.destination == *destination) {
            bucket.sweep(*border);
        }
    }
}

/// The pool belongs to one core: the lock is never contended, and what it guards stays whole if a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
