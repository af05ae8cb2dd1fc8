//! What to look for in the answers to calls with one version of a key, and the search for it.
//!
//! Some grams of each form are looked for in one pass, and the whole form around every find, which is compared in constant time: how long a
//! search takes tells nothing of how much of a form a text has right.
//!
//! **Invariant:** a form is found wherever it stands, by itself or escaped; what is found does not depend on what stands around it.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memchr_iter;
use zeroize::Zeroizing;

use super::class::Class;
use super::escape::{View, Views};
use super::grams::{Candidate, Grams};

/// Shorter parts of a key are looked for in headers only: in a body they would be found by chance.
const SHORTEST_IN_BODIES: usize = 12;
/// The most digits of an escape that has no end of its own.
const DIGITS: usize = Grams::FIRST;
/// How many windows are decoded at once, where escapes do not end.
const REGION: usize = 7;

type Form = Zeroizing<Vec<u8>>;

/// The forms of one version of a key: each part of it raw, in hex, and in base64 at the three offsets at which it can lie inside a longer text.
pub(in crate::injection) struct Needles {
    long: Vec<Form>,
    grams: Grams,
    /// For headers.
    short: Vec<Form>,
    shortest: usize,
    class: Class,
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needles").finish_non_exhaustive()
    }
}

/// Which needles count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Header,
    Body,
}

/// Room that a search needs, kept from one to the next.
#[derive(Debug)]
pub(super) struct Finds {
    views: Option<Box<Views>>,
    /// What was found, in no order; some of it may overlap.
    pub(super) ranges: Vec<Range<usize>>,
}

impl Finds {
    pub(super) const fn new() -> Self {
        Self { views: None, ranges: Vec::new() }
    }
}

impl Needles {
    /// For a key whose `parts` go on the wire as they are or encoded; `encoded` is what is sent of them where that is no simple form of a part.
    pub(in crate::injection) fn new(parts: &[&[u8]], encoded: &[&[u8]]) -> Self {
        let (mut long, mut short): (Vec<Form>, Vec<Form>) = (Vec::new(), Vec::new());
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let list = if part.len() < SHORTEST_IN_BODIES { &mut short } else { &mut long };
            list.extend(forms(part));
        }
        for text in encoded.iter().filter(|text| !text.is_empty()) {
            let list = if text.len() < SHORTEST_IN_BODIES { &mut short } else { &mut long };
            list.push(Zeroizing::new(text.to_vec()));
        }
        for list in [&mut long, &mut short] {
            list.sort_unstable_by(|a, b| a.as_slice().cmp(b.as_slice()));
            list.dedup();
        }
        let lengths = || long.iter().chain(&short).map(|form| form.len());
        let (shortest, longest) = (lengths().min().unwrap_or(usize::MAX), lengths().max().unwrap_or(0));
        let class = Class::of(parts, longest);
        let grams = Grams::of(long.iter().map(|form| form.as_slice()));
        Self { long, grams, short, shortest, class }
    }

    /// Whether there is anything to look for in bodies.
    pub(super) fn are_in_bodies(&self) -> bool {
        !self.long.is_empty()
    }

    /// Whether a part is too short to be looked for in bodies.
    pub(in crate::injection) fn has_short(&self) -> bool {
        !self.short.is_empty()
    }

    pub(super) const fn class(&self) -> Class {
        self.class
    }

    /// `text` of a header with every occurrence overwritten; `None`: there is none.
    pub(super) fn masked(&self, text: &[u8], finds: &mut Finds) -> Option<Vec<u8>> {
        if text.len() < self.shortest {
            return None;
        }
        self.find(text, Where::Header, finds);
        if finds.ranges.is_empty() {
            return None;
        }
        let mut clean = text.to_vec();
        for range in finds.ranges.drain(..) {
            clean[range].fill(b'*');
        }
        Some(clean)
    }

    /// Every occurrence in `text`, into `finds`.
    pub(super) fn find(&self, text: &[u8], place: Where, finds: &mut Finds) {
        let Finds { views, ranges } = finds;
        ranges.clear();
        self.literally(text, place, |range| ranges.push(range));
        let least = if place == Where::Header { 1 } else { SHORTEST_IN_BODIES };
        let mut from = 0;
        while let Some(at) = self.class.escape(text, from) {
            let window = self.class.window();
            let start = at - self.class.trailing(&text[..at], window);
            let length = self.class.leading(&text[at..], REGION * window);
            let end = at + length;
            if end - start > least {
                let views = views.get_or_insert_with(|| Box::new(Views::new()));
                views.each(&text[start..end], |view| {
                    let mut found = |range: Range<usize>| ranges.push(start + range.start..start + range.end);
                    self.literally(view.bytes(), place, |range| found(view.place(&range)));
                    self.grams.each(view.bytes(), |candidate| {
                        let form = &self.long[candidate.text];
                        behind_an_escape(form, view, candidate).into_iter().for_each(&mut found);
                    });
                });
            }
            // A form that begins in the last window may go on after it.
            from = if length < REGION * window { end } else { end - window + 1 };
        }
    }

    fn literally(&self, text: &[u8], place: Where, mut found: impl FnMut(Range<usize>)) {
        self.grams.each(text, |candidate| {
            around(&self.long[candidate.text], text, candidate).into_iter().for_each(&mut found);
        });
        if place == Where::Header {
            for form in &self.short {
                for at in occurrences(form, text) {
                    found(at..at + form.len());
                }
            }
        }
    }
}

/// Where `form` lies, if it lies there.
fn around(form: &[u8], text: &[u8], candidate: Candidate) -> Option<Range<usize>> {
    let start = candidate.at.checked_sub(candidate.offset)?;
    let range = start..start + form.len();
    verify_slices_are_equal(text.get(range.clone())?, form).ok()?;
    Some(range)
}

/// Where it lies in the text of `view`, if an escape that began before it took its first characters for digits.
fn behind_an_escape(form: &[u8], view: &View<'_>, candidate: Candidate) -> Option<Range<usize>> {
    (1..=DIGITS).find_map(|taken| {
        let (head, tail) = form.split_at_checked(taken)?;
        let offset = candidate.offset.checked_sub(taken)?;
        let written = view.place(&around(tail, view.bytes(), Candidate { offset, ..candidate })?);
        let first = written.start.checked_sub(taken)?;
        (view.text().get(first..written.start)? == head).then_some(first..written.end)
    })
}

/// Where `form` lies in `text`. Header values are short: looking for a first byte beats preparing a search.
fn occurrences<'a>(form: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let last = text.len().checked_sub(form.len()).map_or(0, |last| last + 1);
    let first = form.first().copied().unwrap_or_default();
    memchr_iter(first, &text[..last]).filter(move |at| text[*at..].starts_with(form))
}

fn forms(part: &[u8]) -> Vec<Form> {
    let hex = |digits: &[u8; 16]| {
        let mut text = Zeroizing::new(Vec::with_capacity(part.len() * 2));
        for byte in part {
            text.extend([digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        }
        text
    };
    let mut forms = vec![Zeroizing::new(part.to_vec()), hex(b"0123456789abcdef"), hex(b"0123456789ABCDEF")];
    for offset in 0..3 {
        forms.extend(base64_inside(&STANDARD_NO_PAD, part, offset));
        forms.extend(base64_inside(&URL_SAFE_NO_PAD, part, offset));
    }
    forms
}

/// The characters that depend on the part alone when it starts `offset` bytes into a base64 group.
fn base64_inside(alphabet: &impl Engine, part: &[u8], offset: usize) -> Option<Form> {
    let mut padded = Zeroizing::new(Vec::with_capacity(offset + part.len()));
    padded.resize(offset, 0);
    padded.extend_from_slice(part);
    let encoded = Zeroizing::new(alphabet.encode(&*padded));
    let start = [0, 2, 3][offset];
    let whole = padded.len() / 3 * 4 + [0, 1, 2][padded.len() % 3];
    (whole > start + 4).then(|| Zeroizing::new(encoded.as_bytes()[start..whole].to_vec()))
}

#[cfg(test)]
pub(super) mod tests;
