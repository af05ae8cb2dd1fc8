//! The canonical form of a request's path, and what has none.
//!
//! **Invariant:** what is accepted is its own canonical form, and however often a reader decodes it, no segment of it becomes `.` or
//! `..` and no byte of it a control. Where a destination allows such a form, it stands in the path undecoded, and never leads above the root.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;
use schemars::JsonSchema;
use serde::Deserialize;

/// A form that paths may have only where the destination allows it, because readers disagree on what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum EncodedForm {
    /// `%2F`, a slash that does not part segments.
    #[serde(rename = "%2F")]
    Slash,
    /// `%5C`, a backslash.
    #[serde(rename = "%5C")]
    Backslash,
    /// `%25`, a percent sign, and so an escape that appears after decoding.
    #[serde(rename = "%25")]
    Percent,
    /// `;`, which to some begins a path parameter; also as `%3B`.
    #[serde(rename = ";")]
    Semicolon,
    /// `//`, an empty segment, as keys of S3 may have.
    #[serde(rename = "//")]
    EmptySegment,
    /// `.` and `..` as segments that mean nothing, as keys of S3 may have. Never such that they could lead above the root.
    #[serde(rename = "..")]
    DotSegment,
    /// `%09`, a tab.
    #[serde(rename = "%09")]
    Tab,
}

/// A set of encoded forms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EncodedForms(u8);

/// Why a path has no canonical form. Each means: refuse, do not repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `*`, an authority, or nothing.
    #[error("a path begins with `/`")]
    NotAbsolute,
    /// `.` or `..`, plain or encoded.
    #[error("the path has a `.` or `..` segment, plain or encoded")]
    DotSegment,
    /// `//`.
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    /// A control byte or a space, or an escape that decodes to a control.
    #[error("the path has a space or control character, or an encoded control character")]
    Control,
    /// A byte above 127.
    #[error("the path has a character outside ASCII: it has to be percent-encoded")]
    NonAscii,
    /// A character that RFC 3986 section 3.3 keeps out of paths.
    #[error(
        "the path has a character that does not belong there: one of `\\ # ? \" < > ^ {{ }}` or a backquote"
    )]
    Character,
    /// `%` without two hexadecimal digits.
    #[error("the path has a `%` without two hexadecimal digits")]
    Escape,
    /// Escapes that decode to no UTF-8.
    #[error("the path's escapes do not decode to UTF-8")]
    NotUtf8,
    /// A form that the destination does not allow.
    #[error("the path has {0}, which this destination does not allow")]
    Form(EncodedForm),
    /// Escapes of escapes of escapes.
    #[error("the path is percent-encoded too many times over")]
    TooDeep,
}

/// How often a path may be decodable, where `%25` is allowed at all.
const DECODINGS: usize = 4;

impl EncodedForm {
    /// As it is written in a destination's `encodedPath`; of dot segments the one that stands for both.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slash => "%2F",
            Self::Backslash => "%5C",
            Self::Percent => "%25",
            Self::Semicolon => ";",
            Self::EmptySegment => "//",
            Self::DotSegment => "..",
            Self::Tab => "%09",
        }
    }

    /// Whether a reader may take it for another path: he who cuts segments out, or resolves them.
    pub(crate) const fn is_of_segments(self) -> bool {
        matches!(self, Self::EmptySegment | Self::DotSegment)
    }
}

impl fmt::Display for EncodedForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.as_str())
    }
}

impl EncodedForms {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(0b111_1111);
    /// Those that leave each segment what it is, however the path is read.
    const PLAIN: Self = Self(
        1 << EncodedForm::EmptySegment as u8
            | 1 << EncodedForm::DotSegment as u8
            | 1 << EncodedForm::Tab as u8,
    );
    pub(super) const EACH: [EncodedForm; 7] = [
        EncodedForm::Slash,
        EncodedForm::Backslash,
        EncodedForm::Percent,
        EncodedForm::Semicolon,
        EncodedForm::EmptySegment,
        EncodedForm::DotSegment,
        EncodedForm::Tab,
    ];

    /// Whether the form is in the set.
    pub fn contains(self, form: EncodedForm) -> bool {
        self.0 & (1 << form as u8) != 0
    }

    /// Whether a path may be one that readers take for others ([`other_readings`]).
    pub(crate) fn has_readings(self) -> bool {
        self.iter().any(EncodedForm::is_of_segments)
    }

    /// The forms in the set, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = EncodedForm> {
        Self::EACH.into_iter().filter(move |form| self.contains(*form))
    }

    /// The forms that occur in a canonical path.
    pub(crate) fn within(path: &str) -> Self {
        let occurs = |form: &EncodedForm| match form {
            EncodedForm::DotSegment => path.split('/').any(is_dots),
            EncodedForm::Semicolon => path.contains(';') || path.contains("%3B"),
            form => path.contains(form.as_str()),
        };
        Self::EACH.into_iter().filter(occurs).collect()
    }

    /// The forms of this set that are not in `other`.
    pub(crate) fn beyond(self, other: Self) -> impl Iterator<Item = EncodedForm> {
        Self::EACH.into_iter().filter(move |form| self.contains(*form) && !other.contains(*form))
    }
}

impl FromIterator<EncodedForm> for EncodedForms {
    fn from_iter<I: IntoIterator<Item = EncodedForm>>(forms: I) -> Self {
        Self(forms.into_iter().fold(0, |set, form| set | (1 << form as u8)))
    }
}

/// The spelling of `path` that is matched and sent: escapes in upper case, and none where the character needs none.
pub(crate) fn canonical(path: &str, allowed: EncodedForms) -> Result<Cow<'_, str>, PathError> {
    if is_simple(path) {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    path.bytes().try_for_each(|byte| plain(byte, allowed))?;
    if path.contains("//") && !allowed.contains(EncodedForm::EmptySegment) {
        return Err(PathError::EmptySegment);
    }
    let canonical = if path.contains('%') { Cow::Owned(recode(path, allowed)?) } else { Cow::Borrowed(path) };
    if allowed.contains(EncodedForm::DotSegment) && canonical.split('/').any(is_dots) {
        // What to some parts segments, or ends one, would give the dots another meaning to them.
        if EncodedForms::within(&canonical).beyond(EncodedForms::PLAIN).next().is_some() {
            return Err(PathError::DotSegment);
        }
        // Those that are allowed aside, no reading of it may have any.
        check_decodings(&without_dots(&canonical), allowed)?;
        resolved(&canonical).ok_or(PathError::DotSegment)?;
    } else {
        check_decodings(&canonical, allowed)?;
    }
    Ok(canonical)
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// The path with something harmless in the place of its plain dot segments.
fn without_dots(path: &str) -> String {
    path.split('/').map(|segment| if is_dots(segment) { "-" } else { segment }).collect::<Vec<_>>().join("/")
}

/// The path without its empty segments, as some servers read it; the one at the end stays.
pub(crate) fn collapsed(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.chars() {
        if byte != '/' || !out.ends_with('/') {
            out.push(byte);
        }
    }
    out
}

/// The path with its dot segments resolved (RFC 3986, section 5.2.4); `None` where one leads above the root, read with or without the
/// empty segments.
pub(crate) fn resolved(path: &str) -> Option<String> {
    let resolve = |path: &str| {
        let mut kept: Vec<&str> = Vec::new();
        let mut ends_below = false;
        for segment in path.split('/').skip(1) {
            ends_below = is_dots(segment);
            match segment {
                "." => {}
                ".." => drop(kept.pop()?),
                segment => kept.push(segment),
            }
        }
        let end = if ends_below { "/" } else { "" };
        Some(format!("/{}{end}", kept.join("/")).replacen("//", "/", usize::from(kept.is_empty())))
    };
    resolve(&collapsed(path))?;
    resolve(path)
}

/// What readers could take the path for who resolve dot segments, skip empty ones, or do both in either order. Those that are forms of
/// it and not itself; `None` where there is no such form in it.
pub(crate) fn other_readings(path: &str) -> Option<Vec<String>> {
    if !path.contains("//") && !path.split('/').any(is_dots) {
        return None;
    }
    let flat = collapsed(path);
    let readings = [resolved(path), resolved(&flat), resolved(path).map(|path| collapsed(&path)), Some(flat)];
    Some(readings.into_iter().flatten().collect())
}

/// Whether nothing of the path could be read in another way: segments of unreserved characters, none of them empty or beginning with a
/// dot. Most paths are, and one look at each byte tells.
fn is_simple(path: &str) -> bool {
    let mut is_after_slash = false;
    for byte in path.bytes() {
        if !UNRESERVED[usize::from(byte)] && (is_after_slash || !matches!(byte, b'/' | b'.')) {
            return false;
        }
        is_after_slash = byte == b'/';
    }
    path.starts_with('/')
}

/// The unreserved characters (RFC 3986, section 2.3) but for the dot.
static UNRESERVED: [bool; 256] = {
    let mut unreserved = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        unreserved[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
        byte += 1;
    }
    unreserved
};

fn plain(byte: u8, allowed: EncodedForms) -> Result<(), PathError> {
    match byte {
        0..=b' ' | 0x7f => Err(PathError::Control),
        0x80.. => Err(PathError::NonAscii),
        b'\\' | b'#' | b'?' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'}' => Err(PathError::Character),
        b';' => form(EncodedForm::Semicolon, allowed),
        _ => Ok(()),
    }
}

fn form(form: EncodedForm, allowed: EncodedForms) -> Result<(), PathError> {
    if allowed.contains(form) { Ok(()) } else { Err(PathError::Form(form)) }
}

fn recode(path: &str, allowed: EncodedForms) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let digits = escape.get(1..3).ok_or(PathError::Escape)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(PathError::Escape);
        }
        let byte = u8::from_str_radix(digits, 16).map_err(|_| PathError::Escape)?;
        match byte {
            b'\t' if allowed.contains(EncodedForm::Tab) => {}
            0..0x20 | 0x7f => return Err(PathError::Control),
            b'/' => form(EncodedForm::Slash, allowed)?,
            b'\\' => form(EncodedForm::Backslash, allowed)?,
            b'%' => form(EncodedForm::Percent, allowed)?,
            b';' => form(EncodedForm::Semicolon, allowed)?,
            _ => {}
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&digits.to_ascii_uppercase());
        }
        rest = escape.get(3..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

/// Looks at the path as a reader would who decodes it once, twice and so on, who takes a backslash for a slash, and who cuts path
/// parameters off.
fn check_decodings(path: &str, allowed: EncodedForms) -> Result<(), PathError> {
    let mut seen: Cow<'_, [u8]> = Cow::Borrowed(path.as_bytes());
    let is_harmless = |b: u8| b == b'\t' && allowed.contains(EncodedForm::Tab);
    for _ in 0..=DECODINGS {
        if seen.iter().any(|b| b.is_ascii_control() && !is_harmless(*b)) {
            return Err(PathError::Control);
        }
        let name = |segment: &[u8]| segment.split(|b| *b == b';').next().map(<[u8]>::len);
        let is_dots = |segment: &[u8]| {
            name(segment).is_some_and(|len| matches!(segment.get(..len), Some(b"." | b"..")))
        };
        if seen.split(|b| matches!(b, b'/' | b'\\')).any(is_dots) {
            return Err(PathError::DotSegment);
        }
        if !seen.contains(&b'%') {
            return Ok(());
        }
        let decoded: Vec<u8> = percent_decode(&seen).collect();
        if decoded == *seen {
            return Ok(());
        }
        // Overlong sequences are a dot or a slash to lenient decoders (RFC 3629, section 10).
        if std::str::from_utf8(&decoded).is_err() {
            return Err(PathError::NotUtf8);
        }
        seen = Cow::Owned(decoded);
    }
    Err(PathError::TooDeep)
}
