//! Connections that are passed through, of workloads that open TLS to the gateway and speak something else in it, or whose connections a
//! listed proxy hands on.
//!
//! **Invariant:** who calls is who has shown the certificate of that TLS, or is named by that proxy. Where it leads is what the settings name,
//! the server that the workload's own TLS inside is for, or where the proxy says that it was to lead. A connection that is refused is reset:
//! nothing that it speaks has room for a reason.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tollgate_policy::name::ResourceId;
use tollgate_policy::target::{Passage, TunnelAuthority};

use crate::core::Core;
use crate::identity::CallerCredentials;
use crate::session::Session;
use crate::tunnel::{self, Hello, Towards, TunnelRequest};

/// What says where a connection leads, beside its own TLS.
pub(super) struct Leads {
    /// The destination that the settings name for its listener.
    pub(super) settings: Option<ResourceId>,
    /// Where a proxy says that it was to lead: for what the settings name no destination for.
    pub(super) asked: Option<SocketAddr>,
}

/// Carries one connection to its end. `reset` ends it so that nobody takes that for a good end.
pub(super) async fn serve<S>(
    core: Arc<Core>,
    session: Arc<Session>,
    (mut stream, reset): (S, impl FnOnce(S)),
    leads: Leads,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _drained = core.shared.drain.watch();
    let asked: Option<TunnelAuthority> = leads.asked.and_then(|address| address.to_string().parse().ok());
    let towards = match (&leads.settings, &asked) {
        (Some(name), _) => Towards::Destination(name.as_str()),
        (None, Some(authority)) => Towards::Authority(authority),
        (None, None) => Towards::AnyServer,
    };
    let hello = match is_led_by_hello(&core, &towards) {
        true => Hello::read(&mut stream).await.map(Some),
        false => Ok(None),
    };
    let request = TunnelRequest { towards, hello, credentials: CallerCredentials::none(), place: None };
    match tunnel::open(&core, &session, request).await {
        Ok(tunnel) => tunnel.relay(stream, reset).await,
        // Its record says why.
        Err(_) => reset(stream),
    }
}

/// Whether the workload's own TLS is what says where it leads.
fn is_led_by_hello(core: &Core, towards: &Towards<'_>) -> bool {
    let Ok(snapshot) = core.snapshot() else { return false };
    let passage = match towards {
        Towards::AnyServer => return true,
        Towards::Destination(name) => snapshot.policy.passage_to(name).ok(),
        Towards::Authority(authority) => {
            snapshot.policy.tunnel(authority).and_then(|end| end.passage()).ok().flatten()
        }
    };
    matches!(passage, Some(Passage::ByServerName(_)))
}
