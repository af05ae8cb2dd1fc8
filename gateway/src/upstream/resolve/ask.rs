//! The question itself: hosts file, then servers, as the system is set up.
//!
//! **Invariant:** a name is asked for as it stands before any search domain is added to it, and search domains come only where it does not
//! exist: a name of one's own network must not stand in for a public one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::time::Instant;

use super::{AddressFamily, LookupError};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// How often the system's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For one server; the next is asked after that.
const ANSWERS_IN: Duration = Duration::from_secs(2);
/// How often a server that did not answer is asked again.
const TRIES: usize = 2;

/// Addresses and how long they hold, or why there are none and how long that holds.
pub(super) type QueryResult = Result<(Arc<[IpAddr]>, Duration), (LookupError, Duration)>;

/// Whom to ask.
pub(super) struct Nameservers {
    /// Instead of the system's; empty: the system's.
    given: Vec<SocketAddr>,
    system: Mutex<Option<(Arc<SystemConfig>, Instant)>>,
}

struct SystemConfig {
    resolver: TokioResolver,
    hosts: Hosts,
    search: Vec<Name>,
    stamps: [Option<SystemTime>; 2],
}

impl Nameservers {
    pub(super) fn new(given: &[SocketAddr]) -> Self {
        Self { given: given.to_vec(), system: Mutex::default() }
    }

    pub(super) async fn ask(&self, host: &str, family: AddressFamily) -> QueryResult {
        let system = self.system()?;
        let name = Name::from_ascii(host).map_err(|error| (failed(error), Duration::ZERO))?;
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if let Some(addresses) = system.listed(&absolute, family) {
            return Ok((addresses, LOOK_EVERY));
        }
        let searched = system.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut missing = (LookupError::NoName, Duration::ZERO);
        for name in std::iter::once(absolute.clone()).chain(searched) {
            match system.resolver.lookup(name, kind(family)).await {
                Ok(lookup) => {
                    let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                    let addresses =
                        addresses.filter(|address| AddressFamily::of(*address) == family).collect();
                    let holds = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
                    return Ok((addresses, holds));
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                    let holds = Duration::from_secs(none.negative_ttl.unwrap_or_default().into());
                    if !NetError::from(none).is_nx_domain() {
                        return Ok(([].into(), holds));
                    }
                    missing.1 = holds;
                }
                Err(NetError::Timeout) => return Err((LookupError::Timeout, Duration::ZERO)),
                Err(error) => return Err((failed(error), Duration::ZERO)),
            }
        }
        Err(missing)
    }

    /// The system's files may change: a laptop moves, a container gets its hosts file late.
    fn system(&self) -> Result<Arc<SystemConfig>, (LookupError, Duration)> {
        let mut kept = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((system, looked)) = kept.as_mut() {
            if now < *looked + LOOK_EVERY {
                return Ok(Arc::clone(system));
            }
            *looked = now;
            if system.stamps == stamps() {
                return Ok(Arc::clone(system));
            }
        }
        let system =
            Arc::new(SystemConfig::read(&self.given).map_err(|error| (failed(error), Duration::ZERO))?);
        *kept = Some((Arc::clone(&system), now));
        Ok(system)
    }
}

impl SystemConfig {
    fn read(given: &[SocketAddr]) -> Result<Self, NetError> {
        let stamps = stamps();
        let (config, mut options) = if given.is_empty() { system_config() } else { config(given) };
        options.timeout = options.timeout.min(ANSWERS_IN);
        options.attempts = options.attempts.min(TRIES);
        options.use_hosts_file = ResolveHosts::Never;
        // Answers are kept where stale ones are.
        options.cache_size = 0;
        let search = config.search.clone();
        let config = ResolverConfig::from_parts(None, Vec::new(), config.name_servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { resolver: builder.build()?, hosts, search, stamps })
    }

    /// What the hosts file says. A name that it has in one family only has none of the other.
    fn listed(&self, name: &Name, family: AddressFamily) -> Option<Arc<[IpAddr]>> {
        let of = |family| self.hosts.lookup_static_host(&Query::query(name.clone(), kind(family)));
        let [own, other] = match family {
            AddressFamily::V4 => [of(AddressFamily::V4), of(AddressFamily::V6)],
            AddressFamily::V6 => [of(AddressFamily::V6), of(AddressFamily::V4)],
        };
        match (own, other) {
            (Some(own), _) => Some(own.answers().iter().filter_map(|record| record.data.ip_addr()).collect()),
            (None, Some(_)) => Some([].into()),
            (None, None) => None,
        }
    }
}

/// Without a usable file the local server is asked, as resolv.conf(5) has it.
fn system_config() -> (ResolverConfig, ResolverOpts) {
    system_conf::read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, "{RESOLV_CONF} names no server; that of this machine is asked");
        config(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 53))])
    })
}

fn config(servers: &[SocketAddr]) -> (ResolverConfig, ResolverOpts) {
    let servers = servers.iter().map(|server| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        connections.iter_mut().for_each(|connection| connection.port = server.port());
        NameServerConfig::new(server.ip(), true, connections)
    });
    (ResolverConfig::from_parts(None, Vec::new(), servers.collect()), ResolverOpts::default())
}

fn stamps() -> [Option<SystemTime>; 2] {
    [RESOLV_CONF, HOSTS].map(|file| fs::metadata(file).and_then(|found| found.modified()).ok())
}

const fn kind(family: AddressFamily) -> RecordType {
    match family {
        AddressFamily::V4 => RecordType::A,
        AddressFamily::V6 => RecordType::AAAA,
    }
}

fn failed(error: impl std::fmt::Display) -> LookupError {
    LookupError::Failed(error.to_string().into())
}
