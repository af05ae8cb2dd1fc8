//! Patterns over identities, hosts, paths, models, actions and methods, and which of two patterns is the more specific.
//!
//! **Invariant:** of two patterns of one kind that match the same value, one comes first in the order of the type, or they are
//! the same pattern. Exact comes before `*`, `*` before `**`, a longer literal beginning before a shorter one. Actions alone have no such
//! order: they do not decide between grants.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

mod action;
mod caller;
mod claim;
mod host;
mod path;

#[cfg(test)]
mod tests;

pub use action::{ActionPattern, ActionPatternError};
pub use caller::{
    CallerPattern, OneOrAny, ServiceAccountPattern, SpiffePattern, SpiffePatternError, SubjectPattern,
    SubjectPatternError, TokenPattern,
};
pub use claim::{ClaimPattern, ClaimText, ClaimTextError};
pub(crate) use host::canonical as canonical_host;
pub use host::{HostError, HostPattern};
pub use path::{PathPattern, PathPatternError};

/// A path cut at its slashes, with wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Segments {
    text: Box<str>,
    segments: Box<[Segment]>,
    exact: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    Literal(Box<str>),
    /// `*`: any one segment that is not empty.
    One,
    /// `**` at the end: one or more segments.
    Rest,
}

impl Segments {
    /// Cuts `text`, which begins with a slash; `literal` judges every segment that is not a wildcard.
    fn parse<E>(text: &str, literal: impl Fn(&str) -> Result<(), E>, wildcard: E) -> Result<Self, E> {
        let parts: Vec<&str> = text.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/')).collect();
        let last = parts.len().saturating_sub(1);
        let mut segments = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            segments.push(match part {
                "*" => Segment::One,
                "**" if index == last => Segment::Rest,
                _ if part.contains('*') => return Err(wildcard),
                _ => {
                    literal(part)?;
                    Segment::Literal(part.into())
                }
            });
        }
        let exact = segments.iter().all(|segment| matches!(segment, Segment::Literal(_)));
        Ok(Self { text: text.into(), segments: segments.into(), exact })
    }

    /// `/**`.
    fn rest() -> Self {
        Self { text: "/**".into(), segments: [Segment::Rest].into(), exact: false }
    }

    fn matches(&self, path: &str) -> bool {
        if self.exact {
            return *self.text == *path;
        }
        let Some(rest) = path.strip_prefix('/') else { return false };
        let mut parts = rest.split('/');
        for segment in &self.segments {
            match (segment, parts.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::One, Some(part)) if !part.is_empty() => {}
                (Segment::Literal(literal), Some(part)) if **literal == *part => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// Smaller is more specific. The kind decides, then the length of the literal beginning, then the first segment
    /// that differs: a literal before `*`, `*` before `**`.
    fn specificity(&self) -> impl Ord + '_ {
        let kind = match self.segments.last() {
            Some(Segment::Rest) => 2,
            _ if self.exact => 0,
            _ => 1,
        };
        let beginning = self.text.find('*').unwrap_or(self.text.len());
        (kind, Reverse(beginning), &self.segments)
    }
}

impl PartialOrd for Segments {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Segments {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.specificity().cmp(&other.specificity())
    }
}

/// Models: one exactly, or all that begin with what stands before a trailing `*`.
///
/// The order is by specificity, the most specific first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum ModelPattern {
    /// This name and no other.
    Exact(Box<str>),
    /// Names that begin so.
    Prefix(Box<str>),
}

/// The text is no pattern over models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a model is its exact name, or the beginning of one followed by a single `*`, as in `gpt-5*`; at most 128 visible characters"
)]
pub struct ModelPatternError;

impl ModelPattern {
    /// Whether it stands for this model, as the request spells it.
    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *model,
            Self::Prefix(prefix) => model.starts_with(&**prefix),
        }
    }
}

impl PartialOrd for ModelPattern {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ModelPattern {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let specificity = |pattern: &Self| match pattern {
            Self::Exact(_) => (0, Reverse(0)),
            Self::Prefix(prefix) => (1, Reverse(prefix.len())),
        };
        let (Self::Exact(one) | Self::Prefix(one)) = self;
        let (Self::Exact(two) | Self::Prefix(two)) = other;
        specificity(self).cmp(&specificity(other)).then_with(|| one.cmp(two))
    }
}

impl FromStr for ModelPattern {
    type Err = ModelPatternError;

    fn from_str(text: &str) -> Result<Self, ModelPatternError> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        let visible = name.len() <= 128 && name.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
        match (visible, prefix) {
            (true, true) => Ok(Self::Prefix(name.into())),
            (true, false) if !name.is_empty() => Ok(Self::Exact(name.into())),
            _ => Err(ModelPatternError),
        }
    }
}

impl TryFrom<String> for ModelPattern {
    type Error = ModelPatternError;

    fn try_from(text: String) -> Result<Self, ModelPatternError> {
        text.parse()
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Methods: one in upper case, or `*` for all that are forwarded at all.
///
/// The order is by specificity, the most specific first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum MethodPattern {
    /// This method.
    Exact(Box<str>),
    /// Every method.
    Any,
}

/// The text is no pattern over methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MethodPatternError {
    /// Not a method in upper case.
    #[error("a method is one word in upper case such as `POST`, or `*` for all of them")]
    Malformed,
    /// A method that is refused whatever a grant says.
    #[error("CONNECT, TRACE and TRACK are never forwarded")]
    Refused,
}

/// Whether a call with this method is refused whatever a grant says: a tunnel is no call, and the others are answered with the request as it
/// came, key and all. In any case: methods are case-sensitive, but some servers do not know that.
pub fn is_never_forwarded(method: &str) -> bool {
    ["CONNECT", "TRACE", "TRACK"].iter().any(|refused| method.eq_ignore_ascii_case(refused))
}

impl MethodPattern {
    /// Whether it stands for this method; methods are case-sensitive (RFC 9110 section 9.1).
    pub fn matches(&self, method: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *method,
            Self::Any => true,
        }
    }
}

impl FromStr for MethodPattern {
    type Err = MethodPatternError;

    fn from_str(text: &str) -> Result<Self, MethodPatternError> {
        match text {
            "*" => Ok(Self::Any),
            _ if is_never_forwarded(text) => Err(MethodPatternError::Refused),
            "" => Err(MethodPatternError::Malformed),
            _ if text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || b"-_".contains(&b)) => {
                Ok(Self::Exact(text.into()))
            }
            _ => Err(MethodPatternError::Malformed),
        }
    }
}

impl TryFrom<String> for MethodPattern {
    type Error = MethodPatternError;

    fn try_from(text: String) -> Result<Self, MethodPatternError> {
        text.parse()
    }
}

impl fmt::Display for MethodPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact(name) => name,
            Self::Any => "*",
        })
    }
}
