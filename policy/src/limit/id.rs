//! What the state of a limit is kept under, in memory, in the journal and in the store.
//!
//! **Invariant:** the text says all of it and reads back; what an edit of the limit may change is not in it.

use std::fmt;
use std::str::FromStr;

use super::{LimitKey, Per, Unit};
use crate::name::{NameError, ResourceId};

/// Whose a limit is: what its state belongs to. Limits of two owners never count together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// It is written in this grant.
    Grant(ResourceId),
    /// It is written in this budget.
    Budget(ResourceId),
}

/// The id of a limit, taken apart. Its text is `<owner>/<unit>/<per>/<key>`, e.g. `grant/checkout-openai/tokens/day/shared`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitId<'a> {
    /// The text of an [`Owner`].
    pub owner: &'a str,
    /// What is counted.
    pub unit: Unit,
    /// The span that the amount is for; `None`: calls at one time have no span.
    pub per: Option<Per>,
    /// Whose calls share one count.
    pub key: LimitKey,
}

/// The text names no owner of limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// No kind of resource that owns limits.
    #[error("limits belong to a grant or a budget, as in `grant/checkout-openai`")]
    Kind,
    /// No id follows the kind.
    #[error(transparent)]
    Id(#[from] NameError),
}

impl<'a> LimitId<'a> {
    /// Takes a text apart; `None`: no limit has this id.
    pub fn read(text: &'a str) -> Option<Self> {
        let (rest, key) = split_last(text)?;
        let key = LimitKey::ALL.into_iter().find(|known| known.as_str() == key)?;
        let (rest, last) = split_last(rest)?;
        if last == Unit::Concurrency.as_str() {
            return Some(Self { owner: rest, unit: Unit::Concurrency, per: None, key });
        }
        let per = Per::ALL.into_iter().find(|known| known.as_str() == last)?;
        let (owner, unit) = split_last(rest)?;
        let unit = Unit::ALL.into_iter().find(|known| known.as_str() == unit)?;
        Some(Self { owner, unit, per: Some(per), key })
    }
}

/// What stands before the last `/`, and the short word behind it: read for every charge of a call.
fn split_last(text: &str) -> Option<(&str, &str)> {
    let slash = text.bytes().rposition(|byte| byte == b'/')?;
    Some((&text[..slash], &text[slash + 1..]))
}

impl fmt::Display for LimitId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, unit, per, key } = self;
        match per {
            Some(per) => write!(f, "{owner}/{unit}/{per}/{key}"),
            None => write!(f, "{owner}/{unit}/{key}"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant(id) => write!(f, "grant/{id}"),
            Self::Budget(id) => write!(f, "budget/{id}"),
        }
    }
}

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        match text.split_once('/') {
            Some(("grant", id)) => Ok(Self::Grant(id.parse()?)),
            Some(("budget", id)) => Ok(Self::Budget(id.parse()?)),
            _ => Err(OwnerError::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text() {
        for owner in [
            "grant/checkout",
            "grant/shop/checkout",
            "grant/tokens/day",
            "grant/concurrency",
            "budget/organisation",
            "budget/shop/tokens",
        ] {
            let whose: Owner = owner.parse().unwrap();
            assert_eq!(whose.to_string(), owner);
            for key in LimitKey::ALL {
                let concurrent = LimitId { owner, unit: Unit::Concurrency, per: None, key };
                let counted = Unit::ALL
                    .into_iter()
                    .filter(|unit| *unit != Unit::Concurrency)
                    .flat_map(|unit| Per::ALL.map(|per| LimitId { owner, unit, per: Some(per), key }));
                for id in counted.chain([concurrent]) {
                    assert_eq!(LimitId::read(&id.to_string()), Some(id));
                }
            }
        }
    }

    #[test]
    fn what_is_no_id_is_not_read() {
        for text in ["", "month", "grant/a/tokens/day", "grant/a/tokens/shared", "grant/a/words/day/shared"] {
            assert_eq!(LimitId::read(text), None, "{text}");
        }
        for text in ["", "grant", "grant/", "budget/", "destination/a", "grant/a/b/c"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
