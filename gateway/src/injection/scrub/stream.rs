//! A body on its way to the caller, with every reflected key overwritten.
//!
//! **Invariant:** every byte goes out once, in order, as it came or as `*`; what is masked does not depend on where the body was cut. Of what has
//! come only the trailing run of bytes that some key of this class could contain waits, whatever it says. Of a run that is longer than any form
//! less than one and a half of the longest waits: it goes out by halves, so that however small its pieces are no byte is searched more than
//! a few times. What waits goes out when the body ends, and is dropped when it breaks off: that is no end a reader could ask for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::needles::{Finds, Needles, Where};

/// Masks one body, in pieces of any size.
pub(crate) struct Scrubber {
    needles: Arc<Needles>,
    /// What waits, as it came.
    held: Zeroizing<Vec<u8>>,
    /// How many bytes of what comes next belong to an occurrence that has begun to go out.
    masked: usize,
    finds: Finds,
    /// For the caller, in this order.
    clean: [Bytes; 2],
    changed: bool,
    broken: bool,
    /// How many bytes were looked at.
    #[cfg(any(test, fuzzing))]
    pub(super) searched: usize,
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").finish_non_exhaustive()
    }
}

impl Scrubber {
    /// `None`: there is nothing to look for in bodies.
    pub(super) fn new(needles: Arc<Needles>) -> Option<Self> {
        needles.are_in_bodies().then(|| Self {
            needles,
            held: Zeroizing::new(Vec::new()),
            masked: 0,
            finds: Finds::new(),
            clean: [Bytes::new(), Bytes::new()],
            changed: false,
            broken: false,
            #[cfg(any(test, fuzzing))]
            searched: 0,
        })
    }

    /// For other bytes, beside those of this one.
    pub(crate) fn beside(&self) -> Option<Self> {
        Self::new(Arc::clone(&self.needles))
    }

    /// Takes the next bytes, once the ones before have been taken with [`Scrubber::pop`]. After the `last` ones nothing waits.
    pub(crate) fn feed(&mut self, chunk: Bytes, last: bool) {
        let cut = self.cut_of(&chunk, last && !self.broken);
        if cut == 0 {
            return self.hold(&chunk);
        }
        let waiting = self.held.len();
        if waiting == 0 {
            return self.pass(chunk, cut);
        }
        let class = self.needles.class();
        let most = class.window() - 1;
        if chunk.len() < most {
            self.hold(&chunk);
            return self.pass_held(cut);
        }
        // The rest of an occurrence that began in what waits is at the beginning of the chunk.
        // A long run goes on, most likely: to measure how far costs more than to search as far as it may.
        let start = if waiting >= most { most } else { class.leading(&chunk, most) };
        self.hold(&chunk[..start]);
        let mut joined = std::mem::take(&mut self.held);
        self.look(&joined);
        self.emit(&joined, waiting);
        joined.clear();
        self.held = joined;
        self.pass(chunk, cut - waiting);
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self) {
        if self.broken {
            self.held.clear();
        } else if !self.held.is_empty() {
            self.pass_held(self.held.len());
        }
    }

    /// The body broke off: what waits at its end goes nowhere.
    pub(crate) fn cut(&mut self) {
        self.broken = true;
    }

    /// The next bytes for the caller.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.clean.iter_mut().find(|bytes| !bytes.is_empty()).map(std::mem::take)
    }

    /// Whether bytes that were searched wait to be taken.
    pub(crate) fn has_clean(&self) -> bool {
        self.clean.iter().any(|bytes| !bytes.is_empty())
    }

    /// Whether anything was masked.
    pub(crate) const fn changed(&self) -> bool {
        self.changed
    }

    /// Bytes that came and did not go out.
    pub(crate) fn waiting(&self) -> usize {
        self.held.len() + self.clean.iter().map(Bytes::len).sum::<usize>()
    }

    fn pass(&mut self, mut chunk: Bytes, cut: usize) {
        self.look(&chunk);
        if self.masked == 0 && !self.finds.ranges.iter().any(|range| range.start < cut) {
            self.hold(&chunk[cut..]);
            chunk.truncate(cut);
            self.push(chunk);
            return;
        }
        self.emit(&chunk, cut);
        self.hold(&chunk[cut..]);
    }

    fn pass_held(&mut self, cut: usize) {
        let mut joined = std::mem::take(&mut self.held);
        self.look(&joined);
        self.emit(&joined, cut);
        joined.drain(..cut);
        self.held = joined;
    }

    fn look(&mut self, text: &[u8]) {
        #[cfg(any(test, fuzzing))]
        {
            self.searched += text.len();
        }
        self.needles.find(text, Where::Body, &mut self.finds);
    }

    /// How many bytes may go out of what waits, which is of one run, and of `chunk` after it.
    fn cut_of(&self, chunk: &[u8], last: bool) -> usize {
        let all = self.held.len() + chunk.len();
        if last {
            return all;
        }
        let class = self.needles.class();
        let (most, step) = (class.window() - 1, class.window() / 2);
        // A larger chunk does not wait as a whole, however long its run is.
        let measured = if chunk.len() > most + step { most } else { chunk.len() };
        let run = match class.trailing(chunk, measured) {
            run if run == chunk.len() => all,
            run => run,
        };
        let cut = all - run.min(most);
        if run == all && cut < step { 0 } else { cut }
    }

    /// Lets the first `cut` bytes of `text` go, without what was found in it.
    fn emit(&mut self, text: &[u8], cut: usize) {
        let begun: Range<usize> = 0..self.masked;
        self.masked = self.masked.saturating_sub(cut);
        let mut clean = text[..cut].to_vec();
        let started = self.finds.ranges.drain(..).filter(|range| range.start < cut);
        for range in std::iter::once(begun).chain(started) {
            self.changed |= !range.is_empty();
            self.masked = self.masked.max(range.end.saturating_sub(cut));
            clean[range.start.min(cut)..range.end.min(cut)].fill(b'*');
        }
        self.push(Bytes::from(clean));
    }

    /// There are never more than what waited and what came.
    fn push(&mut self, bytes: Bytes) {
        let [first, second] = &mut self.clean;
        if first.is_empty() { *first = bytes } else { *second = bytes }
    }

    /// A growing vector would leave copies of what it held behind.
    fn hold(&mut self, bytes: &[u8]) {
        let needed = self.held.len() + bytes.len();
        if self.held.capacity() < needed {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.held.capacity())));
            larger.extend_from_slice(&self.held);
            self.held = larger;
        }
        self.held.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
