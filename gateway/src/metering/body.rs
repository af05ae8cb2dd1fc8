//! The answer on its way to the caller, with its usage read off as it passes.
//!
//! **Invariant:** the end of the answer (its terminal event, the last frame of a known length, or the end of the stream) leaves only when the
//! record is written. The meter reads what the provider sent, the caller what the scrubber leaves of it. What the caller no longer wants is
//! drained for its usage, within bounds, keeping hold and place.

mod drain;
mod search_quantum;
mod source;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, response};
use http_body::{Body, Frame, SizeHint};
use tollgate_policy::denial::Reason;

use self::search_quantum::SearchQuantum;
use self::source::AnswerSource;
use super::account::Account;
use super::answered::Answered;
use super::inspected_body;
use super::usage::{Announced, Output, UsageReader};
use crate::core::Core;
use crate::fault::{Faults, Stage};
use crate::identity::CallProof;
use crate::in_place::boxed;
use crate::injection::{self, Messages, Scrubber, Seen};
use crate::key_health::SelectedKey;
use crate::ledger::{Outcome, Wait};
use crate::session::{Session, WriteProgress};
use crate::upstream::{BodyError, Stall};

/// The provider's body and the account it is charged to.
#[derive(Debug)]
pub(crate) struct MeteredBody {
    source: AnswerSource,
    output: Output,
    /// Stands between the output and the caller.
    scrubber: Option<Scrubber>,
    messages: Option<Messages>,
    turn: SearchQuantum,
    seen: Seen,
    stall: Stall,
    state: AnswerState,
    /// Under which policy the stream was last found to be permitted.
    generation: u64,
    core: Arc<Core>,
    session: Arc<Session>,
    /// Of the call, for what is to be masked in trailers.
    key: Option<SelectedKey>,
    /// The last of an answer, as the caller may see them.
    trailers: Option<HeaderMap>,
    /// How it broke off, for the caller to see behind what came before.
    broken: Option<BodyError>,
    /// What came before it broke off had its chance to leave.
    is_flushed: bool,
    faults: Faults,
    /// The token that the call was made with.
    proof: Option<Box<CallProof>>,
    /// Of an answer that outlasts its head.
    progress: Option<Arc<WriteProgress>>,
}

#[derive(Debug)]
enum AnswerState {
    Passing,
    /// The record is being written; `end`: nothing comes after what is held.
    Recording {
        wait: Option<Wait>,
        end: bool,
    },
    /// The answer is complete and recorded; what still comes is passed on.
    Tail,
    Done,
}

impl MeteredBody {
    /// The body of an answer, and its head for the caller.
    pub(super) fn new(
        account: Box<Account>,
        answered: Box<Answered>,
        core: Arc<Core>,
        session: Arc<Session>,
    ) -> (response::Parts, Box<Self>) {
        let Answered { head, body: incoming, lease, call, key, scrubber, faults, proof, .. } = *answered;
        let label = head.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let announced = Announced::of(label, call.facts.stream);
        let metered = call.metered();
        let billed = head.status.is_success();
        let reader = metered.filter(|_| billed);
        let reader = reader.map(|e| boxed(|| UsageReader::new(e, announced, call.hides_usage)));
        let destination = call.permit.destination();
        let total = destination.http().and_then(|http| http.total);
        let stall = Stall::until(destination.timeouts.idle, account.deadline(total));
        let generation = account.record.generation;
        let messages = scrubber.as_ref().and_then(|_| Messages::of(label));
        let seen = if scrubber.is_some() { Seen::NotYet } else { Seen::Unchanged };
        let source = AnswerSource {
            incoming: Some(incoming),
            reader,
            lease: Some(lease),
            call,
            account: Some(account),
            billed,
            drained: false,
        };
        let body = boxed(|| Self {
            source,
            output: Output::default(),
            scrubber,
            messages,
            turn: SearchQuantum::new(),
            seen,
            stall,
            state: AnswerState::Passing,
            generation,
            core,
            session,
            key,
            trailers: None,
            broken: None,
            is_flushed: false,
            faults,
            proof,
            progress: None,
        });
        (head, body)
    }

    /// Takes what is there already. An answer that is there whole is recorded before its head leaves, so that both go out in one write.
    pub(super) async fn settle(&mut self) {
        std::future::poll_fn(|cx| {
            while matches!(self.state, AnswerState::Passing) && self.broken.is_none() {
                if self.is_withdrawn() {
                    self.failed(BodyError::Revoked, Reason::NoGrant);
                } else if self.poll_source(cx).is_pending() {
                    return Poll::Ready(());
                }
            }
            ready!(self.poll_record(cx));
            Poll::Ready(())
        })
        .await;
        if self.scrubber.is_some() && matches!(self.state, AnswerState::Done) && self.broken.is_none() {
            let mut clean = VecDeque::with_capacity(self.output.ready.len() + 1);
            while let Some(bytes) = self.next_piece() {
                clean.push_back(bytes);
                if self.turn.is_over() {
                    tokio::task::yield_now().await;
                }
            }
            self.output.ready = clean;
            self.seen = if self.scrubber.take().is_some_and(|scrubber| scrubber.changed()) {
                Seen::Changed
            } else {
                Seen::Unchanged
            };
        }
    }

    /// What is known of the body before its head leaves.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// The next bytes for the caller, of those that may go.
    fn next_piece(&mut self) -> Option<Bytes> {
        let Some(scrubber) = &mut self.scrubber else { return self.output.ready.pop_front() };
        loop {
            if let Some(bytes) = scrubber.pop() {
                return Some(bytes);
            }
            let is_done = matches!(self.state, AnswerState::Done);
            match self.output.ready.pop_front() {
                Some(mut bytes) => {
                    let most = self.turn.piece();
                    if bytes.len() > most {
                        self.output.ready.push_front(bytes.split_off(most));
                    }
                    let message_ends = self.messages.as_mut().is_some_and(|m| m.end_with(&bytes));
                    let last = message_ends || (is_done && self.output.ready.is_empty());
                    self.turn.count(bytes.len(), || scrubber.feed(bytes, last));
                }
                None if is_done && scrubber.waiting() > 0 => scrubber.finish(),
                None => return None,
            }
        }
    }

    /// Whether its record is written.
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.state, AnswerState::Tail | AnswerState::Done)
    }

    /// The answer outlasts its head: from now on its caller is watched.
    pub(super) fn watch(&mut self) {
        // What is over holds nothing that others share. Over HTTP/1 the limit of the socket is enough for it.
        if matches!(self.state, AnswerState::Done) && !self.session.http2 {
            return;
        }
        let is_shared = inspected_body::holds_shared(&self.source.call.permit);
        let least = is_shared.then(|| self.core.shared.limits.min_rate());
        self.progress = Some(self.session.write_progress(least));
    }

    /// Waits for the record, if it is being written, and lets go what waited for it.
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let AnswerState::Recording { wait, end } = &mut self.state else { return Poll::Ready(()) };
        let journal = &self.core.journal;
        let written = match wait {
            Some(wait) => ready!(journal.poll_written(wait, cx)).is_ok(),
            None => false,
        };
        if written {
            self.state = if *end { AnswerState::Done } else { AnswerState::Tail };
            self.output.release();
        } else {
            self.state = AnswerState::Done;
            self.output = Output::default();
            self.scrubber = None;
            self.trailers = None;
            self.broken = Some(BodyError::Ledger);
        }
        Poll::Ready(())
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.faults.at(Stage::Body);
        let Some(incoming) = &mut self.source.incoming else { return Poll::Ready(()) };
        if self.stall.is_over() {
            self.failed(BodyError::Overlong, Reason::UpstreamTimeout);
            return Poll::Ready(());
        }
        let Poll::Ready(next) = Pin::new(incoming).poll_frame(cx) else {
            ready!(self.stall.poll(cx));
            let error = if self.stall.is_over() { BodyError::Overlong } else { BodyError::Stalled };
            self.failed(error, Reason::UpstreamTimeout);
            return Poll::Ready(());
        };
        self.stall.progress();
        match next {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) => self.take(chunk),
                Err(frame) => self.take_trailers(frame),
            },
            Some(Err(error)) => self.failed(error.into(), Reason::UpstreamReset),
            None => self.end(),
        }
        Poll::Ready(())
    }

    fn take_trailers(&mut self, frame: Frame<Bytes>) {
        let Ok(mut trailers) = frame.into_trailers() else { return };
        let prepared = &self.core.prepared;
        let cleaned =
            injection::answer_trailers(&mut trailers, &self.source.call.permit, self.key.as_ref(), prepared)
                .is_ok();
        self.trailers = Some(trailers).filter(|trailers| cleaned && !trailers.is_empty());
        if self.source.incoming.as_ref().is_some_and(Body::is_end_stream) {
            self.end();
        }
    }

    fn take(&mut self, chunk: Bytes) {
        let ended = self.source.incoming.as_ref().is_some_and(Body::is_end_stream);
        self.source.feed(chunk, &mut self.output);
        if !matches!(self.state, AnswerState::Passing) {
            return;
        }
        if ended {
            self.end();
        } else if self.output.complete {
            let reading = self.source.reader.as_ref().map(|reader| reader.reading());
            let wait = self.source.record(reading, Outcome::Completed, None, self.waiting());
            self.state = AnswerState::Recording { wait, end: false };
        }
    }

    /// Nothing more comes.
    fn end(&mut self) {
        self.source.incoming = None;
        if let Some(lease) = self.source.lease.take() {
            lease.finish();
        }
        if !matches!(self.state, AnswerState::Passing) {
            self.output.release();
            self.state = AnswerState::Done;
            return;
        }
        let reading = self.source.reader.take().map(|mut reader| reader.finish(&mut self.output));
        // The last frame is what tells the caller that the answer is complete.
        self.output.hold();
        let wait = self.source.record(reading, Outcome::Completed, None, self.waiting());
        self.state = AnswerState::Recording { wait, end: true };
    }

    /// Bytes that were taken from the provider and are still to go to the caller.
    fn waiting(&self) -> u64 {
        waiting(&self.output) + self.unscrubbed()
    }

    fn unscrubbed(&self) -> u64 {
        self.scrubber.as_ref().map_or(0, |scrubber| scrubber.waiting() as u64)
    }

    /// Closes the account of an answer that breaks off. What came before goes out, and then `error` ends it.
    fn failed(&mut self, error: BodyError, reason: Reason) {
        self.state = AnswerState::Done;
        if let Some(scrubber) = &mut self.scrubber {
            scrubber.cut();
        }
        self.source.incoming = None;
        self.source.lease = None;
        let is_ours = matches!(error, BodyError::Revoked | BodyError::ProofEnded);
        let outcome = if is_ours { Outcome::Refused } else { Outcome::UpstreamFailed };
        let reading = self.source.reader.take().map(|mut reader| reader.finish(&mut Output::default()));
        let waiting = self.output.ready.iter().map(|bytes| bytes.len() as u64).sum();
        self.source.record(reading, outcome, Some(reason), waiting);
        self.broken = Some(error);
    }

    /// A new policy may have withdrawn what this stream runs under.
    fn is_withdrawn(&mut self) -> bool {
        let snapshots = &self.core.shared.snapshots;
        if snapshots.generation() == self.generation {
            return false;
        }
        let Some(snapshot) = snapshots.current() else { return false };
        self.generation = snapshot.generation;
        let call = &self.source.call;
        let grants = self.session.proofs.grants(call.permit.caller(), &snapshot);
        !snapshot.policy.reauthorize(&grants, &call.permit, call.model())
    }
}

fn waiting(output: &Output) -> u64 {
    output.ready.iter().chain(&output.held).map(|bytes| bytes.len() as u64).sum()
}

impl Body for MeteredBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        // `yield_now` wakes this task after the other work of the core, a plain wake would do so before. What was searched leaves in one write.
        let has_clean = this.scrubber.as_ref().is_some_and(Scrubber::has_clean);
        if !has_clean && this.turn.is_over() && pin!(tokio::task::yield_now()).poll(cx).is_pending() {
            return Poll::Pending;
        }
        loop {
            if let Some(bytes) = this.next_piece() {
                if let Some(account) = &mut this.source.account {
                    account.record.bytes_out += bytes.len() as u64;
                }
                if let Some(progress) = &this.progress {
                    progress.handed(bytes.len());
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.broken.is_some() && !this.is_flushed {
                // An error ends the connection with what its buffer holds: what came before is let go first.
                this.is_flushed = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(error) = this.broken.take() {
                return Poll::Ready(Some(Err(error)));
            }
            match this.state {
                AnswerState::Done => {
                    return Poll::Ready(this.trailers.take().map(|last| Ok(Frame::trailers(last))));
                }
                AnswerState::Recording { .. } => ready!(this.poll_record(cx)),
                AnswerState::Passing | AnswerState::Tail => {
                    if this.is_withdrawn() {
                        this.failed(BodyError::Revoked, Reason::Withdrawn);
                        continue;
                    }
                    let issuers = this.core.shared.trust.tokens();
                    let over = this.proof.as_mut().map(|proof| proof.poll(issuers, cx));
                    if let Some(Poll::Ready(denial)) = over {
                        this.proof = None;
                        this.failed(BodyError::ProofEnded, denial.reason);
                        continue;
                    }
                    if let Some(progress) = &this.progress {
                        progress.waits();
                    }
                    ready!(this.poll_source(cx));
                    if matches!(this.state, AnswerState::Tail) {
                        this.output.release();
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, AnswerState::Done)
            && self.output.ready.is_empty()
            && self.broken.is_none()
            && self.trailers.is_none()
            && self.unscrubbed() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.broken.is_some() {
            // Whatever length the head names is not kept.
            return SizeHint::default();
        }
        match &self.source.incoming {
            // Asked before the first frame, or once everything is here.
            Some(incoming)
                if !self.source.call.hides_usage
                    && self.output.ready.is_empty()
                    && self.unscrubbed() == 0 =>
            {
                incoming.size_hint()
            }
            None if matches!(self.state, AnswerState::Done) => {
                SizeHint::with_exact(waiting(&self.output) + self.unscrubbed())
            }
            _ => SizeHint::default(),
        }
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        self.session.deadline.on_response();
        if matches!(self.state, AnswerState::Passing) {
            drain::left(self);
        }
    }
}
