//! The local addresses that connections leave from, as this machine has them: which are missing, which lead nowhere for a while, and how
//! many connections each has to an endpoint.
//!
//! **Invariant:** a connection that leaves from an address of a pool holds a [`SourceSlot`] as long as it lives, and an address has no more
//! places towards an endpoint than there are ports for it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tollgate_policy::map::Map;
use tollgate_policy::policy::SourcePool;

/// Where the system says which ports connections leave from (<https://docs.kernel.org/networking/ip-sysctl.html>).
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Its default, 32768 to 60999.
const DEFAULT_PORTS: usize = 28_232;
/// How long a place is waited for where all are taken.
const PLACE_PATIENCE: Duration = Duration::from_millis(250);
/// How long an address is tried last towards an endpoint that it had no port for, or that it did not lead to.
const WITHOUT_PORT: Duration = Duration::from_secs(1);
const LEADS_NOWHERE: Duration = Duration::from_secs(10);

/// Every local address of the policy, as this machine has it. Cheap to clone: all cores share one.
#[derive(Debug, Clone)]
pub(crate) struct SourceAddresses(Arc<SourceStates>);

#[derive(Debug)]
struct SourceStates {
    /// Those of the policy that the machine did not have at the last look. Mostly empty, so that calls have nothing to search.
    missing: ArcSwap<Vec<IpAddr>>,
    /// Those of the policy.
    listed: Mutex<Vec<IpAddr>>,
    routes: Mutex<Map<(IpAddr, SocketAddr), Route>>,
    /// How many connections one address may have to one endpoint.
    most: usize,
}

/// From one address to one endpoint.
#[derive(Debug)]
struct Route {
    places: Arc<Semaphore>,
    avoided_until: Option<Instant>,
}

/// A connection's place among those of its address: given back on drop.
#[derive(Debug)]
pub(crate) struct SourceSlot {
    address: IpAddr,
    /// `None`: the system chose the address.
    _permit: Option<OwnedSemaphorePermit>,
}

impl SourceSlot {
    /// Of an address that the system chose.
    pub(crate) const fn of_system(address: IpAddr) -> Self {
        Self { address, _permit: None }
    }

    /// The local address.
    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }
}

impl SourceAddresses {
    /// As many connections from each address to each endpoint as the system has ports for, but for an eighth: near the end the kernel
    /// searches long for a free one, and those that have just closed are not free yet.
    pub(crate) fn new() -> Self {
        let ports = std::fs::read_to_string(PORT_RANGE).ok().and_then(|text| ports(&text));
        Self::with_most((ports.unwrap_or(DEFAULT_PORTS) / 8 * 7).max(1))
    }

    fn with_most(most: usize) -> Self {
        Self(Arc::new(SourceStates {
            missing: ArcSwap::default(),
            listed: Mutex::default(),
            routes: Mutex::default(),
            most: most.min(Semaphore::MAX_PERMITS),
        }))
    }

    /// Whether the machine had the address at the last look, or it need not have it.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        !self.0.missing.load().contains(&address)
    }

    /// Looks which addresses of these pools the machine has. Binds to each: that is what a connection does, and what says so of routes
    /// to whole ranges, too.
    pub(crate) fn look<'a>(&self, pools: impl Iterator<Item = &'a SourcePool>) {
        let mut listed = Map::default();
        for rules in pools.filter_map(SourcePool::rules) {
            for address in &rules.addresses {
                *listed.entry(*address).or_insert(true) &= rules.freebind;
            }
        }
        let is_missing = |(address, freebind): (&IpAddr, &bool)| {
            (!freebind && can_bind(*address).is_err()).then_some(*address)
        };
        let mut missing: Vec<IpAddr> = listed.iter().filter_map(is_missing).collect();
        missing.sort_unstable();
        let before = self.0.missing.load_full();
        for address in missing.iter().filter(|it| !before.contains(it)) {
            tracing::warn!(%address, "this machine does not have the source address");
        }
        for address in before.iter().filter(|it| !missing.contains(it) && listed.contains_key(it)) {
            tracing::info!(%address, "this machine has the source address again");
        }
        if *before != missing {
            self.0.missing.store(Arc::new(missing));
        }
        let mut listed: Vec<IpAddr> = listed.into_keys().collect();
        listed.sort_unstable();
        *lock(&self.0.listed) = listed;
        let (now, most) = (Instant::now(), self.0.most);
        let is_idle =
            |route: &Route| route.places.available_permits() == most && Arc::strong_count(&route.places) == 1;
        lock(&self.0.routes)
            .retain(|_, route| !is_idle(route) || route.avoided_until.is_some_and(|until| until > now));
    }

    /// Each address of the policy, whether the machine has it, and how many connections it has.
    pub(crate) fn states(&self) -> Vec<(IpAddr, bool, usize)> {
        let routes = lock(&self.0.routes);
        let open = |address: &IpAddr| {
            let own = routes.iter().filter(|((from, _), _)| from == address);
            own.map(|(_, route)| self.0.most - route.places.available_permits().min(self.0.most)).sum()
        };
        lock(&self.0.listed).iter().map(|address| (*address, self.has(*address), open(address))).collect()
    }

    /// A place for a connection from `address` to `endpoint`, which is waited for a moment. `None`: there is none.
    pub(crate) async fn place(&self, address: IpAddr, endpoint: SocketAddr) -> Option<SourceSlot> {
        let places = self.with_route(address, endpoint, |route| Arc::clone(&route.places));
        let permit = timeout(PLACE_PATIENCE, places.acquire_owned()).await.ok()?.ok()?;
        Some(SourceSlot { address, _permit: Some(permit) })
    }

    /// The address did not lead to the endpoint, or could not be had at all: others are tried before it for a while.
    pub(crate) fn avoid(&self, address: IpAddr, endpoint: SocketAddr, could_be_had: bool) {
        let until = Instant::now() + if could_be_had { LEADS_NOWHERE } else { WITHOUT_PORT };
        self.with_route(address, endpoint, |route| route.avoided_until = Some(until));
    }

    /// Whether others are to be tried before it.
    pub(crate) fn avoids(&self, address: IpAddr, endpoint: SocketAddr) -> bool {
        let until = lock(&self.0.routes).get(&(address, endpoint)).and_then(|route| route.avoided_until);
        !self.has(address) || until.is_some_and(|until| until > Instant::now())
    }

    fn with_route<T>(&self, address: IpAddr, endpoint: SocketAddr, then: impl FnOnce(&mut Route) -> T) -> T {
        let mut routes = lock(&self.0.routes);
        let route = routes
            .entry((address, endpoint))
            .or_insert_with(|| Route { places: Arc::new(Semaphore::new(self.0.most)), avoided_until: None });
        then(route)
    }
}

/// The addresses of a pool that this machine does not have and needs.
pub(crate) fn lacking(pool: &SourcePool) -> Vec<IpAddr> {
    let rules = pool.rules().filter(|rules| !rules.freebind);
    let missing = |address: &&IpAddr| can_bind(**address).is_err();
    rules.map_or_else(Vec::new, |rules| rules.addresses.iter().filter(missing).copied().collect())
}

/// How many there are from the first to the last of two numbers, both included.
fn ports(text: &str) -> Option<usize> {
    let mut ends = text.split_ascii_whitespace().map(str::parse::<usize>);
    let (low, high) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some(high.checked_sub(low)? + 1)
}

/// Whether a connection may be bound to the address: not if the machine has none such, or has not made sure yet that nobody else does
/// (duplicate address detection, RFC 4862).
pub(super) fn can_bind(address: IpAddr) -> io::Result<()> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    bind(&socket, address, false)
}

/// Binds without reserving a port: the kernel then picks one per endpoint at connect, so that one address does not run out of its
/// ~28 000 ephemeral ports for all endpoints together (`IP_BIND_ADDRESS_NO_PORT`, ip(7)). With `freebind` also to an address that
/// the machine does not have (`IP_FREEBIND`).
pub(super) fn bind<'a>(socket: impl Into<SockRef<'a>>, address: IpAddr, freebind: bool) -> io::Result<()> {
    let socket: SockRef<'_> = socket.into();
    setsockopt(&*socket, sockopt::IpBindAddressNoPort, &true)?;
    if freebind {
        // Of IPv6 sockets as well (`inet_can_nonlocal_bind` of the kernel asks this flag for both).
        setsockopt(&*socket, sockopt::IpFreebind, &true)?;
    }
    socket.bind(&SocketAddr::new(address, 0).into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ports_are_counted_with_both_ends() {
        assert_eq!(ports("32768\t60999\n"), Some(DEFAULT_PORTS));
        assert_eq!((ports("1 1"), ports("2 1"), ports("many"), ports("")), (Some(1), None, None, None));
    }

    #[test]
    fn what_the_machine_lacks_is_missing_unless_it_need_not_have_it() {
        let sources = SourceAddresses::new();
        let missing = SourcePool::single(ip("192.0.2.1"));
        let had = SourcePool::single(ip("127.0.0.7"));
        sources.look([&missing, &had, &SourcePool::default()].into_iter());
        assert!(!sources.has(ip("192.0.2.1")) && sources.has(ip("127.0.0.7")));
        assert_eq!(sources.states(), [(ip("127.0.0.7"), true, 0), (ip("192.0.2.1"), false, 0)]);
        let mut rules = missing.rules().unwrap().clone();
        rules.freebind = true;
        let free = SourcePool::new(rules);
        sources.look([&free].into_iter());
        assert!(sources.has(ip("192.0.2.1")));
        sources.look([&free, &missing].into_iter());
        assert!(!sources.has(ip("192.0.2.1")), "one pool wants it to be there");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_so_many_places_towards_an_endpoint_and_each_is_given_back() {
        let sources = SourceAddresses::with_most(2);
        let (own, one, other) =
            (ip("127.0.0.7"), "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        sources.look([&SourcePool::single(own)].into_iter());
        let first = sources.place(own, one).await.unwrap();
        let _second = sources.place(own, one).await.unwrap();
        let _elsewhere = sources.place(own, other).await.unwrap();
        assert_eq!(sources.states(), [(own, true, 3)]);
        let begun = Instant::now();
        assert!(sources.place(own, one).await.is_none());
        assert_eq!(begun.elapsed(), PLACE_PATIENCE);
        let waits = sources.place(own, one);
        let (place, ()) = tokio::join!(waits, async { drop(first) });
        assert_eq!(place.unwrap().address(), own);
    }

    #[tokio::test(start_paused = true)]
    async fn what_led_nowhere_is_avoided_for_a_while_and_forgotten() {
        let sources = SourceAddresses::with_most(2);
        let (own, endpoint) = (ip("127.0.0.7"), "127.0.0.1:1".parse().unwrap());
        assert!(!sources.avoids(own, endpoint));
        sources.avoid(own, endpoint, true);
        sources.look(std::iter::empty());
        assert!(sources.avoids(own, endpoint));
        tokio::time::advance(LEADS_NOWHERE).await;
        assert!(!sources.avoids(own, endpoint));
        sources.look(std::iter::empty());
        assert!(lock(&sources.0.routes).is_empty());
    }
}
