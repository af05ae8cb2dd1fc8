//! Patterns over the actions of AWS services.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Actions: one name, or all that begin with one.
///
/// The order says nothing, for actions do not decide between grants: sorted, a list has each pattern once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum ActionPattern {
    /// This action and no other.
    Exact(Box<str>),
    /// Actions that begin so.
    Prefix(Box<str>),
}

/// The text is no pattern over actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an action is its name without the service, as in `GetItem`, or the beginning of one followed by a single `*`; letters and digits"
)]
pub struct ActionPatternError;

impl ActionPattern {
    /// Whether it stands for this action, as the request spells it.
    pub fn matches(&self, action: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *action,
            Self::Prefix(prefix) => action.starts_with(&**prefix),
        }
    }
}

impl FromStr for ActionPattern {
    type Err = ActionPatternError;

    fn from_str(text: &str) -> Result<Self, ActionPatternError> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        let plain = name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric());
        match (plain, prefix) {
            (true, true) => Ok(Self::Prefix(name.into())),
            (true, false) if !name.is_empty() => Ok(Self::Exact(name.into())),
            _ => Err(ActionPatternError),
        }
    }
}

impl TryFrom<String> for ActionPattern {
    type Error = ActionPatternError;

    fn try_from(text: String) -> Result<Self, ActionPatternError> {
        text.parse()
    }
}

impl fmt::Display for ActionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_named_whole_or_by_its_beginning() {
        let pattern = |text: &str| text.parse::<ActionPattern>();
        assert!(pattern("GetItem").unwrap().matches("GetItem"));
        for other in ["GetItems", "getitem", "Get", ""] {
            assert!(!pattern("GetItem").unwrap().matches(other), "{other}");
        }
        assert!(pattern("Get*").unwrap().matches("GetItem") && !pattern("Get*").unwrap().matches("PutItem"));
        assert!(pattern("*").unwrap().matches("anything at all"));
        for text in ["", "dynamodb:GetItem", "Get*Item", "DynamoDB_20120810.GetItem", "Get Item", "**"] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
