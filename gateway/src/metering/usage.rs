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

/// What the gateway knows of an answer's usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What the provider reported as the whole of the call, one request included. `None`: it reported nothing, or
    /// something that cannot be a count.
    pub units: Option<Units>,
    /// What it had reported when the answer broke off: the input, usually.
    pub partial: Option<Units>,
    /// The model that answered, as the provider names it.
    pub model: Option<String>,
    /// How the call was served, in words that prices know, joined by `+`.
    pub tier: Option<String>,
    /// The provider reported an error, in the body or in an event after the head said 200.
    pub error_event: bool,
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

/// Reads one answer.
#[derive(Debug)]
pub struct UsageReader {
    rules: Arc<ResponseRules>,
    scanner: Scanner,
    slots: Slots,
    events: Option<Events>,
    bytes: u64,
    error_event: bool,
}

impl UsageReader {
    /// `is_streamed` says whether the answer is a stream of server-sent events; `hides_usage`, whether the gateway
    /// asked for the extra event of usage and the caller did not.
    pub fn new(endpoint: &Endpoint, is_streamed: bool, hides_usage: bool) -> Self {
        let rules = endpoint.response.clone();
        let events = (is_streamed && rules.streamed.is_some()).then(|| Events::new(hides_usage));
        let slots = Slots::new(&places(&rules, events.is_some()).tree);
        Self { rules, scanner: Scanner::new(), slots, events, bytes: 0, error_event: false }
    }

    /// Takes the next bytes of the body, in pieces of any size.
    pub fn feed(&mut self, chunk: Bytes, output: &mut Output) {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        match (&mut self.events, &self.rules.streamed) {
            (Some(events), Some((rules, places))) => {
                let mut reader =
                    stream::Reader { rules, places, scanner: &mut self.scanner, slots: &mut self.slots };
                events.feed(chunk, output, &mut reader);
                self.error_event |= events.error_seen();
            }
            _ => {
                let tree: &Tree = &self.rules.buffered.tree;
                if !tree.is_empty() {
                    self.scanner.scan(tree, &mut self.slots, &chunk);
                }
                output.push(chunk);
            }
        }
    }

    /// What is known so far.
    pub fn reading(&self) -> Reading {
        let places = places(&self.rules, self.events.is_some());
        let is_read = self.events.is_some() || !self.scanner.is_broken();
        let counted = units::count(places, &self.slots).filter(|_| is_read);
        let (units, partial) = match counted {
            Some((units, true)) if !self.is_cut(places) => (Some(Units { requests: 1, ..units }), None),
            Some((units, _)) => (None, Some(units)),
            None => (None, None),
        };
        let seen = places.error.is_some_and(|slot| self.slots.number_now(slot).is_some());
        let text = places.text.map(|slot| units::or_zero(self.slots.number(slot)));
        Reading {
            units,
            partial,
            model: units::last_text(&places.model, &self.slots).map(str::to_owned),
            tier: units::tier(places, &self.slots),
            error_event: self.error_event || (seen && self.events.is_none()),
            output_bytes: text.unwrap_or(self.bytes),
        }
    }

    /// Whether the text that the report stands in is not complete.
    fn is_cut(&self, places: &Places) -> bool {
        if self.events.is_none() {
            return !self.scanner.is_done();
        }
        places.usage.iter().any(|usage| self.slots.number_now(usage.closing).is_some())
    }

    /// The body has ended: what was still undecided may go when the record is written.
    pub fn finish(mut self, output: &mut Output) -> Reading {
        if let (Some(events), Some((rules, places))) = (&mut self.events, &self.rules.streamed) {
            let mut reader =
                stream::Reader { rules, places, scanner: &mut self.scanner, slots: &mut self.slots };
            events.finish(output, &mut reader);
        }
        self.reading()
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
