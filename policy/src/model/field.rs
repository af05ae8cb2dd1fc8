//! Values that several kinds of resources have in common.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::price::{MoneyError, NanoUsd};

/// The most elements of a list: more than people read, and few enough that an API server can tell what a rule over them costs.
pub const MOST_ELEMENTS: usize = 4096;

/// A list whose faulty elements were taken out without moving the others; absent if it was not written or is no list.
#[derive(Debug, Clone)]
pub(crate) struct List<T>(Option<Vec<Option<T>>>);

impl<T> List<T> {
    /// The elements that are there, with the index at which they were written.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().flatten().enumerate().filter_map(|(index, element)| Some((index, element.as_ref()?)))
    }

    /// The elements that are there.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().flatten()
    }

    /// How many elements were written, right or wrong; `None`: no list was.
    pub(crate) fn written(&self) -> Option<usize> {
        self.0.as_ref().map(Vec::len)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let elements = Vec::deserialize(deserializer)?;
        match elements.len() {
            0..=MOST_ELEMENTS => Ok(Self(Some(elements))),
            more => Err(D::Error::custom(format!(
                "a list has at most {MOST_ELEMENTS} elements, and this one {more}"
            ))),
        }
    }
}

/// Text that is read with `FromStr`; where it is no text at all, `expecting` says what it should have been.
pub(super) fn text<'de, D, T>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Text<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(expecting, PhantomData))
}

/// A length of time as `500ms`, `3s`, `2m`, `1h` or `7d`; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(
    /// The length.
    pub Duration,
);

/// The text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no length of time: write a whole number above 0 and its unit, as in 500ms, 3s, 2m, 1h or 7d"
)]
pub struct IntervalError(String);

impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let refuse = || IntervalError(text.chars().take(80).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(refuse)?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(refuse()),
        };
        let milliseconds = number.checked_mul(milliseconds).ok_or_else(refuse)?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a length of time with its unit, as in 500ms, 3s, 2m, 1h or 7d")
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// An amount of money as `500 USD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Money(pub(crate) NanoUsd);

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        text.parse().map(Self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an amount with its currency, as in `500 USD`")
    }
}

/// An IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) IpAddr);

/// The text is no IP address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no IP address: write one as in `192.0.2.7` or `2001:db8::7`")]
pub(crate) struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.parse().map(Self).map_err(|_| AddressError(text.chars().take(80).collect()))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an IP address, as in `192.0.2.7`")
    }
}

/// An instant, as `2026-12-31T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant(pub(crate) Timestamp);

/// The text is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no instant: write a date, a time and `Z` or an offset, as in `2026-12-31T00:00:00Z`")]
pub(crate) struct InstantError(String);

impl FromStr for Instant {
    type Err = InstantError;

    fn from_str(text: &str) -> Result<Self, InstantError> {
        text.parse().map(Self).map_err(|_| InstantError(text.chars().take(80).collect()))
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an instant, as in `2026-12-31T00:00:00Z`")
    }
}
