//! A connection that is being opened: dialled, led through the proxy before its destination, and secured where the gateway speaks TLS, with what is told of its endpoint.
//!
//! **Invariant:** it has its place among the connections of its destination before anything is dialled.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use tollgate_policy::policy::{Destination, Proxy, SourcePlan};

use super::address::DialRules;
use super::dial::{Dial, DialContext, DialError, WatchedEndpoints};
use super::dialled::Dialled;
use super::error::UpstreamError;
use super::health::{ConnectionSlot, DialTicket, Endpoint, EndpointFailure, EndpointSlot, HostHealth};
use super::secured::Secured;

/// What is to be reached, and how.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    pub(super) destination: &'a Destination,
    pub(super) host: &'a Arc<HostHealth>,
    /// The host's name and port.
    pub(super) towards: (&'a str, u16),
    pub(super) sources: SourcePlan<'a>,
    /// An endpoint that another is tried before.
    pub(super) except: Option<SocketAddr>,
    /// How TLS is spoken to the proxy before it, where it has one.
    pub(super) proxy_tls: Option<&'a Arc<ClientConfig>>,
    pub(super) deadline: Instant,
}

/// A connection that is dialled, with the endpoint at its other end.
#[derive(Debug)]
pub(super) struct ReachedEndpoint<'a> {
    pub(super) dialled: Dialled,
    destination: &'a Destination,
    host: &'a Arc<HostHealth>,
    endpoint: Arc<Endpoint>,
    ticket: DialTicket,
    place: ConnectionSlot,
    context: DialContext<'a>,
}

impl<'a> Reach<'a> {
    /// Connects to an endpoint, and on through the proxy before it. `shed` closes connections to the destination that nobody uses, and
    /// says whether there was one.
    ///
    /// # Errors
    /// Where the destination has as many connections as it may, nobody reaches it and somebody tries already, or none came about.
    pub(super) async fn connect(
        self,
        context: DialContext<'a>,
        shed: impl Fn() -> bool,
    ) -> Result<ReachedEndpoint<'a>, UpstreamError> {
        let Self { destination, host, towards, sources, except, proxy_tls, deadline } = self;
        let ticket = DialTicket::take(host)?;
        let place = ConnectionSlot::take(host, destination.resilience.circuit_breaker, shed).await?;
        let (name, port) = destination.proxy.as_ref().map_or(towards, |proxy| (&proxy.host, proxy.port));
        let dial = Dial {
            destination: &destination.name,
            host: name,
            port,
            fixed: &destination.addresses,
            sources,
            deadline,
            watched: WatchedEndpoints { host, rules: &destination.resilience.outlier_detection, except },
        };
        let dialled = match dial.connect(context).await {
            Ok(dialled) => dialled,
            Err(error) => return Err(unreached(ticket, error.into())),
        };
        let endpoint = host.endpoint(dialled.remote());
        let through = match &destination.proxy {
            None => Ok(dialled),
            Some(proxy) => through(dialled, (proxy, proxy_tls), (towards, context.rules), deadline).await,
        };
        match through {
            Ok(dialled) => {
                Ok(ReachedEndpoint { dialled, destination, host, endpoint, ticket, place, context })
            }
            Err(error) => Err(unreached(ticket, error)),
        }
    }
}

/// Tells the circuit of what it has to know.
fn unreached(ticket: DialTicket, error: UpstreamError) -> UpstreamError {
    if error.is_unreached() {
        ticket.failed();
    }
    error
}

async fn through(
    dialled: Dialled,
    proxy: (&Proxy, Option<&Arc<ClientConfig>>),
    (towards, rules): ((&str, u16), &DialRules),
    deadline: Instant,
) -> Result<Dialled, UpstreamError> {
    let bare = towards.0.trim_start_matches('[').trim_end_matches(']');
    // A name is the proxy's to look up, and to judge.
    if bare.parse().is_ok_and(|address| !rules.allows(address)) {
        return Err(DialError::Refused.into());
    }
    let through = timeout_at(deadline, dialled.tunnel(proxy, towards)).await;
    Ok(through.map_err(|_| UpstreamError::ConnectTimeout)??)
}

impl ReachedEndpoint<'_> {
    /// For a connection on which the gateway does not speak TLS.
    pub(super) fn plain(self) -> (Dialled, EndpointSlot) {
        let Self { dialled, endpoint, ticket, place, .. } = self;
        endpoint.succeeded();
        ticket.succeeded();
        (dialled, EndpointSlot::new(endpoint, place))
    }

    /// The handshake, as [`Secured::new`].
    ///
    /// # Errors
    /// Where it fails: another endpoint is tried first from now on.
    pub(super) async fn secure(
        self,
        name: Arc<str>,
        config: Arc<ClientConfig>,
        deadline: Instant,
    ) -> Result<Secured, UpstreamError> {
        let Self { dialled, destination, host, endpoint, ticket, place, context } = self;
        let remote = dialled.remote();
        let at = EndpointSlot::new(Arc::clone(&endpoint), place);
        let secured = Secured::new((dialled, at), name, config, deadline).await;
        match &secured {
            Ok(_) => ticket.succeeded(),
            Err(error) if error.is_unreached() => {
                ticket.failed();
                context.resolver.avoid(remote);
                host.failed(&endpoint, EndpointFailure::Connect, &destination.resilience.outlier_detection);
            }
            Err(_) => {}
        }
        secured
    }

    /// Asks a PostgreSQL server to begin with TLS.
    ///
    /// # Errors
    /// Where it has none.
    pub(super) async fn request_postgres_tls(&mut self, deadline: Instant) -> Result<(), UpstreamError> {
        let asked = timeout_at(deadline, self.dialled.request_postgres_tls()).await;
        asked.map_err(|_| UpstreamError::ConnectTimeout)?.map_err(UpstreamError::Tls)
    }
}
