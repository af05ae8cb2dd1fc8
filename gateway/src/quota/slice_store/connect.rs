//! The connection to the server, to the primary that sentinels name, or to the node of a cluster that has the keys.
//!
//! **Invariant:** whatever is dialled is at an address that the dial rules allow. The password goes to the server alone, and without TLS to a
//! loopback address alone, whoever has named it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisFuture, TlsCertificates, Value,
};
use zeroize::Zeroizing;

use super::{Dialable, PATIENCE, SliceStoreError};
use crate::settings::{HostAndPort, RedisSettings};

/// From how many nodes of a cluster it goes on to another: each knows who has which keys, unless that is about to change.
const HOPS: usize = 3;

/// How a connection is opened.
struct Dialer<'a> {
    settings: &'a RedisSettings,
    dialable: &'a Dialable,
    certificates: Option<TlsCertificates>,
}

/// Connects to the first server that answers, or to the primary of the first sentinel, or the owner of the keys by the first node, that
/// knows it.
pub(super) async fn connect(
    settings: &RedisSettings,
    dialable: &Dialable,
) -> Result<MultiplexedConnection, SliceStoreError> {
    let certificates = match settings.tls.as_ref().map(|tls| &tls.ca_file) {
        None => None,
        Some(None) => Some(TlsCertificates { client_tls: None, root_cert: None }),
        Some(Some(file)) => {
            let pem = std::fs::read(file).map_err(|error| SliceStoreError::File("tls.caFile", error))?;
            Some(TlsCertificates { client_tls: None, root_cert: Some(pem) })
        }
    };
    let dialer = Dialer { settings, dialable, certificates };
    let mut failed = SliceStoreError::Answer;
    for address in &settings.addresses {
        let connected = match &settings.sentinel {
            Some(name) => dialer.primary(address, name).await,
            None if settings.cluster => dialer.owner(address).await,
            None => dialer.server(address).await,
        };
        match connected {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Dialer<'_> {
    /// The primary that this sentinel names, once it says so itself.
    async fn primary(
        &self,
        sentinel: &HostAndPort,
        name: &str,
    ) -> Result<MultiplexedConnection, SliceStoreError> {
        let mut sentinel = self.dial(sentinel, RedisConnectionInfo::default()).await?;
        let mut asked = redis::cmd("SENTINEL");
        asked.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let named: Option<(String, u16)> = asked.query_async(&mut sentinel).await?;
        let (host, port) = named.ok_or_else(|| SliceStoreError::Unknown(name.to_owned()))?;
        let address = HostAndPort { host, port };
        let mut connection = self.server(&address).await?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        let role = role.first().map(redis::from_redis_value_ref::<String>);
        match role {
            Some(Ok(role)) if role == "master" => Ok(connection),
            _ => Err(SliceStoreError::NoPrimary(format!("{}:{}", address.host, address.port))),
        }
    }

    /// The node that has the keys, which this one or those that it names lead to.
    async fn owner(&self, node: &HostAndPort) -> Result<MultiplexedConnection, SliceStoreError> {
        let mut node = node.clone();
        for _ in 0..=HOPS {
            let mut connection = self.server(&node).await?;
            let mut asked = redis::cmd("PEXPIRETIME");
            asked.arg(self.settings.memory_key());
            // A copy leads to its primary too.
            let Err(error) = asked.query_async::<i64>(&mut connection).await else { return Ok(connection) };
            node = moved(&error, &node).ok_or(error)?;
        }
        Err(SliceStoreError::Moved(format!("{}:{}", node.host, node.port)))
    }

    /// A server, logged in to, that forgets nothing by itself.
    async fn server(&self, address: &HostAndPort) -> Result<MultiplexedConnection, SliceStoreError> {
        let mut login = RedisConnectionInfo::default();
        if let Some(user) = &self.settings.username {
            login = login.set_username(user);
        }
        if let Some(file) = &self.settings.password_file {
            login = login.set_password(password(file)?.as_str());
        }
        let mut connection = self.dial(address, login).await?;
        let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        let field = |name: &str| memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let policy = field("maxmemory_policy").unwrap_or("noeviction");
        if field("maxmemory").is_some_and(|most| most != "0") && policy != "noeviction" {
            return Err(SliceStoreError::Evicts(policy.to_owned()));
        }
        Ok(connection)
    }

    async fn dial(
        &self,
        HostAndPort { host, port }: &HostAndPort,
        login: RedisConnectionInfo,
    ) -> Result<MultiplexedConnection, SliceStoreError> {
        let is_secret = login.password().is_some();
        let resolver = StoreResolver {
            dialable: Arc::clone(self.dialable),
            only_loopback: is_secret && self.certificates.is_none(),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_dns_resolver(resolver);
        let address = match self.certificates {
            None => ConnectionAddr::Tcp(host.clone(), *port),
            Some(_) => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
        };
        let info = address.into_connection_info()?.set_redis_settings(login);
        let client = match &self.certificates {
            None => Client::open(info)?,
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
        };
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        // A name that is not resolved and a login that is not answered count too.
        match tokio::time::timeout(PATIENCE * 2, connecting).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)).into()),
        }
    }
}

/// The node that `asked` has named instead of an answer. One without a host is at the same as itself.
fn moved(error: &RedisError, asked: &HostAndPort) -> Option<HostAndPort> {
    if error.code() != Some("MOVED") {
        return None;
    }
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    let host = if host.is_empty() { &asked.host } else { host };
    Some(HostAndPort { host: host.to_owned(), port: port.parse().ok()? })
}

/// Resolves names as the system does, and leaves out what may not be dialled.
struct StoreResolver {
    dialable: Dialable,
    /// A password is sent, and everybody on the way could read it.
    only_loopback: bool,
}

impl StoreResolver {
    fn allowed(&self, host: &str, ip: IpAddr) -> Result<(), String> {
        if !(self.dialable)(ip) {
            return Err(format!("{host} is at {ip}, which `egress.privateRanges` does not list"));
        }
        if self.only_loopback && !ip.is_loopback() {
            return Err(format!(
                "{host} is at {ip}: without `limits.redis.tls` the password could be read on the way there"
            ));
        }
        Ok(())
    }
}

impl AsyncDNSResolver for StoreResolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let (mut allowed, mut refused) = (Vec::new(), None);
            for at in tokio::net::lookup_host((host, port)).await? {
                match self.allowed(host, at.ip()) {
                    Ok(()) => allowed.push(at),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => {
                    Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why).into())
                }
                _ => Ok(Box::new(allowed.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>),
            }
        })
    }
}

fn password(file: &Path) -> Result<Zeroizing<String>, SliceStoreError> {
    let text = std::fs::read_to_string(file).map_err(|error| SliceStoreError::File("passwordFile", error))?;
    let text = Zeroizing::new(text);
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests;
