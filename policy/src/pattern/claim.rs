//! Patterns over claims of tokens.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::caller::Claims;
use crate::name::Name;

/// What a claim has to be: the name that the settings have for it, and its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimPattern {
    name: Name,
    text: ClaimText,
}

/// A text of 1 to 255 bytes, or the beginning of one with a trailing `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ClaimText {
    is_beginning: bool,
    /// Without the `*`.
    text: Box<str>,
}

/// The text stands for no claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimTextError {
    /// Empty, or longer than any text that is compared.
    #[error("the text of a claim has 1 to 255 bytes")]
    Length,
    /// A wildcard before the end.
    #[error("a claim is exact, or the beginning of one followed by a single `*`, as in `eu-*`")]
    Wildcard,
}

impl ClaimText {
    /// Longer texts of claims match nothing.
    pub const LONGEST: usize = 255;
}

impl ClaimPattern {
    /// The claim of this name has this text.
    pub const fn new(name: Name, text: ClaimText) -> Self {
        Self { name, text }
    }

    /// Whether one of the texts under its name is what it stands for. What is absent is nothing.
    pub fn holds_of(&self, claims: &Claims) -> bool {
        claims.iter().any(|(name, text)| self.matches(name, text))
    }

    fn matches(&self, name: &Name, text: &str) -> bool {
        let ClaimText { is_beginning, text: pattern } = &self.text;
        let is_one = if *is_beginning { text.starts_with(&**pattern) } else { text == &**pattern };
        self.name == *name && is_one && text.len() <= ClaimText::LONGEST
    }

    /// A claim that it stands for.
    pub(crate) fn example(&self) -> (Name, Box<str>) {
        let text = if self.text.text.is_empty() { "x".into() } else { self.text.text.clone() };
        (self.name.clone(), text)
    }
}

impl FromStr for ClaimText {
    type Err = ClaimTextError;

    fn from_str(text: &str) -> Result<Self, ClaimTextError> {
        let (rest, is_beginning) = text.strip_suffix('*').map_or((text, false), |rest| (rest, true));
        if rest.contains('*') {
            return Err(ClaimTextError::Wildcard);
        }
        let is_fit = (is_beginning || !rest.is_empty()) && rest.len() <= Self::LONGEST;
        if is_fit { Ok(Self { is_beginning, text: rest.into() }) } else { Err(ClaimTextError::Length) }
    }
}

impl TryFrom<String> for ClaimText {
    type Error = ClaimTextError;

    fn try_from(text: String) -> Result<Self, ClaimTextError> {
        text.parse()
    }
}

impl fmt::Display for ClaimPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.text.is_beginning { "*" } else { "" };
        write!(f, "{}={}{star}", self.name, self.text.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(name: &str, text: &str) -> ClaimPattern {
        ClaimPattern::new(name.parse().unwrap(), text.parse().unwrap())
    }

    fn claims(all: &[(&str, &str)]) -> Claims {
        all.iter().map(|(name, text)| (name.parse().unwrap(), (*text).into())).collect()
    }

    #[test]
    fn a_claim_is_exact_or_begun_and_any_of_a_list_will_do() {
        let caller = claims(&[("team", "payments"), ("groups", "dev"), ("groups", "eu-admins")]);
        for (name, text) in
            [("team", "payments"), ("team", "pay*"), ("team", "*"), ("groups", "dev"), ("groups", "eu-*")]
        {
            assert!(pattern(name, text).holds_of(&caller), "{name}={text}");
        }
        for (name, text) in [
            ("team", "Payments"),
            ("team", "payment"),
            ("team", "payments-2"),
            ("groups", "payments"),
            ("other", "*"),
        ] {
            assert!(!pattern(name, text).holds_of(&caller), "{name}={text}");
        }
        assert!(!pattern("team", "*").holds_of(&Claims::default()), "what is absent matches nothing");
    }

    #[test]
    fn a_huge_text_matches_nothing() {
        assert!(!pattern("team", "a*").holds_of(&claims(&[("team", &"a".repeat(256))])));
        assert!(pattern("team", "a*").holds_of(&claims(&[("team", &"a".repeat(255))])));
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for (text, error) in [
            ("", ClaimTextError::Length),
            (&*"a".repeat(256), ClaimTextError::Length),
            ("a*b", ClaimTextError::Wildcard),
            ("**", ClaimTextError::Wildcard),
        ] {
            assert_eq!(text.parse::<ClaimText>().unwrap_err(), error, "{text}");
        }
    }
}
