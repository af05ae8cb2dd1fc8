//! The hash by which an approval names what it is for.
//!
//! **Invariant:** a hash has one text, so hashes are compared by their texts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 of what a grant amounts to, as `sha256:` and 64 digits in lower-case hex. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantHash(Arc<str>);

/// The text is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is `sha256:` and 64 digits in lower-case hex, as `tollgate access approve` writes it")]
pub struct GrantHashError;

impl GrantHash {
    const SCHEME: &str = "sha256:";

    /// The hash of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut text = String::from(Self::SCHEME);
        for byte in digest {
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GrantHash {
    type Err = GrantHashError;

    fn from_str(text: &str) -> Result<Self, GrantHashError> {
        let digits = text.strip_prefix(Self::SCHEME).ok_or(GrantHashError)?;
        let is_hex = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex { Ok(Self(text.into())) } else { Err(GrantHashError) }
    }
}

impl TryFrom<String> for GrantHash {
    type Error = GrantHashError;

    fn try_from(text: String) -> Result<Self, GrantHashError> {
        text.parse()
    }
}

impl From<GrantHash> for String {
    fn from(hash: GrantHash) -> Self {
        hash.as_str().to_owned()
    }
}

impl fmt::Display for GrantHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for GrantHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_from_its_text_and_nothing_else_does() {
        let hash = GrantHash::of(b"");
        assert_eq!(hash.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hash.as_str().parse::<GrantHash>().unwrap(), hash);
        let upper = hash.as_str().to_ascii_uppercase();
        for text in
            ["", "sha256:", "sha256:00", "sha512:00", &upper, &hash.as_str()[..70], &hash.as_str()[7..]]
        {
            assert!(text.parse::<GrantHash>().is_err(), "{text}");
        }
    }
}
