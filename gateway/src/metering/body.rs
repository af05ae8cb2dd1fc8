//! The answer on its way to the caller, with its usage read off as it passes.
//!
//! **Invariant:** the end of the answer (its terminal event, the last frame of a known length, or the end of the stream) leaves only when the
//! record is written. The meter reads what the provider sent, the caller what the scrubber leaves of it. What the caller no longer wants is
//! drained for its usage, within bounds, keeping hold and place.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::Reason;

use super::meter::{Meter, Usage};
use super::usage::{Output, Reading, UsageReader};
use super::{asked, estimate};
use crate::attempt::Answered;
use crate::drain::{Drained, Phase};
use crate::fault::{Faults, Stage};
use crate::injection::{Scrubber, Seen};
use crate::ledger::{Outcome, Wait};
use crate::listener::{Connection, Pulse};
use crate::load::Share;
use crate::upstream::{AnswerBody, BodyError, Lease, Stall};

/// What a drain may take after its caller has gone.
const DRAIN_TIME: Duration = Duration::from_secs(120);
const DRAIN_BYTES: u64 = 64 << 20;
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// The provider's body and the account it is charged to.
#[derive(Debug)]
pub(crate) struct MeteredBody {
    source: Source,
    output: Output,
    /// Stands between the output and the caller.
    scrubber: Option<Scrubber>,
    seen: Seen,
    stall: Stall,
    state: State,
    /// Under which policy the stream was last found to be permitted.
    generation: u64,
    permit: Permit,
    connection: Arc<Connection>,
    /// What `settle` met, for the caller to see where it would have.
    broken: Option<BodyError>,
    faults: Faults,
    /// Of an answer that outlasts its head.
    pulse: Option<Arc<Pulse>>,
}

/// The part that a drain takes over.
#[derive(Debug)]
struct Source {
    incoming: Option<AnswerBody>,
    reader: Option<UsageReader>,
    lease: Option<Lease>,
    meter: Box<Meter>,
    billed: bool,
    /// The caller has gone.
    drained: bool,
}

#[derive(Debug)]
enum State {
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
        meter: Box<Meter>,
        answered: Box<Answered>,
        connection: Arc<Connection>,
    ) -> (response::Parts, Box<Self>) {
        let Answered { head, body: incoming, lease, permit, scrubber, faults, .. } = *answered;
        let event_stream = head
            .headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|kind| kind.as_bytes().get(..EVENT_STREAM.len()))
            .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM));
        let metered = meter.endpoint.as_ref().filter(|endpoint| endpoint.metered);
        let billed = head.status.is_success();
        let reader = metered.filter(|_| billed).map(|e| UsageReader::new(e, event_stream, meter.hides_usage));
        let stall = Stall::new(permit.destination().timeouts.idle);
        let generation = meter.record.generation;
        let seen = if scrubber.is_some() { Seen::NotYet } else { Seen::Unchanged };
        let source =
            Source { incoming: Some(incoming), reader, lease: Some(lease), meter, billed, drained: false };
        let body = Box::new(Self {
            source,
            output: Output::default(),
            scrubber,
            seen,
            stall,
            state: State::Passing,
            generation,
            permit,
            connection,
            broken: None,
            faults,
            pulse: None,
        });
        (head, body)
    }

    /// Takes what is there already. An answer that is there whole is recorded before its head leaves, so that both go out in one write.
    pub(super) async fn settle(&mut self) {
        std::future::poll_fn(|cx| {
            while matches!(self.state, State::Passing) && self.broken.is_none() {
                if self.is_withdrawn() {
                    self.broken = Some(self.failed(BodyError::Revoked, Reason::NoGrant));
                    break;
                }
                match self.poll_source(cx) {
                    Poll::Ready(done) => self.broken = done.err(),
                    Poll::Pending => return Poll::Ready(()),
                }
            }
            ready!(self.poll_record(cx));
            Poll::Ready(())
        })
        .await;
        if self.scrubber.is_some() && matches!(self.state, State::Done) && self.broken.is_none() {
            let clean: VecDeque<Bytes> = std::iter::from_fn(|| self.next_piece()).collect();
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
            let is_done = matches!(self.state, State::Done);
            match self.output.ready.pop_front() {
                Some(bytes) => scrubber.feed(bytes, is_done && self.output.ready.is_empty()),
                None if is_done && scrubber.waiting() > 0 => scrubber.finish(),
                None => return None,
            }
        }
    }

    /// The answer outlasts its head: from now on its caller is watched.
    pub(super) fn watch(&mut self) {
        self.pulse = Some(self.connection.pulse(asked::holds_shared(self.permit.grant())));
    }

    /// Waits for the record, if it is being written, and lets go what waited for it.
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Recording { wait, end } = &mut self.state else { return Poll::Ready(()) };
        let journal = &self.source.meter.core.journal;
        let written = match wait {
            Some(wait) => ready!(journal.poll_written(wait, cx)).is_ok(),
            None => false,
        };
        if written {
            self.state = if *end { State::Done } else { State::Tail };
            self.output.release();
        } else {
            self.state = State::Done;
            self.output = Output::default();
            self.scrubber = None;
            self.broken = Some(BodyError::Ledger);
        }
        Poll::Ready(())
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.faults.at(Stage::Body);
        let Some(incoming) = &mut self.source.incoming else { return Poll::Ready(Ok(())) };
        let Poll::Ready(next) = Pin::new(incoming).poll_frame(cx) else {
            ready!(self.stall.poll(cx));
            return Poll::Ready(Err(self.failed(BodyError::Stalled, Reason::UpstreamTimeout)));
        };
        self.stall.progress();
        match next {
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    self.take(chunk);
                }
                Poll::Ready(Ok(()))
            }
            Some(Err(error)) => Poll::Ready(Err(self.failed(error.into(), Reason::UpstreamReset))),
            None => {
                self.end();
                Poll::Ready(Ok(()))
            }
        }
    }

    fn take(&mut self, chunk: Bytes) {
        let ended = self.source.incoming.as_ref().is_some_and(Body::is_end_stream);
        self.source.feed(chunk, &mut self.output);
        if !matches!(self.state, State::Passing) {
            return;
        }
        if ended {
            self.end();
        } else if self.output.complete {
            let reading = self.source.reader.as_ref().map(UsageReader::reading);
            let wait = self.source.record(reading, Outcome::Completed, self.waiting());
            self.state = State::Recording { wait, end: false };
        }
    }

    /// Nothing more comes.
    fn end(&mut self) {
        self.source.incoming = None;
        if let Some(lease) = self.source.lease.take() {
            lease.finish();
        }
        if !matches!(self.state, State::Passing) {
            self.output.release();
            self.state = State::Done;
            return;
        }
        let reading = self.source.reader.take().map(|reader| reader.finish(&mut self.output));
        // The last frame is what tells the caller that the answer is complete.
        self.output.hold();
        let wait = self.source.record(reading, Outcome::Completed, self.waiting());
        self.state = State::Recording { wait, end: true };
    }

    /// Bytes that were taken from the provider and are still to go to the caller.
    fn waiting(&self) -> u64 {
        waiting(&self.output) + self.unscrubbed()
    }

    fn unscrubbed(&self) -> u64 {
        self.scrubber.as_ref().map_or(0, |scrubber| scrubber.waiting() as u64)
    }

    fn failed(&mut self, error: BodyError, reason: Reason) -> BodyError {
        self.state = State::Done;
        if let Some(scrubber) = &mut self.scrubber {
            scrubber.cut();
        }
        self.source.incoming = None;
        self.source.lease = None;
        self.source.meter.record.reason = Some(reason);
        let outcome = if reason == Reason::NoGrant { Outcome::Refused } else { Outcome::UpstreamFailed };
        let reading = self.source.reader.take().map(|reader| reader.finish(&mut Output::default()));
        self.source.record(reading, outcome, 0);
        error
    }

    /// A new policy may have withdrawn what this stream runs under.
    fn is_withdrawn(&mut self) -> bool {
        let snapshots = &self.connection.core.shared.snapshots;
        if snapshots.generation() == self.generation {
            return false;
        }
        let Some(snapshot) = snapshots.current() else { return false };
        self.generation = snapshot.generation;
        let grants = self.connection.grants(&snapshot);
        let model = self.source.meter.model();
        !snapshot.policy.reauthorise(&grants, &self.permit, model)
    }
}

impl Source {
    fn feed(&mut self, chunk: Bytes, output: &mut Output) {
        match &mut self.reader {
            Some(reader) => reader.feed(chunk, output),
            None => output.ready.push_back(chunk),
        }
    }

    /// Closes the account. `None`: the journal took nothing, which only a strict caller could mind.
    /// `waiting` bytes are still to go out.
    fn record(&mut self, reading: Option<Reading>, outcome: Outcome, waiting: u64) -> Option<Wait> {
        self.meter.record.outcome = outcome;
        self.meter.record.bytes_out += waiting;
        let usage = self.usage(reading);
        self.meter.close(usage).ok().flatten().map(Wait::new)
    }

    fn usage(&self, reading: Option<Reading>) -> Usage {
        if self.meter.endpoint.as_ref().is_none_or(|endpoint| !endpoint.metered) {
            return Usage::Plain;
        }
        if !self.billed {
            return Usage::Unbilled;
        }
        let reading = reading.unwrap_or_default();
        match reading.units {
            Some(units) => {
                Usage::Reported { units, model: reading.model, tier: reading.tier, drained: self.drained }
            }
            None => Usage::Unknown { units: estimate::estimate(&self.meter.facts, &reading) },
        }
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
        loop {
            if let Some(bytes) = this.next_piece() {
                this.source.meter.record.bytes_out += bytes.len() as u64;
                if let Some(pulse) = &this.pulse {
                    pulse.handed(bytes.len());
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if let Some(error) = this.broken.take() {
                return Poll::Ready(Some(Err(error)));
            }
            match this.state {
                State::Done => return Poll::Ready(None),
                State::Recording { .. } => ready!(this.poll_record(cx)),
                State::Passing | State::Tail => {
                    if this.is_withdrawn() {
                        let error = this.failed(BodyError::Revoked, Reason::NoGrant);
                        return Poll::Ready(Some(Err(error)));
                    }
                    if let Some(pulse) = &this.pulse {
                        pulse.waits();
                    }
                    if let Err(error) = ready!(this.poll_source(cx)) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    if matches!(this.state, State::Tail) {
                        this.output.release();
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
            && self.output.ready.is_empty()
            && self.broken.is_none()
            && self.unscrubbed() == 0
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source.incoming {
            // Asked before the first frame, or once everything is here.
            Some(incoming)
                if !self.source.meter.hides_usage
                    && self.output.ready.is_empty()
                    && self.unscrubbed() == 0 =>
            {
                incoming.size_hint()
            }
            None if matches!(self.state, State::Done) => {
                SizeHint::with_exact(waiting(&self.output) + self.unscrubbed())
            }
            _ => SizeHint::default(),
        }
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        self.connection.due.over();
        if !matches!(self.state, State::Passing) {
            return;
        }
        let core = &self.connection.core;
        let drained = core.shared.drain.watch();
        let share = self.source.meter.load.as_ref().and_then(|load| load.drain());
        let worth_it = self.source.reader.is_some() && core.shared.drain.phase() < Phase::Cutting;
        let (Some(incoming), Some(share), true) = (self.source.incoming.take(), share, worth_it) else {
            let reading = self.source.reader.take().map(|reader| reader.finish(&mut Output::default()));
            self.source.record(reading, Outcome::CallerGone, 0);
            return;
        };
        let meter = self.source.meter.hand_over();
        let source = Source {
            incoming: None,
            reader: self.source.reader.take(),
            lease: self.source.lease.take(),
            meter,
            billed: self.source.billed,
            drained: false,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(drain(incoming, source, share, drained));
        }
    }
}

/// Reads on for the usage alone.
async fn drain(mut incoming: AnswerBody, mut source: Source, _share: Share, mut drained: Drained) {
    let mut output = Output::default();
    let mut left = DRAIN_BYTES;
    let read = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            let Ok(chunk) = frame.into_data() else { continue };
            left = left.saturating_sub(chunk.len() as u64);
            source.feed(chunk, &mut output);
            output.ready.clear();
            if output.complete || left == 0 {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(DRAIN_TIME, read) => {}
        () = drained.reached(Phase::Cutting) => {}
    }
    let reading = source.reader.take().map(|reader| reader.finish(&mut output));
    source.drained = true;
    source.record(reading, Outcome::CallerGone, 0);
}
