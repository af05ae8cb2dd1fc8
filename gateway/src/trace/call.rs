//! What is noted of a call for its trace, beside its record.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, StatusCode};
use tollgate_policy::denial::Reason;

use super::context::{Parent, SpanId, TRACEPARENT, TRACESTATE, TraceId, traceparent};

/// More attempts than any call makes; further ones are not noted.
const ATTEMPTS: usize = 32;

/// How a call is traced.
#[derive(Debug, Default)]
pub(crate) enum CallTrace {
    /// Not at all.
    #[default]
    Absent,
    /// It belongs to a trace of its caller's, and is not recorded here.
    Passed(Box<Parent>),
    /// It becomes spans.
    Recorded(Box<RecordedCall>),
}

/// What becomes the spans of a call.
#[derive(Debug)]
pub(crate) struct RecordedCall {
    trace: TraceId,
    span: SpanId,
    parent: Option<Parent>,
    started: Instant,
    attempts: Vec<AttemptTrace>,
}

/// One attempt. Times are microseconds since the call began.
#[derive(Debug)]
pub(crate) struct AttemptTrace {
    pub(crate) span: SpanId,
    pub(crate) begun: u64,
    /// Where it had a connection.
    pub(crate) connection: Option<AttemptConnection>,
    /// When the connection was asked for, TCP and TLS: where it was a new one.
    pub(crate) dialled: Option<u64>,
    pub(crate) secured: Option<u64>,
    /// When the request was put on the connection.
    pub(crate) sent: Option<u64>,
    pub(crate) first_byte: Option<u64>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) reason: Option<Reason>,
    pub(crate) ended: Option<u64>,
}

/// Which connection an attempt had.
#[derive(Debug)]
pub(crate) struct AttemptConnection {
    pub(crate) peer: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) is_http2: bool,
}

/// When a new connection was there, and when it was safe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) dialled: Instant,
    pub(crate) secured: Instant,
}

impl AttemptConnection {
    pub(crate) const fn of(peer: Arc<str>, source: Arc<str>, is_http2: bool) -> Self {
        Self { peer, source, is_http2 }
    }
}

impl CallTrace {
    pub(super) fn recorded(trace: TraceId, span: SpanId, parent: Option<Parent>) -> Self {
        let (started, attempts) = (Instant::now(), Vec::new());
        Self::Recorded(Box::new(RecordedCall { trace, span, parent, started, attempts }))
    }

    /// The trace that the call belongs to.
    pub(crate) fn id(&self) -> Option<TraceId> {
        match self {
            Self::Absent => None,
            Self::Passed(parent) => Some(parent.trace),
            Self::Recorded(call) => Some(call.trace),
        }
    }

    /// Puts the context on a request that leaves: that of the attempt where it is recorded, else the caller's as it came.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        let (parent, written) = match self {
            Self::Absent => return,
            Self::Passed(parent) => (Some(&**parent), Some(parent.written.clone())),
            Self::Recorded(call) => {
                let span = call.attempts.last().map_or(call.span, |attempt| attempt.span);
                (call.parent.as_ref(), traceparent(call.trace, span))
            }
        };
        if let Some(written) = written {
            headers.insert(TRACEPARENT, written);
            let state: &[HeaderValue] = parent.map_or(&[], |parent| &parent.state);
            for state in state {
                headers.append(TRACESTATE, state.clone());
            }
        }
    }

    /// An attempt begins: a connection is looked for.
    pub(crate) fn begin_attempt(&mut self) {
        if let Self::Recorded(call) = self
            && call.attempts.len() < ATTEMPTS
        {
            let begun = call.now();
            call.end_attempt(begun);
            call.attempts.push(AttemptTrace {
                span: SpanId::new(),
                begun,
                connection: None,
                dialled: None,
                secured: None,
                sent: None,
                first_byte: None,
                status: None,
                reason: None,
                ended: None,
            });
        }
    }

    /// The attempt has a connection, which is new where `opened` is there.
    pub(crate) fn connected(
        &mut self,
        connection: impl FnOnce() -> AttemptConnection,
        opened: Option<Opened>,
    ) {
        self.note(|attempt, call| {
            attempt.connection = Some(connection());
            attempt.dialled = opened.map(|opened| call.micros(opened.dialled));
            attempt.secured = opened.map(|opened| call.micros(opened.secured));
            attempt.sent = Some(call.micros(Instant::now()));
        });
    }

    /// The attempt has the head of an answer.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.note(|attempt, call| {
            attempt.first_byte = Some(call.micros(Instant::now()));
            attempt.status = Some(status);
        });
    }

    /// The attempt has failed.
    pub(crate) fn failed(&mut self, reason: Reason) {
        self.note(|attempt, call| {
            attempt.reason = Some(reason);
            attempt.ended = Some(call.micros(Instant::now()));
        });
    }

    fn note(&mut self, note: impl FnOnce(&mut AttemptTrace, Clock)) {
        if let Self::Recorded(call) = self {
            let clock = Clock(call.started);
            if let Some(attempt) = call.attempts.last_mut() {
                note(attempt, clock);
            }
        }
    }
}

/// What times are counted from.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn micros(self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0).as_micros()).unwrap_or(u64::MAX)
    }
}

impl RecordedCall {
    pub(crate) const fn trace(&self) -> TraceId {
        self.trace
    }

    /// Of the whole call.
    pub(crate) const fn span(&self) -> SpanId {
        self.span
    }

    /// The caller's span that it belongs to.
    pub(crate) fn parent(&self) -> Option<SpanId> {
        self.parent.as_ref().map(|parent| parent.span)
    }

    pub(crate) fn attempts(&self) -> &[AttemptTrace] {
        &self.attempts
    }

    fn now(&self) -> u64 {
        Clock(self.started).micros(Instant::now())
    }

    /// The attempt before is over where another one begins.
    fn end_attempt(&mut self, now: u64) {
        if let Some(last) = self.attempts.last_mut() {
            last.ended.get_or_insert(now);
        }
    }
}
