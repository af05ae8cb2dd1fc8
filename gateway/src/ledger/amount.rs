//! Amounts as lines of the journal and sums have them: below zero where a correction takes something away.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tollgate_policy::price::{Item, Units};

/// An amount of anything; negative only in a correction, and at most what SQLite can add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Amount(pub(crate) i64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Clamp;

        impl Visitor<'_> for Clamp {
            type Value = Amount;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an integer")
            }

            fn visit_u64<E>(self, amount: u64) -> Result<Amount, E> {
                Ok(Amount(i64::try_from(amount).unwrap_or(i64::MAX)))
            }

            fn visit_i64<E>(self, amount: i64) -> Result<Amount, E> {
                Ok(Amount(amount))
            }
        }

        input.deserialize_i64(Clamp)
    }
}

/// An amount of each unit. As JSON a map of those that are not zero; a unit that this version does not know is passed over.
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

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Unit;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the name of a unit")
            }

            fn visit_str<E>(self, name: &str) -> Result<Unit, E> {
                Ok(Unit::from(name))
            }
        }

        input.deserialize_str(Name)
    }
}

impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.entries().map(|(unit, amount)| (unit.as_str(), amount)))
    }
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct ByName;

        impl<'de> Visitor<'de> for ByName {
            type Value = Amounts;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("amounts by the names of their units")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Amounts, M::Error> {
                let mut amounts = Amounts::default();
                while let Some((unit, amount)) = map.next_entry::<Unit, Amount>()? {
                    if let Unit(Some(unit)) = unit {
                        amounts.set(unit, amount.0);
                    }
                }
                Ok(amounts)
            }
        }

        input.deserialize_map(ByName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_back_and_units_of_another_version_are_passed_over() {
        let mut amounts = Amounts::default();
        for (amount, unit) in (-3..).zip(Item::ALL) {
            amounts.set(*unit, amount);
        }
        let json = serde_json::to_string(&amounts).unwrap();
        assert_eq!(serde_json::from_str::<Amounts>(&json).unwrap(), amounts);
        let later: Amounts =
            serde_json::from_str("{\"thoughts\":9,\"input\":5,\"output\":18446744073709551615}").unwrap();
        assert_eq!(later.entries().collect::<Vec<_>>(), [(Item::Input, 5), (Item::Output, i64::MAX)]);
    }
}
