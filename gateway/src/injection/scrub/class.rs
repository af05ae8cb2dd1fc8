//! The public rule by which bytes of an answer wait.
//!
//! **Invariant:** what is held back follows from the answer's own bytes and from the class of the key: its kind of characters and its
//! length to the nearest power of four. Never from the key itself, nor from how much of it an answer repeats.

/// What a key is made of, escapes included: only a run of such bytes can hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Characters {
    /// What tokens are made of. JSON, SSE and words of text end on other bytes.
    Token,
    /// Also spaces, quotes, brackets and what is not ASCII. Lines end on other bytes.
    Line,
    /// Also control characters.
    Any,
}

/// The bytes that a key of this class can contain, and how many of them its longest form can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    characters: Characters,
    window: usize,
}

static TOKEN: [bool; 256] = table(Characters::Token);
static LINE: [bool; 256] = table(Characters::Line);

const fn table(characters: Characters) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < u8::MAX {
        table[byte as usize] = belongs(characters, byte);
        byte += 1;
    }
    table[255] = belongs(characters, 255);
    table
}

const fn belongs(characters: Characters, byte: u8) -> bool {
    let quotes =
        matches!(byte, b'"' | b'\'' | b'`' | b',' | b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}');
    match characters {
        Characters::Token => byte.is_ascii_graphic() && !quotes,
        Characters::Line => !byte.is_ascii_control(),
        Characters::Any => true,
    }
}

impl Class {
    /// The class of a key with these parts, whose forms have up to `longest` characters before any of them is escaped.
    pub(super) fn of(parts: &[&[u8]], longest: usize) -> Self {
        let all = |characters| parts.iter().copied().flatten().all(|byte| belongs(characters, *byte));
        let characters = match () {
            () if all(Characters::Token) => Characters::Token,
            () if all(Characters::Line) => Characters::Line,
            () => Characters::Any,
        };
        let mut window = 1024;
        while window < longest * super::escape::WIDEST {
            window *= 4;
        }
        Self { characters, window }
    }

    /// The most bytes that a form of the key can have.
    pub(super) const fn window(self) -> usize {
        self.window
    }

    pub(super) fn has(self, byte: u8) -> bool {
        match self.characters {
            Characters::Token => TOKEN[usize::from(byte)],
            Characters::Line => LINE[usize::from(byte)],
            Characters::Any => true,
        }
    }

    /// How many of the first `most` bytes could belong to a key that began before them.
    pub(super) fn leading(self, text: &[u8], most: usize) -> usize {
        text.iter().take(most).position(|byte| !self.has(*byte)).unwrap_or(text.len().min(most))
    }

    /// How many of the last `most` bytes could belong to a key that goes on after them.
    pub(super) fn trailing(self, text: &[u8], most: usize) -> usize {
        text.iter().rev().take(most).position(|byte| !self.has(*byte)).unwrap_or(text.len().min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_lines_and_json_end_on_bytes_that_no_token_has() {
        let class = Class::of(&[b"sk-live/0123+456789=abc"], 32);
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
        let class = Class::of(&[b"abc"], 3);
        assert!(b"%2f\\u002F\\/&#x2f;&sol;&UnderBar;".iter().all(|byte| class.has(*byte)));
        let spaced = Class::of(&[b"abc", b"a pass phrase"], 3);
        assert!(spaced.has(b'"') && spaced.has(0xE9) && !spaced.has(b'\n'));
        assert!(Class::of(&[b"a\0b"], 3).has(b'\n'));
    }

    #[test]
    fn keys_of_like_length_wait_alike() {
        let window = |longest| Class::of(&[b"x"], longest).window();
        assert_eq!(
            (window(16), window(102), window(103), window(409), window(410)),
            (1024, 1024, 4096, 4096, 16384)
        );
    }
}
