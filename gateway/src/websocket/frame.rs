//! Frames (RFC 6455, section 5), read in pieces and written whole.
//!
//! **Invariant:** a piece comes of a frame that is allowed where it stands, from whom it comes. A frame up to [`WHOLE`] is one piece, a larger
//! one comes as its bytes do, so that no message has to fit into memory.

use bytes::{Buf, BufMut, BytesMut};

/// A frame of no more bytes is kept until it is whole, and keeps its form.
const WHOLE: usize = 64 << 10;
/// Most bytes of a control frame (section 5.5).
const MOST_CONTROL: u64 = 125;
const FIN: u8 = 0x80;
/// The one reserved bit that an extension uses: the message is compressed (RFC 7692, section 6).
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Whether it stands between the frames of a message, and belongs to none.
    pub(crate) const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What was sent is not allowed; with the code to close with (section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Violation {
    pub(crate) code: u16,
    pub(crate) why: &'static str,
}

const fn protocol(why: &'static str) -> Violation {
    Violation { code: 1002, why }
}

/// What frames from one side may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameRules {
    /// They come from the side that has to mask them, and not from the one that may not.
    pub(crate) masked: bool,
    /// Compression was agreed on.
    pub(crate) deflated: bool,
    /// Most bytes of a message, as they are sent.
    pub(crate) message_bytes: u64,
}

/// Bytes of a frame, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FramePiece {
    /// Of a data frame that has begun to come before: continuation.
    pub(crate) opcode: Opcode,
    /// The message is compressed; set where it begins.
    pub(crate) deflated: bool,
    /// The message ends with it, or it is a control frame.
    pub(crate) last: bool,
    pub(crate) payload: BytesMut,
}

/// The frame that is being read.
#[derive(Debug)]
struct Current {
    opcode: Opcode,
    deflated: bool,
    fin: bool,
    mask: [u8; 4],
    /// Bytes that are still to come.
    left: u64,
    /// Some have come.
    begun: bool,
}

/// Reads the frames of one side.
#[derive(Debug)]
pub(crate) struct Decoder {
    rules: FrameRules,
    current: Option<Current>,
    /// Bytes of the message that has begun, as far as its frames have told them.
    message: Option<u64>,
}

impl Decoder {
    pub(crate) const fn new(rules: FrameRules) -> Self {
        Self { rules, current: None, message: None }
    }

    /// The next piece of what has come, which is taken out of `buffer`; `None`: more has to come.
    ///
    /// # Errors
    /// What came is not allowed; nothing that follows it is read.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<FramePiece>, Violation> {
        if self.current.is_none() {
            let Some((head, length)) = Head::read(buffer)? else { return Ok(None) };
            self.current = Some(self.check(&head)?);
            buffer.advance(length);
        }
        let Some(current) = &mut self.current else { return Ok(None) };
        let here = buffer.len().min(usize::try_from(current.left).unwrap_or(usize::MAX));
        let is_whole = here as u64 == current.left;
        if !is_whole && (here == 0 || current.left <= WHOLE as u64 && !current.begun) {
            return Ok(None);
        }
        let mut payload = buffer.split_to(here);
        unmask(&mut payload, &mut current.mask);
        current.left -= here as u64;
        let is_continued = std::mem::replace(&mut current.begun, true);
        let opcode = if is_continued { Opcode::Continuation } else { current.opcode };
        let (deflated, last) = (current.deflated && !is_continued, current.fin && is_whole);
        if is_whole {
            if last && !current.opcode.is_control() {
                self.message = None;
            }
            self.current = None;
        }
        if opcode == Opcode::Close {
            check_close(&payload)?;
        }
        Ok(Some(FramePiece { opcode, deflated, last, payload }))
    }

    /// Whether a frame may stand here.
    fn check(&mut self, head: &Head) -> Result<Current, Violation> {
        let Head { fin, reserved, opcode, mask, left } = *head;
        match (mask, self.rules.masked) {
            (None, true) => return Err(protocol("a frame of the client is not masked")),
            (Some(_), false) => return Err(protocol("a frame of the server is masked")),
            _ => {}
        }
        let begins = matches!(opcode, Opcode::Text | Opcode::Binary);
        let deflated = reserved == RSV1 && begins && self.rules.deflated;
        if reserved != 0 && !deflated {
            return Err(protocol("a frame has a reserved bit that nothing was agreed on for"));
        }
        let current = Current { opcode, deflated, fin, mask: mask.unwrap_or_default(), left, begun: false };
        if opcode.is_control() {
            return match fin && left <= MOST_CONTROL {
                true => Ok(current),
                false => Err(protocol("a control frame is in parts, or longer than 125 bytes")),
            };
        }
        let before = match (self.message, begins) {
            (Some(before), false) => before,
            (None, true) => 0,
            (Some(_), true) => return Err(protocol("a message begins before the one before it has ended")),
            (None, false) => return Err(protocol("a message goes on that has not begun")),
        };
        let bytes = before.saturating_add(left);
        if bytes > self.rules.message_bytes {
            return Err(Violation { code: 1009, why: "the message is too large" });
        }
        self.message = Some(bytes);
        Ok(current)
    }
}

/// The head of a frame.
#[derive(Debug)]
struct Head {
    fin: bool,
    reserved: u8,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    left: u64,
}

impl Head {
    /// With its length; `None`: it is not whole.
    fn read(mut bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let all = bytes.len();
        let (Ok(first), Ok(second)) = (bytes.try_get_u8(), bytes.try_get_u8()) else { return Ok(None) };
        let opcode =
            Opcode::of(first & 0x0f).ok_or_else(|| protocol("a frame has an opcode that is not known"))?;
        let (left, least) = match second & 0x7f {
            126 => (bytes.try_get_u16().ok().map(u64::from), 126),
            127 => (bytes.try_get_u64().ok(), 1 << 16),
            short => (Some(u64::from(short)), 0),
        };
        let Some(left) = left else { return Ok(None) };
        if left < least || left > i64::MAX.unsigned_abs() {
            return Err(protocol("the length of a frame is not written in the shortest form"));
        }
        let mut mask = None;
        if second & MASKED != 0 {
            let mut key = [0; 4];
            if bytes.try_copy_to_slice(&mut key).is_err() {
                return Ok(None);
            }
            mask = Some(key);
        }
        let reserved = first & !FIN & !0x0f;
        Ok(Some((Self { fin: first & FIN != 0, reserved, opcode, mask, left }, all - bytes.len())))
    }
}

/// A code and a reason, or nothing (section 7.4).
fn check_close(payload: &[u8]) -> Result<(), Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        let is_fine = payload.is_empty();
        return is_fine.then_some(()).ok_or_else(|| protocol("the code of a close frame has one byte"));
    };
    // Those below are never sent, or are nobody's.
    if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("a close frame has a code that is never sent"));
    }
    let reason = std::str::from_utf8(reason);
    reason.map(drop).map_err(|_| Violation { code: 1007, why: "the reason of a close frame is not UTF-8" })
}

/// What a close frame says: a code, and a word.
pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(123));
    payload
}

/// Appends a frame to `out`.
pub(crate) fn encode(out: &mut BytesMut, piece: &FramePiece, mask: Option<[u8; 4]>) {
    let length = piece.payload.len();
    out.reserve(length + 14);
    let (fin, deflated) = (if piece.last { FIN } else { 0 }, if piece.deflated { RSV1 } else { 0 });
    out.put_u8(fin | deflated | piece.opcode.bits());
    let masked = if mask.is_some() { MASKED } else { 0 };
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => out.put_u8(masked | short),
        (_, Ok(long)) => {
            out.put_u8(masked | 126);
            out.put_u16(long);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(length as u64);
        }
    }
    let Some(mut key) = mask else {
        out.put_slice(&piece.payload);
        return;
    };
    out.put_slice(&key);
    let begin = out.len();
    out.put_slice(&piece.payload);
    if let Some(payload) = out.get_mut(begin..) {
        unmask(payload, &mut key);
    }
}

/// Masks, or takes the mask off; `key` becomes that of the byte after.
fn unmask(payload: &mut [u8], key: &mut [u8; 4]) {
    if *key == [0; 4] {
        return;
    }
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(*key) {
            *byte ^= key;
        }
    }
    let rest = words.into_remainder();
    for (byte, key) in rest.iter_mut().zip(*key) {
        *byte ^= key;
    }
    key.rotate_left(rest.len());
}

/// Keys for frames to a server, which nobody can foresee (section 5.3).
#[derive(Debug)]
pub(crate) struct MaskKeys {
    pool: [u8; 256],
    used: usize,
}

impl MaskKeys {
    pub(crate) const fn new() -> Self {
        Self { pool: [0; 256], used: 256 }
    }

    /// `None`: there is no randomness.
    pub(crate) fn take(&mut self) -> Option<[u8; 4]> {
        if self.used >= self.pool.len() {
            aws_lc_rs::rand::fill(&mut self.pool).ok()?;
            self.used = 0;
        }
        let key = self.pool.get(self.used..)?.first_chunk::<4>().copied();
        self.used += 4;
        key
    }
}

#[cfg(test)]
mod tests;
