//! One connection to the database, for threads that wait: the ledger's own, and commands.
//!
//! **Invariant:** only an address that may be dialled is; nothing waits longer than a bound; the password is in the file and on the wire.

use std::error::Error as _;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};
use zeroize::Zeroizing;

use super::settings::{PostgresSettings, PostgresTlsMode};
use super::tls::VerifiedTls;
use crate::ledger::LedgerError;

/// For the name, the connection, TLS and login together.
const CONNECT: Duration = Duration::from_secs(10);
/// For one piece of work; the server gives up before that.
const WORK: Duration = Duration::from_secs(90);
/// What the server is told of how long it may take, and may keep others waiting.
const BOUNDS: &str = "SET statement_timeout = '60s'; SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s'; SET TIME ZONE 'UTC'; SET application_name = 'tollgate'";

/// Which database, and what may be dialled to reach it.
#[derive(Clone)]
pub struct PostgresServer {
    pub(super) settings: PostgresSettings,
    dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl PostgresServer {
    /// The database of these settings. `dialable` says which addresses may be dialled.
    pub fn new(settings: PostgresSettings, dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) -> Self {
        Self { settings, dialable }
    }
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PostgresServer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A connection that has logged in.
#[derive(Debug)]
pub(super) struct DatabaseSession {
    runtime: Runtime,
    client: Client,
}

impl DatabaseSession {
    pub(super) fn open(server: &PostgresServer) -> Result<Self, LedgerError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed("address", error))?;
        let connected = runtime.block_on(async { timeout(CONNECT, connect(server)).await });
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                runtime.shutdown_background();
                return Err(error);
            }
            Err(_) => {
                // The system's resolver may still be waiting for an answer.
                runtime.shutdown_background();
                return Err(failed("address", format!("no login within {} s", CONNECT.as_secs())));
            }
        };
        Ok(Self { runtime, client })
    }

    /// Does one piece of work, and gives up when it takes too long: the connection is then of no more use.
    pub(super) fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let client = &mut self.client;
        let done = self.runtime.block_on(async { timeout(WORK, work(client)).await });
        done.unwrap_or_else(|_| Err(failed("address", format!("no answer within {} s", WORK.as_secs()))))
    }
}

async fn connect(server: &PostgresServer) -> Result<Client, LedgerError> {
    let PostgresSettings { database, user, password_file, tls, .. } = &server.settings;
    let (host, port) =
        server.settings.host_and_port().ok_or_else(|| failed("address", "no host and port"))?;
    let password = std::fs::read_to_string(password_file).map(Zeroizing::new);
    let password =
        password.map_err(|error| failed("passwordFile", format!("{}: {error}", password_file.display())))?;
    let mut config = Config::new();
    config.user(user).dbname(database).password(password.trim_end_matches(['\r', '\n']).as_bytes());
    let stream = dial(host, port, server).await?;
    let client = match tls.mode {
        PostgresTlsMode::None => {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect_raw(stream, NoTls).await?;
            tokio::spawn(connection);
            client
        }
        PostgresTlsMode::Required => {
            config.ssl_mode(SslMode::Require);
            let verified = VerifiedTls::of(host, tls.ca_file.as_deref());
            let place = tls.ca_file.as_ref().map_or_else(String::new, |file| format!("{}: ", file.display()));
            let verified = verified.map_err(|error| failed("tls.caFile", format!("{place}{error}")))?;
            let (client, connection) = config.connect_raw(stream, verified).await?;
            tokio::spawn(connection);
            client
        }
    };
    client.batch_execute(BOUNDS).await?;
    Ok(client)
}

/// The first address of the host that may be dialled and answers.
async fn dial(host: &str, port: u16, server: &PostgresServer) -> Result<TcpStream, LedgerError> {
    let named = |error| failed("address", format!("{host}:{port}: {error}"));
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(named)?.collect();
    let mut last = None;
    for address in found.iter().filter(|address| (server.dialable)(address.ip())) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(named)?;
                return Ok(stream);
            }
            Err(error) => last = Some(failed("address", format!("{address}: {error}"))),
        }
    }
    let refused = || {
        let shown: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
        let shown = shown.join(", ");
        failed(
            "address",
            format!("{host} is {shown}, which no range of `egress.privateRanges` has: it is never dialled"),
        )
    };
    Err(last.unwrap_or_else(refused))
}

impl From<Error> for LedgerError {
    fn from(error: Error) -> Self {
        of_server(&error)
    }
}

/// What the server or the way to it says, with the setting that it is about.
fn of_server(error: &Error) -> LedgerError {
    let field = match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD => "passwordFile",
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => "user",
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => "user",
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => "database",
        Some(_) => "database",
        None if is_of_tls(error) => "tls.caFile",
        None => "address",
    };
    if let Some(said) = error.as_db_error() {
        return failed(field, format!("the server says: {} ({})", said.message(), said.code().code()));
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    failed(field, text)
}

/// Whether the server could not be verified, or speaks no TLS.
fn is_of_tls(error: &Error) -> bool {
    let of_rustls = |error: &(dyn std::error::Error + 'static)| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        if of_rustls(error) {
            return true;
        }
        cause = error.source();
    }
    error.to_string().contains("TLS")
}

pub(super) fn failed(field: &'static str, what: impl fmt::Display) -> LedgerError {
    LedgerError::Postgres { field, what: what.to_string() }
}
