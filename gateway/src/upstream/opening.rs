//! A connection that is being opened: dialled, and secured where the gateway speaks TLS, with what is told of its endpoint.
//!
//! **Invariant:** it has its place among the connections of its destination before anything is dialled.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use tollgate_policy::policy::Destination;

use super::dial::{Dial, DialContext, DialError};
use super::dialled::Dialled;
use super::error::UpstreamError;
use super::health::{ConnectionPlace, DialTicket, Endpoint, EndpointFailure, EndpointPlace, HostHealth};
use super::secured::Secured;

/// The one that opens it.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    destination: &'a Destination,
    host: &'a Arc<HostHealth>,
    ticket: DialTicket,
    place: ConnectionPlace,
    context: DialContext<'a>,
}

/// A connection that is dialled, with the endpoint at its other end.
#[derive(Debug)]
pub(super) struct ReachedEndpoint<'a> {
    pub(super) dialled: Dialled,
    destination: &'a Destination,
    host: &'a Arc<HostHealth>,
    endpoint: Arc<Endpoint>,
    ticket: DialTicket,
    place: ConnectionPlace,
    context: DialContext<'a>,
}

/// What is dialled for a host and port of a destination: the proxy before it, where it has one.
pub(super) fn first_hop<'a>(destination: &'a Destination, towards: (&'a str, u16)) -> (&'a str, u16) {
    destination.proxy.as_ref().map_or(towards, |proxy| (&proxy.host, proxy.port))
}

impl<'a> Opening<'a> {
    /// `shed` closes connections to the destination that nobody uses, and says whether there was one.
    ///
    /// # Errors
    /// Where the destination has as many connections as it may, or nobody reaches it and somebody tries already.
    pub(super) async fn begin(
        (destination, host): (&'a Destination, &'a Arc<HostHealth>),
        context: DialContext<'a>,
        shed: impl Fn() -> bool,
    ) -> Result<Self, UpstreamError> {
        let ticket = DialTicket::take(host)?;
        let place = ConnectionPlace::take(host, destination.resilience.circuit_breaker, shed).await?;
        Ok(Self { destination, host, ticket, place, context })
    }

    /// # Errors
    /// Why no endpoint could be reached.
    pub(super) async fn dial(self, dial: Dial<'_>) -> Result<ReachedEndpoint<'a>, UpstreamError> {
        let Self { destination, host, ticket, place, context } = self;
        match dial.connect(context).await {
            Ok(dialled) => {
                let endpoint = host.endpoint(dialled.remote());
                Ok(ReachedEndpoint { dialled, destination, host, endpoint, ticket, place, context })
            }
            Err(error) => {
                let error = UpstreamError::from(error);
                if error.is_unreached() {
                    ticket.failed();
                }
                Err(error)
            }
        }
    }
}

impl<'a> ReachedEndpoint<'a> {
    /// Goes on through the proxy before the destination, where it has one. `tls`: how it is spoken to the proxy.
    ///
    /// # Errors
    /// Where the proxy does not let it through, or `towards` is an address that may not be dialled.
    pub(super) async fn through(
        self,
        towards: (&str, u16),
        tls: Option<&Arc<ClientConfig>>,
        deadline: Instant,
    ) -> Result<Self, UpstreamError> {
        let Some(proxy) = &self.destination.proxy else { return Ok(self) };
        let bare = towards.0.trim_start_matches('[').trim_end_matches(']');
        // A name is the proxy's to look up, and to judge.
        if bare.parse().is_ok_and(|address| !self.context.rules.allows(address)) {
            return Err(DialError::Refused.into());
        }
        let Self { dialled, destination, host, endpoint, ticket, place, context } = self;
        let through = timeout_at(deadline, dialled.tunnel((proxy, tls), towards)).await;
        let through = match through {
            Ok(through) => through.map_err(UpstreamError::from),
            Err(_) => Err(UpstreamError::ConnectTimeout),
        };
        match through {
            Ok(dialled) => Ok(Self { dialled, destination, host, endpoint, ticket, place, context }),
            Err(error) => {
                if error.is_unreached() {
                    ticket.failed();
                }
                Err(error)
            }
        }
    }

    /// For a connection on which the gateway does not speak TLS.
    pub(super) fn plain(self) -> (Dialled, EndpointPlace) {
        let Self { dialled, host, endpoint, ticket, place, .. } = self;
        host.works(&endpoint);
        ticket.succeeded();
        (dialled, EndpointPlace::new(endpoint, place))
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
        let at = EndpointPlace::new(Arc::clone(&endpoint), place);
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
