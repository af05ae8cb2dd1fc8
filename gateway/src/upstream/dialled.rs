//! A TCP connection to a destination, or to the proxy before it and through that.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate_policy::policy::Proxy;

use super::proxy::{self, ProxyError};
use super::source::SourceSlot;
use super::transport::Transport;

/// A TCP connection: its address was checked, and its source address is one of the policy's. Nothing is known of who is there.
#[derive(Debug)]
pub(crate) struct Dialled {
    stream: Transport,
    remote: SocketAddr,
    source: SourceSlot,
}

impl Dialled {
    pub(super) fn of_system(stream: TcpStream) -> io::Result<Self> {
        let (remote, source) = (stream.peer_addr()?, stream.local_addr()?.ip());
        let source = SourceSlot::of_system(source);
        Ok(Self { stream: Transport::Socket(stream), remote, source })
    }

    /// Goes on through the proxy that it is connected to.
    ///
    /// # Errors
    /// Where the proxy does not let it through.
    pub(super) async fn tunnel(
        self,
        proxy: (&Proxy, Option<&Arc<ClientConfig>>),
        towards: (&str, u16),
    ) -> Result<Self, ProxyError> {
        let Self { stream, remote, source } = self;
        let stream = proxy::tunnel(stream, proxy, towards).await?;
        Ok(Self { stream, remote, source })
    }

    /// Asks a PostgreSQL server to begin with TLS, as its protocol has it (PostgreSQL's documentation, section 55.2.10).
    pub(super) async fn request_postgres_tls(&mut self) -> io::Result<()> {
        const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
        self.stream.write_all(&SSL_REQUEST).await?;
        match self.stream.read_u8().await? {
            b'S' => Ok(()),
            _ => Err(io::Error::other("the server has no TLS, or is no PostgreSQL server")),
        }
    }

    /// One that leaves from anywhere else than from its place is closed unused.
    ///
    /// # Errors
    /// Where it does: that is about the place.
    pub(super) fn of_policy(stream: TcpStream, remote: SocketAddr, source: SourceSlot) -> io::Result<Self> {
        let own = stream.local_addr()?.ip();
        if own != source.address() {
            return Err(io::Error::other(format!("the connection would leave from {own}")));
        }
        Ok(Self { stream: Transport::Socket(stream), remote, source })
    }

    /// The address and port at its other end.
    pub(super) const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The stream, the address and port at its other end, and the local address it leaves from: it holds that place as long as it lives.
    pub(crate) fn into_parts(self) -> (Transport, SocketAddr, SourceSlot) {
        (self.stream, self.remote, self.source)
    }
}
