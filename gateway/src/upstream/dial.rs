//! From a name to a connected socket: check every address, dial that very one, from a source address of the policy's. Both families are
//! asked for and tried at once (Happy Eyeballs, RFC 8305), so that a dead one of them costs a moment.
//!
//! **Invariant:** a [`Dialled`] is connected to an address that [`DialRules`] allows, from an address of its [`SourcePlan`]. Where none of
//! these can be had that is an error; the system never chooses in their place.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{OutlierDetection, SourcePlan};

use super::address::DialRules;
use super::dialled::Dialled;
use super::health::{EndpointFailure, HostHealth};
use super::resolve::{AddressFamily, LookupError, LookupResult, Resolver};
use super::source::{self, SourceAddresses};

/// In the order in which they are tried.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::V6, AddressFamily::V4];
/// How long IPv6 addresses are waited for where there are IPv4 addresses already (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long an attempt is alone before the next address is tried beside it (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// A connection that is silent while a model thinks outlives the idle limits of what is between: NAT gateways and load balancers let go
/// of one after 240 s (Azure) or 350 s (AWS). One that is dead is noticed after a minute and a half.
pub(crate) const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(transparent)]
    Resolve(LookupError),
    #[error(
        "every address of the name is one that may not be dialled; `egress.privateRanges` lists private ones that may"
    )]
    Refused,
    #[error("no address of the name is of a source address's family")]
    Family,
    #[error("source address {0} cannot be used: {1}")]
    Source(IpAddr, io::Error),
    #[error("source address {0} has as many connections to {1} as there are ports for")]
    Exhausted(IpAddr, SocketAddr),
    #[error("connect failed: {0}")]
    Connect(io::Error),
    #[error("connect timed out")]
    Timeout,
}

/// What to dial: a name with its port, or addresses that stand in for the name's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial<'a> {
    pub(crate) destination: &'a ResourceId,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) fixed: &'a [IpAddr],
    pub(crate) sources: SourcePlan<'a>,
    pub(crate) deadline: Instant,
    pub(crate) watched: WatchedEndpoints<'a>,
}

/// What is known of the endpoints, and is told of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchedEndpoints<'a> {
    pub(crate) host: &'a HostHealth,
    pub(crate) rules: &'a OutlierDetection,
    /// Just failed this call.
    pub(crate) except: Option<SocketAddr>,
}

/// Which addresses there are, and which of them may be dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialContext<'a> {
    pub(crate) rules: &'a DialRules,
    pub(crate) resolver: &'a Resolver,
    pub(crate) sources: &'a SourceAddresses,
}

/// The addresses that are left to try, and why others are not among them.
#[derive(Debug, Default)]
struct Candidates {
    v6: VecDeque<SocketAddr>,
    v4: VecDeque<SocketAddr>,
    /// Tried when there is no other.
    avoided: VecDeque<SocketAddr>,
    /// Tried when all others have failed.
    ejected: VecDeque<SocketAddr>,
    /// Tried now, and since when.
    trying: Vec<(SocketAddr, Instant)>,
    /// There will be no more.
    are_all: bool,
    v4_is_next: bool,
    /// The last failure to connect, or else to resolve.
    connect: Option<DialError>,
    resolve: Option<LookupError>,
    refused: bool,
    other_family: bool,
    tried: bool,
}

impl Dial<'_> {
    /// Connects to the first address that answers.
    pub(crate) async fn connect(self, context: DialContext<'_>) -> Result<Dialled, DialError> {
        let mut candidates = Candidates::default();
        let raced = timeout_at(self.deadline, self.race(context, &mut candidates)).await;
        raced.unwrap_or_else(|_| match (candidates.tried, candidates.refused) {
            (true, _) => {
                candidates.trying.iter().for_each(|(address, _)| self.watched.blame(*address));
                Err(DialError::Timeout)
            }
            // Others may have come yet; those that did may not be dialled.
            (false, true) => Err(DialError::Refused),
            (false, false) => Err(DialError::Resolve(candidates.resolve.unwrap_or(LookupError::Timeout))),
        })
    }

    async fn race(self, context: DialContext<'_>, candidates: &mut Candidates) -> Result<Dialled, DialError> {
        let mut lookups = FuturesUnordered::new();
        match self.written() {
            Some(addresses) => {
                candidates.add(&addresses, self, context);
                candidates.are_all = true;
            }
            None => {
                let wanted = FAMILIES.into_iter().filter(|family| self.takes(*family));
                lookups.extend(wanted.map(|family| self.lookup(family, context.resolver)));
            }
        }
        // Lookups and attempts go on beside one another until one connects; where all fail, the last failure is the answer.
        let mut attempts = FuturesUnordered::new();
        let mut next = pin!(sleep_until(Instant::now()));
        loop {
            tokio::select! {
                biased;
                Some(attempt) = attempts.next(), if !attempts.is_empty() => {
                    let (address, done): (SocketAddr, Result<Dialled, DialError>) = attempt;
                    candidates.trying.retain(|(tried, _)| *tried != address);
                    match done {
                        Ok(dialled) => {
                            let slow = candidates.trying.iter().filter(|(_, begun)| begun.elapsed() >= ATTEMPT_DELAY);
                            slow.for_each(|(slow, _)| context.resolver.avoid(*slow));
                            return Ok(dialled);
                        }
                        Err(error) => {
                            if !error.is_of_source() {
                                context.resolver.avoid(address);
                                self.watched.blame(address);
                            }
                            candidates.connect = Some(error);
                            next.as_mut().reset(Instant::now());
                        }
                    }
                }
                Some((family, found)) = lookups.next(), if !lookups.is_empty() => {
                    match found {
                        Ok(addresses) => {
                            let is_bound = FAMILIES.into_iter().any(|other| !self.takes(other));
                            candidates.other_family |= addresses.is_empty() && is_bound;
                            candidates.add(&context.resolver.rotated(&addresses), self, context);
                        }
                        Err(error) => candidates.resolve = Some(error),
                    }
                    candidates.are_all = lookups.is_empty();
                    if candidates.trying.is_empty() {
                        let waits = family == AddressFamily::V4 && !lookups.is_empty();
                        let delay = if waits { RESOLUTION_DELAY } else { Duration::ZERO };
                        next.as_mut().reset(Instant::now() + delay);
                    }
                }
                () = &mut next, if !candidates.is_empty() => {
                    if let Some(address) = candidates.take() {
                        candidates.tried = true;
                        let begun = Instant::now();
                        candidates.trying.push((address, begun));
                        attempts.push(async move { (address, self.attempt(address, context.sources).await) });
                        next.as_mut().reset(begun + ATTEMPT_DELAY);
                    }
                }
                else => return Err(candidates.failure()),
            }
        }
    }

    async fn lookup(self, family: AddressFamily, resolver: &Resolver) -> (AddressFamily, LookupResult) {
        (family, resolver.lookup(self.host, family, self.destination).await)
    }

    /// The addresses that need no lookup.
    fn written(&self) -> Option<Vec<IpAddr>> {
        if !self.fixed.is_empty() {
            return Some(self.fixed.to_vec());
        }
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().ok().map(|address| vec![address])
    }

    fn takes(&self, family: AddressFamily) -> bool {
        self.sources.pool().reaches(family.unspecified())
    }

    /// Connects from the first source address that can be had and leads there. What did not lately comes last.
    async fn attempt(&self, address: SocketAddr, sources: &SourceAddresses) -> Result<Dialled, DialError> {
        let Some(rules) = self.sources.pool().rules() else {
            let stream = connect(address, None).await.map_err(DialError::Connect)?;
            return Dialled::of_system(stream).map_err(DialError::Connect);
        };
        let mut own = self.sources.towards(address.ip());
        own.sort_by_key(|own| sources.avoids(*own, address));
        let mut failure = DialError::Family;
        for (index, source) in own.iter().copied().enumerate() {
            let Some(place) = sources.place(source, address).await else {
                failure = failure.or(DialError::Exhausted(source, address));
                continue;
            };
            // The others have a share of the time, where this one is not answered.
            let left = self.deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(own.len() - index).unwrap_or(u32::MAX);
            let connected = timeout(share, connect(address, Some((source, rules.freebind)))).await;
            let error = match connected {
                Ok(Ok(stream)) => {
                    let remote = stream.peer_addr().map_err(DialError::Connect)?;
                    let dialled = Dialled::of_policy(stream, remote, place);
                    return dialled.map_err(|error| DialError::Source(source, error));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    DialError::Source(source, error)
                }
                Ok(Err(error)) => DialError::Connect(error),
                Err(_) => DialError::Timeout,
            };
            sources.avoid(source, address, !error.is_of_source());
            failure = failure.or(error);
        }
        Err(failure)
    }
}

impl WatchedEndpoints<'_> {
    fn blame(self, address: SocketAddr) {
        self.host.failed(&self.host.endpoint(address), EndpointFailure::Connect, self.rules);
    }
}

impl DialError {
    /// Whether it is about the addresses of ours alone.
    pub(crate) const fn is_of_source(&self) -> bool {
        matches!(self, Self::Source(..) | Self::Exhausted(..))
    }

    /// Of two failures the one that says more: the later one, unless only that is about an address of ours.
    fn or(self, later: Self) -> Self {
        if matches!(self, Self::Connect(_) | Self::Timeout) && later.is_of_source() { self } else { later }
    }
}

/// `source`: the local address, and whether the machine need not have it.
async fn connect(address: SocketAddr, source: Option<(IpAddr, bool)>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE)?;
    if let Some((source, freebind)) = source {
        source::bind(&socket, source, freebind)?;
    }
    socket.connect(address).await
}

impl Candidates {
    /// Takes those of `addresses` that may be dialled.
    fn add(&mut self, addresses: &[IpAddr], dial: Dial<'_>, context: DialContext<'_>) {
        for address in addresses {
            let socket = SocketAddr::new(*address, dial.port);
            if !context.rules.allows_socket(socket) {
                self.refused = true;
            } else if !dial.takes(AddressFamily::of(*address)) {
                self.other_family = true;
            } else if dial.watched.host.endpoint(socket).is_ejected() {
                self.ejected.push_back(socket);
            } else if context.resolver.avoids(socket) || dial.watched.except == Some(socket) {
                self.avoided.push_back(socket);
            } else if socket.is_ipv4() {
                self.v4.push_back(socket);
            } else {
                self.v6.push_back(socket);
            }
        }
    }

    fn is_empty(&self) -> bool {
        let is_over = self.ejected.is_empty() || !self.have_all_failed();
        self.v6.is_empty() && self.v4.is_empty() && self.avoided.is_empty() && is_over
    }

    /// Of those that are not ejected.
    fn have_all_failed(&self) -> bool {
        self.trying.is_empty() && self.are_all
    }

    /// One family after the other (RFC 8305, section 4).
    fn take(&mut self) -> Option<SocketAddr> {
        self.v4_is_next = !self.v4_is_next;
        let (first, second) = match self.v4_is_next {
            true => (&mut self.v6, &mut self.v4),
            false => (&mut self.v4, &mut self.v6),
        };
        let next = first.pop_front().or_else(|| second.pop_front()).or_else(|| self.avoided.pop_front());
        next.or_else(|| if self.have_all_failed() { self.ejected.pop_front() } else { None })
    }

    /// Why none of them answered.
    fn failure(&mut self) -> DialError {
        if let Some(error) = self.connect.take() {
            return error;
        }
        match (self.refused, self.other_family) {
            (true, false) => DialError::Refused,
            (_, true) => DialError::Family,
            (false, false) => DialError::Resolve(self.resolve.take().unwrap_or(LookupError::NoAddress)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use tollgate_policy::policy::{SourceOrder, SourcePool, SourceRules};

    use super::*;
    use crate::upstream::health::UpstreamHealth;

    fn loopback() -> DialRules {
        DialRules::new(vec!["127.0.0.0/8".parse().unwrap()])
    }

    fn dial(host: &str, port: u16) -> Dial<'_> {
        static DESTINATION: LazyLock<ResourceId> = LazyLock::new(|| "up".parse().unwrap());
        static SYSTEM: LazyLock<SourcePool> = LazyLock::new(SourcePool::default);
        static HEALTH: LazyLock<Arc<HostHealth>> =
            LazyLock::new(|| UpstreamHealth::default().host(&DESTINATION, &"up".into()));
        const RULES: &OutlierDetection = &OutlierDetection {
            consecutive_gateway_errors: 5,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 50,
        };
        let deadline = Instant::now() + Duration::from_secs(2);
        let watched = WatchedEndpoints { host: &HEALTH, rules: RULES, except: None };
        Dial {
            destination: &DESTINATION,
            host,
            port,
            fixed: &[],
            sources: SYSTEM.in_order(),
            deadline,
            watched,
        }
    }

    fn sources(addresses: &[&str]) -> SourcePool {
        SourcePool::new(SourceRules {
            name: None,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            order: SourceOrder::Ordered,
            failover: true,
            freebind: false,
        })
    }

    async fn connect(dial: Dial<'_>, rules: &DialRules) -> Result<Dialled, DialError> {
        let (resolver, sources) = (&Resolver::new(&[]), &SourceAddresses::new());
        dial.connect(DialContext { rules, resolver, sources }).await
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = connect(dial("localhost", port), &DialRules::new(vec![])).await;
        assert!(matches!(refused, Err(DialError::Refused)), "{refused:?}");
        assert!(connect(dial("127.0.0.1", port), &loopback()).await.is_ok());
    }

    #[tokio::test]
    async fn the_source_address_is_the_one_the_peer_sees() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = sources(&["127.0.0.7"]);
        let from = Dial { sources: own.in_order(), ..dial("127.0.0.1", port) };
        let (stream, remote, source) = connect(from, &loopback()).await.unwrap().into_parts();
        let (_, seen) = listener.accept().await.unwrap();
        assert_eq!(seen, stream.socket().local_addr().unwrap());
        assert_eq!((source.address(), remote), (seen.ip(), listener.local_addr().unwrap()));
        assert_eq!(seen.ip(), "127.0.0.7".parse::<IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn the_next_source_address_is_taken_where_the_first_cannot_be_had() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pool = sources(&["192.0.2.1", "2001:db8::1", "127.0.0.7", "127.0.0.8"]);
        let from = Dial { sources: pool.in_order(), ..dial("127.0.0.1", port) };
        let (_, _, source) = connect(from, &loopback()).await.unwrap().into_parts();
        assert_eq!(source.address(), "127.0.0.7".parse::<IpAddr>().unwrap());
        let six = sources(&["2001:db8::1"]);
        let other = Dial { sources: six.in_order(), ..from };
        assert!(matches!(connect(other, &loopback()).await, Err(DialError::Family)));
    }

    #[tokio::test]
    async fn a_source_address_that_is_not_ours_is_an_error_and_not_the_default() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let missing = sources(&["192.0.2.1"]);
        let from = Dial { sources: missing.in_order(), ..dial("127.0.0.1", port) };
        assert!(matches!(connect(from, &loopback()).await, Err(DialError::Source(..))));
    }

    #[tokio::test]
    async fn a_dead_address_costs_a_moment_and_is_tried_last_from_then_on() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nothing listens at the first. At the second a queue that is full takes no more, as a host that drops everything.
        let full = TcpSocket::new_v4().unwrap();
        full.bind(SocketAddr::from(([127, 0, 0, 9], port))).unwrap();
        let full = full.listen(1).unwrap();
        let mut queued = Vec::new();
        let waits = || Instant::now() + ATTEMPT_DELAY;
        while let Ok(queue) = timeout_at(waits(), TcpStream::connect(full.local_addr().unwrap())).await {
            queued.push(queue.unwrap());
        }
        let fixed: Vec<IpAddr> = ["127.0.0.8", "127.0.0.9", "127.0.0.1"].map(|a| a.parse().unwrap()).into();
        let dial = Dial {
            fixed: &fixed,
            deadline: Instant::now() + Duration::from_secs(20),
            ..dial("api.test", port)
        };
        let (rules, resolver) = (loopback(), Resolver::new(&[]));
        let context = DialContext { rules: &rules, resolver: &resolver, sources: &SourceAddresses::new() };
        for attempt in 0..2 {
            let begun = Instant::now();
            let (_, remote, _) = dial.connect(context).await.unwrap().into_parts();
            assert_eq!(remote.ip(), fixed[2]);
            assert!(attempt == 0 || begun.elapsed() < ATTEMPT_DELAY, "{:?}", begun.elapsed());
            assert!(begun.elapsed() < Duration::from_secs(10), "not a share of the time for each");
        }
    }

    #[tokio::test]
    async fn an_ejected_endpoint_is_dialled_only_when_all_others_have_failed() {
        let ejected = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = ejected.local_addr().unwrap().port();
        let other = tokio::net::TcpListener::bind(("127.0.0.8", port)).await.unwrap();
        let fixed: Vec<IpAddr> = ["127.0.0.1", "127.0.0.8"].map(|a| a.parse().unwrap()).into();
        let dial = Dial { fixed: &fixed, ..dial("api.test", port) };
        let host = UpstreamHealth::default().host(dial.destination, &"api.test".into());
        let dial = Dial { watched: WatchedEndpoints { host: &host, ..dial.watched }, ..dial };
        let endpoint = host.endpoint(ejected.local_addr().unwrap());
        host.endpoint(other.local_addr().unwrap());
        (0..5).for_each(|_| host.failed(&endpoint, EndpointFailure::GatewayError, dial.watched.rules));
        assert!(endpoint.is_ejected());
        for _ in 0..4 {
            let dialled = connect(dial, &loopback()).await.unwrap();
            assert_eq!(dialled.remote().ip(), fixed[1]);
        }
        drop(other);
        assert_eq!(connect(dial, &loopback()).await.unwrap().remote().ip(), fixed[0]);
    }

    #[tokio::test]
    async fn a_name_that_nobody_answers_for_is_said_to_be_that() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = Resolver::new(&[silent.local_addr().unwrap()]);
        let dial = Dial { deadline: Instant::now() + Duration::from_millis(300), ..dial("api.test", 443) };
        let (rules, sources) = (&loopback(), &SourceAddresses::new());
        let failed = dial.connect(DialContext { rules, resolver: &resolver, sources }).await;
        assert!(matches!(failed, Err(DialError::Resolve(LookupError::Timeout))), "{failed:?}");
    }
}
