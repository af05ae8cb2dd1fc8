//! Double HBONE: tunnels that come from another network of the mesh, each in a tunnel that ends here too. The outer one is an HBONE tunnel; in
//! it comes the TLS of the workload itself, and in that another request for a tunnel (istio/ztunnel, `src/proxy/outbound.rs`).
//!
//! **Invariant:** who calls is who has shown the certificate of the inner TLS, and all that it may is what its own grants say. The outer one
//! speaks for nobody: it carries tunnels of its own workload, and those of others only where the settings list it. A tunnel inside leads where
//! the one around it leads, and what comes in it is taken for no tunnel again.

use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tollgate_policy::caller::Identity;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::target::TunnelAuthority;

use super::h2_stream::H2Stream;
use super::{ListenerConfig, hbone, prove, tunnel_admission};
use crate::caller_occupancy::OccupancySlot;
use crate::core::Core;
use crate::session::{Arrival, HeaderDeadline, ProxyMode, Session};
use crate::settings::DoubleHboneSettings;

/// What tunnels inside tunnels go by.
#[derive(Clone)]
pub(super) struct InnerTunnels {
    pub(super) listener: ListenerConfig,
    pub(super) tls: TlsAcceptor,
    pub(super) settings: Arc<DoubleHboneSettings>,
}

/// Serves tunnels until the peer leaves, its proof ends, or the drain says so.
pub(super) async fn serve<S>(core: Arc<Core>, session: Arc<Session>, stream: S, inner: InnerTunnels)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (own_core, own_session) = (Arc::clone(&core), Arc::clone(&session));
    let asked = move |request, respond| {
        let (core, session) = (Arc::clone(&own_core), Arc::clone(&own_session));
        tokio::spawn(answer(core, session, inner.clone(), (request, respond)));
    };
    hbone::connection(core, session, stream, asked).await;
}

/// An outer tunnel that its peer may have.
struct OuterPermit {
    authority: TunnelAuthority,
    /// Who has opened it.
    opener: Identity,
    /// Whether it may carry tunnels of others.
    is_gateway: bool,
    /// Among the connections of its opener.
    place: Arc<OccupancySlot>,
}

/// Answers one request for an outer tunnel, and serves the connection that comes in it.
async fn answer(
    core: Arc<Core>,
    outer: Arc<Session>,
    inner: InnerTunnels,
    (request, mut respond): (Request<RecvStream>, SendResponse<Bytes>),
) {
    let leave = match authorise(&core, &outer, &inner.settings, &request) {
        Ok(leave) => leave,
        Err(denial) => {
            let authority = hbone::authority(&request).ok();
            let id = hbone::refuse(&core, &outer, authority.as_ref(), &denial);
            // A peer that is gone does not read it.
            let _ = hbone::refused(&denial, id, &mut respond);
            return;
        }
    };
    let Ok(sender) = respond.send_response(Response::default(), false) else { return };
    let stream = H2Stream::new(sender, request.into_body());
    let OuterPermit { authority, opener, is_gateway, place } = leave;
    // Its proofs count as a connection of the inner caller by themselves.
    let Some((stream, proven)) = prove(&core, (&inner.listener, &inner.tls), stream, outer.address).await
    else {
        return;
    };
    let arrival = Arrival {
        address: outer.address,
        mode: ProxyMode::Hbone(authority.clone()),
        http2: true,
        deadline: Arc::new(HeaderDeadline::new()),
    };
    let session = Arc::new(Session::new(arrival, proven));
    if let Err(denial) = speaks_for_itself(&core, &session, &opener, is_gateway) {
        hbone::refuse(&core, &outer, Some(&authority), &denial);
        return;
    }
    // A gateway carries the tunnels of many, each of whom has places of its own from here on.
    let _place = (!is_gateway).then_some(place);
    hbone::serve(core, session, stream).await;
}

/// Lets an outer tunnel be opened by a listed gateway, wherever there is something, and by a workload where it may have something to ask for.
fn authorise(
    core: &Core,
    session: &Session,
    settings: &DoubleHboneSettings,
    request: &Request<RecvStream>,
) -> Result<OuterPermit, Denial> {
    let authority = hbone::authority(request)?;
    let (snapshot, shared) = (core.snapshot()?, &core.shared);
    let opener =
        session.proofs.connection_caller(&shared.trust, &shared.usages, &snapshot, Timestamp::now())?;
    let end = snapshot.policy.tunnel(&authority)?;
    let is_gateway = settings.lists(opener.caller().id());
    if !is_gateway {
        opener.grants().check_reach(end.destinations())?;
    }
    let (place, opener) = (tunnel_admission::place(&opener)?, opener.caller().id().clone());
    Ok(OuterPermit { authority, opener, is_gateway, place })
}

/// Whether whoever has opened the tunnel around it may carry it.
fn speaks_for_itself(
    core: &Core,
    session: &Session,
    opener: &Identity,
    is_gateway: bool,
) -> Result<(), Denial> {
    let (snapshot, shared) = (core.snapshot()?, &core.shared);
    let inner =
        session.proofs.connection_caller(&shared.trust, &shared.usages, &snapshot, Timestamp::now())?;
    if is_gateway || inner.caller().id() == opener {
        return Ok(());
    }
    let detail = "a tunnel carries one of another workload, and `doubleHbone.gateways` of the listener does not list who has opened it";
    Err(Denial::new(Reason::ProofsDisagree, detail))
}
