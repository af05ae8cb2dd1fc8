//! What a core of the data plane has, and what all cores share.

use std::net::SocketAddr;
use std::sync::Arc;

use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::name::ResourceId;
use tollgate_secrets::Secrets;

use crate::audit::Uses;
use crate::caller_occupancy::CallerOccupancies;
use crate::drain::Drain;
use crate::identity::Trust;
use crate::injection::InjectionCache;
use crate::interception::Interception;
use crate::key_health::KeyPools;
use crate::ledger::Journal;
use crate::log_throttle::LogThrottle;
use crate::metering::Recorder;
use crate::otlp::Sinks;
use crate::quota::Quota;
use crate::session::ConnectionRegistry;
use crate::settings::RequestLimits;
use crate::snapshot::{Snapshot, Snapshots};
use crate::stats::Stats;
use crate::timers::Timers;
use crate::trace::Tracer;
use crate::upstream::{DialRules, Pool, SourceAddresses, UpstreamHealth};

/// Shared by all cores. Nothing in here is locked for longer than a few instructions.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshots: Snapshots,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) keys: KeyPools,
    pub(crate) quota: Arc<Quota>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) rules: DialRules,
    /// Certificates for the hosts of tunnels, where the settings name an authority.
    pub(crate) interception: Option<Arc<Interception>>,
    pub(crate) sources: SourceAddresses,
    pub(crate) upstreams: UpstreamHealth,
    /// The DNS servers to ask; none: those of the system.
    pub(crate) nameservers: Vec<SocketAddr>,
    pub(crate) usages: CallerOccupancies,
    pub(crate) drain: Drain,
    pub(crate) limits: RequestLimits,
    pub(crate) throttles: Throttles,
    /// Where calls are traced, or destinations are told of traces.
    pub(crate) tracer: Option<Tracer>,
    /// Where telemetry is exported.
    pub(crate) exported: Option<Sinks>,
}

/// What the log has said lately of failures that come in numbers.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    /// Connections to destinations that did not come about, by destination and reason.
    pub(crate) upstreams: LogThrottle<(ResourceId, Reason)>,
    /// Handshakes of callers that were refused and connections that could not be accepted, by reason.
    pub(crate) handshakes: LogThrottle<&'static str>,
}

/// One core: its connections to upstreams, its journal, its counters.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) journal: Arc<Journal>,
    pub(crate) prepared: InjectionCache,
    pub(crate) connections: ConnectionRegistry,
    pub(crate) stats: Arc<Stats>,
    pub(crate) uses: Arc<Uses>,
    pub(crate) recorder: Recorder,
    pub(crate) timers: Timers,
}

impl Core {
    /// The snapshot in force.
    ///
    /// # Errors
    /// `not_ready` before there is one.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, Denial> {
        let current = self.shared.snapshots.current();
        current.ok_or_else(|| Denial::new(Reason::NotReady, "no configuration is loaded yet"))
    }
}
