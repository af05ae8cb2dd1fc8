//! HTTP behind a proxy that has verified the workload and says so: Istio's ztunnel in front of a waypoint, which it hands what came in a
//! tunnel without the tunnel.
//!
//! **Invariant:** nothing but the word of a listed proxy proves the caller of such a connection; a token beside it has to name the same one.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tollgate_policy::caller::SpiffeId;

use super::hbone::{FIRST_BYTES, PREFACE, end, first_bytes};
use super::linger::Lingering;
use super::prefixed::Prefixed;
use super::write_timeout::WriteTimeoutStream;
use super::{http, log_refusal};
use crate::core::Core;
use crate::identity::Proofs;
use crate::session::{Arrival, HeaderDeadline, Road, Session};

/// A workload, as a listed proxy names it.
pub(super) struct VouchedWorkload {
    pub(super) source: SocketAddr,
    pub(super) id: SpiffeId,
}

/// Serves the workload's own HTTP, in the version that it begins with.
pub(super) async fn serve(core: Arc<Core>, listener: Arc<str>, stream: TcpStream, workload: VouchedWorkload) {
    let VouchedWorkload { source: address, id } = workload;
    let (trust, usages) = (&core.shared.trust, &core.shared.usages);
    let (proofs, place) = match Proofs::vouched(id, trust, usages) {
        Ok((proofs, place)) => (Arc::new(proofs), place.map(Arc::new)),
        Err(refusal) => {
            core.stats.handshake_failed();
            trust.count(refusal);
            log_refusal(&core.shared, &listener, address, refusal.as_str());
            return;
        }
    };
    let deadline = Arc::new(HeaderDeadline::new());
    let mut stream =
        WriteTimeoutStream::new(Lingering::new(stream, place.clone()), Arc::clone(&deadline), None);
    let Ok(Ok(begun)) = tokio::time::timeout(FIRST_BYTES, first_bytes(&mut stream)).await else { return };
    let arrival = Arrival { address, road: Road::Direct, http2: begun == PREFACE, deadline };
    let session = Arc::new(Session::of(arrival, proofs, place));
    http::serve(core, session, Prefixed::new(begun.into(), stream), end).await;
}
