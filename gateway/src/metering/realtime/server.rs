//! Events of the provider, read as they pass: which they are, and what they tell of a turn.
//!
//! **Invariant:** no event is held but the last piece of one that decides something; sound passes as it comes.

use std::sync::Arc;

use tollgate_policy::dialect::{Endpoint, Reading, ResponseRules, SessionRules};

use crate::metering::scan::{Scanner, Slots};
use crate::websocket::{FramePiece, Opcode};

/// An event that decides something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::metering) enum SessionEvent {
    /// A turn has begun.
    Began,
    /// A turn is over.
    Over,
    Error,
    /// Something was billed beside the turns.
    Beside,
    /// The speaker has come to an end.
    Heard,
    /// Now a turn would start.
    Starts,
}

/// Reads events.
#[derive(Debug)]
pub(in crate::metering) struct ServerReader {
    response: Arc<ResponseRules>,
    rules: Arc<SessionRules>,
    scanner: Scanner,
    slots: Slots,
    is_text: bool,
    /// A message has begun, and has not ended.
    is_within: bool,
}

impl ServerReader {
    pub(in crate::metering) fn new(endpoint: &Endpoint, rules: &Arc<SessionRules>) -> Self {
        let response = Arc::clone(&endpoint.response);
        let slots = Slots::new(&reading(&response).tree);
        let rules = Arc::clone(rules);
        Self { response, rules, scanner: Scanner::new(), slots, is_text: false, is_within: false }
    }

    /// Reads a piece. What the event decides is told with its last one.
    pub(in crate::metering) fn read(&mut self, piece: &FramePiece) -> Option<SessionEvent> {
        if piece.opcode.is_control() {
            return None;
        }
        if piece.opcode != Opcode::Continuation {
            self.is_text = piece.opcode == Opcode::Text;
            self.scanner.reset();
            self.slots.next_event();
        }
        self.is_within = !piece.last;
        if self.is_text {
            self.scanner.scan(&reading(&self.response).tree, &mut self.slots, &piece.payload);
        }
        if !piece.last || !self.is_text {
            return None;
        }
        let kind = self.slots.text_now(reading(&self.response).kind?)?;
        let rules = &self.rules;
        let is = |event: &str| kind == event;
        if is(&rules.began) {
            Some(SessionEvent::Began)
        } else if is(&rules.over) {
            Some(SessionEvent::Over)
        } else if is(&rules.detection.heard) {
            Some(SessionEvent::Heard)
        } else if is(&rules.detection.starts) {
            Some(SessionEvent::Starts)
        } else if rules.errors.iter().any(|event| is(event)) {
            Some(SessionEvent::Error)
        } else if rules.beside.iter().any(|event| is(event)) {
            Some(SessionEvent::Beside)
        } else {
            None
        }
    }

    /// Whether a message of our own may stand here.
    pub(in crate::metering) const fn is_between(&self) -> bool {
        !self.is_within
    }

    /// The event was taken note of: what it told is not that of the next.
    pub(in crate::metering) fn forget(&mut self) {
        self.slots = Slots::new(&reading(&self.response).tree);
    }

    /// The name of the turn.
    pub(super) fn turn(&self) -> Option<&str> {
        self.slots.text_now(self.rules.turn)
    }

    /// The name of the client's message that an error is about.
    pub(super) fn refused(&self) -> Option<&str> {
        self.slots.text_now(self.rules.refused)
    }

    /// How the turn has ended.
    pub(super) fn status(&self) -> Option<&str> {
        self.slots.text_now(self.rules.status)
    }

    pub(super) fn places(&self) -> &Reading {
        reading(&self.response)
    }

    pub(super) const fn slots(&self) -> &Slots {
        &self.slots
    }
}

fn reading(rules: &ResponseRules) -> &Reading {
    rules.streamed.as_ref().map_or(&rules.buffered, |(_, reading)| reading)
}
