//! Text as its readers see it: percent, JSON and HTML escapes decoded, with the place where each byte of that was written.
//!
//! **Invariant:** what an encoder of one of these made of a text is that text again in one of the views, whichever characters it escaped and in
//! which way; two such encoders, one after the other, are undone as well.

use std::cell::OnceCell;
use std::ops::Range;

use memchr::{memchr, memchr3};
use zeroize::Zeroizing;

/// The most bytes that one escaped character is looked for in.
pub(super) const WIDEST: usize = 10;
/// How often what was decoded is decoded again.
const NESTED: usize = 2;

/// Who writes escapes, by the byte that begins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EscapeFamily {
    Percent,
    Json,
    Html,
}

impl EscapeFamily {
    const ALL: [Self; 3] = [Self::Percent, Self::Json, Self::Html];
    const PERCENT: Round = &[Self::Percent];
    const JSON: Round = &[Self::Json];
    const HTML: Round = &[Self::Html];

    const fn of(mark: u8) -> Option<Self> {
        match mark {
            b'%' => Some(Self::Percent),
            b'\\' => Some(Self::Json),
            b'&' => Some(Self::Html),
            _ => None,
        }
    }
}

pub(super) const fn is_mark(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&')
}

/// Where the next escape may begin.
pub(super) fn mark(text: &[u8]) -> Option<usize> {
    memchr3(b'%', b'\\', b'&', text)
}

/// The same for a text that has many: there preparing a search costs more than looking.
fn near_mark(text: &[u8]) -> Option<usize> {
    let near = text.len().min(16);
    let found = text[..near].iter().position(|byte| is_mark(*byte));
    found.or_else(|| mark(&text[near..]).map(|offset| near + offset))
}

/// Whether what is escaped at the start of `text`, once or twice, begins with a byte that `is` wanted.
pub(super) fn is_of(text: &[u8], is: impl Fn(u8) -> bool) -> bool {
    let first = |text: &[u8]| {
        let (character, width) = unit(text)?;
        Some((character.write(&mut [0; 4])[0], width))
    };
    let Some((byte, width)) = first(text) else { return false };
    if !is_mark(byte) || is(byte) {
        return is(byte);
    }
    if text.starts_with(b"\\\\") {
        // What the second one escapes is looked at there.
        return false;
    }
    let rest = &text[width..];
    let inner = &mut [byte; WIDEST];
    let length = rest.len().min(WIDEST - 1);
    inner[1..=length].copy_from_slice(&rest[..length]);
    first(&inner[..=length]).is_some_and(|(byte, _)| is_mark(byte) || is(byte))
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
    match EscapeFamily::of(*text.first()?)? {
        EscapeFamily::Percent => Some((Character::Byte(u8::try_from(number(text.get(1..3)?, 16)?).ok()?), 3)),
        EscapeFamily::Json => json(text),
        EscapeFamily::Html => html(text),
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
    let end = text.iter().take(WIDEST).position(|byte| *byte == b';')?;
    let character = match text.get(1..end)? {
        [b'#', b'x' | b'X', digits @ ..] => Character::Code(char::from_u32(number(digits, 16)?)?),
        [b'#', digits @ ..] => Character::Code(char::from_u32(number(digits, 10)?)?),
        name => Character::Byte(named(name)?),
    };
    Some((character, end + 1))
}

/// Characters that a key may contain, by their names in HTML (section 13.5 of the HTML standard).
fn named(name: &[u8]) -> Option<u8> {
    Some(match name {
        b"amp" | b"AMP" => b'&',
        b"lt" | b"LT" => b'<',
        b"gt" | b"GT" => b'>',
        b"quot" | b"QUOT" => b'"',
        b"apos" => b'\'',
        b"sol" => b'/',
        b"bsol" => b'\\',
        b"plus" => b'+',
        b"equals" => b'=',
        b"lowbar" | b"UnderBar" => b'_',
        b"period" => b'.',
        b"comma" => b',',
        b"colon" => b':',
        b"semi" => b';',
        b"excl" => b'!',
        b"quest" => b'?',
        b"num" => b'#',
        b"dollar" => b'$',
        b"percnt" => b'%',
        b"commat" => b'@',
        b"ast" | b"midast" => b'*',
        b"lpar" => b'(',
        b"rpar" => b')',
        b"lsqb" | b"lbrack" => b'[',
        b"rsqb" | b"rbrack" => b']',
        b"lcub" | b"lbrace" => b'{',
        b"rcub" | b"rbrace" => b'}',
        b"verbar" | b"vert" => b'|',
        b"Hat" => b'^',
        b"grave" => b'`',
        _ => return None,
    })
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let add = |sum: u32, digit: &u8| Some(sum * radix + char::from(*digit).to_digit(radix)?);
    // An escape has room for seven digits, and their sum has room here.
    if digits.is_empty() || digits.len() > 7 { None } else { digits.iter().try_fold(0, add) }
}

/// One round of decoding, done for what was escaped by some families.
type Round = &'static [EscapeFamily];

/// A text as a reader sees it.
#[derive(Debug)]
pub(super) struct View<'a> {
    text: &'a [u8],
    bytes: &'a [u8],
    rounds: &'a [Round],
    /// Where each byte of the view was written, once it was asked for.
    places: OnceCell<Vec<usize>>,
}

impl<'a> View<'a> {
    const fn new(text: &'a [u8], bytes: &'a [u8], rounds: &'a [Round]) -> Self {
        Self { text, bytes, rounds, places: OnceCell::new() }
    }

    /// What was written.
    pub(super) const fn text(&self) -> &[u8] {
        self.text
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Where these bytes of the view were written. Worked out only when asked: that is where a key was found.
    pub(super) fn place(&self, range: &Range<usize>) -> Range<usize> {
        let places = self.places.get_or_init(|| self.places());
        places[range.start]..places[range.end]
    }

    fn places(&self) -> Vec<usize> {
        #[cfg(test)]
        tests::MAPS.with(|maps| maps.set(maps.get() + 1));
        let mut places: Vec<usize> = (0..=self.text.len()).collect();
        let mut bytes = Zeroizing::new(self.text.to_vec());
        for round in self.rounds {
            let mut next = Zeroizing::new(Vec::with_capacity(bytes.len()));
            let mut starts = Vec::with_capacity(places.len());
            decode(&bytes, round, |at, width, decoded| {
                next.extend_from_slice(decoded);
                match width == decoded.len() {
                    true => starts.extend_from_slice(&places[at..at + width]),
                    false => starts.extend(decoded.iter().map(|_| places[at])),
                }
            });
            starts.push(self.text.len());
            (bytes, places) = (next, starts);
        }
        places
    }
}

/// Hands `text` to `part` in pieces: where each was, how many bytes it had, and what it is. Whether an escape was among them.
fn decode(text: &[u8], families: Round, mut part: impl FnMut(usize, usize, &[u8])) -> bool {
    let (mut plain, mut at) = (0, 0);
    let mut any = false;
    while let Some(next) = near_mark(&text[at..]).map(|offset| at + offset) {
        let is_read = EscapeFamily::of(text[next]).is_some_and(|family| families.contains(&family));
        let Some((character, width)) = unit(&text[next..]).filter(|_| is_read) else {
            at = next + 1;
            continue;
        };
        any = true;
        part(plain, next - plain, &text[plain..next]);
        part(next, width, character.write(&mut [0; 4]));
        at = next + width;
        plain = at;
    }
    part(plain, text.len() - plain, &text[plain..]);
    any
}

/// Room for the views of a text.
#[derive(Debug)]
pub(super) struct Views {
    view: Zeroizing<Vec<u8>>,
    next: Zeroizing<Vec<u8>>,
}

impl Views {
    pub(super) fn new() -> Self {
        Self { view: Zeroizing::new(Vec::new()), next: Zeroizing::new(Vec::new()) }
    }

    /// Hands every view of `text` that differs from it to `look`.
    pub(super) fn each(&mut self, text: &[u8], mut look: impl FnMut(&View<'_>)) {
        let Self { view, next } = self;
        let mut rounds: [Round; 1 + NESTED] = [&EscapeFamily::ALL; 1 + NESTED];
        let mut families = 0;
        for (family, mark) in
            [(EscapeFamily::PERCENT, b'%'), (EscapeFamily::JSON, b'\\'), (EscapeFamily::HTML, b'&')]
        {
            if memchr(mark, text).is_some() {
                families += 1;
                rounds[0] = family;
                if read(text, family, view) {
                    look(&View::new(text, view, &rounds[..1]));
                }
            }
        }
        // What was decoded last is all that there is, where there is one family.
        if families != 1 {
            rounds[0] = &EscapeFamily::ALL;
            if read(text, rounds[0], view) {
                look(&View::new(text, view, &rounds[..1]));
            }
        }
        for round in 1..=NESTED {
            if mark(view).is_none() || !read(view, rounds[round], next) {
                return;
            }
            look(&View::new(text, next, &rounds[..=round]));
            std::mem::swap(view, next);
        }
    }
}

/// `text`, decoded, into `bytes`.
fn read(text: &[u8], families: Round, bytes: &mut Zeroizing<Vec<u8>>) -> bool {
    // A growing vector would leave copies behind.
    if bytes.capacity() < text.len() {
        *bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    }
    bytes.clear();
    decode(text, families, |_, _, part| bytes.extend_from_slice(part))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How often places were worked out.
        pub(super) static MAPS: Cell<usize> = const { Cell::new(0) };
    }

    fn seen(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        Views::new().each(text.as_bytes(), |view| {
            assert_eq!(view.place(&(0..view.bytes().len())), 0..text.len());
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
    fn the_places_of_a_view_are_worked_out_once_however_much_is_found_in_it() {
        let text = "%61%62".repeat(500);
        let mut views = 0;
        MAPS.with(|maps| maps.set(0));
        Views::new().each(text.as_bytes(), |view| {
            views += 1;
            for at in 0..view.bytes().len() {
                assert_eq!(view.place(&(at..at + 1)), 3 * at..3 * at + 3);
            }
        });
        assert!(views > 0);
        assert_eq!(MAPS.with(Cell::get), views);
    }

    #[test]
    fn places_are_those_of_the_text_also_after_two_rounds() {
        let mut last = None;
        Views::new().each(b"xx%252fyy", |view| last = Some(view.place(&(2..3))));
        assert_eq!(last, Some(2..7));
    }
}
