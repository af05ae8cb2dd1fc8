//! What to look for in the answers to calls with one version of a key, and the search for it.
//!
//! Only where the class of the key allows it to be. There four bytes from somewhere inside each form are looked for in one vectorized pass,
//! and the whole form, compared in constant time, around every find. So the time of a search tells whether a text has those four, which a
//! caller can make a provider repeat: they are of the same few bytes of the key in all of its forms, wherever and how often they are made.
//!
//! **Invariant:** a form is found wherever it stands, by itself or escaped; what is found does not depend on what stands around it.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::Span;
use aho_corasick::packed::Searcher;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memchr_iter;
use memchr::memmem;
use tollgate_secrets::hex;
use zeroize::Zeroizing;

use super::class::Class;
use super::escape::{self, View, Views};

/// Shorter parts of a key are looked for in headers only: in a body they would be found by chance.
const SHORTEST_IN_BODIES: usize = 12;
const ANCHOR: usize = 4;
/// The most digits of an escape that has no end of its own.
const DIGITS: usize = 4;
/// How many windows are decoded at once, where escapes do not end.
const REGION: usize = 7;

type Anchor = [u8; ANCHOR];
type NeedleForm = Zeroizing<Vec<u8>>;

/// The forms of one version of a key: each part of it raw, in hex, and in base64 at the three offsets at which it can lie inside a longer text.
pub(in crate::injection) struct Needles {
    long: Vec<Needle>,
    anchors: Vec<Anchored>,
    /// `None` where the processor has no instructions for it.
    searcher: Option<Searcher>,
    /// For headers.
    short: Vec<NeedleForm>,
    /// All of them in lower case, each with where its anchor is: the names of headers have no other.
    folded: Vec<Needle>,
    shortest: usize,
    class: Class,
}

struct Needle {
    form: NeedleForm,
    /// Where in it its anchor is.
    anchor_at: usize,
}

/// An anchor and the needles that have it.
struct Anchored {
    anchor: Zeroizing<Anchor>,
    needles: Vec<usize>,
}

/// A secret as it is sent behind a name.
#[derive(Clone, Copy)]
pub(in crate::injection) struct Pair<'a> {
    pub(in crate::injection) secret: &'a [u8],
    /// Ends with the secret.
    pub(in crate::injection) text: &'a [u8],
    /// `text` in padded base64.
    pub(in crate::injection) encoded: &'a [u8],
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
    /// For a key whose `parts` go on the wire as they are or encoded, or in `pairs`.
    pub(in crate::injection) fn new(parts: &[&[u8]], pairs: &[Pair<'_>]) -> Self {
        let (mut long, mut short): (Vec<Needle>, Vec<NeedleForm>) = (Vec::new(), Vec::new());
        let mut add = |secret: &[u8], text: &[u8], sent: &[u8], forms: Vec<NeedleForm>| match sent.len() {
            0 => {}
            1..SHORTEST_IN_BODIES => short.extend(forms),
            _ => long.extend(forms.into_iter().map(|form| Needle::new(form, text.len(), from_end(secret)))),
        };
        parts.iter().for_each(|part| add(part, part, part, forms(part)));
        for Pair { secret, text, encoded } in pairs {
            add(secret, text, text, forms(text));
            add(secret, text, encoded, vec![Zeroizing::new(encoded.to_vec())]);
        }
        long.sort_unstable_by(|a, b| a.form.as_slice().cmp(b.form.as_slice()));
        long.dedup_by(|a, b| a.form == b.form);
        short.sort_unstable_by(|a, b| a.as_slice().cmp(b.as_slice()));
        short.dedup();
        let in_bodies = || long.iter().map(|needle| needle.form.len());
        let lengths = || short.iter().map(|form| form.len()).chain(in_bodies());
        let (shortest, longest) = (lengths().min().unwrap_or(usize::MAX), lengths().max().unwrap_or(0));
        let texts: Vec<&[u8]> =
            pairs.iter().flat_map(|pair| [pair.text, pair.encoded]).chain(parts.iter().copied()).collect();
        let class = Class::of(&texts, in_bodies().min().unwrap_or_default(), longest);
        let anchors = anchors(&long);
        let folded = folded(&long, &short);
        // What it keeps of the key are the anchors; it cannot be told to zeroize them.
        let searcher = Searcher::new(anchors.iter().map(|anchored| &anchored.anchor[..]));
        Self { long, anchors, searcher, short, folded, shortest, class }
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

    /// Whether one stands in the name of a header, in whatever case it was sent.
    pub(super) fn are_in_name(&self, name: &str) -> bool {
        let has = |name: &[u8]| {
            let may_hold = self.folded.iter().filter(|needle| needle.form.len() <= name.len());
            may_hold.into_iter().any(|needle| {
                let anchor = needle.form.get(needle.anchor_at..).unwrap_or_default();
                let anchor = &anchor[..anchor.len().min(ANCHOR)];
                memmem::find_iter(name, anchor).any(|at| needle.around(name, at).is_some())
            })
        };
        if name.len() < self.shortest {
            return false;
        }
        if has(name.as_bytes()) {
            return true;
        }
        let mut is_found = false;
        if escape::mark(name.as_bytes()).is_some() {
            Views::new().each(name.as_bytes(), |view| {
                is_found |= has(&Zeroizing::new(view.bytes().to_ascii_lowercase()));
            });
        }
        is_found
    }

    /// Every occurrence in `text`, into `finds`.
    pub(super) fn find(&self, text: &[u8], place: Where, finds: &mut Finds) {
        finds.ranges.clear();
        if place == Where::Header {
            return self.search(text, 0, place, finds);
        }
        let mut from = 0;
        while let Some(part) = self.class.part(text, from) {
            from = part.end;
            self.search(&text[part.clone()], part.start, place, finds);
        }
    }

    /// Every occurrence in `text`, which begins at `base` in the whole, into `finds`.
    fn search(&self, text: &[u8], base: usize, place: Where, finds: &mut Finds) {
        let Finds { views, ranges } = finds;
        let whole = |start: usize, range: Range<usize>| base + start + range.start..base + start + range.end;
        self.candidates(text, |needle, at| {
            ranges.extend(needle.around(text, at).map(|range| whole(0, range)));
        });
        ranges.extend(self.short_in(text, place).map(|range| whole(0, range)));
        let least = if place == Where::Header { 1 } else { SHORTEST_IN_BODIES };
        let mut from = 0;
        while let Some(at) = escape::mark(&text[from..]).map(|offset| from + offset) {
            // Most escapes are those of line ends and quotes, which no token has.
            if !self.class.may_have(&text[at..]) {
                from = at + 1;
                continue;
            }
            let window = self.class.window();
            let start = at - self.class.trailing(&text[..at], window);
            let length = self.class.leading(&text[at..], REGION * window);
            let end = at + length;
            if end - start > least {
                let views = views.get_or_insert_with(|| Box::new(Views::new()));
                views.each(&text[start..end], |view| {
                    self.candidates(view.bytes(), |needle, at| {
                        let literal = needle.around(view.bytes(), at).map(|range| view.place(&range));
                        ranges.extend(literal.map(|range| whole(start, range)));
                        ranges.extend(needle.behind_an_escape(view, at).map(|range| whole(start, range)));
                    });
                    let short = self.short_in(view.bytes(), place).map(|range| view.place(&range));
                    ranges.extend(short.map(|range| whole(start, range)));
                });
            }
            // A form that begins in the last window may go on after it.
            from = if length < REGION * window { end } else { end - window + 1 };
        }
    }

    fn short_in<'a>(&'a self, text: &'a [u8], place: Where) -> impl Iterator<Item = Range<usize>> + 'a {
        let short: &[NeedleForm] = if place == Where::Header { &self.short } else { &[] };
        short.iter().flat_map(move |form| occurrences(form, text).map(move |at| at..at + form.len()))
    }

    /// The needles that may stand in `text`, and where their anchors do.
    fn candidates(&self, text: &[u8], mut found: impl FnMut(&Needle, usize)) {
        if text.len() < ANCHOR || self.anchors.is_empty() {
            return;
        }
        self.anchors_in(text, |anchored, at| {
            for needle in anchored.needles.iter().filter_map(|index| self.long.get(*index)) {
                found(needle, at);
            }
        });
    }

    fn anchors_in(&self, text: &[u8], mut found: impl FnMut(&Anchored, usize)) {
        let Some(searcher) = &self.searcher else {
            for anchored in &self.anchors {
                for at in memmem::find_iter(text, &anchored.anchor[..]) {
                    found(anchored, at);
                }
            }
            return;
        };
        let mut from = 0;
        // One anchor may begin inside another.
        while let Some(hit) = searcher.find_in(text, Span::from(from..text.len())) {
            if let Some(anchored) = self.anchors.get(hit.pattern().as_usize()) {
                found(anchored, hit.start());
            }
            from = hit.start() + 1;
        }
    }
}

impl Needle {
    /// A form of a text of this length. Its anchor is of what lies as many bytes before the end of that.
    fn new(form: NeedleForm, text: usize, from_end: usize) -> Self {
        let last = form.len().saturating_sub(ANCHOR);
        let anchor_at = (form.len() - from_end * form.len() / text).min(last);
        Self { form, anchor_at }
    }

    /// Where it stands, if its anchor is at `at`.
    fn around(&self, text: &[u8], at: usize) -> Option<Range<usize>> {
        let start = at.checked_sub(self.anchor_at)?;
        let range = start..start + self.form.len();
        verify_slices_are_equal(text.get(range.clone())?, &self.form).ok()?;
        Some(range)
    }

    /// Where it stands in the text of `view`, if an escape that began before it took its first characters for digits.
    fn behind_an_escape(&self, view: &View<'_>, at: usize) -> Option<Range<usize>> {
        (1..=DIGITS.min(self.anchor_at)).find_map(|taken| {
            let (head, tail) = self.form.split_at_checked(taken)?;
            let start = at.checked_sub(self.anchor_at - taken)?;
            let range = start..start + tail.len();
            verify_slices_are_equal(view.bytes().get(range.clone())?, tail).ok()?;
            let written = view.place(&range);
            let first = written.start.checked_sub(taken)?;
            verify_slices_are_equal(view.text().get(first..written.start)?, head).ok()?;
            Some(first..written.end)
        })
    }
}

/// How many bytes before the end of this secret the anchors of its forms begin, not in its first third: there providers write the same for all
/// keys. The same each time: if every core, policy or pair drew its own, the anchors of all of them together would be the key.
fn from_end(secret: &[u8]) -> usize {
    static PLACES: LazyLock<hmac::Key> = LazyLock::new(|| {
        let mut random = [0; 32];
        // Without it anchors are where anyone would guess, which costs nothing but the guess.
        let _ = rand::fill(&mut random);
        hmac::Key::new(hmac::HMAC_SHA256, &random)
    });
    let tag = hmac::sign(&PLACES, secret);
    let drawn = tag.as_ref().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
    let first = secret.len() / 3;
    let places = secret.len().saturating_sub(ANCHOR + first) + 1;
    secret.len() - (first + drawn % places)
}

fn folded(long: &[Needle], short: &[NeedleForm]) -> Vec<Needle> {
    let lower = |form: &NeedleForm| Zeroizing::new(form.to_ascii_lowercase());
    let long = long.iter().map(|needle| Needle { form: lower(&needle.form), anchor_at: needle.anchor_at });
    let mut folded: Vec<Needle> =
        long.chain(short.iter().map(|form| Needle { form: lower(form), anchor_at: 0 })).collect();
    folded.sort_unstable_by(|a, b| a.form.as_slice().cmp(b.form.as_slice()));
    folded.dedup_by(|a, b| a.form == b.form);
    folded
}

fn anchors(long: &[Needle]) -> Vec<Anchored> {
    let mut anchors: Vec<Anchored> = Vec::new();
    for (index, needle) in long.iter().enumerate() {
        let Some(anchor) = needle.form[needle.anchor_at..].first_chunk() else { continue };
        match anchors.iter_mut().find(|known| *known.anchor == *anchor) {
            Some(known) => known.needles.push(index),
            None => anchors.push(Anchored { anchor: Zeroizing::new(*anchor), needles: vec![index] }),
        }
    }
    anchors
}

/// Where `form` lies in `text`. Header values are short: looking for a first byte beats preparing a search.
fn occurrences<'a>(form: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let last = text.len().checked_sub(form.len()).map_or(0, |last| last + 1);
    let first = form.first().copied().unwrap_or_default();
    memchr_iter(first, &text[..last]).filter(move |at| text[*at..].starts_with(form))
}

fn forms(part: &[u8]) -> Vec<NeedleForm> {
    let mut lower = Zeroizing::new(vec![0; part.len() * 2]);
    hex::encode(part, &mut lower);
    let upper = Zeroizing::new(lower.to_ascii_uppercase());
    let mut forms = vec![Zeroizing::new(part.to_vec()), lower, upper];
    for offset in 0..3 {
        forms.extend(base64_inside(&STANDARD_NO_PAD, part, offset));
        forms.extend(base64_inside(&URL_SAFE_NO_PAD, part, offset));
    }
    forms
}

/// The characters that depend on the part alone when it starts `offset` bytes into a base64 group.
fn base64_inside(alphabet: &impl Engine, part: &[u8], offset: usize) -> Option<NeedleForm> {
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
