//! TLS on a dialled connection.
//!
//! **Invariant:** a [`Secured`] exists only after the handshake verified the name that it was dialled for; there is none without TLS.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::alerts::AlertRecorder;
use super::connection_state::ConnectionState;
use super::dialled::Dialled;
use super::error::UpstreamError;
use super::health::EndpointSlot;
use super::transport::Transport;

/// The bytes of a verified connection.
pub(crate) type SecuredStream = AlertRecorder<TlsStream<Transport>>;

/// A connection on which TLS verified who is there. What is spoken on it is open yet.
#[derive(Debug)]
pub(crate) struct Secured(SecuredStream);

impl Secured {
    /// The handshake: `config` verifies that the other side is `host`.
    ///
    /// # Errors
    /// Where it fails or is not over by `deadline`, and where the other side refuses the client certificate.
    pub(crate) async fn new(
        (dialled, endpoint): (Dialled, EndpointSlot),
        host: Arc<str>,
        config: Arc<ClientConfig>,
        deadline: Instant,
    ) -> Result<Self, UpstreamError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|error| UpstreamError::Tls(io::Error::other(error)))?;
        let (stream, remote, source) = dialled.into_parts();
        let stream = timeout_at(deadline, TlsConnector::from(config).connect(name, stream))
            .await
            .map_err(|_| UpstreamError::ConnectTimeout)?
            .map_err(UpstreamError::of_handshake)?;
        let state = Arc::new(ConnectionState::new(host, remote, source, endpoint));
        Ok(Self(AlertRecorder { stream, state }))
    }

    /// The protocol that both sides agreed on (ALPN, RFC 7301).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.0.stream.get_ref().1.alpn_protocol()
    }

    pub(super) const fn state(&self) -> &Arc<ConnectionState> {
        &self.0.state
    }

    pub(crate) fn into_stream(self) -> SecuredStream {
        self.0
    }
}

impl SecuredStream {
    /// The socket below.
    pub(super) fn socket(&self) -> &TcpStream {
        self.stream.get_ref().0.socket()
    }
}
