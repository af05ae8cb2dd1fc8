//! What the seals vouch for, by themselves and through the first entries of segments that they know.
//!
//! Whoever has no key can add a segment, and can append to one: the chain takes no key. Neither is named by a seal.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Claim, SEALED_WITHIN, Verification, file};
use crate::ledger::correction;
use crate::ledger::segment::{self, SegmentHeader};

/// Segments that a seal vouches for, and the end of each.
pub(super) struct Vouched<'a> {
    headers: &'a BTreeMap<Arc<str>, SegmentHeader>,
    /// By the seals alone.
    sealed: HashMap<Arc<str>, u64>,
    /// Also by the first entries of those that are vouched for.
    ends: HashMap<Arc<str>, u64>,
    last_seal: Option<Timestamp>,
}

impl<'a> Vouched<'a> {
    pub(super) fn new(
        headers: &'a BTreeMap<Arc<str>, SegmentHeader>,
        seals: &[Claim],
        last_seal: Option<Timestamp>,
    ) -> Self {
        let mut sealed = HashMap::new();
        seals.iter().for_each(|claim| extend(&mut sealed, &claim.head.segment, claim.head.entries));
        let mut ends = sealed.clone();
        let mut ask: Vec<Arc<str>> = ends.keys().cloned().collect();
        let mut asked: HashSet<Arc<str>> = ask.iter().cloned().collect();
        while let Some(name) = ask.pop() {
            for previous in headers.get(&name).into_iter().flat_map(|header| &header.previous) {
                extend(&mut ends, &previous.segment, previous.entries);
                if asked.insert(Arc::clone(&previous.segment)) {
                    ask.push(Arc::clone(&previous.segment));
                }
            }
        }
        Self { headers, sealed, ends, last_seal }
    }

    pub(super) fn knows(&self, segment: &str) -> bool {
        self.ends.contains_key(segment)
    }

    /// The entries of a segment that are vouched for; `None` where nobody knows it.
    pub(super) fn end(&self, segment: &str) -> Option<u64> {
        self.ends.get(segment).copied()
    }

    /// Whether a segment was over before the latest seal: all of it has to be vouched for.
    pub(super) fn is_finished(&self, name: &str) -> bool {
        let Some(header) = self.headers.get(name) else { return false };
        // A correction may be written while a gateway starts.
        let is_young = segment::is_of(name, correction::WHO)
            && header.at.saturating_add(SEALED_WITHIN).ok() >= self.last_seal;
        let mut later = self.sealed.keys().filter_map(|name| self.headers.get(name));
        !is_young && later.any(|later| follows(later, header))
    }

    /// Segments that say that their core left another one behind before what a seal has of it.
    pub(super) fn cut_short(&self, result: &mut Verification) {
        for (name, header) in self.headers.iter().filter(|(_, header)| header.continues) {
            for left in &header.previous {
                let sealed = self.sealed.get(&left.segment).copied().unwrap_or_default();
                if sealed > left.entries {
                    let what = format!(
                        "goes on behind entry {} of {}, of which entry {sealed} is sealed: it was added so that what is between does not count",
                        left.entries,
                        file(&left.segment)
                    );
                    result.find(file(name), Some(1), what);
                }
            }
        }
    }
}

fn extend(ends: &mut HashMap<Arc<str>, u64>, segment: &Arc<str>, entries: u64) {
    let end = ends.entry(Arc::clone(segment)).or_default();
    *end = entries.max(*end);
}

/// Whether the earlier segment was over when the later one had its first seal: its core went on in that, or its process had ended.
fn follows(later: &SegmentHeader, earlier: &SegmentHeader) -> bool {
    if later.epoch == earlier.epoch {
        return later.name > earlier.name && segment::who(&later.name) == segment::who(&earlier.name);
    }
    later.epoch > earlier.epoch && !segment::is_of(&later.name, correction::WHO)
}
