//! Text as its readers see it: percent, JSON and HTML escapes decoded, with the place where each byte of that was written.
//!
//! **Invariant:** what an encoder of one of these made of a text is that text again in one of the views, whichever characters it escaped and in
//! which way; two such encoders, one after the other, are undone as well.

use std::ops::Range;

use memchr::{memchr, memchr3};
use zeroize::Zeroizing;

/// The most bytes that one escaped character is looked for in.
pub(super) const WIDEST: usize = 10;
/// How often what was decoded is decoded again.
const NESTED: usize = 2;

/// Characters that a key may contain, by their names in HTML (section 13.5 of the HTML standard).
const NAMED: [(&[u8], u8); 39] = [
    (b"amp", b'&'),
    (b"AMP", b'&'),
    (b"lt", b'<'),
    (b"LT", b'<'),
    (b"gt", b'>'),
    (b"GT", b'>'),
    (b"quot", b'"'),
    (b"QUOT", b'"'),
    (b"apos", b'\''),
    (b"sol", b'/'),
    (b"bsol", b'\\'),
    (b"plus", b'+'),
    (b"equals", b'='),
    (b"lowbar", b'_'),
    (b"UnderBar", b'_'),
    (b"period", b'.'),
    (b"colon", b':'),
    (b"semi", b';'),
    (b"comma", b','),
    (b"excl", b'!'),
    (b"quest", b'?'),
    (b"num", b'#'),
    (b"dollar", b'$'),
    (b"percnt", b'%'),
    (b"commat", b'@'),
    (b"ast", b'*'),
    (b"midast", b'*'),
    (b"lpar", b'('),
    (b"rpar", b')'),
    (b"lsqb", b'['),
    (b"lbrack", b'['),
    (b"rsqb", b']'),
    (b"rbrack", b']'),
    (b"lcub", b'{'),
    (b"rcub", b'}'),
    (b"verbar", b'|'),
    (b"vert", b'|'),
    (b"Hat", b'^'),
    (b"grave", b'`'),
];

/// Who writes escapes, by the byte that begins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Percent,
    Json,
    Html,
}

impl Family {
    const ALL: [Self; 3] = [Self::Percent, Self::Json, Self::Html];

    const fn mark(self) -> u8 {
        match self {
            Self::Percent => b'%',
            Self::Json => b'\\',
            Self::Html => b'&',
        }
    }

    const fn of(mark: u8) -> Option<Self> {
        match mark {
            b'%' => Some(Self::Percent),
            b'\\' => Some(Self::Json),
            b'&' => Some(Self::Html),
            _ => None,
        }
    }
}

/// Where the next escape may begin.
pub(super) fn mark(text: &[u8]) -> Option<usize> {
    memchr3(b'%', b'\\', b'&', text)
}

/// The first byte of the character that is escaped at the start of `text`.
pub(super) fn first_byte(text: &[u8]) -> Option<u8> {
    let (character, _) = unit(text)?;
    let mut bytes = [0; 4];
    Some(character.write(&mut bytes)[0])
}

/// What one escape stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Character {
    Byte(u8),
    Code(char),
}

impl Character {
    fn write(self, into: &mut [u8; 4]) -> &[u8] {
        match self {
            Self::Byte(byte) => {
                into[0] = byte;
                &into[..1]
            }
            Self::Code(code) => code.encode_utf8(into).as_bytes(),
        }
    }
}

/// The escape at the start of `text`, and how many bytes it has.
fn unit(text: &[u8]) -> Option<(Character, usize)> {
    match Family::of(*text.first()?)? {
        Family::Percent => Some((Character::Byte(u8::try_from(number(text.get(1..3)?, 16)?).ok()?), 3)),
        Family::Json => json(text),
        Family::Html => html(text),
    }
}

fn json(text: &[u8]) -> Option<(Character, usize)> {
    let byte = match *text.get(1)? {
        byte @ (b'"' | b'\\' | b'/' | b'\'') => byte,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'f' => 12,
        b'r' => b'\r',
        b'u' => return Some((Character::Code(char::from_u32(number(text.get(2..6)?, 16)?)?), 6)),
        // Not JSON, but JavaScript and Python.
        b'x' => return Some((Character::Code(char::from_u32(number(text.get(2..4)?, 16)?)?), 4)),
        _ => return None,
    };
    Some((Character::Byte(byte), 2))
}

fn html(text: &[u8]) -> Option<(Character, usize)> {
    let end = memchr(b';', &text[..text.len().min(WIDEST)])?;
    let code = match text.get(1..end)? {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
        [b'#', digits @ ..] => number(digits, 10)?,
        name => NAMED.iter().find(|(known, _)| *known == name).map(|(_, byte)| u32::from(*byte))?,
    };
    Some((Character::Code(char::from_u32(code)?), end + 1))
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |sum, digit| {
        sum.checked_mul(radix)?.checked_add(char::from(*digit).to_digit(radix)?)
    })
}

/// Decoded text, and where each of its bytes was written; one place more than bytes.
#[derive(Debug)]
pub(super) struct View {
    bytes: Zeroizing<Vec<u8>>,
    places: Vec<usize>,
}

impl View {
    fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::new()), places: Vec::new() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where these bytes of the view were written.
    pub(super) fn place(&self, range: &Range<usize>) -> Range<usize> {
        self.places[range.start]..self.places[range.end]
    }

    /// Decodes what `families` escaped in `text`, whose bytes were written at `place`. Whether there was anything.
    fn decode(&mut self, text: &[u8], place: impl Fn(usize) -> usize, families: &[Family]) -> bool {
        // A growing vector would leave copies behind.
        if self.bytes.capacity() < text.len() {
            self.bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        }
        self.bytes.clear();
        self.places.clear();
        let mut at = 0;
        let mut any = false;
        while let Some(next) = mark(&text[at..]).map(|offset| at + offset) {
            self.copy(text, at..next, &place);
            let decoded =
                unit(&text[next..]).filter(|_| Family::of(text[next]).is_some_and(|f| families.contains(&f)));
            at = match decoded {
                Some((character, width)) => {
                    any = true;
                    let mut buffer = [0; 4];
                    for byte in character.write(&mut buffer) {
                        self.bytes.push(*byte);
                        self.places.push(place(next));
                    }
                    next + width
                }
                None => {
                    self.copy(text, next..next + 1, &place);
                    next + 1
                }
            };
        }
        self.copy(text, at..text.len(), &place);
        self.places.push(place(text.len()));
        any
    }

    fn copy(&mut self, text: &[u8], range: Range<usize>, place: impl Fn(usize) -> usize) {
        self.places.extend(range.clone().map(place));
        self.bytes.extend_from_slice(&text[range]);
    }
}

/// Room for the views of a text.
#[derive(Debug)]
pub(super) struct Views {
    view: View,
    next: View,
}

impl Views {
    pub(super) fn new() -> Self {
        Self { view: View::new(), next: View::new() }
    }

    /// Hands every view of `text` that differs from it to `look`.
    pub(super) fn each(&mut self, text: &[u8], mut look: impl FnMut(&View)) {
        let mut families = 0;
        for family in Family::ALL {
            if memchr(family.mark(), text).is_some() {
                families += 1;
                if self.view.decode(text, |at| at, &[family]) {
                    look(&self.view);
                }
            }
        }
        // What was decoded last is all that there is, where there is one family.
        if families != 1 && self.view.decode(text, |at| at, &Family::ALL) {
            look(&self.view);
        }
        for _ in 0..NESTED {
            let Self { view, next } = self;
            if mark(view.bytes()).is_none() || !next.decode(&view.bytes, |at| view.places[at], &Family::ALL) {
                return;
            }
            look(next);
            std::mem::swap(view, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        Views::new().each(text.as_bytes(), |view| {
            assert_eq!(view.places.len(), view.bytes.len() + 1);
            assert_eq!(view.place(&(0..view.bytes.len())), 0..text.len());
            all.push(String::from_utf8_lossy(view.bytes()).into_owned());
        });
        all
    }

    #[test]
    fn each_escape_is_what_its_standard_says() {
        for text in [
            "a%2fb",
            "a%2Fb",
            "a\\/b",
            "a\\u002fb",
            "a\\u002Fb",
            "a\\x2fb",
            "a&#47;b",
            "a&#x2f;b",
            "a&#X002F;b",
            "a&sol;b",
            "%61&#47;\\u0062",
        ] {
            assert!(seen(text).contains(&"a/b".to_owned()), "{text}: {:?}", seen(text));
        }
        for text in [
            "a%2",
            "a%zz",
            "a\\q",
            "a\\u00",
            "a&;",
            "a&nothing;",
            "a&#47",
            "plain",
            "&#00000000047;",
            "\\ud800",
        ] {
            assert_eq!(seen(text), [""; 0], "{text}");
        }
        assert_eq!(seen("\\u00e9"), ["é"]);
    }

    #[test]
    fn what_was_escaped_twice_is_decoded_twice() {
        for text in [
            "a%252fb",
            "a\\\\\\/b",
            "a\\\\u002fb",
            "a&amp;sol;b",
            "a\\u0026sol;b",
            "a&#37;2fb",
            "a\\u00252fb",
        ] {
            assert!(seen(text).contains(&"a/b".to_owned()), "{text}: {:?}", seen(text));
        }
    }

    #[test]
    fn a_text_that_itself_looks_escaped_is_found_in_the_view_of_its_encoder() {
        assert!(seen("a%41b\\/c&amp;").contains(&"a%41b/c&amp;".to_owned()));
        assert!(seen("100%&amp;\\u").contains(&"100%&\\u".to_owned()));
    }

    #[test]
    fn places_are_those_of_the_text_also_after_two_rounds() {
        let mut last = None;
        Views::new().each(b"xx%252fyy", |view| last = Some(view.place(&(2..3))));
        assert_eq!(last, Some(2..7));
    }
}
