//! Whether a relay may go on: its grant, its caller's proof, and how long it may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};
use tollgate_policy::denial::Reason;

use super::traffic::Traffic;
use crate::core::Core;
use crate::drain::{Drained, Phase};
use crate::identity::CallProof;
use crate::metering::permitted::PermittedCall;
use crate::session::{Session, Shutdown};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long before its connection is cut a relay ends, so that its caller is told why.
const BEFORE_THE_CUT: SignedDuration = SignedDuration::from_secs(2);

/// Why it may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The policy permits it no longer.
    Withdrawn,
    /// Its caller is proven no longer.
    Unproven(Reason),
    /// The process ends.
    Draining,
    /// Neither side has sent anything.
    Idle,
    /// It has had the time of a call that holds what others share.
    Lifetime,
    /// Its connection ends, for something that the caller does.
    Cut,
}

/// What permits a relay.
#[derive(Debug)]
pub(super) struct Leave {
    core: Arc<Core>,
    session: Arc<Session>,
    call: Arc<PermittedCall>,
    /// Under which policy it was last found to be permitted.
    generation: AtomicU64,
}

impl Leave {
    pub(super) fn new(
        core: Arc<Core>,
        session: Arc<Session>,
        call: Arc<PermittedCall>,
        generation: u64,
    ) -> Self {
        Self { core, session, call, generation: AtomicU64::new(generation) }
    }

    /// Whether a policy that came since permits it no longer. One comparison where none came.
    pub(super) fn is_withdrawn(&self) -> bool {
        let snapshots = &self.core.shared.snapshots;
        if snapshots.generation() == self.generation.load(Ordering::Relaxed) {
            return false;
        }
        let Some(snapshot) = snapshots.current() else { return false };
        let grants = self.session.proofs.grants(self.call.permit.caller(), &snapshot);
        let is_permitted = snapshot.policy.reauthorise(&grants, &self.call.permit, self.call.model());
        if is_permitted {
            self.generation.store(snapshot.generation, Ordering::Relaxed);
        }
        !is_permitted
    }

    /// What of its connection proves nobody any more, or will not by the time that the connection is cut.
    fn unproven(&self) -> Option<Reason> {
        let shared = &self.core.shared;
        let now = Timestamp::now();
        let unproven = self.session.proofs.unproven(&shared.trust, &shared.usages, now);
        let then = now.checked_add(BEFORE_THE_CUT).unwrap_or(now);
        unproven.filter(|unproven| unproven.is_over(then)).map(|unproven| unproven.reason)
    }

    /// Why its connection is to end now.
    fn cut(&self) -> Over {
        if self.core.shared.drain.phase() >= Phase::Cutting {
            Over::Draining
        } else {
            self.unproven().map_or(Over::Cut, Over::Unproven)
        }
    }
}

/// What ends a relay.
#[derive(Debug)]
pub(super) struct RelayWatch {
    drained: Drained,
    /// The token that the call was made with.
    proof: Option<Box<CallProof>>,
    idle: Duration,
    until: Option<Instant>,
}

impl RelayWatch {
    /// `idle`: how long nothing may come; `lifetime`: how long all of it may take.
    pub(super) fn new(
        drained: Drained,
        proof: Option<Box<CallProof>>,
        (idle, lifetime): (Duration, Option<Duration>),
    ) -> Self {
        let before = BEFORE_THE_CUT.unsigned_abs();
        let until = lifetime.map(|lifetime| Instant::now() + lifetime.saturating_sub(before));
        Self { drained, proof, idle, until }
    }

    /// Ready once it may not go on.
    pub(super) async fn over(&mut self, leave: &Leave, traffic: &Traffic) -> Over {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut moved) = (traffic.all(), Instant::now());
        loop {
            let issuers = leave.core.shared.trust.tokens();
            let proof = std::future::poll_fn(|cx| match &mut self.proof {
                Some(proof) => proof.poll(issuers, cx),
                None => Poll::Pending,
            });
            tokio::select! {
                denial = proof => {
                    self.proof = None;
                    return Over::Unproven(denial.reason);
                }
                () = self.drained.reached(Phase::Cutting) => return Over::Draining,
                () = aborted(&leave.session) => return leave.cut(),
                now = tick.tick() => {
                    if traffic.all() != before {
                        (before, moved) = (traffic.all(), now);
                    }
                    if leave.is_withdrawn() {
                        return Over::Withdrawn;
                    }
                    if let Some(reason) = leave.unproven() {
                        return Over::Unproven(reason);
                    }
                    if now.duration_since(moved) >= self.idle {
                        return Over::Idle;
                    }
                    if self.until.is_some_and(|until| now >= until) {
                        return Over::Lifetime;
                    }
                }
            }
        }
    }
}

/// Ready once the connection is to be cut. Over HTTP/2 whoever drives it is told, and the stream ends with it.
async fn aborted(session: &Session) {
    if session.http2 {
        return std::future::pending().await;
    }
    while session.shutdown.received().await != Some(Shutdown::Abort) {}
}
