//! Rates per million units, and the two of them that make up a schedule.

use std::collections::BTreeMap;

use super::units::{Item, Units};

/// Units that a rate is for: a million.
pub(super) const PER_UNITS: u128 = 1_000_000;

/// Nano-USD for a million of each unit; every unit has a rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rates([u64; Item::ALL.len()]);

impl Rates {
    /// Completes the rates that a price list names. A token unit that neither it nor `base` has a rate of its own for
    /// is billed as the plainer unit that it is a kind of, which is how the providers' lists are meant.
    pub(super) fn complete(named: &BTreeMap<Item, u64>, base: &Self) -> Self {
        let mut rates = base.clone();
        for &item in Item::ALL {
            let plainer = plainer(item).filter(|plainer| base.of(*plainer) == base.of(item));
            if let Some(rate) = named.get(&item) {
                rates.0[item as usize] = *rate;
            } else if let Some(plainer) = plainer {
                rates.0[item as usize] = rates.of(plainer);
            }
        }
        rates
    }

    /// No unit costs anything.
    pub(super) const fn free() -> Self {
        Self([0; Item::ALL.len()])
    }

    /// The dearer rate of both, unit by unit.
    pub(super) fn dearer(&self, other: &Self) -> Self {
        let mut rates = self.clone();
        for (rate, dearer) in rates.0.iter_mut().zip(&other.0) {
            *rate = (*rate).max(*dearer);
        }
        rates
    }

    pub(super) const fn of(&self, item: Item) -> u64 {
        self.0[item as usize]
    }

    fn dearest_of(&self, items: &[Item]) -> u64 {
        items.iter().map(|item| self.of(*item)).max().unwrap_or(0)
    }
}

/// The next plainer unit; units are declared in an order in which it has its rate before.
const fn plainer(item: Item) -> Option<Item> {
    match item {
        Item::CacheRead | Item::CacheWrite5m | Item::AudioIn | Item::ImageIn => Some(Item::Input),
        // Not cheaper than what is not cached, where no rate is named.
        Item::CacheReadAudio => Some(Item::AudioIn),
        Item::CacheReadImage => Some(Item::ImageIn),
        Item::CacheWrite1h => Some(Item::CacheWrite5m),
        Item::Reasoning | Item::AudioOut | Item::ImageOut => Some(Item::Output),
        _ => None,
    }
}

/// What one tier charges: one set of rates, and another for all tokens of a call whose context is long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) rates: Rates,
    pub(super) long_context: Option<LongContext>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LongContext {
    /// Contexts with more tokens than this are long.
    pub(super) above: u64,
    pub(super) rates: Rates,
}

/// An amount before the division by a million units: token units, which surcharges multiply, and the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) tokens: u128,
    pub(super) others: u128,
}

impl Schedule {
    pub(super) fn charge(&self, units: &Units) -> Raw {
        let rates = match &self.long_context {
            Some(long) if units.read() > long.above => &long.rates,
            _ => &self.rates,
        };
        let charge = |items: &[Item]| {
            let charges = items.iter().map(|item| product(units.get(*item), rates.of(*item)));
            charges.fold(0, u128::saturating_add)
        };
        let tokens = charge(&Item::READ).saturating_add(charge(&Item::WRITTEN));
        Raw { tokens, others: charge(&Item::OTHER) }
    }

    /// The most that one call with this many tokens read and written can be charged, whichever units they turn out to be.
    pub(super) fn ceiling(&self, read: u64, written: u64) -> Raw {
        let most = |rates: &Rates| {
            let read = product(read, rates.dearest_of(&Item::READ));
            read.saturating_add(product(written, rates.dearest_of(&Item::WRITTEN)))
        };
        let plain = most(&self.rates);
        let tokens = match &self.long_context {
            Some(long) if read > long.above => plain.max(most(&long.rates)),
            _ => plain,
        };
        Raw { tokens, others: u128::from(self.rates.of(Item::Requests)) }
    }
}

/// Twice as many bits hold every product.
fn product(count: u64, rate: u64) -> u128 {
    u128::from(count) * u128::from(rate)
}
