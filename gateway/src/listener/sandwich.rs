//! What comes behind a proxy that has verified the workload and says so: Istio's ztunnel in front of a waypoint, which it hands what came in
//! a tunnel without the tunnel.
//!
//! **Invariant:** nothing but the word of a listed proxy proves the caller of such a connection; a token beside it has to name the same one.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tollgate_policy::caller::SpiffeId;

use super::lingering_close::{Lingering, reset_clear};
use super::rewind::Rewind;
use super::tunnel_admission::{Begun, begun, end};
use super::write_timeout::WriteTimeoutStream;
use super::{ListenerConfig, http, log_refusal, tcp};
use crate::caller_occupancy::OccupancySlot;
use crate::core::Core;
use crate::identity::Proofs;
use crate::session::{Arrival, HeaderDeadline, ProxyMode, Session};

/// A workload, as a listed proxy names it.
pub(super) struct SandwichedWorkload {
    pub(super) source: SocketAddr,
    pub(super) id: SpiffeId,
    /// Where its connection was to lead.
    pub(super) destination: Option<SocketAddr>,
}

/// Serves the workload's own HTTP, in the version that it begins with.
pub(super) async fn serve(
    core: Arc<Core>,
    listener: ListenerConfig,
    stream: TcpStream,
    workload: SandwichedWorkload,
) {
    let _drained = core.shared.drain.watch();
    let address = workload.source;
    let Some((proofs, place)) = proven(&core, &listener, workload) else { return };
    let deadline = Arc::new(HeaderDeadline::new());
    let stream = WriteTimeoutStream::new(Lingering::new(stream, place.clone()), Arc::clone(&deadline), None);
    let mut whole = Rewind::new(Bytes::new(), stream);
    let Some(begun) = begun(&mut whole).await else { return };
    let arrival = Arrival { address, mode: ProxyMode::Direct, http2: begun == Begun::Http2, deadline };
    let session = Arc::new(Session::of(arrival, proofs, place));
    http::serve(core, session, whole, end).await;
}

/// Passes the workload's connection through: to the destination of the settings, or where it was to lead.
pub(super) async fn pass_through(
    core: Arc<Core>,
    listener: ListenerConfig,
    stream: TcpStream,
    workload: SandwichedWorkload,
) {
    let SandwichedWorkload { source: address, destination, .. } = workload;
    let Some((proofs, place)) = proven(&core, &listener, workload) else { return };
    let deadline = Arc::new(HeaderDeadline::new());
    let mut stream = WriteTimeoutStream::new(stream, Arc::clone(&deadline), None);
    stream.wait_for_reader();
    let arrival = Arrival { address, mode: ProxyMode::Direct, http2: false, deadline };
    let session = Arc::new(Session::of(arrival, proofs, place));
    let leads = tcp::Leads { settings: listener.destination, asked: destination };
    tcp::serve(core, session, (stream, reset_clear), leads).await;
}

/// What proves the workload, with its place among the connections of its caller. `None`: it is turned away, which is said.
fn proven(
    core: &Core,
    listener: &ListenerConfig,
    workload: SandwichedWorkload,
) -> Option<(Arc<Proofs>, Option<Arc<OccupancySlot>>)> {
    let (trust, address) = (&core.shared.trust, workload.source);
    match Proofs::vouched(workload.id, trust, &core.shared.usages) {
        Ok((proofs, place)) => Some((Arc::new(proofs), place.map(Arc::new))),
        Err(refusal) => {
            core.stats.handshake_failed();
            trust.count(refusal);
            log_refusal(&core.shared, &listener.name, address, refusal.as_str());
            None
        }
    }
}
