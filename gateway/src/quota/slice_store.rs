//! Redis or Valkey, where replicas share counts.
//!
//! Everything is one script, so that each batch of asks is taken in as a whole. Its arithmetic is that of
//! [`tollgate_policy::limit::slices`]. All keys have one hash tag, so a cluster keeps them on one node.
//!
//! **Invariant:** the password is read from its file for each connection, and is in no error.

mod claim;
mod totals;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisFuture, Script, TlsCertificates, TlsMode,
};
use tollgate_policy::limit::slices::{Ask, Granted, ReplicaId, Share};
use zeroize::Zeroizing;

pub(super) use self::claim::ClaimAsk;
pub(crate) use self::claim::Claimed;
use super::lease::PoolId;
use crate::settings::{HostAndPort, RedisSettings};

/// How long the server may take to answer, or to be connected to.
const PATIENCE: Duration = Duration::from_millis(500);
/// The largest number that the script counts with exactly.
const MOST: u64 = (1 << 53) - 1;

/// Which addresses may be dialled.
pub(crate) type Dialable = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The server, and a connection while there is one.
pub(super) struct SliceStore {
    settings: RedisSettings,
    dialable: Dialable,
    script: Script,
    connection: Option<MultiplexedConnection>,
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SliceStoreError {
    /// A file that the settings name.
    #[error("limits.redis.{0}: {1}")]
    File(&'static str, std::io::Error),
    /// The server, or the way to it.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It may forget counts when its memory is full.
    #[error("its `maxmemory-policy` is `{0}`: it would forget what was spent; set it to `noeviction`")]
    Evicts(String),
    /// The script has answered something else than it does.
    #[error("it has not answered as the script does")]
    Answer,
}

/// What one batch was answered with.
#[derive(Debug)]
pub(super) enum Synced {
    /// A later ask of this replica was taken in already.
    Overtaken {
        /// Its number.
        latest: u64,
    },
    Granted {
        live: u64,
        /// One for each ask, in their order.
        grants: Vec<Granted>,
    },
}

/// Who asks, and for which time.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskTurn<'a> {
    pub(super) replica: &'a ReplicaId,
    pub(super) number: u64,
    /// In milliseconds.
    pub(super) lease: u64,
    /// Whether all counts of this replica have now been told of.
    pub(super) whole: bool,
}

impl SliceStore {
    pub(super) fn new(settings: RedisSettings, dialable: Dialable) -> Self {
        Self {
            settings,
            dialable,
            script: Script::new(include_str!("slice_store/sync.lua")),
            connection: None,
        }
    }

    /// Sends one batch. After an error nobody knows whether it was taken in.
    pub(super) async fn sync(
        &mut self,
        turn: AskTurn<'_>,
        asks: &[(PoolId, Ask)],
    ) -> Result<Synced, SliceStoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let prefix = &self.settings.prefix;
        let mut call = self.script.key(format!("{prefix}:{{{prefix}}}"));
        for (pool, _) in asks {
            call.key(format!("{prefix}:{{{prefix}}}:{}:{}", pool.limit, pool.key));
        }
        call.arg(&**turn.replica).arg(turn.number).arg(turn.lease).arg(u8::from(turn.whole));
        for (_, ask) in asks {
            call.arg(ask.cap.min(MOST)).arg(ask.keep.min(MOST)).arg(ask.spent.min(MOST));
            call.arg(ask.need.min(MOST)).arg(ask.want.min(MOST)).arg(ask.counts_for).arg(told(&ask.known));
        }
        let answer: Vec<String> = call.invoke_async(&mut connection).await?;
        self.connection = Some(connection);
        read(&answer, asks.len()).ok_or(SliceStoreError::Answer)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, SliceStoreError> {
        let settings = &self.settings;
        let mut login = RedisConnectionInfo::default();
        if let Some(user) = &settings.username {
            login = login.set_username(user);
        }
        if let Some(file) = &settings.password_file {
            login = login.set_password(password(file)?.as_str());
        }
        let certificates = match settings.tls.as_ref().map(|tls| &tls.ca_file) {
            None => None,
            Some(None) => Some(TlsCertificates { client_tls: None, root_cert: None }),
            Some(Some(file)) => {
                let pem = std::fs::read(file).map_err(|error| SliceStoreError::File("tls.caFile", error))?;
                Some(TlsCertificates { client_tls: None, root_cert: Some(pem) })
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_dns_resolver(StoreResolver(Arc::clone(&self.dialable)));
        let addresses = settings.addresses.iter().map(|HostAndPort { host, port }| match certificates {
            None => ConnectionAddr::Tcp(host.clone(), *port),
            Some(_) => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
        });
        let mut failed = SliceStoreError::Answer;
        let clients = match &settings.sentinel {
            Some(name) => vec![primary(addresses, name, &login, certificates.as_ref()).await],
            None => addresses.map(|address| client(address, &login, certificates.as_ref())).collect(),
        };
        for client in clients {
            match open(client, &config).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

fn client(
    address: ConnectionAddr,
    login: &RedisConnectionInfo,
    certificates: Option<&TlsCertificates>,
) -> Result<Client, RedisError> {
    let info = address.into_connection_info()?.set_redis_settings(login.clone());
    match certificates {
        None => Client::open(info),
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
    }
}

/// The server that these sentinels say is the primary. The login is the server's; they have none.
async fn primary(
    sentinels: impl Iterator<Item = ConnectionAddr>,
    name: &str,
    login: &RedisConnectionInfo,
    certificates: Option<&TlsCertificates>,
) -> Result<Client, RedisError> {
    let mut builder = SentinelClientBuilder::new(sentinels, name, SentinelServerType::Master)?;
    if let Some(user) = login.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = login.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates.clone());
    }
    let mut sentinels = builder.build()?;
    match tokio::time::timeout(PATIENCE * 4, sentinels.async_get_client()).await {
        Ok(client) => client,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// Connects, and makes sure that the server forgets nothing by itself.
async fn open(
    client: Result<Client, RedisError>,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, SliceStoreError> {
    let mut connection = client?.get_multiplexed_async_connection_with_config(config).await?;
    let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
    let field = |name: &str| memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    if field("maxmemory").is_some_and(|most| most != "0") && policy != "noeviction" {
        return Err(SliceStoreError::Evicts(policy.to_owned()));
    }
    Ok(connection)
}

/// Resolves names as the system does, and leaves out what may not be dialled.
struct StoreResolver(Dialable);

impl AsyncDNSResolver for StoreResolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
            let (allowed, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(|at| self.0(at.ip()));
            if allowed.is_empty() && !refused.is_empty() {
                let message =
                    format!("{host} is at {}, which `egress.privateRanges` does not list", refused[0].ip());
                return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, message).into());
            }
            Ok(Box::new(allowed.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

fn password(file: &Path) -> Result<Zeroizing<String>, SliceStoreError> {
    let text = std::fs::read_to_string(file).map_err(|error| SliceStoreError::File("passwordFile", error))?;
    let text = Zeroizing::new(text);
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn told(known: &BTreeMap<ReplicaId, Share>) -> String {
    let mut text = String::new();
    for (replica, share) in known {
        let _ = write!(text, "{replica},{},{},{};", share.ceiling, share.spent, share.drops_at);
    }
    text
}

fn read(answer: &[String], asks: usize) -> Option<Synced> {
    let [kind, latest, live, counts @ ..] = answer else { return None };
    let rebuilding = match kind.as_str() {
        "overtaken" => return Some(Synced::Overtaken { latest: latest.parse().ok()? }),
        "rebuilding" => true,
        "granting" => false,
        _ => return None,
    };
    let live = live.parse().ok()?;
    let grants: Vec<Granted> = counts
        .chunks(4)
        .map(|count| {
            let [more, wanted, others_spent, others] = count else { return None };
            Some(Granted {
                more: more.parse().ok()?,
                wanted: wanted == "1",
                rebuilding,
                live,
                others_spent: others_spent.parse().ok()?,
                others: others.split_terminator(';').map(share).collect::<Option<_>>()?,
            })
        })
        .collect::<Option<_>>()?;
    (grants.len() == asks).then_some(Synced::Granted { live, grants })
}

fn share(text: &str) -> Option<(ReplicaId, Share)> {
    let mut parts = text.split(',');
    let replica = parts.next()?.into();
    let mut number = || parts.next()?.parse().ok();
    let (ceiling, spent, drops_at) = (number()?, number()?, number()?);
    Some((replica, Share { ceiling, spent, lease_end: 0, drops_at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let answer = words("granting 7 3 500 1 120 a,10,5,99;b,20,0,98;");
        let Some(Synced::Granted { live: 3, grants }) = read(&answer, 1) else { panic!("{answer:?}") };
        let [grant] = &grants[..] else { panic!("{grants:?}") };
        assert_eq!((grant.more, grant.wanted, grant.rebuilding, grant.others_spent), (500, true, false, 120));
        assert_eq!(grant.others["a"], Share { ceiling: 10, spent: 5, lease_end: 0, drops_at: 99 });
        assert_eq!(told(&grant.others), "a,10,5,99;b,20,0,98;");
        assert!(matches!(read(&words("overtaken 9 0"), 1), Some(Synced::Overtaken { latest: 9 })));
        for wrong in [
            "",
            "granting 7",
            "granting 7 3",
            "granting 7 3 500 1 120",
            "granting 7 3 -1 1 120 x",
            "else 1 2",
        ] {
            assert!(read(&words(wrong), 1).is_none(), "{wrong}");
        }
    }
}
