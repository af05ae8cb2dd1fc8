//! How destinations do, for all cores: which endpoints are ejected, which hosts nobody reaches, how much of the gateway each occupies.
//!
//! **Invariant:** of the endpoints of a host the last that works is never ejected. A call on a kept connection takes no lock here. What a
//! caller can bring about by what it asks ejects endpoints at most; a circuit opens only for connections that do not come about.

mod budget;
mod circuit;
mod endpoint;
mod occupancy;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tollgate_policy::map::Map;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{OutlierDetection, Retries};

use self::budget::RetryBudget;
pub(super) use self::circuit::{DialCircuit, DialTicket};
pub(crate) use self::endpoint::Endpoint;
pub(super) use self::occupancy::ConnectionSlot;
use self::occupancy::Occupancy;

/// Hosts of one destination that are remembered: a wildcard has them without number.
const HOSTS: usize = 1024;
/// Endpoints of one host. A name has seldom more addresses, and those that it had are forgotten before those that it has.
const ENDPOINTS: usize = 256;
const DESTINATIONS: usize = 8192;

/// Why a call is not even tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CircuitError {
    #[error("it has {0} calls under way, as many as `circuitBreaker.maxRequests` allows")]
    Calls(u32),
    #[error("it has {0} connections, as many as `circuitBreaker.maxConnections` allows")]
    Connections(u32),
    #[error("it has as many of the gateway's calls under way as it leaves to other destinations")]
    Share,
    #[error("none of its endpoints could be reached lately; one call at a time tries")]
    Unreachable,
}

/// Every destination that was called. Cheap to clone: all cores share one.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamHealth(Arc<Mutex<Map<ResourceId, Arc<DestinationHealth>>>>);

/// One destination.
#[derive(Debug)]
pub(crate) struct DestinationHealth {
    pub(super) occupancy: Occupancy,
    retries: RetryBudget,
    ejections: AtomicU64,
    hosts: Mutex<Map<Arc<str>, Arc<HostHealth>>>,
}

/// One host of a destination.
#[derive(Debug)]
pub(crate) struct HostHealth {
    name: ResourceId,
    host: Arc<str>,
    pub(super) destination: Arc<DestinationHealth>,
    pub(super) circuit: DialCircuit,
    endpoints: Mutex<Vec<Arc<Endpoint>>>,
}

/// A connection's place at its endpoint.
#[derive(Debug)]
pub(crate) struct EndpointSlot {
    endpoint: Arc<Endpoint>,
    _place: ConnectionSlot,
}

/// Why an endpoint is blamed, as the log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointFailure {
    GatewayError,
    Timeout,
    Reset,
    Connect,
}

/// What is shown of a destination.
#[derive(Debug, Default)]
pub(crate) struct DestinationStatus {
    pub(crate) calls: usize,
    pub(crate) connections: usize,
    pub(crate) ejections: u64,
    pub(crate) retried: u64,
    pub(crate) not_retried: u64,
    /// Hosts none of whose endpoints could be reached.
    pub(crate) open: Vec<Arc<str>>,
    /// Host, endpoint, its failures in a row, and for how many seconds it stays ejected.
    pub(crate) endpoints: Vec<(Arc<str>, SocketAddr, u32, Option<u64>)>,
}

impl DestinationStatus {
    /// How many endpoints are ejected.
    pub(crate) fn ejected(&self) -> usize {
        self.endpoints.iter().filter(|(.., left)| left.is_some()).count()
    }
}

impl UpstreamHealth {
    /// What is known of a host of a destination; kept from now on.
    pub(crate) fn host(&self, destination: &ResourceId, host: &Arc<str>) -> Arc<HostHealth> {
        let of = self.of(destination);
        let mut hosts = lock(&of.hosts);
        if let Some(known) = hosts.get(host) {
            return Arc::clone(known);
        }
        if hosts.len() >= HOSTS {
            hosts.retain(|_, known| Arc::strong_count(known) > 1 || known.circuit.is_open());
        }
        let new = Arc::new(HostHealth {
            name: destination.clone(),
            host: Arc::clone(host),
            destination: Arc::clone(&of),
            circuit: DialCircuit::default(),
            endpoints: Mutex::default(),
        });
        if hosts.len() < HOSTS {
            hosts.insert(Arc::clone(host), Arc::clone(&new));
        }
        drop(hosts);
        new
    }

    fn of(&self, destination: &ResourceId) -> Arc<DestinationHealth> {
        let mut all = lock(&self.0);
        if let Some(known) = all.get(destination) {
            return Arc::clone(known);
        }
        if all.len() >= DESTINATIONS {
            all.retain(|_, known| Arc::strong_count(known) > 1 || !lock(&known.hosts).is_empty());
        }
        let new = Arc::new(DestinationHealth {
            occupancy: Occupancy::default(),
            retries: RetryBudget::new(Instant::now()),
            ejections: AtomicU64::default(),
            hosts: Mutex::default(),
        });
        all.insert(destination.clone(), Arc::clone(&new));
        new
    }

    /// Whether a call to the destination may be sent again; counted if so.
    pub(crate) fn may_retry(&self, destination: &ResourceId, retries: &Retries) -> bool {
        let of = self.of(destination);
        of.retries.take(retries, of.occupancy.begun(), Instant::now())
    }

    /// How a destination does that was called.
    pub(crate) fn status(&self, destination: &ResourceId) -> Option<DestinationStatus> {
        let of = lock(&self.0).get(destination).map(Arc::clone)?;
        let (retried, not_retried) = of.retries.counts();
        let mut status = DestinationStatus {
            calls: of.occupancy.calls(),
            connections: of.occupancy.connections(),
            ejections: of.ejections.load(Ordering::Relaxed),
            retried,
            not_retried,
            ..DestinationStatus::default()
        };
        for host in lock(&of.hosts).values() {
            status.open.extend(host.circuit.is_open().then(|| Arc::clone(&host.host)));
            let endpoints = lock(&host.endpoints);
            status.endpoints.extend(endpoints.iter().map(|endpoint| {
                let left = endpoint.ejected_for().map(|left| left.as_secs().max(1));
                (Arc::clone(&host.host), endpoint.address, endpoint.failures(), left)
            }));
        }
        status.endpoints.sort_unstable();
        Some(status)
    }
}

impl HostHealth {
    /// The endpoint of this address, one of those that the host has now.
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Arc<Endpoint> {
        let mut endpoints = lock(&self.endpoints);
        let now = Instant::now();
        if let Some(known) = endpoints.iter().find(|known| known.address == address) {
            known.seen(now);
            return Arc::clone(known);
        }
        endpoints.retain(|known| Arc::strong_count(known) > 1 || known.is_current(now));
        let new = Arc::new(Endpoint::new(address, now));
        if endpoints.len() < ENDPOINTS {
            endpoints.push(Arc::clone(&new));
        }
        new
    }

    /// The endpoint failed: it is ejected where that was once too often, and another works.
    pub(crate) fn failed(&self, endpoint: &Endpoint, why: EndpointFailure, rules: &OutlierDetection) {
        let failures = endpoint.fail();
        if rules.consecutive_gateway_errors > 0 && failures >= rules.consecutive_gateway_errors {
            self.eject(endpoint, failures, why, rules);
        }
    }

    #[cold]
    fn eject(&self, endpoint: &Endpoint, failures: u32, why: EndpointFailure, rules: &OutlierDetection) {
        let endpoints = lock(&self.endpoints);
        if endpoint.is_ejected() {
            return;
        }
        let others = || endpoints.iter().filter(|other| other.address != endpoint.address);
        let ejected = others().filter(|other| other.is_ejected()).count();
        let most = (endpoints.len() * rules.max_ejection_percent as usize / 100).max(1);
        if ejected >= most || !others().any(|other| other.is_working()) {
            return;
        }
        let time = endpoint.eject(rules);
        self.destination.ejections.fetch_add(1, Ordering::Relaxed);
        let (destination, host, address) = (&self.name, &self.host, endpoint.address);
        tracing::warn!(%destination, %host, endpoint = %address, failures, why = why.as_str(), seconds = time.as_secs(),
            "endpoint ejected: calls go to others");
    }

    /// Whether there is an endpoint that works as far as is known.
    pub(super) fn has_working(&self) -> bool {
        lock(&self.endpoints).iter().any(|endpoint| endpoint.is_working())
    }

    /// Says once that nobody can be reached, and once that somebody can again.
    pub(super) fn dialled(&self, ended: circuit::DialEnd) {
        let (destination, host) = (&self.name, &self.host);
        match ended {
            circuit::DialEnd::Opened => tracing::warn!(%destination, %host,
                "none of the host's endpoints can be reached: calls are refused at once, and one at a time tries"),
            circuit::DialEnd::Closed => tracing::info!(%destination, %host, "the host can be reached again"),
            circuit::DialEnd::Unchanged => {}
        }
    }
}

impl EndpointSlot {
    pub(super) const fn new(endpoint: Arc<Endpoint>, place: ConnectionSlot) -> Self {
        Self { endpoint, _place: place }
    }

    pub(super) const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    #[cfg(test)]
    pub(super) fn sample(address: SocketAddr) -> Self {
        let health = UpstreamHealth::default();
        let host = health.host(&"up".parse().unwrap(), &"up".into());
        Self::new(host.endpoint(address), ConnectionSlot::counted(&host.destination))
    }
}

impl EndpointFailure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::GatewayError => "502, 503 or 504",
            Self::Timeout => "no answer in time",
            Self::Reset => "broke off before an answer",
            Self::Connect => "no connection",
        }
    }
}

/// What these guard stays whole if a holder panics, and nobody waits while holding one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
