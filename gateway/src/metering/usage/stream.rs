//! The events of a streamed answer: which bytes may go, which wait, and which one is not the caller's.

use std::collections::VecDeque;

use bytes::Bytes;
use tollgate_policy::dialect::{Reading as Places, StreamRules, Terminal};

use super::Output;
use crate::metering::scan::{Scanner, Slots};
use crate::metering::sse::{Framer, Piece};

/// An event of more bytes than this is not held whole.
const HELD_MAX: usize = 64 * 1024;
/// Of the event that completes the answer, when it is larger, this much waits: the line ends without which no client
/// takes it for complete.
const TAIL: usize = 4;

/// What an event is read with.
pub(super) struct EventReader<'a> {
    pub(super) rules: &'a StreamRules,
    pub(super) places: &'a Places,
    pub(super) scanner: &'a mut Scanner,
    pub(super) slots: &'a mut Slots,
}

/// What becomes of the event that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventFate {
    /// Its bytes wait.
    Undecided,
    /// It is the caller's: its bytes go.
    Passes,
    /// It completes the answer: its bytes wait for the record.
    Completes,
}

/// The state of reading a stream.
#[derive(Debug)]
pub(super) struct Events {
    framer: Framer,
    hides_usage: bool,
    fate: EventFate,
    /// How much of the terminal event's literal data was seen; `None`: the data is something else.
    literal: Option<usize>,
    /// Bytes of the undecided event from earlier chunks.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// How much may wait.
    room: usize,
    /// The event before was dropped, and a CR at the end of its chunk ended it: an LF that begins the next chunk is the other half of
    /// that line end, and goes with it.
    half_dropped: bool,
    error: bool,
    is_over: bool,
}

impl Events {
    pub(super) fn new(hides_usage: bool) -> Self {
        Self {
            framer: Framer::new(),
            hides_usage,
            fate: EventFate::Undecided,
            literal: Some(0),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            room: HELD_MAX,
            half_dropped: false,
            error: false,
            is_over: false,
        }
    }

    pub(super) const fn error_seen(&self) -> bool {
        self.error
    }

    pub(super) fn feed(&mut self, mut chunk: Bytes, output: &mut Output, reader: &mut EventReader<'_>) {
        if self.is_over {
            output.push(chunk);
            return;
        }
        if chunk.is_empty() {
            return;
        }
        if std::mem::take(&mut self.half_dropped) && chunk[0] == b'\n' {
            let half = chunk.split_to(1);
            self.framer.next(&half, 0);
        }
        // Of the chunk, bytes before `begun` belong to events that passed; from there on to the one that is open.
        let (mut begun, mut at) = (0, 0);
        while let Some((piece, next)) = self.framer.next(&chunk, at) {
            at = next;
            match piece {
                Piece::Data { from, to } => self.data(&chunk[from..to], reader),
                Piece::DataEnd => self.data_end(reader),
                Piece::Named => {}
                Piece::Between => {
                    begun = at;
                    continue;
                }
                Piece::End => {
                    self.settle(reader);
                    if self.fate == EventFate::Undecided && self.is_own_usage(reader) {
                        self.drop_waiting();
                        output.push(chunk.split_to(begun));
                        chunk = chunk.slice(at - begun..);
                        (begun, at) = (0, 0);
                        self.half_dropped = self.framer.may_go_on();
                    } else if self.fate == EventFate::Completes {
                        self.complete(chunk, begun, output);
                        self.next_event(reader);
                        return;
                    } else {
                        self.pass(output);
                        begun = at;
                    }
                    self.next_event(reader);
                    continue;
                }
            }
            self.decide(reader, false);
            if self.fate == EventFate::Passes {
                self.pass(output);
            }
        }
        self.keep_rest(chunk, begun, output);
    }

    pub(super) fn finish(&mut self, output: &mut Output, reader: &mut EventReader<'_>) {
        self.note_error(reader);
        if self.fate == EventFate::Undecided && self.is_own_usage(reader) {
            self.drop_waiting();
        }
        output.held.append(&mut self.waiting);
    }

    fn data(&mut self, data: &[u8], reader: &mut EventReader<'_>) {
        if let (Terminal::Data(literal), Some(seen)) = (&reader.rules.terminal, self.literal) {
            let rest = literal.as_bytes().get(seen..).unwrap_or_default();
            if rest.starts_with(data) {
                self.literal = Some(seen + data.len());
                return;
            }
            self.literal = None;
            reader.scan(literal.as_bytes().get(..seen).unwrap_or_default());
        }
        reader.scan(data);
    }

    fn data_end(&self, reader: &mut EventReader<'_>) {
        if self.literal.is_none() || matches!(reader.rules.terminal, Terminal::Types(_)) {
            reader.scan(b"\n");
        }
    }

    /// Decides as soon as what was read allows it. Data that is the literal so far may go on until the event `is_over`.
    fn decide(&mut self, reader: &EventReader<'_>, is_over: bool) {
        if self.fate != EventFate::Undecided {
            return;
        }
        let completes = match &reader.rules.terminal {
            Terminal::Data(literal) => match self.literal {
                Some(seen) => (is_over && seen == literal.len()).then_some(true),
                None => Some(false),
            },
            Terminal::Types(types) => self.kind(reader).map(|kind| types.iter().any(|name| **name == *kind)),
        };
        self.fate = match completes {
            Some(true) => EventFate::Completes,
            Some(false) if !self.may_be_own_usage(reader) => EventFate::Passes,
            _ => EventFate::Undecided,
        };
    }

    /// Decides at the end of the event, with what there is.
    fn settle(&mut self, reader: &EventReader<'_>) {
        self.decide(reader, true);
        if self.fate == EventFate::Undecided && !self.is_own_usage(reader) {
            self.fate = EventFate::Passes;
        }
    }

    fn kind<'a>(&'a self, reader: &'a EventReader<'_>) -> Option<&'a str> {
        self.framer.name().or_else(|| reader.slots.text_now(reader.places.kind?))
    }

    /// Whether it may yet turn out to be the extra event: nothing in it shows that it is not.
    fn may_be_own_usage(&self, reader: &EventReader<'_>) -> bool {
        let Some(slot) = reader.places.empty.filter(|_| self.hides_usage) else { return false };
        reader.slots.number_now(slot) != Some(0)
    }

    /// Whether it is the extra event: an empty list of choices beside numbers of usage.
    fn is_own_usage(&self, reader: &EventReader<'_>) -> bool {
        let Some(slot) = reader.places.empty.filter(|_| self.hides_usage) else { return false };
        let mut usage = reader.places.usage.iter();
        reader.slots.number_now(slot) == Some(1) && usage.any(|u| reader.slots.is_told_now(u.closing))
    }

    fn note_error(&mut self, reader: &EventReader<'_>) {
        let is_error =
            self.kind(reader).is_some_and(|kind| reader.rules.errors.iter().any(|name| **name == *kind));
        let has_error = reader.places.error.is_some_and(|slot| reader.slots.number_now(slot).is_some());
        self.error |= is_error || has_error;
    }

    fn next_event(&mut self, reader: &mut EventReader<'_>) {
        self.note_error(reader);
        self.framer.next_event();
        self.fate = EventFate::Undecided;
        self.literal = Some(0);
        reader.scanner.reset();
        reader.slots.next_event();
    }

    /// It is no stream: whatever waits may go.
    pub(super) fn give_up(&mut self, output: &mut Output) {
        self.pass(output);
    }

    fn pass(&mut self, output: &mut Output) {
        output.ready.append(&mut self.waiting);
        self.waiting_bytes = 0;
    }

    fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// The answer is complete: the event, and all that follows, waits for the record.
    fn complete(&mut self, mut chunk: Bytes, begun: usize, output: &mut Output) {
        output.push(chunk.split_to(begun));
        output.held.append(&mut self.waiting);
        output.held.push_back(chunk);
        output.complete = true;
        self.is_over = true;
    }

    /// The chunk has no more in it; what is open goes on in the next one.
    fn keep_rest(&mut self, mut chunk: Bytes, begun: usize, output: &mut Output) {
        if self.fate == EventFate::Passes || !self.framer.is_open() {
            output.push(chunk);
            return;
        }
        output.push(chunk.split_to(begun));
        self.waiting_bytes += chunk.len();
        if !chunk.is_empty() {
            self.waiting.push_back(chunk);
        }
        if self.waiting_bytes <= self.room {
            return;
        }
        if self.fate == EventFate::Undecided {
            self.fate = EventFate::Passes;
            self.pass(output);
        } else {
            self.release_all_but_tail(output);
        }
    }

    fn release_all_but_tail(&mut self, output: &mut Output) {
        let mut excess = self.waiting_bytes.saturating_sub(TAIL);
        while let Some(mut first) = self.waiting.pop_front() {
            if first.len() > excess {
                output.push(first.split_to(excess));
                self.waiting.push_front(first);
                break;
            }
            excess -= first.len();
            output.push(first);
        }
        self.waiting_bytes = TAIL;
        self.room = TAIL;
    }
}

impl EventReader<'_> {
    fn scan(&mut self, data: &[u8]) {
        self.scanner.scan(&self.places.tree, self.slots, data);
    }
}
