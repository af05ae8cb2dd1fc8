//! Amounts as lines of the journal and sums have them: below zero where a correction takes something away.

use tollgate_policy::price::{Item, Units};

/// An amount of anything; negative only in a correction, and at most what SQLite can add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) i64);

/// An amount of each unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    amounts: [i64; Item::ALL.len()],
    /// A bit for each that is not zero: of many units a call has few.
    present: u32,
}

impl Amounts {
    pub(crate) const fn get(&self, unit: Item) -> i64 {
        self.amounts[unit as usize]
    }

    pub(crate) const fn set(&mut self, unit: Item, amount: i64) {
        self.amounts[unit as usize] = amount;
        let bit = 1 << unit as u32;
        if amount == 0 { self.present &= !bit } else { self.present |= bit }
    }

    /// Adds the other's amounts to these.
    pub(crate) fn add(&mut self, other: &Self) {
        for (unit, amount) in other.entries() {
            self.set(unit, self.get(unit).saturating_add(amount));
        }
    }

    /// The same with the other sign.
    pub(crate) fn negated(self) -> Self {
        Self { amounts: self.amounts.map(i64::saturating_neg), ..self }
    }

    /// Each unit that is not zero, with its amount.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Item, i64)> + '_ {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let unit = *Item::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some((unit, self.get(unit)))
        })
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
