//! From a name to a connected socket: resolve once, check every address, dial that very one, from the policy's source address.
//!
//! **Invariant:** no socket is connected to an address that [`DialRules`] refuses, and a source address that cannot be had is an error,
//! never the default address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::address::DialRules;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the name does not resolve: {0}")]
    Resolve(io::Error),
    #[error(
        "every address of the name is one that may not be dialled; `egress.privateRanges` lists private ones that may"
    )]
    Refused,
    #[error("no address of the name is of the source address's family")]
    Family,
    #[error("source address {0} cannot be used: {1}")]
    Source(IpAddr, io::Error),
    #[error("connect failed: {0}")]
    Connect(io::Error),
    #[error("connect timed out")]
    Timeout,
}

/// What to dial: a name with its port, or addresses that stand in for the name's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) fixed: &'a [IpAddr],
    pub(crate) source: Option<IpAddr>,
    pub(crate) timeout: Duration,
}

impl Dial<'_> {
    /// Connects to the first address that answers; each gets an equal share of the time that is left.
    pub(crate) async fn connect(self, rules: &DialRules) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + self.timeout;
        let resolved = timeout(self.timeout, self.resolve()).await.map_err(|_| DialError::Timeout)??;
        let permitted: Vec<SocketAddr> = resolved.into_iter().filter(|a| rules.allows_socket(*a)).collect();
        if permitted.is_empty() {
            return Err(DialError::Refused);
        }
        let candidates: Vec<SocketAddr> = permitted.into_iter().filter(|a| self.same_family(*a)).collect();
        let mut last = DialError::Family;
        for (tried, address) in candidates.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(candidates.len() - tried).unwrap_or(1);
            last = match timeout(share, self.attempt(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                // Another address of the same name cannot mend the source.
                Ok(Err(error @ DialError::Source(..))) => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => DialError::Timeout,
            };
        }
        Err(last)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        if !self.fixed.is_empty() {
            return Ok(self.fixed.iter().map(|ip| SocketAddr::new(*ip, self.port)).collect());
        }
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let found = tokio::net::lookup_host((self.host, self.port)).await.map_err(DialError::Resolve)?;
        Ok(found.collect())
    }

    fn same_family(&self, address: SocketAddr) -> bool {
        self.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    }

    async fn attempt(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(DialError::Connect)?;
        socket.set_nodelay(true).map_err(DialError::Connect)?;
        socket.set_keepalive(true).map_err(DialError::Connect)?;
        if let Some(source) = self.source {
            bind_source(&socket, source).map_err(|error| DialError::Source(source, error))?;
        }
        socket.connect(address).await.map_err(|error| match (error.kind(), self.source) {
            (io::ErrorKind::AddrNotAvailable, Some(source)) => DialError::Source(source, error),
            _ => DialError::Connect(error),
        })
    }
}

/// Binds without reserving a port: the kernel then picks one per destination at connect, so that one address does not run
/// out of its ~28 000 ephemeral ports for all destinations together (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
fn bind_source(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::new(source, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> DialRules {
        DialRules::new(vec!["127.0.0.0/8".parse().unwrap()])
    }

    fn dial(host: &str, port: u16) -> Dial<'_> {
        Dial { host, port, fixed: &[], source: None, timeout: Duration::from_secs(2) }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = dial("localhost", port).connect(&DialRules::new(vec![])).await;
        assert!(matches!(refused, Err(DialError::Refused)), "{refused:?}");
        assert!(dial("127.0.0.1", port).connect(&loopback()).await.is_ok());
    }

    #[tokio::test]
    async fn the_source_address_is_the_one_the_peer_sees() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = Dial { source: Some("127.0.0.7".parse().unwrap()), ..dial("127.0.0.1", port) };
        let stream = from.connect(&loopback()).await.unwrap();
        let (_, seen) = listener.accept().await.unwrap();
        assert_eq!(seen, stream.local_addr().unwrap());
        assert_eq!(seen.ip(), "127.0.0.7".parse::<IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn a_source_address_that_is_not_ours_is_an_error_and_not_the_default() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = Dial { source: Some("192.0.2.1".parse().unwrap()), ..dial("127.0.0.1", port) };
        assert!(matches!(from.connect(&loopback()).await, Err(DialError::Source(..))));
    }
}
