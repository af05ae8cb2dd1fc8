//! A connection to a destination that no call is sent on, to see whether it comes about.
//!
//! **Invariant:** it is dialled and secured as a call's would be, and nothing is sent on it after that.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;
use tollgate_policy::policy::{Destination, HttpVersion, SourcePool, SourceRules, TlsStart, TunnelTls};

use super::address::DialRules;
use super::alpn::AlpnOffer;
use super::connect::Reach;
use super::dial::DialContext;
use super::error::UpstreamError;
use super::health::UpstreamHealth;
use super::resolve::Resolver;
use super::source::SourceAddresses;
use super::tls::TlsClient;

/// What all probes have in common.
#[derive(Debug)]
pub(crate) struct Prober {
    rules: DialRules,
    resolver: Resolver,
    sources: SourceAddresses,
}

impl Prober {
    /// Asks `nameservers`; where there are none, those of the system.
    pub(crate) fn new(rules: DialRules, nameservers: &[SocketAddr]) -> Self {
        Self { rules, resolver: Resolver::new(nameservers), sources: SourceAddresses::new() }
    }

    /// Connects to a host of `destination` from `source`, one of its addresses, and secures the connection where the gateway speaks TLS
    /// there. The address at the other end.
    ///
    /// # Errors
    /// Why a call from there would fail.
    pub(crate) async fn probe(
        &self,
        (destination, host): (&Destination, &Arc<str>),
        source: IpAddr,
        tls: &TlsClient,
    ) -> Result<SocketAddr, UpstreamError> {
        let deadline = Instant::now() + destination.timeouts.connect;
        let alone = |rules: &SourceRules| SourceRules { addresses: [source].into(), ..rules.clone() };
        let sources =
            destination.sources.rules().map(alone).map_or_else(SourcePool::default, SourcePool::new);
        // What one probe finds is nothing to the next.
        let health = UpstreamHealth::default().host(&destination.name, host);
        let reach = Reach {
            destination,
            host: &health,
            towards: (host, destination.port),
            sources: sources.in_order(),
            except: None,
            proxy_tls: tls.proxy.as_ref(),
            deadline,
        };
        let context = DialContext { rules: &self.rules, resolver: &self.resolver, sources: &self.sources };
        let mut reached = reach.connect(context, || false).await?;
        let remote = reached.dialled.remote();
        let offer = match destination.tcp().map(|tcp| tcp.tls) {
            None => match destination.http().map(|http| http.version) {
                Some(HttpVersion::Http1) => AlpnOffer::Http1,
                _ => AlpnOffer::Http2,
            },
            Some(TunnelTls::Originated(start)) => {
                if start == TlsStart::Postgres {
                    reached.request_postgres_tls(deadline).await?;
                }
                AlpnOffer::Nothing
            }
            Some(TunnelTls::Opaque | TunnelTls::Callers) => return Ok(remote),
        };
        reached.secure(Arc::clone(host), offer.config(Arc::clone(&tls.config)), deadline).await?;
        Ok(remote)
    }
}
