//! Where a tunnel leads that a caller asks for, and whether a request in it goes there.
//!
//! **Invariant:** a tunnel chooses nothing: what is in it says where it goes, and has to agree.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::directory::{Directory, by_port, no_such_port};
use super::{Target, split_authority};
use crate::denial::{Denial, Reason};
use crate::resource::Destination;

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

impl Directory {
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
                |it: &&Arc<Destination>| it.port == authority.port || matches!(authority.port, 80 | 443);
            let meant: Vec<_> = destinations.iter().filter(is_meant).cloned().collect();
            return if meant.is_empty() { Err(no_such_port()) } else { Ok(TunnelEnd::VirtualAddress(meant)) };
        }
        let (destinations, host) = self.by_host(&authority.host, port)?;
        let destination = Arc::clone(by_port(destinations, port)?);
        Ok(TunnelEnd::Host(Target { destination, host }))
    }
}
