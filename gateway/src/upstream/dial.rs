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
    /// In other zones: tried when none of the gateway's own is left.
    distant: VecDeque<SocketAddr>,
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
                Ok(Err(error)) if is_of_local(&error, source) => DialError::Source(source, error),
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

/// Whether it is the local address that a connection cannot have. One that was bound freely, or has gone since, is told by its route: there is
/// none from an address that is not this machine's (`ENETUNREACH`, or `EINVAL` of older kernels).
fn is_of_local(error: &io::Error, source: IpAddr) -> bool {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => true,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::InvalidInput => source::can_bind(source).is_err(),
        _ => false,
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
            } else if context.rules.is_distant(socket.ip()) {
                self.distant.push_back(socket);
            } else if socket.is_ipv4() {
                self.v4.push_back(socket);
            } else {
                self.v6.push_back(socket);
            }
        }
    }

    fn is_empty(&self) -> bool {
        let is_over = self.ejected.is_empty() || !self.have_all_failed();
        let tried_first = [&self.v6, &self.v4, &self.distant, &self.avoided];
        tried_first.into_iter().all(VecDeque::is_empty) && is_over
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
        let next = first.pop_front().or_else(|| second.pop_front());
        let next = next.or_else(|| self.distant.pop_front()).or_else(|| self.avoided.pop_front());
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
mod tests;
