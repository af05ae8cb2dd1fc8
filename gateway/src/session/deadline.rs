//! Whose turn it is on an HTTP/1.1 connection: the caller's, who is to send a request's head, or ours, who answer it.
//!
//! **Invariant:** a head that has begun to come is whole within [`HEAD_LIMIT`], and one begins within [`IDLE_LIMIT`], or the connection
//! ends. A request costs a few stores for this; whoever looks after the connections reads the clock.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

/// Seconds from the first byte of a head to its last, and from the handshake to the first request.
pub(crate) const HEAD_LIMIT: i64 = 30;
/// Seconds that a connection is kept between two requests: longer than the pools of callers keep theirs.
const IDLE_LIMIT: i64 = 300;
/// Seconds without a request after which a connection holds no more than it has to. Whoever asks every few seconds is served from warm buffers.
const PARK_AFTER: i64 = 5;

const OURS: i64 = 0;
/// The caller's, since nobody has looked yet.
const WAITS: i64 = -1;
const COMES: i64 = 1;

/// Until when the head of a request has to come.
#[derive(Debug)]
pub(crate) struct HeaderDeadline {
    /// Beside the words above: the second since which a head comes, or negative, since which none does.
    turn: AtomicI64,
    /// Requests of which not all of the answer is out of our hands: more than one where requests are piped.
    open: AtomicU32,
    /// All that was written has left for the peer.
    is_flushed: AtomicBool,
    /// What has come so far ends where a request does.
    is_between_requests: AtomicBool,
    /// A request came, whatever became of it.
    was_asked: AtomicBool,
}

/// What becomes of a connection on which it is the caller's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// Its head takes too long.
    Head,
    /// It asks for nothing.
    Idle,
    /// It still sends the body of a request whose answer has left.
    Body,
}

impl HeaderDeadline {
    /// Of a connection that was just opened: its first request is due.
    pub(crate) const fn new() -> Self {
        Self {
            turn: AtomicI64::new(COMES),
            open: AtomicU32::new(0),
            is_flushed: AtomicBool::new(true),
            is_between_requests: AtomicBool::new(true),
            was_asked: AtomicBool::new(false),
        }
    }

    /// Bytes came.
    pub(crate) fn on_bytes(&self) {
        if self.turn.load(Ordering::Relaxed) < OURS {
            self.turn.store(COMES, Ordering::Relaxed);
        }
    }

    /// A head is whole.
    pub(crate) fn on_request(&self) {
        // The core alone counts: no other thread writes in between.
        self.open.store(self.open.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.turn.store(OURS, Ordering::Relaxed);
        self.was_asked.store(true, Ordering::Relaxed);
    }

    /// The answer to one request is out of our hands.
    pub(crate) fn on_response(&self) {
        let open = self.open.load(Ordering::Relaxed).saturating_sub(1);
        self.open.store(open, Ordering::Relaxed);
        if open == 0 {
            self.turn.store(WAITS, Ordering::Relaxed);
        }
    }

    /// Whether a request has ever come.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    /// Whether a request is being answered.
    pub(super) fn is_answering(&self) -> bool {
        self.turn.load(Ordering::Relaxed) == OURS
    }

    /// Whether all that was written has left for the peer.
    pub(crate) fn is_flushed(&self) -> bool {
        self.is_flushed.load(Ordering::Relaxed)
    }

    /// Something was written, or all of it has left.
    pub(crate) fn set_flushed(&self, is_flushed: bool) {
        self.is_flushed.store(is_flushed, Ordering::Relaxed);
    }

    /// What has come so far ends where a request does, or inside of one.
    pub(crate) fn set_between_requests(&self, is_between_requests: bool) {
        self.is_between_requests.store(is_between_requests, Ordering::Relaxed);
    }

    /// Whether nothing has come for a while at `now`, in seconds, and nothing is under way in either direction.
    pub(super) fn can_park(&self, now: i64) -> bool {
        let since = self.turn.load(Ordering::Relaxed);
        let is_quiet = self.is_flushed() && self.is_between_requests.load(Ordering::Relaxed);
        since < WAITS && now + since >= PARK_AFTER && is_quiet
    }

    /// Whether the caller is late at `now`, in seconds. To be asked about once a second.
    pub(super) fn late(&self, now: i64) -> Option<Late> {
        match self.turn.load(Ordering::Relaxed) {
            OURS => None,
            WAITS => self.note(-now),
            COMES => self.note(now),
            since if since > OURS => (now - since > HEAD_LIMIT).then_some(Late::Head),
            since => (now + since > IDLE_LIMIT).then_some(Late::Idle),
        }
    }

    /// As if nobody had asked for anything since then.
    #[cfg(test)]
    pub(crate) fn wait_since(&self, second: i64) {
        self.turn.store(-second, Ordering::Relaxed);
    }

    fn note(&self, since: i64) -> Option<Late> {
        self.turn.store(since, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// How many seconds after it was first looked at the caller is late.
    fn late_after(deadline: &HeaderDeadline) -> Option<(i64, Late)> {
        (0..1_000).find_map(|seconds| Some((seconds, deadline.late(NOW + seconds)?)))
    }

    #[test]
    fn the_first_request_is_due_as_soon_as_a_head_that_has_begun() {
        let deadline = HeaderDeadline::new();
        assert_eq!(late_after(&deadline), Some((HEAD_LIMIT + 1, Late::Head)));
        deadline.on_response();
        deadline.on_bytes();
        deadline.on_bytes();
        assert_eq!(late_after(&deadline), Some((HEAD_LIMIT + 1, Late::Head)));
    }

    #[test]
    fn nothing_is_due_while_a_request_is_answered_and_bytes_of_its_body_come() {
        let deadline = HeaderDeadline::new();
        deadline.on_request();
        deadline.on_bytes();
        assert_eq!(late_after(&deadline), None);
    }

    #[test]
    fn a_connection_that_asks_for_nothing_is_kept_longer_than_one_that_has_begun_to_ask() {
        let deadline = HeaderDeadline::new();
        deadline.on_request();
        deadline.on_response();
        assert_eq!(late_after(&deadline), Some((IDLE_LIMIT + 1, Late::Idle)));
        deadline.on_bytes();
        assert_eq!(deadline.late(NOW + 2_000), None, "a head comes");
        assert_eq!(deadline.late(NOW + 2_000 + HEAD_LIMIT + 1), Some(Late::Head));
    }

    #[test]
    fn a_connection_may_be_parked_some_seconds_after_an_answer_of_which_all_has_left() {
        let deadline = HeaderDeadline::new();
        let parked_after = || {
            (0..100)
                .find(|seconds| deadline.late(NOW + seconds).is_none() && deadline.can_park(NOW + seconds))
        };
        assert_eq!(parked_after(), None, "nothing was asked yet");
        deadline.on_request();
        assert_eq!(parked_after(), None);
        deadline.on_response();
        assert_eq!(parked_after(), Some(PARK_AFTER));
        deadline.set_flushed(false);
        assert_eq!(parked_after(), None, "some of the answer waits");
        deadline.set_flushed(true);
        deadline.set_between_requests(false);
        assert_eq!(parked_after(), None, "some of the next request has come");
        deadline.set_between_requests(true);
        deadline.on_bytes();
        assert_eq!(parked_after(), None, "bytes have come");
        deadline.on_request();
        deadline.on_request();
        deadline.on_response();
        assert_eq!(parked_after(), None, "the second of two requests is still answered");
        deadline.on_response();
        assert_eq!(parked_after(), Some(PARK_AFTER));
    }

    #[test]
    fn a_trickle_does_not_begin_a_head_anew() {
        let deadline = HeaderDeadline::new();
        let late = (0..100).find_map(|seconds| {
            deadline.on_bytes();
            Some((seconds, deadline.late(NOW + seconds)?))
        });
        assert_eq!(late, Some((HEAD_LIMIT + 1, Late::Head)));
    }
}
