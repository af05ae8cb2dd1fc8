//! Whether a text has bytes that need care, looked at eight at a time (SWAR): most are short and have none.

const WORD: usize = size_of::<u64>();
const HIGH_BITS: u64 = repeated(0x80);

/// Whether JSON has to escape some of it.
pub(crate) fn has_escapes(text: &str) -> bool {
    any_word(text, |word| has_below(word, b' ') | has(word, b'"') | has(word, b'\\'))
}

/// Whether it is made of visible ASCII and spaces alone.
pub(crate) fn is_visible(text: &str) -> bool {
    !any_word(text, |word| has_below(word, b' ') | has(word, 0x7f) | word & HIGH_BITS)
}

/// Whether the text has this byte of ASCII, which is no space: short texts are filled up with those.
#[inline]
pub(crate) fn has_byte(text: &str, byte: u8) -> bool {
    any_word(text, |word| has(word, byte))
}

/// Whether `finds` something in one of its words. The last one overlaps the one before; that of a short text is filled up with spaces.
#[inline]
fn any_word(text: &str, finds: impl Fn(u64) -> u64) -> bool {
    let bytes = text.as_bytes();
    let Some(last) = bytes.last_chunk::<WORD>() else {
        let filled = bytes.iter().fold(repeated(b' '), |word, byte| word << 8 | u64::from(*byte));
        return finds(filled) != 0;
    };
    let (words, _) = bytes.as_chunks::<WORD>();
    words.iter().chain([last]).fold(0, |found, word| found | finds(u64::from_ne_bytes(*word))) != 0
}

const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; WORD])
}

/// Not zero where the word has this byte; which of its bits says nothing.
const fn has(word: u64, byte: u8) -> u64 {
    has_below(word ^ repeated(byte), 1)
}

/// Not zero where the word has a byte below this one, which is at most 128.
const fn has_below(word: u64, byte: u8) -> u64 {
    word.wrapping_sub(repeated(byte)) & !word & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_is_looked_at(text in any::<String>(), ascii in "[ -~]{0,40}", at in 0_usize..40, byte in 0_u8..128) {
            let mut changed = ascii.clone().into_bytes();
            if let Some(changed) = changed.get_mut(at) {
                *changed = byte;
            }
            for text in [&text, &ascii, std::str::from_utf8(&changed).unwrap()] {
                let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
                prop_assert_eq!(has_escapes(text), text.bytes().any(escaped));
                prop_assert_eq!(is_visible(text), text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
                prop_assert_eq!(has_byte(text, b'_'), text.bytes().any(|byte| byte == b'_'));
            }
        }
    }
}
