//! Bounds on what callers and providers make up: names of models and hosts that nobody has in a list.
//!
//! **Invariant:** however many of them come, what a store keeps grows by at most [`MOST_NEW`] texts a day and process. The journal keeps each.

use std::collections::HashSet;

use super::dimension::{Dimension, Texts};

/// The dimensions whose texts come from outside as they are.
pub(crate) const FREE: [Dimension; 4] =
    [Dimension::Host, Dimension::Model, Dimension::ModelAnswered, Dimension::Tier];
/// What stands for each that is one too many.
const OTHER: &str = "(other)";
/// Texts a day that no record had before.
const MOST_NEW: usize = 1_000;
const MINUTES_OF_DAY: i64 = 24 * 60;

/// The texts that a store has already.
#[derive(Debug, Default)]
pub(crate) struct FreeTexts {
    known: [HashSet<Box<str>>; FREE.len()],
    day: i64,
    new: usize,
}

impl FreeTexts {
    /// Those that the store had before, in the order of [`FREE`].
    pub(crate) fn new(known: [HashSet<Box<str>>; FREE.len()]) -> Self {
        Self { known, day: i64::MIN, new: 0 }
    }

    /// The texts of a record of this minute since the epoch, with those replaced that are too many.
    pub(crate) fn bounded<'a>(&mut self, mut texts: Texts<'a>, minute: i64) -> Texts<'a> {
        let day = minute.div_euclid(MINUTES_OF_DAY);
        if day > self.day {
            (self.day, self.new) = (day, 0);
        }
        for (dimension, known) in FREE.into_iter().zip(&mut self.known) {
            let Some(text) = texts.get_mut(dimension as usize) else { continue };
            if text.is_empty() || known.contains(*text) {
                continue;
            }
            if self.new < MOST_NEW {
                self.new += 1;
                known.insert((*text).into());
            } else {
                *text = OTHER;
            }
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_made_up_become_other_once_they_are_too_many_and_known_ones_stay() {
        let of = |model| {
            let mut texts = Texts::default();
            (texts[Dimension::Caller as usize], texts[Dimension::Model as usize]) = ("web", model);
            texts
        };
        let model = |texts: Texts<'_>| texts[Dimension::Model as usize].to_owned();
        let mut known: [HashSet<Box<str>>; FREE.len()] = Default::default();
        known[1].insert("gpt-5-mini".into());
        let mut free = FreeTexts::new(known);
        let names: Vec<String> = (0..MOST_NEW + 5).map(|n| format!("made-up-{n}")).collect();
        let kept = names.iter().filter(|name| model(free.bounded(of(name), 5)) == **name).count();
        assert_eq!(kept, MOST_NEW);
        let other = free.bounded(of("one-more"), 1439);
        assert_eq!((other[Dimension::Caller as usize], model(other)), ("web", OTHER.to_owned()));
        for name in ["gpt-5-mini", "made-up-7", ""] {
            assert_eq!(model(free.bounded(of(name), 1439)), name);
        }
        assert_eq!(model(free.bounded(of("one-more"), 1440)), "one-more", "the next day has room");
        assert_eq!(model(free.bounded(of("late"), 5)), "late", "a late record takes of it");
    }
}
