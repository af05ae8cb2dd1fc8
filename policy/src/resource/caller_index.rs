//! Which resources name a caller, without a look at those that name others.
//!
//! **Invariant:** whom a pattern matches, their text begins as the pattern does before its first wildcard. So a pattern that stands under as
//! much of that as ends with a separator is found by the beginnings of a caller's text that do.

use std::sync::Arc;

use crate::caller::Caller;
use crate::giving_way::giving_way;
use crate::map::Map;
use crate::pattern::CallerPattern;

/// What separates the parts of an identity's text, of whatever kind it is.
const SEPARATORS: [char; 3] = ['/', ':', '#'];

/// What has patterns over callers.
pub(crate) trait NamesCallers {
    /// The patterns.
    fn callers(&self) -> &[CallerPattern];
}

/// Resources by whom they name.
#[derive(Debug)]
pub(crate) struct CallerIndex<T> {
    resources: Box<[Arc<T>]>,
    by_beginning: Map<Box<str>, Vec<PatternPlace>>,
    /// Bytes of the longest beginning.
    longest: usize,
}

/// One pattern: which of the resources has it, and which of its patterns it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PatternPlace {
    resource: usize,
    pattern: usize,
}

impl<T: NamesCallers> CallerIndex<T> {
    /// An index of these, which are found in this order.
    pub(crate) fn new(resources: impl IntoIterator<Item = Arc<T>>) -> Self {
        let resources: Box<[Arc<T>]> = resources.into_iter().collect();
        let mut by_beginning: Map<Box<str>, Vec<PatternPlace>> = Map::default();
        for (resource, named) in giving_way(resources.iter()).enumerate() {
            for (pattern, callers) in named.callers().iter().enumerate() {
                let text = callers.of_identities().to_string();
                let places = by_beginning.entry(beginning(&text).into()).or_default();
                places.push(PatternPlace { resource, pattern });
            }
        }
        let longest = by_beginning.keys().map(|beginning| beginning.len()).max().unwrap_or_default();
        Self { resources, by_beginning, longest }
    }

    /// The resources that name this caller, each with which of its patterns is the most specific that does.
    pub(crate) fn naming(&self, caller: &Caller) -> impl Iterator<Item = (&Arc<T>, usize)> {
        let text = caller.id().as_str();
        let begun = text.match_indices(SEPARATORS).map(|(at, _)| at + 1).filter(|end| *end < text.len());
        let keys = begun.chain([text.len()]).take_while(|end| *end <= self.longest);
        let under = keys.filter_map(|end| self.by_beginning.get(text.get(..end)?)).flatten();
        let mut places: Vec<PatternPlace> =
            under.filter(|place| self.pattern(**place).names(caller)).copied().collect();
        places.sort_by_key(|place| (place.resource, self.pattern(*place)));
        places.dedup_by_key(|place| place.resource);
        places.into_iter().map(|place| (&self.resources[place.resource], place.pattern))
    }

    fn pattern(&self, place: PatternPlace) -> &CallerPattern {
        &self.resources[place.resource].callers()[place.pattern]
    }
}

impl<T> Default for CallerIndex<T> {
    fn default() -> Self {
        Self { resources: Box::default(), by_beginning: Map::default(), longest: 0 }
    }
}

/// What a pattern stands under: all of it where it has no wildcard.
fn beginning(pattern: &str) -> &str {
    let Some((literal, _)) = pattern.split_once('*') else { return pattern };
    literal.rfind(SEPARATORS).and_then(|last| literal.get(..=last)).unwrap_or_default()
}
