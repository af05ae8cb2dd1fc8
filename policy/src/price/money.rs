//! Amounts of money.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const PER_USD: u64 = 1_000_000_000;
const DECIMALS: usize = 9;

/// An amount in billionths of a US dollar; at most 18,446,744,073.709551615 USD.
///
/// Written and read as `"0.05 USD"`. In JSON it is the integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub u64);

/// Why a text is no amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The currency is missing or not US dollars.
    #[error("an amount of money ends in \" USD\", such as \"500 USD\" or \"0.05 USD\"")]
    Currency,
    /// Not a plain decimal number: no sign, exponent or digit grouping is read.
    #[error("the amount must be a plain decimal number such as 500 or 0.05")]
    Number,
    /// More than nine digits after the point.
    #[error("the amount has more than 9 decimal places; the smallest unit is 0.000000001 USD")]
    TooPrecise,
    /// More than 64 bits of nano-USD.
    #[error("the amount is above 18446744073 USD")]
    TooLarge,
}

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads a plain decimal number of US dollars, exactly: `"0.25"` is 250,000,000 nano-USD.
    pub fn from_decimal(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(MoneyError::Number);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > DECIMALS {
            return Err(MoneyError::TooPrecise);
        }
        let whole: u64 = whole.parse().map_err(|_| MoneyError::TooLarge)?;
        let nanos: u64 = format!("{fraction:0<DECIMALS$}").parse().map_err(|_| MoneyError::Number)?;
        let amount = whole.checked_mul(PER_USD).and_then(|usd| usd.checked_add(nanos));
        amount.map(Self).ok_or(MoneyError::TooLarge)
    }

    /// The sum, or `None` above 64 bits.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The sum, at most the largest amount.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least nothing.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The amount taken `times` over, at most the largest amount.
    #[must_use]
    pub const fn saturating_mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl FromStr for NanoUsd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let amount = text.strip_suffix("USD").ok_or(MoneyError::Currency)?;
        let number = amount.trim_end();
        if number.len() == amount.len() {
            return Err(MoneyError::Currency);
        }
        Self::from_decimal(number)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, nanos) = (self.0 / PER_USD, self.0 % PER_USD);
        if nanos == 0 {
            return write!(f, "{whole} USD");
        }
        let fraction = format!("{nanos:0DECIMALS$}");
        write!(f, "{whole}.{} USD", fraction.trim_end_matches('0'))
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}
