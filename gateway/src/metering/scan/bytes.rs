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

    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0 && !self.overflown
    }

    pub(super) fn get(&self) -> Option<&[u8]> {
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

/// Where the first quote or backslash is. Most strings are short: for them, words of eight bytes are faster than a call.
pub(super) fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    const WORDS: usize = 4;
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().take(WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zero_bytes(word ^ repeated(b'"')) | zero_bytes(word ^ repeated(b'\\'));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let seen = words.len().min(WORDS) * 8;
    memchr2(b'"', b'\\', &bytes[seen..]).map(|found| seen + found)
}

const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of the lowest byte that is zero; those above it may be set wrongly.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeated(1)) & !word & repeated(0x80)
}

/// A whole number that is not negative; anything else, `1.0` and `1e3` too, is nonsense where units are counted.
pub(super) fn number(token: Option<&[u8]>) -> Option<u64> {
    let text = std::str::from_utf8(token?).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(super) fn unescaped(text: &[u8]) -> Option<String> {
    let quoted = [b"\"", text, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}
