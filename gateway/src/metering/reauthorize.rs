//! Whether what goes on for long may go on: a connection that is passed through, or a WebSocket. It may while its grant, its caller's proof,
//! the time that it has and the process last.
//!
//! **Invariant:** within two seconds of a policy that permits it no longer, of its time or of the process, it is over. A connection that is
//! passed through ends as soon after the proof of its caller, a WebSocket when that has had its grace.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};
use tollgate_policy::denial::Reason;

use super::permitted::PermittedCall;
use super::traffic::Traffic;
use crate::core::Core;
use crate::drain::{Drained, Phase};
use crate::identity::{CallProof, CallerContext};
use crate::session::Session;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long before its connection is cut it is over, so that its caller can be told why.
pub(crate) const BEFORE_THE_CUT: SignedDuration = SignedDuration::from_secs(2);

/// Why it may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The policy permits it no longer.
    Withdrawn,
    /// Its caller is proven no longer.
    ProofEnded(Reason),
    /// The process ends.
    Draining,
    /// Neither side has sent anything.
    Idle,
    /// It has had its time.
    Lifetime,
    /// Its connection ends, for something that the caller does.
    Cut,
}

/// What proves its caller while it lasts.
#[derive(Debug)]
pub(crate) enum LastingProof {
    /// All that its caller was proven by: it is over as soon as one of them has ended.
    AtOnce(Box<CallerContext>),
    /// The connection, and the token of the call where it has one: what is under way may outlast them by their grace.
    WithGrace(Option<Box<CallProof>>),
}

/// How long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeBounds {
    /// How long nothing may pass.
    pub(crate) idle: Duration,
    /// How long all of it may take.
    pub(crate) lifetime: Option<Duration>,
}

/// What permits it.
#[derive(Debug)]
pub(crate) struct Reauthorizer {
    core: Arc<Core>,
    session: Arc<Session>,
    call: Arc<PermittedCall>,
    /// Under which policy it was last found to be permitted.
    generation: AtomicU64,
}

impl Reauthorizer {
    pub(crate) const fn new(
        core: Arc<Core>,
        session: Arc<Session>,
        call: Arc<PermittedCall>,
        generation: u64,
    ) -> Self {
        Self { core, session, call, generation: AtomicU64::new(generation) }
    }

    /// What was permitted.
    pub(crate) fn call(&self) -> &PermittedCall {
        &self.call
    }

    /// Whether a policy that came since permits it no longer. One comparison where none came.
    pub(crate) fn is_withdrawn(&self) -> bool {
        let snapshots = &self.core.shared.snapshots;
        if snapshots.generation() == self.generation.load(Ordering::Relaxed) {
            return false;
        }
        let Some(snapshot) = snapshots.current() else { return false };
        let grants = self.session.proofs.grants(self.call.permit.caller(), &snapshot);
        let is_permitted = snapshot.policy.reauthorize(&grants, &self.call.permit, self.call.model());
        if is_permitted {
            self.generation.store(snapshot.generation, Ordering::Relaxed);
        }
        !is_permitted
    }

    /// Whether the process cuts what is open.
    pub(crate) fn is_drained(&self) -> bool {
        self.core.shared.drain.phase() >= Phase::Cutting
    }

    /// What of its connection proves nobody any more, or will not by the time that the connection is cut.
    fn proof_ended(&self) -> Option<Reason> {
        let shared = &self.core.shared;
        let now = Timestamp::now();
        let ended = self.session.proofs.ended(&shared.trust, &shared.usages, now);
        let then = now.checked_add(BEFORE_THE_CUT).unwrap_or(now);
        ended.filter(|ended| ended.is_over(then)).map(|ended| ended.reason)
    }

    /// Why one of the proofs of `context` has ended.
    fn ended(&self, context: &CallerContext) -> Option<Reason> {
        let shared = &self.core.shared;
        let snapshot = shared.snapshots.current()?;
        let (proofs, now) = (&self.session.proofs, Timestamp::now());
        let proven = proofs.reauthenticate(context, &shared.trust, &shared.usages, &snapshot, now);
        proven.err().map(|denial| denial.reason)
    }

    /// Why its connection is to end now.
    fn cut(&self) -> Over {
        if self.is_drained() {
            Over::Draining
        } else {
            self.proof_ended().map_or(Over::Cut, Over::ProofEnded)
        }
    }
}

impl LastingProof {
    fn ended(&self, reauthorizer: &Reauthorizer) -> Option<Reason> {
        match self {
            Self::AtOnce(context) => reauthorizer.ended(context),
            Self::WithGrace(_) => reauthorizer.proof_ended(),
        }
    }

    /// Ready once the token of the call has had its grace.
    async fn outlasted(&mut self, reauthorizer: &Reauthorizer) -> Reason {
        let Self::WithGrace(token) = self else { return pending().await };
        let issuers = reauthorizer.core.shared.trust.tokens();
        let denial = poll_fn(|cx| match token {
            Some(proof) => proof.poll(issuers, cx),
            None => Poll::Pending,
        });
        let reason = denial.await.reason;
        *token = None;
        reason
    }
}

/// What ends it.
#[derive(Debug)]
pub(crate) struct RelayWatch {
    drained: Drained,
    proof: LastingProof,
    idle: Duration,
    until: Option<Instant>,
}

impl RelayWatch {
    pub(crate) fn new(drained: Drained, proof: LastingProof, time: TimeBounds) -> Self {
        let until = time.lifetime.map(|lifetime| Instant::now() + lifetime);
        Self { drained, proof, idle: time.idle, until }
    }

    /// Ready once it may not go on.
    pub(crate) async fn over(&mut self, reauthorizer: &Reauthorizer, traffic: &Traffic) -> Over {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut moved) = (traffic.all(), Instant::now());
        loop {
            tokio::select! {
                reason = self.proof.outlasted(reauthorizer) => return Over::ProofEnded(reason),
                () = self.drained.reached(Phase::Cutting) => return Over::Draining,
                () = aborted(&reauthorizer.session) => return reauthorizer.cut(),
                now = tick.tick() => {
                    if traffic.all() != before {
                        (before, moved) = (traffic.all(), now);
                    }
                    if reauthorizer.is_withdrawn() {
                        return Over::Withdrawn;
                    }
                    if let Some(reason) = self.proof.ended(reauthorizer) {
                        return Over::ProofEnded(reason);
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
        return pending().await;
    }
    session.shutdown.aborted().await;
}
