//! Host names: one canonical spelling for each, and patterns over them.
//!
//! **Invariant:** two canonical hosts that differ are different hosts to DNS and to TLS; nothing that one reader takes for an
//! address and another for a name is a host.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

/// Hosts: one exactly (a name, or an IP literal as in a URL), or with a left-most `*.` every name that has exactly one
/// label more. That is what a wildcard stands for in a TLS certificate (RFC 6125 section 6.4.3).
///
/// The order is by specificity, the most specific first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum HostPattern {
    /// This host, in canonical spelling.
    Exact(Arc<str>),
    /// `*.` before this name, which is in canonical spelling.
    Wildcard(Arc<str>),
}

/// Why a text is no host or pattern over hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A URL, a port, user information or a path around the host.
    #[error("a host stands alone: no scheme, port, user or path")]
    NotAlone,
    /// Not labels of letters, digits, `-` and `_`.
    #[error(
        "a host is labels of a-z, 0-9, `-` and `_` joined by dots, in its A-label (`xn--`) form where it is international"
    )]
    Malformed,
    /// The last label is a number, but the whole is no dotted-quad address.
    #[error(
        "a host that ends in a number is an IPv4 address of four decimal numbers; an IPv6 address stands in brackets"
    )]
    Address,
    /// A wildcard elsewhere than as the left-most label.
    #[error("`*` stands only as the left-most label, as in `*.example.com`")]
    Wildcard,
}

/// The canonical spelling: lower case, without the trailing dot of the root; addresses as the standard library prints them.
pub(crate) fn canonical(text: &str) -> Result<Cow<'_, str>, HostError> {
    if let Some(literal) = text.strip_prefix('[') {
        let address = literal.strip_suffix(']').ok_or(HostError::Address)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostError::Address)?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.bytes().any(|b| b":/@?#".contains(&b)) {
        return Err(HostError::NotAlone);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return Err(if text.contains('*') { HostError::Wildcard } else { HostError::Malformed });
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if numeric && text.parse::<Ipv4Addr>().is_err() {
        return Err(HostError::Address);
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok(Cow::Owned(text.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(text))
}

impl HostPattern {
    /// Whether it stands for more than one host.
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Wildcard(_))
    }

    /// The wildcard that stands for this host too; `None`: no wildcard does.
    pub(crate) fn covering(&self) -> Option<Self> {
        match self {
            Self::Exact(host) => host.split_once('.').map(|(_, parent)| Self::Wildcard(parent.into())),
            Self::Wildcard(_) => None,
        }
    }

    /// Whether it stands for this host, which is in canonical spelling.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => host.split_once('.').is_some_and(|(_, rest)| *rest == **suffix),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let Some(suffix) = text.strip_prefix("*.") else {
            return Ok(Self::Exact(canonical(text)?.into()));
        };
        let suffix = canonical(suffix)?;
        let is_address = suffix.starts_with('[') || suffix.parse::<Ipv4Addr>().is_ok();
        if is_address { Err(HostError::Wildcard) } else { Ok(Self::Wildcard(suffix.into())) }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}
