//! Whether a connection that is passed through may go on.
//!
//! **Invariant:** within two seconds of a policy that permits it no longer, of the end of what has proven its caller, of its time or of the
//! process, it is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::{TcpDestination, TunnelTls};

use crate::core::Core;
use crate::drain::{Drained, Phase};
use crate::identity::CallerContext;
use crate::metering::{PassedBytes, PermittedCall};
use crate::session::Session;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a connection that is passed through goes by.
pub(super) struct TunnelWatch {
    core: Arc<Core>,
    session: Arc<Session>,
    context: CallerContext,
    call: Arc<PermittedCall>,
    /// Under which policy it was last found to be permitted.
    generation: u64,
    drained: Drained,
    passed: Arc<PassedBytes>,
    begun: Instant,
}

impl TunnelWatch {
    pub(super) fn new(
        (core, session): (&Arc<Core>, &Arc<Session>),
        context: CallerContext,
        call: Arc<PermittedCall>,
        passed: Arc<PassedBytes>,
        generation: u64,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            session: Arc::clone(session),
            context,
            call,
            generation,
            drained: core.shared.drain.watch(),
            passed,
            begun: Instant::now(),
        }
    }

    /// What counts what passes.
    pub(super) const fn passed(&self) -> &Arc<PassedBytes> {
        &self.passed
    }

    /// Whether the destination takes the caller's own TLS alone.
    pub(super) fn wants_hello(&self) -> bool {
        self.tcp().is_some_and(|tcp| tcp.tls == TunnelTls::Callers)
    }

    /// What was permitted.
    pub(super) fn call(&self) -> &PermittedCall {
        &self.call
    }

    fn tcp(&self) -> Option<TcpDestination> {
        self.call.permit.destination().tcp()
    }

    /// That the process cuts what is open.
    pub(super) fn drained(&self) -> Option<Denial> {
        let is_over = self.core.shared.drain.phase() >= Phase::Cutting;
        is_over.then(|| Denial::new(Reason::Drained, "the gateway stops"))
    }

    /// Ready once it may not go on; with why.
    pub(super) async fn over(&mut self) -> Denial {
        let idle = self.call.permit.destination().timeouts.idle;
        let lifetime = self.tcp().and_then(|tcp| tcp.lifetime);
        let (mut before, mut moved) = (self.passed.both(), Instant::now());
        loop {
            tokio::select! {
                () = self.drained.reached(Phase::Cutting) => {
                    return Denial::new(Reason::Drained, "the gateway stops");
                }
                () = sleep(LOOK_EVERY) => {}
            }
            if let Err(denial) = self.still_permitted() {
                return denial;
            }
            let passed = self.passed.both();
            if passed != before {
                (before, moved) = (passed, Instant::now());
            } else if moved.elapsed() >= idle {
                return Denial::new(
                    Reason::TunnelIdle,
                    "no byte has passed for as long as the destination lets none",
                );
            }
            if lifetime.is_some_and(|lifetime| self.begun.elapsed() >= lifetime) {
                return Denial::new(
                    Reason::TunnelLifetime,
                    "it has lasted as long as the destination lets one",
                );
            }
        }
    }

    /// A policy that came since may have withdrawn what it was decided by, and what has proven its caller may have ended.
    fn still_permitted(&mut self) -> Result<(), Denial> {
        let shared = &self.core.shared;
        let Some(current) = shared.snapshots.current() else { return Ok(()) };
        let (proofs, now) = (&self.session.proofs, Timestamp::now());
        let context = proofs.reauthenticate(&self.context, &shared.trust, &shared.usages, &current, now)?;
        if current.generation == self.generation {
            return Ok(());
        }
        if current.policy.reauthorise(context.grants(), &self.call.permit, None) {
            self.generation = current.generation;
            return Ok(());
        }
        Err(Denial::new(Reason::Withdrawn, "the policy permits this connection no longer"))
    }
}
