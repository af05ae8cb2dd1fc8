//! Connections that are passed through, of workloads that open TLS to the gateway and speak something else in it.
//!
//! **Invariant:** who calls is who has shown the certificate of that TLS, and where it leads is what the settings name, or the server that
//! the workload's own TLS inside is for. A connection that is refused is reset: nothing that it speaks has room for a reason.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tollgate_policy::name::ResourceId;
use tollgate_policy::target::Passage;

use super::write_timeout::TlsStream;
use crate::core::Core;
use crate::identity::CallerCredentials;
use crate::session::Session;
use crate::tunnel::{self, Hello, Towards, TunnelRequest};

/// Carries one connection to its end.
pub(super) async fn serve(
    core: Arc<Core>,
    session: Arc<Session>,
    mut stream: TlsStream,
    destination: Option<ResourceId>,
) {
    let _drained = core.shared.drain.watch();
    let hello = match is_led_by_hello(&core, destination.as_ref()) {
        true => Hello::read(&mut stream).await.map(Some),
        false => Ok(None),
    };
    let towards = destination.as_ref().map_or(Towards::AnyServer, |name| Towards::Destination(name.as_str()));
    let request = TunnelRequest { towards, hello, credentials: CallerCredentials::none(), place: None };
    match tunnel::open(&core, &session, request).await {
        Ok(tunnel) => tunnel.relay(stream, reset).await,
        // Its record says why.
        Err(_) => reset(stream),
    }
}

/// Whether the workload's own TLS is what says where it leads.
fn is_led_by_hello(core: &Core, destination: Option<&ResourceId>) -> bool {
    let Some(name) = destination else { return true };
    let snapshot = core.snapshot();
    snapshot.is_ok_and(|it| matches!(it.policy.passage_to(name.as_str()), Ok(Passage::ByServerName(_))))
}

fn reset(stream: TlsStream) {
    let socket = stream.into_inner().0.into_inner();
    // A socket that refuses is gone already.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}
