//! The public rule by which bytes of an answer are searched, and wait.
//!
//! **Invariant:** what is held back, and what is searched at all, follows from the answer's own bytes and from the class of the key: its kind of
//! characters, its length to the nearest power of four, and whether its shortest form has 15 bytes, or 31. Never from the key itself, nor from
//! how much of it an answer repeats.

use std::ops::Range;

use super::escape;

/// Bytes that are looked at together.
const BLOCK: usize = 32;

/// What a key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Characters {
    /// What tokens are made of. JSON, SSE and words of text end on other bytes.
    Token,
    /// Also the bytes that begin escapes.
    Marked,
    /// Also spaces, quotes, brackets and what is not ASCII. Lines end on other bytes.
    Line,
    /// Also control characters.
    Any,
}

/// Lengths of blocks: one after the other, some block is part of every run of twice as many bytes less one.
const WIDE: usize = 16;
const NARROW: usize = 8;
/// How many bytes are compared at once.
const GROUP: usize = 32;
/// So many bytes are searched or not: to begin anew for every word would cost more. A multiple of the others.
const STRETCH: usize = 256;

/// The bytes that a key of this class can be written in, and how many of them its longest form can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    characters: Characters,
    window: usize,
    /// The length of blocks of which one is part of every form; `None`: there is none.
    block: Option<usize>,
}

impl Characters {
    /// Whether a key of these can have this byte.
    const fn have(self, byte: u8) -> bool {
        match self {
            Self::Token => is_token(byte) && !escape::is_mark(byte),
            Self::Marked => is_token(byte),
            Self::Line => is_of_line(byte),
            Self::Any => true,
        }
    }
}

/// Without branches, for whole blocks of bytes at once.
const fn is_token(byte: u8) -> bool {
    let quoting = (byte == b'"') | (byte == b'\'') | (byte == b'`') | (byte == b',');
    let round = (byte == b'(') | (byte == b')') | (byte == b'<') | (byte == b'>');
    let square = (byte == b'[') | (byte == b']') | (byte == b'{') | (byte == b'}');
    (byte > b' ') & (byte < 127) & !(quoting | round | square)
}

/// Whether one of the blocks of `stretch` has no byte that ends words in texts and values in JSON.
fn has_whole<const SIZE: usize>(stretch: &[u8]) -> bool {
    // As signed bytes, those that are not of ASCII are below the space as well.
    let ends = |byte: u8| (byte.cast_signed() <= b' '.cast_signed()) | (byte == b'"') | (byte == b',');
    let is_whole = |block: &[u8; SIZE]| !block.iter().fold(false, |any, byte| any | ends(*byte));
    let (groups, rest) = stretch.as_chunks::<GROUP>();
    // In one go and without branches: all bytes, and then all blocks of a group.
    let has = |group: &[u8; GROUP]| {
        let marked = group.map(|byte| u8::from(ends(byte)).wrapping_neg());
        marked.as_chunks().0.iter().fold(false, |any, block| any | (*block == [0; SIZE]))
    };
    groups.iter().any(has) || rest.as_chunks().0.iter().any(is_whole)
}

const fn is_of_line(byte: u8) -> bool {
    (byte >= b' ') & (byte != 127)
}

impl Class {
    /// The class of a key with these parts, whose forms have from `shortest` to `longest` characters before any of them is escaped.
    pub(super) fn of(parts: &[&[u8]], shortest: usize, longest: usize) -> Self {
        let kinds = [Characters::Token, Characters::Marked, Characters::Line];
        let all = |kind: &Characters| parts.iter().copied().flatten().all(|byte| kind.have(*byte));
        let characters = kinds.into_iter().find(all).unwrap_or(Characters::Any);
        let mut window = 1024;
        while window < longest * escape::WIDEST {
            window *= 4;
        }
        let is_of_runs = matches!(characters, Characters::Token | Characters::Marked);
        let block = [WIDE, NARROW].into_iter().find(|block| is_of_runs && shortest >= 2 * block - 1);
        Self { characters, window, block }
    }

    /// The most bytes that a form of the key can have.
    pub(super) const fn window(self) -> usize {
        self.window
    }

    /// The next part of `text` from `from` on that has to be searched: one in which a form can lie, as far as bytes that no form has tell.
    pub(super) fn part(self, text: &[u8], from: usize) -> Option<Range<usize>> {
        let has = match self.block {
            Some(WIDE) => has_whole::<WIDE>,
            Some(_) => has_whole::<NARROW>,
            None => |stretch: &[u8]| !stretch.is_empty(),
        };
        let rest = text.get(from..)?;
        let mut stretches = rest.chunks(STRETCH);
        let before = stretches.position(has)? * STRETCH;
        let after =
            rest.len().min(before + (1 + stretches.take_while(|stretch| has(stretch)).count()) * STRETCH);
        // What hangs over into the stretches around.
        let start = before - trailing(&rest[..before], is_token);
        let end = after + leading(&rest[after..], is_token);
        Some(from + start..from + end)
    }

    /// Whether the escape at the start of `text` may be one of the key's.
    pub(super) fn may_have(self, text: &[u8]) -> bool {
        // Most escapes by far, in JSON.
        if self.characters == Characters::Token && matches!(text, [b'\\', b'n' | b'"' | b'\\', ..]) {
            return false;
        }
        escape::is_of(text, |byte| self.characters.have(byte))
    }

    /// How many of the first `most` bytes could belong to a key that began before them.
    pub(super) fn leading(self, text: &[u8], most: usize) -> usize {
        let text = &text[..text.len().min(most)];
        match self.characters {
            Characters::Token | Characters::Marked => leading(text, is_token),
            Characters::Line => leading(text, is_of_line),
            Characters::Any => text.len(),
        }
    }

    /// How many of the last `most` bytes could belong to a key that goes on after them.
    pub(super) fn trailing(self, text: &[u8], most: usize) -> usize {
        let text = &text[text.len().saturating_sub(most)..];
        match self.characters {
            Characters::Token | Characters::Marked => trailing(text, is_token),
            Characters::Line => trailing(text, is_of_line),
            Characters::Any => text.len(),
        }
    }
}

fn leading(text: &[u8], is: impl Fn(u8) -> bool) -> usize {
    let blocks = text.chunks_exact(BLOCK).take_while(|block| all(block, &is)).count() * BLOCK;
    blocks + text[blocks..].iter().take_while(|byte| is(**byte)).count()
}

fn trailing(text: &[u8], is: impl Fn(u8) -> bool) -> usize {
    let blocks = text.rchunks_exact(BLOCK).take_while(|block| all(block, &is)).count() * BLOCK;
    blocks + text[..text.len() - blocks].iter().rev().take_while(|byte| is(**byte)).count()
}

fn all(block: &[u8], is: impl Fn(u8) -> bool) -> bool {
    block.iter().fold(true, |all, byte| all & is(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_lines_and_json_end_on_bytes_that_no_token_has() {
        let class = Class::of(&[b"sk-live/0123+456789=abc"], 32, 32);
        for end in
            ["data: {\"a\":1}\n\n", "{\"a\":[1]}", "[1,2]", "\"text\"", "one word ", "data: [DONE]\r\n\r\n"]
        {
            assert_eq!(class.trailing(end.as_bytes(), 1023), 0, "{end}");
        }
        assert_eq!(class.trailing(b"one more wor", 1023), 3);
        assert_eq!(class.trailing(b"aaaaaa", 4), 4);
        assert_eq!(class.leading(b"ds, and", 1023), 2);
    }

    #[test]
    fn every_escape_is_written_in_bytes_of_every_class() {
        let text = b"%2f\\u002F\\/&#x2f;&sol;&UnderBar;";
        let keys: [&[u8]; 4] = [b"abc", b"a&b%c", b"a pass phrase", b"a\0b"];
        for key in keys {
            let class = Class::of(&[b"other", key], 3, 3);
            assert_eq!((class.leading(text, 99), class.trailing(text, 99)), (text.len(), text.len()));
        }
        let ends = |key: &[u8]| Class::of(&[key], 3, 3).trailing(b"a\n\"b\xe9c d", 99);
        assert_eq!([ends(b"abc"), ends(b"a&b"), ends(b"a b"), ends(b"a\0b")], [1, 1, 6, 8]);
    }

    #[test]
    fn blocks_of_bytes_are_measured_as_single_ones_are() {
        let class = Class::of(&[b"abc"], 3, 3);
        for length in 0..200 {
            for other in 0..=length {
                let mut text = vec![b'a'; length];
                if let Some(byte) = text.get_mut(other) {
                    *byte = b' ';
                }
                assert_eq!(class.leading(&text, 150), other.min(150));
                assert_eq!(
                    class.trailing(&text, 150),
                    (length - other).saturating_sub(1).min(150).max(if other == length {
                        length.min(150)
                    } else {
                        0
                    })
                );
            }
        }
    }

    #[test]
    fn an_escape_counts_where_it_stands_for_what_a_key_may_have() {
        let token = Class::of(&[b"sk-live/0123"], 12, 12);
        for text in ["%2F", "\\/", "&#47;", "%252F", "&amp;#47;", "\\u0026sol;", "%25252F", "\\u005cu002f"] {
            assert!(token.may_have(text.as_bytes()), "{text}");
        }
        for text in
            ["%20", "\\n", "\\\"", "\\\\", "&lt;", "&amp;b=2", "&b=2", "%2520", "&amp;lt;", "%", "\\u00e9"]
        {
            assert!(!token.may_have(text.as_bytes()), "{text}");
        }
        let marked = Class::of(&[b"a&b\\c%d"], 12, 12);
        assert!(marked.may_have(b"&amp;b") && marked.may_have(b"\\\\") && marked.may_have(b"%25"));
        assert!(!marked.may_have(b"\\\"") && Class::of(&[b"a\"b"], 12, 12).may_have(b"\\\""));
    }

    #[test]
    fn keys_of_like_length_wait_alike() {
        let window = |longest| Class::of(&[b"x"], longest, longest).window();
        assert_eq!(
            (window(16), window(102), window(103), window(409), window(410)),
            (1024, 1024, 4096, 4096, 16384)
        );
    }

    #[test]
    fn what_a_form_can_lie_in_is_searched_and_words_and_values_are_not() {
        let parts = |class: Class, text: &str| {
            let mut from = 0;
            let next = || class.part(text.as_bytes(), from).inspect(|part| from = part.end);
            let text = |part| String::from_utf8_lossy(&text.as_bytes()[part]).into_owned();
            std::iter::from_fn(next).map(text).collect::<Vec<_>>()
        };
        let key = "sk-live/0123+456789=abcdefghij_";
        let [long, short, shorter] = [31, 15, 14].map(|shortest| Class::of(&[key.as_bytes()], shortest, 99));
        let words =
            "{\"description\":\"some words, \\\"quoted\\\"\\n\",\"größenordnung\":[1234567890]}".repeat(20);
        assert_eq!(parts(long, &words), [""; 0]);
        assert_eq!(parts(short, &"words of up to seven; ".repeat(90)), [""; 0]);
        for (class, form) in [(long, key), (short, "fifteen-letters"), (shorter, "fourteenletter")] {
            for (before, after) in [("", ""), ("(", ")"), ("\"", "\","), ("größe ", "é"), ("<b>", "</b>")]
            {
                for gap in 0..600 {
                    let text = format!("{}{before}{form}{after}{}", " ".repeat(gap), "word ".repeat(gap));
                    let all = parts(class, &text);
                    assert_eq!(all.iter().filter(|part| part.contains(form)).count(), 1, "{text}");
                    assert!(class.block.is_none() || all[0].len() < 3 * STRETCH, "{text}");
                }
            }
        }
        let line = Class::of(&[b"a pass phrase, long enough for all blocks"], 41, 99);
        assert_eq!(parts(line, &words), [&*words]);
        assert_eq!(parts(shorter, ""), [""; 0]);
    }
}
