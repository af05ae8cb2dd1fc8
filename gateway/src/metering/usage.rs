//! Reads the usage that a provider reports in its answer, while the answer streams by.
//!
//! **Invariant:** every byte that comes in goes out once and in order, except the one event of usage that the gateway
//! itself asked for. A byte waits only while its own event is undecided, and the event that completes an answer until
//! the record of the call is written. Usage counts only at its place in the provider's JSON.
//!
//! Deliberately absent: tokenizing, and any judgement of what a call without a report is charged.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tollgate_policy::dialect::tree::Tree;
use tollgate_policy::dialect::{Endpoint, Reading as Places, ResponseRules};
use tollgate_policy::price::Units;

use super::scan::{Scanner, Slots};

mod stream;
mod units;

use stream::Events;

/// What may come before an answer of either form: a byte-order mark, and blank lines that keep a slow one alive.
const BEGINS_BOTH: [u8; 5] = [0xEF, 0xBB, 0xBF, b'\n', b'\r'];
/// What a line of a stream begins with: `data`, `event`, `id`, `retry`, or a comment.
const BEGINS_LINES: [u8; 5] = [b'd', b'e', b'i', b'r', b':'];

/// What the gateway knows of an answer's usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageReading {
    /// What the provider reported as the whole of the call, one request included. `None`: it reported nothing, or
    /// something that cannot be a count.
    pub units: Option<Units>,
    /// What it had reported when the answer broke off: the input, usually.
    pub partial: Option<Units>,
    /// The model that answered, as the provider names it.
    pub model: Option<String>,
    /// How the call was served, in words that prices know, joined by `+`.
    pub tier: Option<String>,
    /// It billed something beside the units that has no price here.
    pub unpriced: bool,
    /// The provider reported an error, in the body or in an event after the head said 200.
    pub error_event: bool,
    /// Some of what the model wrote came before the end, whatever that was.
    pub wrote: bool,
    /// Bytes of text that the model wrote, as far as the dialect tells them apart; else bytes of the body.
    pub output_bytes: u64,
}

/// What may be done with the bytes that came in.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent on at once, in order.
    pub ready: VecDeque<Bytes>,
    /// To be sent on when the record of the call is written: from the last event on.
    pub held: VecDeque<Bytes>,
    /// The event that completes the answer has been read whole: nothing of its usage is still to come.
    pub complete: bool,
}

impl Output {
    /// The record is written: what waited for it may go.
    pub fn release(&mut self) {
        append(&mut self.ready, &mut self.held);
    }

    /// Nothing more comes: what could go waits for the record too.
    pub fn hold(&mut self) {
        append(&mut self.ready, &mut self.held);
        std::mem::swap(&mut self.ready, &mut self.held);
    }

    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        if self.held.is_empty() { self.ready.push_back(bytes) } else { self.held.push_back(bytes) }
    }
}

/// Moves all of `last` behind `first`; as it is where there is nothing before it, which is the common case.
fn append(first: &mut VecDeque<Bytes>, last: &mut VecDeque<Bytes>) {
    if first.is_empty() {
        std::mem::swap(first, last);
    } else {
        first.append(last);
    }
}

/// What the head and the request say of the form of an answer. Its first bytes decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// It is labelled a stream of server-sent events.
    Events,
    /// It is labelled as JSON or not at all, or a stream was asked for: it may be either.
    Either,
    /// It is something else: sound, an image.
    Other,
}

impl Announced {
    /// Of an answer with this `content-type`; `is_asked`: the request asks for a stream.
    pub fn of(content_type: Option<&[u8]>, is_asked: bool) -> Self {
        let Some(label) = content_type.filter(|label| *label != b"application/json") else {
            return Self::Either;
        };
        let essence = label.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let begins =
            |start: &[u8]| essence.get(..start.len()).is_some_and(|is| is.eq_ignore_ascii_case(start));
        if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::Events
        } else if is_asked || begins(b"application/json") || begins(b"text/") {
            Self::Either
        } else {
            Self::Other
        }
    }
}

/// Reads one answer.
#[derive(Debug)]
pub struct UsageReader {
    rules: Arc<ResponseRules>,
    scanner: Scanner,
    slots: Slots,
    form: AnswerForm,
    /// Of a stream, if it is one.
    events: Option<Events>,
    bytes: u64,
    error_event: bool,
}

/// What the bytes of an answer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerForm {
    /// Nothing but a byte-order mark and blank lines has come, which both may begin with.
    Open(Announced),
    Events,
    Whole,
}

impl UsageReader {
    /// `hides_usage` says whether the gateway asked for the extra event of usage and the caller did not.
    #[inline]
    pub fn new(endpoint: &Endpoint, announced: Announced, hides_usage: bool) -> Self {
        let rules = endpoint.response.clone();
        let events = rules.streamed.is_some().then(|| Events::new(hides_usage));
        let form = if events.is_some() { AnswerForm::Open(announced) } else { AnswerForm::Whole };
        let slots = Slots::new(&places(&rules, announced == Announced::Events && events.is_some()).tree);
        Self { rules, scanner: Scanner::new(), slots, form, events, bytes: 0, error_event: false }
    }

    /// Takes the next bytes of the body, in pieces of any size.
    pub fn feed(&mut self, mut chunk: Bytes, output: &mut Output) {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        if let AnswerForm::Open(announced) = self.form {
            let blank = chunk.iter().take_while(|byte| BEGINS_BOTH.contains(byte)).count();
            let Some(&first) = chunk.get(blank) else { return self.feed_events(chunk, output) };
            self.decide(announced, first);
            if self.form == AnswerForm::Whole {
                if let Some(events) = &mut self.events {
                    events.give_up(output);
                }
                output.push(chunk.split_to(blank));
            }
        }
        match self.form {
            AnswerForm::Whole => {
                let tree: &Tree = &self.rules.buffered.tree;
                if !tree.is_empty() {
                    self.scanner.scan(tree, &mut self.slots, &chunk);
                }
                output.push(chunk);
            }
            _ => self.feed_events(chunk, output),
        }
    }

    fn feed_events(&mut self, chunk: Bytes, output: &mut Output) {
        let (Some(events), Some((rules, places))) = (&mut self.events, &self.rules.streamed) else { return };
        let mut reader =
            stream::EventReader { rules, places, scanner: &mut self.scanner, slots: &mut self.slots };
        events.feed(chunk, output, &mut reader);
        self.error_event |= events.error_seen();
    }

    /// By its first byte: JSON that reports usage is an object or a list, and no line of a stream begins as these do.
    fn decide(&mut self, announced: Announced, first: u8) {
        let is_events = match announced {
            _ if matches!(first, b'{' | b'[' | b' ' | b'\t') => false,
            Announced::Events => true,
            Announced::Either => BEGINS_LINES.contains(&first),
            Announced::Other => false,
        };
        if is_events != self.is_stream() {
            self.slots = Slots::new(&places(&self.rules, is_events).tree);
        }
        self.form = if is_events { AnswerForm::Events } else { AnswerForm::Whole };
    }

    fn is_stream(&self) -> bool {
        match self.form {
            AnswerForm::Open(announced) => announced == Announced::Events,
            form => form == AnswerForm::Events,
        }
    }

    /// What is known so far.
    pub fn reading(&self) -> UsageReading {
        let is_stream = self.is_stream();
        let places = places(&self.rules, is_stream);
        let counted = units::count(places, &self.slots).filter(|_| is_stream || !self.scanner.is_broken());
        let (units, partial) = match counted {
            Some((units, true)) if !self.is_cut(places) => (Some(Units { requests: 1, ..units }), None),
            Some((units, _)) => (None, Some(units)),
            None => (None, None),
        };
        let seen = places.error.is_some_and(|slot| self.slots.number_now(slot).is_some());
        let text = places.text.map(|slot| units::or_zero(self.slots.number(slot)));
        UsageReading {
            units,
            partial,
            model: units::last_text(&places.model, &self.slots).map(str::to_owned),
            tier: units::tier(places, &self.slots),
            unpriced: places.unpriced.iter().any(|slot| units::or_zero(self.slots.number(*slot)) > 0),
            error_event: self.error_event || (seen && !is_stream),
            wrote: text.is_some_and(|bytes| bytes > 0),
            output_bytes: text.unwrap_or(self.bytes),
        }
    }

    /// Whether the text that the report stands in is not complete.
    fn is_cut(&self, places: &Places) -> bool {
        if !self.is_stream() {
            return !self.scanner.is_done();
        }
        places.usage.iter().any(|usage| self.slots.number_now(usage.closing).is_some())
    }

    /// The body has ended: what was still undecided may go when the record is written.
    pub fn finish(&mut self, output: &mut Output) -> UsageReading {
        if let (Some(events), Some((rules, places))) = (&mut self.events, &self.rules.streamed)
            && self.form != AnswerForm::Whole
        {
            let mut reader =
                stream::EventReader { rules, places, scanner: &mut self.scanner, slots: &mut self.slots };
            events.finish(output, &mut reader);
            self.error_event |= events.error_seen();
        }
        self.reading()
    }
}

/// What one event reports of the turn that it ends.
pub fn of_event(places: &Places, slots: &Slots) -> UsageReading {
    let (units, partial) = match units::count(places, slots) {
        Some((units, true)) => (Some(Units { requests: 1, ..units }), None),
        Some((units, false)) => (None, Some(units)),
        None => (None, None),
    };
    UsageReading {
        units,
        partial,
        model: units::last_text(&places.model, slots).map(str::to_owned),
        tier: units::tier(places, slots),
        ..UsageReading::default()
    }
}

fn places(rules: &ResponseRules, is_stream: bool) -> &Places {
    match &rules.streamed {
        Some((_, places)) if is_stream => places,
        _ => &rules.buffered,
    }
}

#[cfg(test)]
mod tests;
