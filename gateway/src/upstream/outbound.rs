//! A connection to a destination that is passed through: the bytes of a [`Dialled`], or of a [`Secured`] where the gateway speaks TLS.
//!
//! **Invariant:** nothing is sent on it but what a caller sends, and where the policy says that the gateway speaks TLS there is none without.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tollgate_policy::decision::Permit;
use tollgate_policy::policy::{TlsStart, TunnelTls};

use super::address::DialRules;
use super::alpn::AlpnOffer;
use super::connect::Reach;
use super::error::UpstreamError;
use super::health::EndpointSlot;
use super::peer::TlsParams;
use super::pool::Pool;
use super::secured::SecuredStream;
use super::source::SourceSlot;
use super::transport::Transport;

/// A connection that carries what somebody else speaks.
#[derive(Debug)]
pub(crate) struct Outbound {
    stream: OutboundStream,
    remote: Arc<str>,
    source: Arc<str>,
}

/// Each has what holds its place among those of its source address, and of its endpoint.
#[derive(Debug)]
enum OutboundStream {
    Plain(Transport, #[expect(dead_code, reason = "held for its drop")] (SourceSlot, EndpointSlot)),
    Secured(Box<SecuredStream>),
}

impl Outbound {
    /// A new connection for this permit. `tls`: how the gateway would speak it, where it does.
    ///
    /// # Errors
    /// Why none came about in the time that the destination has for it.
    pub(crate) async fn for_permit(
        pool: &Pool,
        rules: &DialRules,
        tls: TlsParams<'_>,
        permit: &Permit,
    ) -> Result<Self, UpstreamError> {
        let (destination, target) = (permit.destination(), permit.target());
        let deadline = Instant::now() + destination.timeouts.connect;
        let host = target.host_shared();
        let credential = permit.credential().map(|credential| &credential.name);
        let health = pool.health.host(&destination.name, &host);
        let reach = Reach {
            destination,
            host: &health,
            towards: (&host, target.port()),
            sources: destination.sources.plan(permit.caller().id(), credential),
            except: None,
            proxy_tls: tls.client.proxy.as_ref(),
            deadline,
        };
        let mut reached = reach.connect(pool.dials(rules), || pool.shed(&destination.name)).await?;
        let Some(TunnelTls::Originated(start)) = destination.tcp().map(|tcp| tcp.tls) else {
            let (dialled, endpoint) = reached.plain();
            let (stream, remote, source) = dialled.into_parts();
            let (remote, address) = (remote.to_string().into(), source.address().to_string().into());
            let stream = OutboundStream::Plain(stream, (source, endpoint));
            return Ok(Self { stream, remote, source: address });
        };
        if start == TlsStart::Postgres {
            reached.request_postgres_tls(deadline).await?;
        }
        let config = match tls.client_cert {
            Some(cert) => pool.client_configs.config(&destination.name, tls.client, cert)?,
            None => Arc::clone(&tls.client.config),
        };
        let secured = reached.secure(Arc::clone(&host), AlpnOffer::Nothing.config(config), deadline).await?;
        let state = secured.state();
        state.endpoint.endpoint().succeeded();
        let (remote, source) = (Arc::clone(&state.remote), Arc::clone(&state.source));
        Ok(Self { stream: OutboundStream::Secured(Box::new(secured.into_stream())), remote, source })
    }

    /// The address and port that was dialled.
    pub(crate) fn remote(&self) -> Arc<str> {
        Arc::clone(&self.remote)
    }

    /// The address it leaves from.
    pub(crate) fn source(&self) -> Arc<str> {
        Arc::clone(&self.source)
    }

    /// Ends it so that the other side cannot take that for a good end.
    pub(crate) fn reset(self) {
        let socket = match &self.stream {
            OutboundStream::Plain(stream, _) => stream.socket(),
            OutboundStream::Secured(secured) => secured.socket(),
        };
        // A socket that refuses is gone already.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    fn project(self: Pin<&mut Self>) -> Projected<'_> {
        match &mut self.get_mut().stream {
            OutboundStream::Plain(stream, _) => Projected::Plain(Pin::new(stream)),
            OutboundStream::Secured(secured) => Projected::Secured(Pin::new(&mut **secured)),
        }
    }
}

enum Projected<'a> {
    Plain(Pin<&'a mut Transport>),
    Secured(Pin<&'a mut SecuredStream>),
}

impl AsyncRead for Outbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            Projected::Plain(stream) => stream.poll_read(cx, buf),
            Projected::Secured(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Outbound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.project() {
            Projected::Plain(stream) => stream.poll_write(cx, buf),
            Projected::Secured(stream) => stream.poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            Projected::Plain(stream) => stream.poll_flush(cx),
            Projected::Secured(stream) => stream.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            Projected::Plain(stream) => stream.poll_shutdown(cx),
            Projected::Secured(stream) => stream.poll_shutdown(cx),
        }
    }
}
