//! Lower-case hex of fixed length, without an allocation.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes two digits for each byte; `text` is twice as long as `bytes`.
pub fn encode(bytes: &[u8], text: &mut [u8]) {
    for (byte, digits) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 0x0f)];
    }
}

/// Reads what [`encode`] wrote; `None` unless `text` is exactly two lower-case digits for each of `bytes`.
pub fn decode(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    if text.len() != bytes.len() * 2 {
        return None;
    }
    for (digits, byte) in text.chunks_exact(2).zip(bytes) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(())
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
