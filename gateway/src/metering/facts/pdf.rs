//! How many pages a PDF has, from its base64, in one pass and without a tree of it.
//!
//! Pages are counted where they are named (ISO 32000-1, 7.7.3): by the objects of type `Page`, and by the references in page trees. Where
//! they could be elsewhere (in compressed objects) or more (a page that is referred to twice in a tree of trees), nothing is said.

use std::collections::HashSet;

use base64::Engine;
use memchr::memmem;

use super::picture::BASE64;

/// Characters of base64 that are decoded at a time.
const PIECE: usize = 4096;
/// What is looked at again with the next piece: the longest of what is looked for, and white space within it.
const OVERLAP: usize = 32;
/// No provider reads more pages.
const PAGES_MAX: usize = 2000;

/// The most pages that it can have; `None` where they cannot be counted, or it is no PDF.
pub(super) fn pages(base64: &str) -> Option<u64> {
    let mut count = PageCount::default();
    let mut window = Vec::with_capacity(PIECE + OVERLAP);
    let mut piece = [0; PIECE];
    for (index, chars) in base64.as_bytes().chunks(PIECE).enumerate() {
        let length = BASE64.decode_slice(chars, &mut piece).ok()?;
        let fresh = piece.get(..length)?;
        if index == 0 && !fresh.starts_with(b"%PDF-") {
            return None;
        }
        window.extend_from_slice(fresh);
        let is_last = (index + 1) * PIECE >= base64.len();
        let end = if is_last { window.len() } else { window.len().saturating_sub(OVERLAP) };
        count.look(&window, end)?;
        window.drain(..end);
    }
    count.pages()
}

#[derive(Default)]
struct PageCount {
    objects: u64,
    kids: Kids,
    has_tree: bool,
    trees: u64,
}

/// The references in the page trees.
#[derive(Default)]
struct Kids {
    /// Behind the name of one.
    is_open: bool,
    /// Within its brackets.
    has_begun: bool,
    /// Bytes of the name that come with the next piece.
    rest_of_name: usize,
    /// The last three numbers of it, of which the one before the last is an object's when an `R` follows.
    number: Option<u64>,
    before: Option<u64>,
    seen: HashSet<u64>,
    references: u64,
    is_shared: bool,
}

impl PageCount {
    /// Looks at what begins before `end`.
    fn look(&mut self, window: &[u8], end: usize) -> Option<()> {
        let begins = |needle: &'static [u8]| memmem::find_iter(window, needle).filter(move |at| *at < end);
        if begins(b"/ObjStm").next().is_some() || begins(b"/Encrypt").next().is_some() {
            return None;
        }
        self.objects +=
            begins(b"/Type").filter(|at| is_page(window.get(at + 5..).unwrap_or_default())).count() as u64;
        if begins(b"/").any(|at| is_disguised(window.get(at + 1..).unwrap_or_default())) {
            return None;
        }
        let mut from = 0;
        if self.kids.is_open {
            from = std::mem::take(&mut self.kids.rest_of_name);
            from += self.kids.read(window.get(from..end).unwrap_or_default())?;
        }
        for at in begins(b"/Kids") {
            if at < from {
                continue;
            }
            self.trees += 1;
            self.has_tree = true;
            (self.kids.is_open, self.kids.has_begun) = (true, false);
            self.kids.rest_of_name = (at + 5).saturating_sub(end);
            from = at + 5 + self.kids.read(window.get(at + 5..end).unwrap_or_default())?;
        }
        (self.kids.seen.len() <= PAGES_MAX).then_some(())
    }

    fn pages(&self) -> Option<u64> {
        let is_plain = self.has_tree && (self.trees == 1 || !self.kids.is_shared);
        is_plain.then(|| self.objects.max(self.kids.references))
    }
}

impl Kids {
    /// Reads to the closing bracket, and says how far that is. `None`: there is something else than a list of references.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    self.number = Some(self.number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
                    continue;
                }
                b'[' if !self.has_begun => self.has_begun = true,
                b'R' if self.has_begun => {
                    self.references += 1;
                    self.is_shared |= !self.seen.insert(self.before.take().unwrap_or(0));
                }
                b']' if self.has_begun => {
                    (self.is_open, self.number, self.before) = (false, None, None);
                    return Some(at);
                }
                b' ' | b'\t' | b'\r' | b'\n' | 0 | 12 => {}
                _ => return None,
            }
            // The generation follows the number, and is the last before the `R`.
            if let Some(number) = self.number.take()
                && self.before.is_none()
            {
                self.before = Some(number);
            }
        }
        Some(bytes.len())
    }
}

/// Whether a name is one of those that are looked for, written with escapes (ISO 32000-1, 7.3.5). `after` is what follows its slash.
fn is_disguised(after: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] = [b"Type", b"Page", b"Pages", b"Kids", b"ObjStm", b"Encrypt"];
    /// The longest of them with every letter escaped.
    const LONGEST: usize = 21;
    let is_end = |byte: &u8| b"\0\t\n\x0c\r ()<>[]{}/%".contains(byte);
    let name = after.iter().position(is_end).and_then(|end| after.get(..end)).unwrap_or(after);
    if name.len() > LONGEST || !name.contains(&b'#') {
        return false;
    }
    let plain: Vec<u8> = percent_encoding::percent_decode(&escaped_as_percent(name)).collect();
    WORDS.contains(&plain.as_slice())
}

/// With `%` for `#`.
fn escaped_as_percent(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'#' { b'%' } else { *byte }).collect()
}

/// Whether the value after `/Type` is `/Page`, and not `/Pages`.
fn is_page(after: &[u8]) -> bool {
    let value = after.trim_ascii_start();
    value.strip_prefix(b"/Page").is_some_and(|rest| !rest.first().is_some_and(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(objects: &str) -> Option<u64> {
        pages(&BASE64.encode(format!("%PDF-1.4\n{objects}\n%%EOF")))
    }

    fn flat(pages: usize) -> String {
        let kids: String = (0..pages).map(|page| format!("{} 0 R ", page + 3)).collect();
        let filler = "x".repeat(3001);
        let page = |page| format!("{} 0 obj<</Type /Page/Parent 2 0 R>>endobj\nstream {filler}\n", page + 3);
        format!("2 0 obj<</Type /Pages/Kids [{kids}]/PageCount {pages}>>endobj\n")
            + &(0..pages).map(page).collect::<String>()
    }

    #[test]
    fn pages_are_counted_wherever_a_piece_ends() {
        for count in [1, 2, 7, 100, 601] {
            assert_eq!(document(&flat(count)), Some(count as u64));
        }
        for lead in 0..100 {
            let padded = format!("{}\n{}", " ".repeat(3000 + lead), flat(3));
            assert_eq!(document(&padded), Some(3), "{lead}");
        }
    }

    #[test]
    fn a_page_that_is_shown_again_counts_again() {
        assert_eq!(document("<</Type/Pages/Kids[3 0 R 3 0 R 3 0 R]>> <</Type/Page>>"), Some(3));
        let nested = "<</Kids[3 0 R 3 0 R]>> <</Kids[4 0 R 4 0 R]>> <</Type/Page>>";
        assert_eq!(document(nested), None, "trees of trees may double at each level");
        let tree = "<</Kids[3 0 R 4 0 R]>> <</Kids[5 0 R 6 0 R]>> <</Kids[7 0 R 8 0 R]>> <</Type/Page>>";
        assert_eq!(document(tree), Some(6));
    }

    #[test]
    fn pages_that_are_hidden_from_a_plain_look_are_not_counted_as_few() {
        let elsewhere = "5 0 obj[3 0 R 3 0 R 3 0 R]endobj <</Type/Pages/Kids 5 0 R>> <</Type/Page>>";
        assert_eq!(document(elsewhere), None);
        assert_eq!(document("<</Type/Pages/Kids[3 0 R %]\n 4 0 R 5 0 R]>> <</Type/Page>>"), None);
        assert_eq!(document("<</Type/Pages/Kids[[3 0 R] 4 0 R 5 0 R]>> <</Type/Page>>"), None);
        for disguised in ["/K#69ds", "/Pa#67e", "/O#62jStm", "/#45ncrypt", "/#54#79#70#65"] {
            let padding = " ".repeat(3050);
            for lead in [0, 3000, 3040] {
                let text =
                    format!("{}<</Type/Pages/Kids[3 0 R]>> <</Type/Page>> {disguised}", &padding[..lead]);
                assert_eq!(document(&text), None, "{disguised} {lead}");
            }
        }
        assert_eq!(document("<</Type/Pages/Kids[3 0 R]>> <</Type/Page/Na#6de 1>>"), Some(1));
    }

    #[test]
    fn what_cannot_be_counted_says_nothing() {
        assert_eq!(document("<</Type/ObjStm>> <</Type/Page>> <</Kids[1 0 R]>>"), None);
        assert_eq!(document("<</Encrypt 9 0 R>> <</Type/Page>> <</Kids[1 0 R]>>"), None);
        assert_eq!(document("<</Type/Page>>"), None, "no tree of pages");
        assert_eq!(pages(&BASE64.encode("no pdf")), None);
        assert_eq!(pages("JVBE"), None);
        assert_eq!(pages(""), None);
        assert_eq!(pages("\u{e9}"), None);
    }
}
