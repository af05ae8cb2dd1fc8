//! What the scanner does with single bytes and short pieces.

use memchr::memchr2;

/// Bytes that may arrive in pieces, up to a limit.
#[derive(Debug)]
pub(super) struct Buffer<const MAX: usize> {
    bytes: [u8; MAX],
    used: usize,
    /// More came than fits, so it is none of the words that one looks for.
    overflown: bool,
}

impl<const MAX: usize> Buffer<MAX> {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; MAX], used: 0, overflown: false }
    }

    pub(super) fn clear(&mut self) {
        (self.used, self.overflown) = (0, false);
    }

    pub(super) fn push(&mut self, more: &[u8]) {
        let room = self.bytes.get_mut(self.used..self.used + more.len());
        if let (Some(room), false) = (room, self.overflown) {
            room.copy_from_slice(more);
            self.used += more.len();
        } else {
            self.overflown = true;
        }
    }

    /// All of it, of which this is the last piece; `None` where it is too long.
    pub(super) fn end<'a>(&'a mut self, last: &'a [u8]) -> Option<&'a [u8]> {
        if self.used == 0 && !self.overflown {
            return Some(last).filter(|last| last.len() <= MAX);
        }
        self.push(last);
        if self.overflown { None } else { self.bytes.get(..self.used) }
    }
}

/// What a byte may mean, so that most bytes are passed over with one look.
pub(super) const SPACE: u8 = 1;
pub(super) const ENDS_SCALAR: u8 = 2;
pub(super) const NESTS: u8 = 4;

const MEANINGS: [u8; 256] = {
    let mut meanings = [0; 256];
    meanings[b' ' as usize] = SPACE | ENDS_SCALAR;
    meanings[b'\n' as usize] = SPACE | ENDS_SCALAR;
    meanings[b'\t' as usize] = SPACE | ENDS_SCALAR;
    meanings[b'\r' as usize] = SPACE | ENDS_SCALAR;
    meanings[b',' as usize] = ENDS_SCALAR;
    meanings[b'}' as usize] = ENDS_SCALAR | NESTS;
    meanings[b']' as usize] = ENDS_SCALAR | NESTS;
    meanings[b'{' as usize] = NESTS;
    meanings[b'[' as usize] = NESTS;
    meanings[b'"' as usize] = NESTS;
    meanings
};

pub(super) const fn has(byte: u8, meaning: u8) -> bool {
    MEANINGS[byte as usize] & meaning != 0
}

/// So many words of eight bytes are looked at one by one before the work of a longer look pays.
const WORDS: usize = 4;

/// Where the first quote or backslash is. Most strings are short: for them, words of eight bytes are faster than a call.
#[inline(always)]
pub(super) fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().take(WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zero_bytes(word ^ repeated(b'"')) | zero_bytes(word ^ repeated(b'\\'));
        if found != 0 {
            return Some(index * 8 + first(found));
        }
    }
    far_quote_or_escape(bytes)
}

#[inline(never)]
fn far_quote_or_escape(bytes: &[u8]) -> Option<usize> {
    memchr2(b'"', b'\\', bytes)
}

const fn first(high_bits: u64) -> usize {
    high_bits.trailing_zeros() as usize / 8
}

const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bits of the bytes that are zero; those above the first may be set wrongly.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeated(1)) & !word & repeated(0x80)
}

/// A whole number that is not negative, which some write with zeros behind a point: `100.0`. Anything else, `1.5` and `1e3` too, is nonsense
/// where units are counted.
pub(super) fn number(token: &[u8]) -> Option<u64> {
    let (whole, zeros) = split_at_point(token)?;
    digits(whole).filter(|_| zeros.iter().all(|byte| *byte == b'0'))
}

/// The next whole number, for what is measured and billed by whole units.
pub(super) fn rounded_up(token: &[u8]) -> Option<u64> {
    let (whole, fraction) = split_at_point(token)?;
    let is_fraction = fraction.iter().all(u8::is_ascii_digit);
    let more = fraction.iter().any(|byte| *byte != b'0');
    digits(whole)?.checked_add(u64::from(more)).filter(|_| is_fraction)
}

/// What stands before a decimal point, and what behind it; there is at least a digit on both sides.
fn split_at_point(token: &[u8]) -> Option<(&[u8], &[u8])> {
    match memchr::memchr(b'.', token) {
        Some(point) => {
            Some((&token[..point], &token[point + 1..])).filter(|(_, fraction)| !fraction.is_empty())
        }
        None => Some((token, &[])),
    }
}

fn digits(token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return None;
    }
    token.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        number.checked_mul(10)?.checked_add(u64::from(digit)).filter(|_| digit < 10)
    })
}

pub(super) fn unescaped(text: &[u8]) -> Option<String> {
    let quoted = [b"\"", text, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}
