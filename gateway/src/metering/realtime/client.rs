//! Messages of the client, put together and read as far as their type.
//!
//! **Invariant:** a message goes on as it came only if it is one JSON object whose one type is known to start nothing.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use tollgate_policy::dialect::SessionRules;

use crate::caller_occupancy::{BufferReservation, CallerOccupancy};
use crate::websocket::{FramePiece, Opcode, Violation};

/// A message of no more bytes comes in one piece, and needs no room beside that of its frame.
const SMALL: usize = 64 << 10;
/// Most bytes of a message that is to be judged, beside those in long strings: sound and images are there. It is read into values, each of
/// which takes many times the bytes that say it.
const JUDGED: usize = 1 << 20;
const LONG_STRING: usize = 1 << 10;

/// A message that has to be judged.
#[derive(Debug)]
pub(in crate::metering) struct ClientMessage {
    pub(super) kind: Box<str>,
    pub(super) bytes: BytesMut,
    /// Kept until what becomes of it is written.
    pub(in crate::metering) room: BufferReservation,
}

/// What becomes of a piece.
#[derive(Debug)]
pub(in crate::metering) enum Taken {
    /// It goes on; it is so many tokens at most, and keeps its room until it is written.
    Goes(FramePiece, u64, BufferReservation),
    /// More has to come.
    Waits,
    /// It is to be judged.
    Decides(ClientMessage),
}

/// Puts messages together.
#[derive(Debug)]
pub(in crate::metering) struct ClientReader {
    rules: Arc<SessionRules>,
    usage: Arc<CallerOccupancy>,
    most: u64,
    message: BytesMut,
    room: BufferReservation,
}

impl ClientMessage {
    /// All of it; of a member that stands there twice the last, which is the only one that goes on.
    pub(super) fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.bytes).ok()
    }
}

impl ClientReader {
    pub(super) fn new(rules: &Arc<SessionRules>, usage: Arc<CallerOccupancy>, most: u64) -> Self {
        let (rules, message, room) = (Arc::clone(rules), BytesMut::new(), BufferReservation::default());
        Self { rules, usage, most, message, room }
    }

    /// Takes a piece of the client's.
    ///
    /// # Errors
    /// The message is no JSON object with a type, or larger than what may be held.
    pub(in crate::metering) fn take(&mut self, piece: FramePiece) -> Result<Taken, Violation> {
        if piece.opcode.is_control() {
            return Ok(Taken::Goes(piece, 0, BufferReservation::default()));
        }
        if piece.opcode == Opcode::Binary {
            return Err(Violation { code: 1003, why: "a session takes messages of text only" });
        }
        let bytes = self.message.len() + piece.payload.len();
        let has_room = bytes <= SMALL || self.room.grow(bytes as u64, &self.usage);
        if bytes as u64 > self.most || !has_room {
            return Err(Violation { code: 1009, why: "the message is larger than the gateway holds" });
        }
        if self.message.is_empty() {
            self.message = piece.payload;
        } else {
            self.message.extend_from_slice(&piece.payload);
        }
        if !piece.last {
            return Ok(Taken::Waits);
        }
        let room = std::mem::take(&mut self.room);
        let bytes = std::mem::take(&mut self.message);
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Violation { code: 1007, why: "a message of text is not UTF-8" })?;
        let kind = kind(&self.rules.kind, text)?;
        if let Some(divisor) = self.rules.inert(&kind) {
            let tokens = (bytes.len() as u64).div_ceil(divisor.max(1));
            return Ok(Taken::Goes(whole(bytes), tokens, room));
        }
        if beside_long_strings(text) > JUDGED {
            return Err(Violation { code: 1009, why: "the message says more than the gateway reads" });
        }
        Ok(Taken::Decides(ClientMessage { kind, bytes, room }))
    }
}

/// Bytes of JSON that are in no long string.
fn beside_long_strings(text: &str) -> usize {
    let (mut beside, mut begun, mut is_escaped) = (0, None, false);
    for (at, byte) in text.bytes().enumerate() {
        match begun {
            None => {
                beside += 1;
                begun = (byte == b'"').then_some(at);
            }
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if byte == b'\\' => is_escaped = true,
            Some(start) if byte == b'"' => {
                let string = at - start;
                beside += if string < LONG_STRING { string } else { 0 };
                begun = None;
            }
            Some(_) => {}
        }
    }
    beside
}

/// A message in one frame.
pub(in crate::metering) fn whole(payload: BytesMut) -> FramePiece {
    FramePiece { opcode: Opcode::Text, deflated: false, last: true, payload }
}

/// The type that a message says. Whoever ignores letter case, or takes the first of two, must find no other.
fn kind(member: &str, text: &str) -> Result<Box<str>, Violation> {
    const AMBIGUOUS: Violation = Violation { code: 1008, why: "a message has to say its type once" };
    const INVALID: Violation =
        Violation { code: 1007, why: "a message is one JSON object that says its type" };
    let mut found = Kind { member, kind: None, is_ambiguous: false };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(&mut found).and_then(|()| deserializer.end());
    if found.is_ambiguous {
        return Err(AMBIGUOUS);
    }
    read.map_err(|_| INVALID)?;
    found.kind.ok_or(INVALID)
}

struct Kind<'a> {
    member: &'a str,
    kind: Option<Box<str>>,
    is_ambiguous: bool,
}

impl<'de> Visitor<'de> for &mut Kind<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            if *name == *self.member {
                let kind = members.next_value::<Box<str>>()?;
                self.is_ambiguous |= self.kind.replace(kind).is_some();
            } else {
                self.is_ambiguous |= folds_to(&name, self.member);
                members.next_value::<IgnoredAny>()?;
            }
            if self.is_ambiguous {
                return Err(A::Error::custom("ambiguous"));
            }
        }
        Ok(())
    }
}

/// Whether a reader that ignores letter case would take one name for the other.
fn folds_to(name: &str, other: &str) -> bool {
    name.len() >= other.len() && name.to_lowercase() == *other
}
