//! Amounts as lines of the journal and sums have them: below zero where a correction takes something away.

use tollgate_policy::price::{Item, Units};

/// An amount of anything; negative only in a correction, and at most what SQLite can add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) i64);

/// An amount of each unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts([i64; Item::ALL.len()]);

impl Amounts {
    pub(crate) const fn get(&self, unit: Item) -> i64 {
        self.0[unit as usize]
    }

    pub(crate) const fn set(&mut self, unit: Item, amount: i64) {
        self.0[unit as usize] = amount;
    }

    /// Adds the other's amounts to these.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, part) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(part);
        }
    }

    /// The same with the other sign.
    pub(crate) fn negated(self) -> Self {
        Self(self.0.map(i64::saturating_neg))
    }

    /// Each unit that is not zero, with its amount.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Item, i64)> + '_ {
        Item::ALL.iter().map(|unit| (*unit, self.get(*unit))).filter(|(_, amount)| *amount != 0)
    }
}

impl From<&Units> for Amounts {
    fn from(units: &Units) -> Self {
        let mut amounts = Self::default();
        for (unit, count) in units.entries() {
            amounts.set(unit, i64::try_from(count).unwrap_or(i64::MAX));
        }
        amounts
    }
}

/// The unit of a name, if this version knows it.
pub(crate) struct Unit(pub(crate) Option<Item>);

impl From<&str> for Unit {
    fn from(name: &str) -> Self {
        Self(Item::ALL.iter().find(|unit| unit.as_str() == name).copied())
    }
}
