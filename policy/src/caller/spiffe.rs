//! SPIFFE identities and trust domains.
//!
//! **Invariant:** a `SpiffeId` is well formed after the SPIFFE-ID specification; there is no normalisation, so equal
//! bytes are the only equal identities.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A trust domain name after SPIFFE-ID section 2.1: 1 to 255 of `a-z 0-9 . - _`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

/// A SPIFFE ID after SPIFFE-ID section 2: `spiffe://trust-domain/path`, at most 2048 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId(Arc<SpiffeParts>);

/// The text says all of it.
struct SpiffeParts {
    text: Box<str>,
    trust_domain: TrustDomain,
}

impl PartialEq for SpiffeParts {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpiffeParts {}

impl Hash for SpiffeParts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Why a text is no SPIFFE ID or trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Another scheme, or none.
    #[error("a SPIFFE ID begins with `spiffe://`")]
    Scheme,
    /// More than 2048 bytes (SPIFFE-ID section 2.3).
    #[error("a SPIFFE ID has at most 2048 bytes")]
    TooLong,
    /// The trust domain is empty, longer than 255 bytes, or has a character outside the set (a port or user included).
    #[error("a trust domain is 1 to 255 of a-z, 0-9, `.`, `-` and `_`")]
    TrustDomain,
    /// An empty segment, `.` or `..`, or a trailing slash.
    #[error("the path of a SPIFFE ID has no empty segment, no `.` or `..`, and no slash at its end")]
    Segment,
    /// A character outside the set: escapes, queries and fragments included.
    #[error("the path of a SPIFFE ID is made of a-z, A-Z, 0-9, `.`, `-` and `_`")]
    Character,
}

impl TrustDomain {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let valid = (1..=255).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        if valid { Ok(Self(text.into())) } else { Err(SpiffeError::TrustDomain) }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeError;

    fn try_from(text: String) -> Result<Self, SpiffeError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.as_str().to_owned()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Splits `spiffe://domain/path` into the trust domain and the path with its slash; the path is not looked at.
pub(crate) fn split(text: &str) -> Result<(TrustDomain, &str), SpiffeError> {
    let rest = text.strip_prefix(SpiffeId::SCHEME).ok_or(SpiffeError::Scheme)?;
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok((domain.parse()?, path))
}

/// Whether `segment` may stand in the path of a SPIFFE ID (SPIFFE-ID section 2.2).
pub(crate) fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    if matches!(segment, "" | "." | "..") {
        return Err(SpiffeError::Segment);
    }
    let valid = segment.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    if valid { Ok(()) } else { Err(SpiffeError::Character) }
}

impl SpiffeId {
    pub(crate) const SCHEME: &str = "spiffe://";

    /// The trust domain whose bundle vouches for this identity.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The path with its leading slash; empty for the identity of the trust domain itself.
    pub fn path(&self) -> &str {
        self.0.text.get(Self::SCHEME.len() + self.trust_domain().as_str().len()..).unwrap_or_default()
    }

    /// The Kubernetes namespace: `x` in `/ns/x/…`.
    pub fn namespace(&self) -> Option<&str> {
        let rest = self.path().strip_prefix("/ns/")?;
        rest.get(..rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len()))
    }

    /// The Kubernetes service account: `y` in `/ns/x/sa/y`.
    pub fn service_account(&self) -> Option<&str> {
        let (_, rest) = self.path().strip_prefix("/ns/")?.split_once('/')?;
        rest.strip_prefix("sa/")?.split('/').next()
    }

    /// The whole identity, `spiffe://…`.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > 2048 {
            return Err(SpiffeError::TooLong);
        }
        let (trust_domain, path) = split(text)?;
        if let Some(path) = path.strip_prefix('/') {
            path.split('/').try_for_each(check_segment)?;
        }
        Ok(Self(Arc::new(SpiffeParts { text: text.into(), trust_domain })))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<SpiffeId, SpiffeError> {
        text.parse()
    }

    #[test]
    fn an_id_falls_into_its_parts() {
        let checkout = id("spiffe://prod.acme/ns/checkout/sa/web").unwrap();
        assert_eq!(checkout.trust_domain().as_str(), "prod.acme");
        assert_eq!(checkout.path(), "/ns/checkout/sa/web");
        assert_eq!(checkout.namespace(), Some("checkout"));
        assert_eq!(checkout.service_account(), Some("web"));
        assert_eq!(checkout.to_string(), "spiffe://prod.acme/ns/checkout/sa/web");
    }

    #[test]
    fn other_shapes_have_no_namespace() {
        for text in
            ["spiffe://prod.acme", "spiffe://prod.acme/web", "spiffe://prod.acme/sa/web", "spiffe://ns/x"]
        {
            let id = id(text).unwrap();
            assert_eq!((id.namespace(), id.service_account()), (None, None), "{text}");
        }
        assert_eq!(id("spiffe://a/ns/x").unwrap().namespace(), Some("x"));
    }

    #[test]
    fn malformed_ids_are_refused() {
        for (text, error) in [
            ("", SpiffeError::Scheme),
            ("https://prod.acme/x", SpiffeError::Scheme),
            ("SPIFFE://prod.acme/x", SpiffeError::Scheme),
            ("spiffe:///x", SpiffeError::TrustDomain),
            ("spiffe://Prod/x", SpiffeError::TrustDomain),
            ("spiffe://prod:8443/x", SpiffeError::TrustDomain),
            ("spiffe://me@prod/x", SpiffeError::TrustDomain),
            ("spiffe://prod?x", SpiffeError::TrustDomain),
            ("spiffe://prod/", SpiffeError::Segment),
            ("spiffe://prod/a/", SpiffeError::Segment),
            ("spiffe://prod/a//b", SpiffeError::Segment),
            ("spiffe://prod/./b", SpiffeError::Segment),
            ("spiffe://prod/a/..", SpiffeError::Segment),
            ("spiffe://prod/a%2fb", SpiffeError::Character),
            ("spiffe://prod/a?q", SpiffeError::Character),
            ("spiffe://prod/a#f", SpiffeError::Character),
            ("spiffe://prod/*", SpiffeError::Character),
            ("spiffe://prod/ä", SpiffeError::Character),
        ] {
            assert_eq!(id(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(id(&format!("spiffe://a/{}", "x".repeat(2048))).unwrap_err(), SpiffeError::TooLong);
        assert!(id(&format!("spiffe://{}/x", "a".repeat(255))).is_ok());
        assert!(id(&format!("spiffe://{}/x", "a".repeat(256))).is_err());
    }
}
