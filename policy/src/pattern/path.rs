//! Patterns over the paths of requests.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::Segments;
use crate::path::{EncodedForm, EncodedForms, PathError, canonical, collapsed, other_readings};

/// Paths in canonical form: one exactly, or with `*` for any one segment and a trailing `**` for all that lies below.
///
/// `/v1/**` stands for every path that begins with `/v1/`, itself included, and not for `/v1`. The order is by specificity, the most
/// specific first.
///
/// A path with dot segments or empty ones (of a destination that allows them) has to match as it is written, and, where the pattern has a
/// wildcard, also as every reader would have it who resolves or skips them: `/public/**` does not stand for `/public/../secret`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PathPattern(Segments);

/// Why a text is no pattern over paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// No request with such a path is ever forwarded.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `..` in a pattern that does not name one path.
    #[error("a `.` or `..` segment stands only in a path that is named whole, without wildcards")]
    Dots,
    /// The spelling that is matched is another one.
    #[error("paths are matched in their canonical spelling, here `{0}`")]
    Spelling(String),
    /// A wildcard within a segment, or `**` before the end.
    #[error(
        "`*` stands for a whole segment, and `**` only at the end, as in `/v1/files/*/content` or `/v1/**`"
    )]
    Wildcard,
}

impl PathPattern {
    /// The pattern `/**`, which stands for every path.
    pub fn any() -> Self {
        Self(Segments::rest())
    }

    /// Whether it is [`PathPattern::any`].
    pub(crate) fn is_any(&self) -> bool {
        &*self.0.text == "/**"
    }

    /// Whether it stands for this path, which is in canonical form.
    pub fn matches(&self, path: &str) -> bool {
        self.0.matches(path) && (self.0.exact || self.matches_however_read(path))
    }

    fn matches_however_read(&self, path: &str) -> bool {
        let Some(readings) = other_readings(path) else { return true };
        // A pattern that itself has an empty segment is read in the same ways.
        let flat =
            self.0.text.contains("//").then(|| Segments::parse(&collapsed(&self.0.text), |_| Ok(()), ()));
        let is_match = |reading: &String| match &flat {
            None => self.0.matches(reading),
            Some(Ok(flat)) => self.0.matches(reading) || flat.matches(reading),
            Some(Err(())) => false,
        };
        readings.iter().all(is_match)
    }

    /// Whether it stands for one path only.
    pub fn is_exact(&self) -> bool {
        self.0.exact
    }

    /// The encoded forms that stand in its literal segments: a destination that does not allow them never sees such a path.
    pub fn encoded_forms(&self) -> EncodedForms {
        EncodedForms::within(&self.0.text)
    }
}

impl FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        let canonical = canonical(text, EncodedForms::ALL)?;
        if *canonical != *text {
            return Err(PathPatternError::Spelling(canonical.into_owned()));
        }
        let segments = Segments::parse(text, |_| Ok(()), PathPatternError::Wildcard)?;
        let has_dots = EncodedForms::within(text).contains(EncodedForm::DotSegment);
        if has_dots && !segments.exact { Err(PathPatternError::Dots) } else { Ok(Self(segments)) }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PathPatternError;

    fn try_from(text: String) -> Result<Self, PathPatternError> {
        text.parse()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}
