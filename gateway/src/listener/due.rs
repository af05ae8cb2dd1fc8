//! Whose turn it is on an HTTP/1.1 connection: the caller's, who is to send a request's head, or ours, who answer it.
//!
//! **Invariant:** a head that has begun to come is whole within [`HEAD_LIMIT`], and one begins within [`IDLE_LIMIT`], or the connection
//! ends. A request costs two stores for this; whoever looks after the connections reads the clock.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Seconds from the first byte of a head to its last, and from the handshake to the first request.
const HEAD_LIMIT: i64 = 30;
/// Seconds that a connection is kept between two requests: longer than the pools of callers keep theirs.
const IDLE_LIMIT: i64 = 300;

const OURS: i64 = 0;
/// The caller's, since nobody has looked yet.
const WAITS: i64 = -1;
const COMES: i64 = 1;

#[derive(Debug)]
pub(crate) struct Due {
    /// Beside the words above: the second since which a head comes, or negative, since which none does.
    turn: AtomicI64,
    /// Bytes of ours wait for the peer to take those before them.
    write_waits: AtomicBool,
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

impl Due {
    /// Of a connection that was just opened: its first request is due.
    pub(super) const fn new() -> Self {
        Self { turn: AtomicI64::new(COMES), write_waits: AtomicBool::new(false) }
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        if self.turn.load(Ordering::Relaxed) < OURS {
            self.turn.store(COMES, Ordering::Relaxed);
        }
    }

    /// A head is whole.
    pub(super) fn taken(&self) {
        self.turn.store(OURS, Ordering::Relaxed);
    }

    /// The answer is out of our hands.
    pub(crate) fn over(&self) {
        self.turn.store(WAITS, Ordering::Relaxed);
    }

    /// Whether a request is being answered.
    pub(super) fn is_ours(&self) -> bool {
        self.turn.load(Ordering::Relaxed) == OURS
    }

    /// Whether all that was written has left for the peer.
    pub(super) fn is_flushed(&self) -> bool {
        !self.write_waits.load(Ordering::Relaxed)
    }

    /// Bytes wait, or wait no longer.
    pub(super) fn write_waits(&self, waits: bool) {
        self.write_waits.store(waits, Ordering::Relaxed);
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
    fn late_after(due: &Due) -> Option<(i64, Late)> {
        (0..1_000).find_map(|seconds| Some((seconds, due.late(NOW + seconds)?)))
    }

    #[test]
    fn the_first_request_is_due_as_soon_as_a_head_that_has_begun() {
        let due = Due::new();
        assert_eq!(late_after(&due), Some((HEAD_LIMIT + 1, Late::Head)));
        due.over();
        due.heard();
        due.heard();
        assert_eq!(late_after(&due), Some((HEAD_LIMIT + 1, Late::Head)));
    }

    #[test]
    fn nothing_is_due_while_a_request_is_answered_and_bytes_of_its_body_come() {
        let due = Due::new();
        due.taken();
        due.heard();
        assert_eq!(late_after(&due), None);
    }

    #[test]
    fn a_connection_that_asks_for_nothing_is_kept_longer_than_one_that_has_begun_to_ask() {
        let due = Due::new();
        due.taken();
        due.over();
        assert_eq!(late_after(&due), Some((IDLE_LIMIT + 1, Late::Idle)));
        due.heard();
        assert_eq!(due.late(NOW + 2_000), None, "a head comes");
        assert_eq!(due.late(NOW + 2_000 + HEAD_LIMIT + 1), Some(Late::Head));
    }

    #[test]
    fn a_trickle_does_not_begin_a_head_anew() {
        let due = Due::new();
        let late = (0..100).find_map(|seconds| {
            due.heard();
            Some((seconds, due.late(NOW + seconds)?))
        });
        assert_eq!(late, Some((HEAD_LIMIT + 1, Late::Head)));
    }
}
