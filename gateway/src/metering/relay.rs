//! A WebSocket after its handshake: the frames of both sides, until one of them closes or it is no longer allowed.
//!
//! **Invariant:** a message of the provider reaches the caller only through the scrubber, where the answer to a request would. A close frame
//! leaves for the caller when the record is written, and the caller of a provider that breaks off gets none. However a relay ends, there is
//! one record of it.

mod pump;
mod tap;
mod turns;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tollgate_policy::denial::Reason;

use self::pump::{CleanMessages, Pump, PumpEnd};
use self::tap::Tap;
use self::turns::{RefusedTurn, RelayStep, Turns};
use super::account::{Account, LearntUsage};
use super::answered::Answered;
use super::inspected_body;
use super::realtime::TurnMeter;
use super::reauthorize::{BEFORE_THE_CUT, LastingProof, Over, Reauthorizer, RelayWatch, TimeBounds};
use super::traffic::Traffic;
use crate::core::Core;
use crate::in_place::boxed;
use crate::injection::Scrubber;
use crate::ledger::Outcome;
use crate::session::{Session, WriteProgress};
use crate::websocket::{FrameRules, Switched};

/// How long one side may take to answer the close of the other.
const CLOSING: Duration = Duration::from_secs(10);
/// How long what a side has closed with before its connection broke may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Codes of RFC 6455, section 7.4.1.
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const POLICY_VIOLATION: u16 = 1008;

/// How the caller's connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayEnd {
    /// The caller was told: what was written is to arrive.
    Close,
    /// In the middle of something.
    Cut,
}

/// A WebSocket that both sides have agreed to.
#[derive(Debug)]
pub(crate) struct Relay {
    account: Option<Box<Account>>,
    core: Arc<Core>,
    reauthorizer: Reauthorizer,
    watch: RelayWatch,
    /// Of frames that went on.
    traffic: Arc<Traffic>,
    provider: OnUpgrade,
    scrubber: Option<Scrubber>,
    /// For frames of the provider.
    rules: FrameRules,
    progress: Arc<WriteProgress>,
    /// Where it is billed by turns.
    turns: Option<Turns>,
}

/// Whose frames ended first, and how.
enum First {
    Caller(PumpEnd),
    Provider(PumpEnd),
    Over(Over),
    /// It is refused another turn.
    Refused(RefusedTurn),
}

impl Relay {
    /// The answer to the handshake, with what goes on behind it.
    pub(super) fn begin(
        mut account: Box<Account>,
        answered: Box<Answered>,
        switched: Switched,
        (core, session): (Arc<Core>, Arc<Session>),
    ) -> Response<Box<Self>> {
        let Answered { mut head, call, scrubber, proof, .. } = *answered;
        switched.answer(&mut head);
        // Also where HTTP/2 calls it a success.
        account.record.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        let limits = &core.shared.limits;
        let least = inspected_body::holds_shared(&call.permit).then(|| limits.min_rate());
        let rules = FrameRules {
            masked: false,
            deflated: switched.is_deflated,
            message_bytes: limits.message_bytes as u64,
        };
        let progress = session.write_progress(least);
        let idle = call.permit.destination().timeouts.idle;
        let lifetime = least.map(|least| least.lifetime.saturating_sub(BEFORE_THE_CUT.unsigned_abs()));
        let (proof, time) = (LastingProof::WithGrace(proof), TimeBounds { idle, lifetime });
        let watch = RelayWatch::new(core.shared.drain.watch(), proof, time);
        let traffic = account.passes();
        let turns = TurnMeter::of(&call).map(|session| Turns::new(&core, session));
        let reauthorizer = Reauthorizer::new(Arc::clone(&core), session, call, account.record.generation);
        let (account, provider) = (Some(account), switched.provider);
        let relay =
            Self { account, core, reauthorizer, watch, traffic, provider, scrubber, rules, progress, turns };
        Response::from_parts(head, Box::new(relay))
    }

    /// Carries frames to the end. `early` are bytes that the caller sent before it had its answer, which are no frames.
    ///
    /// On the heap, so that a task that only carries requests stays small.
    pub(crate) fn run(
        self: Box<Self>,
        caller: impl AsyncRead + AsyncWrite + Unpin,
        early: &[u8],
    ) -> Pin<Box<impl Future<Output = RelayEnd>>> {
        Box::into_pin(boxed(|| self.to_the_end(caller, early)))
    }

    async fn to_the_end(
        mut self: Box<Self>,
        caller: impl AsyncRead + AsyncWrite + Unpin,
        early: &[u8],
    ) -> RelayEnd {
        let traffic = Arc::clone(&self.traffic);
        let Ok(provider) = (&mut self.provider).await else {
            self.record(&traffic, Outcome::UpstreamFailed, Some(Reason::UpstreamReset)).await;
            return RelayEnd::Cut;
        };
        let (from_caller, to_caller) = tokio::io::split(caller);
        let (from_provider, to_provider) = tokio::io::split(TokioIo::new(provider));
        let (progress, rules) = (Arc::clone(&self.progress), self.rules);
        let messages = CleanMessages::new(self.scrubber.take());
        let mut down = Pump::of_provider((from_provider, to_caller), rules, messages, (&traffic, &progress));
        let caller_rules = FrameRules { masked: true, ..rules };
        let mut up = Pump::of_caller((from_caller, to_provider), caller_rules, &traffic);
        let end = if early.is_empty() {
            self.carry(&mut up, &mut down, &traffic).await
        } else {
            self.record(&traffic, Outcome::Refused, Some(Reason::BadRequest)).await;
            down.close(PROTOCOL_ERROR, "frames came before the handshake was over").await;
            up.close(GOING_AWAY, "").await;
            RelayEnd::Close
        };
        up.end().await;
        if end == RelayEnd::Close {
            down.end().await;
        }
        end
    }

    async fn carry<A, B, C, D>(
        &mut self,
        up: &mut Pump<'_, A, B>,
        down: &mut Pump<'_, C, D>,
        traffic: &Traffic,
    ) -> RelayEnd
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let first = self.first(up, down, traffic).await;
        down.tap(Tap::Closed);
        match first {
            First::Refused(RefusedTurn { reason, limited_by, code, .. }) => {
                if let Some(account) = &mut self.account {
                    account.record.limited_by = limited_by;
                }
                self.record(traffic, Outcome::Refused, Some(reason)).await;
                down.close(code, reason.as_str()).await;
                up.close(GOING_AWAY, "").await;
                RelayEnd::Close
            }
            First::Over(over) => self.over(over, up, down, traffic).await,
            First::Caller(PumpEnd::Withdrawn) | First::Provider(PumpEnd::Withdrawn) => {
                self.over(Over::Withdrawn, up, down, traffic).await
            }
            // The caller closes: the provider's answer to that is the end.
            First::Caller(PumpEnd::Closed) => {
                up.flush_within(CLOSING).await;
                match timeout(CLOSING, down.run(&self.reauthorizer)).await {
                    Ok(PumpEnd::Closed) => self.completed(down, traffic).await,
                    _ => self.failed(Reason::UpstreamReset, traffic).await,
                }
            }
            First::Provider(PumpEnd::Closed) => {
                let end = self.completed(down, traffic).await;
                if let Ok(PumpEnd::Closed) = timeout(CLOSING, up.run(&self.reauthorizer)).await {
                    up.flush_within(CLOSING).await;
                }
                end
            }
            // A provider that has closed takes no more, and what it closed with may not have been read.
            First::Caller(PumpEnd::Unwritable) => {
                match timeout(LAST_WORDS, down.run(&self.reauthorizer)).await {
                    Ok(PumpEnd::Closed) => self.completed(down, traffic).await,
                    _ => self.failed(Reason::UpstreamReset, traffic).await,
                }
            }
            First::Provider(PumpEnd::Ended) => self.failed(Reason::UpstreamReset, traffic).await,
            First::Provider(PumpEnd::Violation(violation)) => {
                let end = self.failed(Reason::UpstreamProtocol, traffic).await;
                up.close(violation.code, violation.why).await;
                end
            }
            First::Caller(PumpEnd::Violation(violation)) => {
                self.record(traffic, Outcome::Refused, Some(Reason::BadRequest)).await;
                down.close(violation.code, violation.why).await;
                up.close(GOING_AWAY, "").await;
                RelayEnd::Close
            }
            First::Caller(PumpEnd::Ended | PumpEnd::Event)
            | First::Provider(PumpEnd::Unwritable | PumpEnd::Event) => {
                self.record(traffic, Outcome::CallerGone, None).await;
                up.close(GOING_AWAY, "").await;
                RelayEnd::Cut
            }
        }
    }

    /// Carries frames until those of one side end, or it may go on no longer.
    async fn first<A, B, C, D>(
        &mut self,
        up: &mut Pump<'_, A, B>,
        down: &mut Pump<'_, C, D>,
        traffic: &Traffic,
    ) -> First
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let reauthorizer = &self.reauthorizer;
        let over = self.watch.over(reauthorizer, traffic);
        match (&mut self.turns, &mut self.account) {
            (Some(turns), Some(account)) => {
                turns.begin(up, down, (account, self.rules.message_bytes));
                tokio::select! {
                    step = turns.run(up, down, (reauthorizer, account)) => match step {
                        RelayStep::Caller(end) => First::Caller(end),
                        RelayStep::Provider(end) => First::Provider(end),
                        RelayStep::Refused(refused) => First::Refused(refused),
                    },
                    over = over => First::Over(over),
                }
            }
            _ => tokio::select! {
                end = up.run(reauthorizer) => First::Caller(end),
                end = down.run(reauthorizer) => First::Provider(end),
                over = over => First::Over(over),
            },
        }
    }

    /// Both sides have closed, or the provider has: its close frame goes out behind the record.
    async fn completed<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        down: &mut Pump<'_, R, W>,
        traffic: &Traffic,
    ) -> RelayEnd {
        if !self.record(traffic, Outcome::Completed, None).await {
            return RelayEnd::Cut;
        }
        down.flush_within(CLOSING).await;
        RelayEnd::Close
    }

    async fn failed(&mut self, reason: Reason, traffic: &Traffic) -> RelayEnd {
        self.record(traffic, Outcome::UpstreamFailed, Some(reason)).await;
        RelayEnd::Cut
    }

    /// It may go on no longer: both sides are told.
    async fn over<A, B, C, D>(
        &mut self,
        over: Over,
        up: &mut Pump<'_, A, B>,
        down: &mut Pump<'_, C, D>,
        traffic: &Traffic,
    ) -> RelayEnd
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let (outcome, reason, (code, words)) = match over {
            Over::Withdrawn => {
                let reason = Reason::Withdrawn;
                (Outcome::Refused, Some(reason), (POLICY_VIOLATION, reason.as_str()))
            }
            Over::ProofEnded(reason) => (Outcome::Refused, Some(reason), (POLICY_VIOLATION, reason.as_str())),
            Over::Draining => {
                (Outcome::Refused, Some(Reason::Drained), (GOING_AWAY, "the gateway goes away"))
            }
            Over::Lifetime => (Outcome::CallerGone, None, (GOING_AWAY, "limits.lifetime is over")),
            Over::Idle => {
                (Outcome::UpstreamFailed, Some(Reason::UpstreamTimeout), (GOING_AWAY, "nothing was sent"))
            }
            Over::Cut => {
                self.record(traffic, Outcome::CallerGone, None).await;
                up.close(GOING_AWAY, "").await;
                return RelayEnd::Cut;
            }
        };
        self.record(traffic, outcome, reason).await;
        down.close(code, words).await;
        up.close(GOING_AWAY, "").await;
        RelayEnd::Close
    }

    /// Closes the account, if that was not done. Whether its record is written.
    async fn record(&mut self, traffic: &Traffic, outcome: Outcome, reason: Option<Reason>) -> bool {
        if let Some(turns) = self.turns.take() {
            turns.end(outcome, reason);
        }
        let Some(mut account) = self.account.take() else { return true };
        (account.record.outcome, account.record.reason) = (outcome, reason);
        (account.record.bytes_in, account.record.bytes_out) = (traffic.up(), traffic.down());
        match account.close(LearntUsage::Plain) {
            Ok(Some(at)) => self.core.journal.written(at).await.is_ok(),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}
