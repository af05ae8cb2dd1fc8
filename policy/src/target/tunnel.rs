//! Where a tunnel leads that a caller asks for, and whether what comes in it goes there.
//!
//! **Invariant:** a tunnel chooses nothing: what is in it says where it goes, and has to agree.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::directory::{Directory, by_port, no_such_port};
use super::{Target, split_authority};
use crate::denial::{Denial, Reason};
use crate::pattern::canonical_host;
use crate::resource::{Destination, TunnelTls};

/// `host:port` or `address:port`, as the request for a tunnel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelAuthority {
    /// In canonical spelling; an IPv6 address in brackets.
    host: Box<str>,
    port: u16,
}

/// Where a tunnel leads.
#[derive(Debug, Clone)]
pub enum TunnelEnd {
    /// To the gateway itself, as one of its own names or addresses: the path of a request names the destination.
    Gateway,
    /// To one host of a destination.
    Host(Target),
    /// To an address that the mesh has made up, which these destinations list: the request says which of them is meant, and whoever lists
    /// it besides takes nothing from the others.
    VirtualAddress(Vec<Arc<Destination>>),
}

/// Where a connection goes that is passed through.
#[derive(Debug, Clone)]
pub enum Passage {
    /// To this host.
    To(Target),
    /// To the host of one of these that the caller's own TLS names.
    ByServerName(Vec<Arc<Destination>>),
}

impl FromStr for TunnelAuthority {
    type Err = Denial;

    fn from_str(text: &str) -> Result<Self, Denial> {
        let (host, port) = split_authority(text, |_| false)?;
        let no_port = "a tunnel leads to a host and a port, and the authority has no port";
        let port = port.ok_or_else(|| Denial::new(Reason::AmbiguousAuthority, no_port))?;
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for TunnelAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl TunnelAuthority {
    /// The port that was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether `host`, or `host:port`, as a `Host` has it, means the same.
    pub fn is_named_by(&self, text: &str) -> bool {
        split_authority(text, |_| false)
            .is_ok_and(|(host, port)| *host == *self.host && port.is_none_or(|port| port == self.port))
    }

    fn address(&self) -> Option<IpAddr> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().ok().map(|address: IpAddr| address.to_canonical())
    }
}

impl TunnelEnd {
    /// The destinations that a request in it may be for; none: it is the gateway itself.
    pub fn destinations(&self) -> &[Arc<Destination>] {
        match self {
            Self::Gateway => &[],
            Self::Host(target) => std::slice::from_ref(target.destination()),
            Self::VirtualAddress(destinations) => destinations,
        }
    }

    /// Where what comes in it is passed through to; `None`: requests come in it. Refuses with `ambiguous_authority` or `unknown_host`.
    pub fn passage(&self) -> Result<Option<Passage>, Denial> {
        match self {
            Self::Gateway => Ok(None),
            Self::Host(target) => Ok(target.destination().tcp().map(|_| Passage::To(target.clone()))),
            Self::VirtualAddress(all) if all.iter().all(|one| one.tcp().is_none()) => Ok(None),
            Self::VirtualAddress(all) => Passage::among(all).map(Some),
        }
    }

    /// Refuses with `ambiguous_authority` a request that goes elsewhere. `by_path`: the destination is named by the path.
    pub fn check(&self, target: &Target, by_path: bool) -> Result<(), Denial> {
        let agrees = match self {
            Self::Gateway => by_path,
            Self::Host(own) => !by_path && own.host() == target.host() && own.port() == target.port(),
            Self::VirtualAddress(all) => {
                !by_path && all.iter().any(|own| own.name == target.destination().name)
            }
        };
        if agrees {
            return Ok(());
        }
        Err(Denial::new(
            Reason::AmbiguousAuthority,
            "the request is for another host than the tunnel that it came in",
        ))
    }
}

impl Passage {
    /// To one of these destinations, where nothing but the caller's own TLS can say which.
    fn among(all: &[Arc<Destination>]) -> Result<Self, Denial> {
        let is_named = |one: &Arc<Destination>| one.tcp().is_some_and(|tcp| tcp.tls == TunnelTls::Callers);
        match all {
            [only] => match only.only_host() {
                Some(host) => Ok(Self::To(Target { destination: Arc::clone(only), host: Arc::clone(host) })),
                None if is_named(only) => Ok(Self::ByServerName(vec![Arc::clone(only)])),
                None => {
                    let name = &only.name;
                    let detail = format!(
                        "destination {name} has several hosts or a wildcard, so an address cannot say which is meant"
                    );
                    Err(Denial::new(Reason::UnknownHost, detail))
                }
            },
            _ if all.iter().all(is_named) => Ok(Self::ByServerName(all.to_vec())),
            _ => {
                let detail = "several destinations have this address and port, and nothing in a connection that is passed through \
                              says which is meant";
                Err(Denial::new(Reason::AmbiguousAuthority, detail))
            }
        }
    }

    /// The host that the caller's own TLS is for. Refuses with `sni_mismatch`.
    pub fn server(&self, name: &str) -> Result<Target, Denial> {
        let host = server_host(name)?;
        match self {
            Self::To(target) if *target.host == *host => Ok(target.clone()),
            Self::To(_) => Err(mismatch("the caller's TLS is for another server than its connection")),
            Self::ByServerName(all) => {
                let own = all.iter().find(|one| one.has_host(&host));
                let own =
                    own.ok_or_else(|| mismatch("the caller's TLS is for no host of the destination"))?;
                Ok(Target { destination: Arc::clone(own), host: host.as_ref().into() })
            }
        }
    }
}

/// A server's name in canonical spelling.
fn server_host(name: &str) -> Result<std::borrow::Cow<'_, str>, Denial> {
    canonical_host(name).map_err(|_| mismatch("the caller's TLS names a server by what is no host"))
}

fn mismatch(detail: &'static str) -> Denial {
    Denial::new(Reason::SniMismatch, detail)
}

impl Directory {
    /// Where a connection goes that is passed through to the destination of this name.
    pub(crate) fn passage_to(&self, name: &str) -> Result<Passage, Denial> {
        let destination = self.destination(name).filter(|destination| destination.tcp().is_some());
        let unknown = || {
            let detail = format!("there is no destination {name} that connections are passed through to");
            Denial::new(Reason::UnknownHost, detail)
        };
        Passage::among(std::slice::from_ref(destination.ok_or_else(unknown)?))
    }

    /// The one destination that takes callers' own TLS for this server.
    pub(crate) fn server(&self, name: &str) -> Result<Target, Denial> {
        let host = server_host(name)?;
        let unknown = || mismatch("no destination takes TLS for this server");
        let (destinations, host) = self.by_host(&host, None).map_err(|denial| match denial.reason {
            Reason::UnknownHost => unknown(),
            _ => denial,
        })?;
        let is_named = |one: &&Arc<Destination>| one.tcp().is_some_and(|tcp| tcp.tls == TunnelTls::Callers);
        let mut named = destinations.iter().filter(is_named);
        match (named.next(), named.next()) {
            (Some(only), None) => Ok(Target { destination: Arc::clone(only), host }),
            (Some(_), Some(_)) => {
                Err(mismatch("several destinations take TLS for this server, at different ports"))
            }
            (None, _) => Err(unknown()),
        }
    }

    /// Where a tunnel leads.
    pub(crate) fn tunnel(&self, authority: &TunnelAuthority) -> Result<TunnelEnd, Denial> {
        let port = Some(authority.port);
        if self.is_gateway(&authority.host, port) {
            return Ok(TunnelEnd::Gateway);
        }
        let is_host = self.by_host(&authority.host, port).is_ok();
        let given = authority.address().and_then(|address| self.by_virtual_address.get(&address));
        if let Some(destinations) = given.filter(|_| !is_host) {
            let is_meant =
                |it: &&Arc<Destination>| it.port == authority.port || may_be_filled_in(it, authority.port);
            let meant: Vec<_> = destinations.iter().filter(is_meant).cloned().collect();
            return if meant.is_empty() { Err(no_such_port()) } else { Ok(TunnelEnd::VirtualAddress(meant)) };
        }
        let (destinations, host) = self.by_host(&authority.host, port)?;
        let destination = Arc::clone(by_port(destinations, port)?);
        if destination.port != authority.port && !may_be_filled_in(&destination, authority.port) {
            return Err(no_such_port());
        }
        Ok(TunnelEnd::Host(Target { destination, host }))
    }
}

/// Whether the port is one that a client of HTTP fills in by itself: whoever has another protocol means the port that it names.
fn may_be_filled_in(destination: &Destination, port: u16) -> bool {
    destination.http().is_some() && matches!(port, 80 | 443)
}
