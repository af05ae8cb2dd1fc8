//! A body on its way to the caller, with every reflected key overwritten.
//!
//! **Invariant:** every byte goes out once, in order, as it came or as `*`; what is masked does not depend on where the body was cut. Of what has
//! come only the trailing run of bytes that some key of this class could contain waits, up to the longest form less one, whatever it says.
//! What waits goes out when the body ends, and is dropped when it breaks off: that is no end a reader could ask for.

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
        })
    }

    /// Takes the next bytes, once the ones before have been taken with [`Scrubber::pop`]. After the `last` ones nothing waits.
    pub(crate) fn feed(&mut self, chunk: Bytes, last: bool) {
        let last = last && !self.broken;
        let class = self.needles.class();
        let most = class.window() - 1;
        if self.held.is_empty() {
            return self.pass(chunk, last);
        }
        if chunk.len() < most {
            self.hold(&chunk);
            return self.pass_held(last);
        }
        // The rest of an occurrence that began in what waits is at the beginning of the chunk.
        let waiting = self.held.len();
        let start = class.leading(&chunk, most);
        self.hold(&chunk[..start]);
        let mut joined = std::mem::take(&mut self.held);
        self.look(&joined);
        self.emit(&joined, waiting);
        joined.clear();
        self.held = joined;
        self.pass(chunk, last);
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self) {
        if self.broken {
            self.held.clear();
        } else if !self.held.is_empty() {
            self.pass_held(true);
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

    /// Whether anything was masked.
    pub(crate) const fn changed(&self) -> bool {
        self.changed
    }

    /// Bytes that came and did not go out.
    pub(crate) fn waiting(&self) -> usize {
        self.held.len() + self.clean.iter().map(Bytes::len).sum::<usize>()
    }

    fn pass(&mut self, mut chunk: Bytes, last: bool) {
        self.look(&chunk);
        let cut = if last { chunk.len() } else { self.cut_of(&chunk) };
        if self.masked == 0 && !self.finds.ranges.iter().any(|range| range.start < cut) {
            self.hold(&chunk[cut..]);
            chunk.truncate(cut);
            self.push(chunk);
            return;
        }
        self.emit(&chunk, cut);
        self.hold(&chunk[cut..]);
    }

    fn pass_held(&mut self, last: bool) {
        let mut joined = std::mem::take(&mut self.held);
        self.look(&joined);
        let cut = if last { joined.len() } else { self.cut_of(&joined) };
        self.emit(&joined, cut);
        joined.drain(..cut);
        self.held = joined;
    }

    fn look(&mut self, text: &[u8]) {
        self.needles.find(text, Where::Body, &mut self.finds);
    }

    /// What may go out: all but the trailing run.
    fn cut_of(&self, text: &[u8]) -> usize {
        let class = self.needles.class();
        text.len() - class.trailing(text, class.window() - 1)
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
