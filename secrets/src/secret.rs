//! The one type that holds the value of a secret, and the word by which its content is told apart.
//!
//! **Invariant:** a [`Secret`] is zeroized when its last owner lets go; it cannot be copied, compared, printed or
//! serialized. Two [`Version`]s are equal only if they name the same bytes of the same reference.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::{hmac, rand};
use zeroize::Zeroizing;

use crate::error::Failure;

/// The value of one secret.
pub struct Secret {
    reference: Arc<str>,
    version: Version,
    value: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// `label` is the store's own number of this version, where it has one.
    pub(crate) fn new(
        reference: Arc<str>,
        value: Zeroizing<Vec<u8>>,
        label: Option<u64>,
    ) -> Result<Self, Failure> {
        let version = Version::of(&reference, &value, label)?;
        Ok(Self { reference, version, value })
    }

    /// The bytes, as the store gave them. Never empty.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.value
    }

    /// Which content this is: changes exactly when the bytes or the reference change.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Where it came from, for operators: `store:path`, `store:path#field` or `store:path#field@version`.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The same, for whoever keeps it.
    #[must_use]
    pub fn reference_shared(&self) -> Arc<str> {
        Arc::clone(&self.reference)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} version {})", self.reference, self.version)
    }
}

/// Names one content of one reference.
///
/// `Display` is the store's own version number (`7`) where it has one, else 12 hex digits of an HMAC-SHA-256 of the
/// value under a random key of this process, which tells nothing about the value and differs after a restart.
/// Equality also covers a digest of reference and value: a store that counts from 1 again after a secret was deleted,
/// or a credential that now reads another path, never yields an equal version for other bytes. It is thus safe as
/// part of a cache key.
#[derive(Clone)]
pub struct Version {
    label: Arc<str>,
    digest: [u8; 16],
}

impl Version {
    fn of(reference: &str, value: &[u8], label: Option<u64>) -> Result<Self, Failure> {
        let key = process_key()?;
        let mut context = hmac::Context::with_key(key);
        // The length keeps (reference, value) pairs apart that concatenate to the same bytes.
        context.update(&(reference.len() as u64).to_be_bytes());
        context.update(reference.as_bytes());
        context.update(value);
        let mut digest = [0; 16];
        let tag = context.sign();
        digest.copy_from_slice(tag.as_ref().get(..16).ok_or(Failure::Internal)?);
        let label: Arc<str> = match label {
            Some(number) => number.to_string().into(),
            None => hex(hmac::sign(key, value).as_ref().get(..6).ok_or(Failure::Internal)?).into(),
        };
        Ok(Self { label, digest })
    }

    /// The word that `Display` gives, for whoever keeps it.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }

    /// The same word as `Display` gives.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.label
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.label == other.label
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.label)
    }
}

fn process_key() -> Result<&'static hmac::Key, Failure> {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let random = rand::SystemRandom::new();
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| Failure::Internal)?;
    Ok(KEY.get_or_init(|| key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(reference: &str, value: &str, label: Option<u64>) -> Secret {
        Secret::new(reference.into(), Zeroizing::new(value.as_bytes().to_vec()), label).unwrap()
    }

    #[test]
    fn debug_prints_reference_and_version_but_no_value() {
        let secret = secret("bao:llm/openai#api_key", "sk-canary", Some(7));
        assert_eq!(format!("{secret:?}"), "Secret(bao:llm/openai#api_key version 7)");
        assert_eq!(secret.expose(), b"sk-canary");
    }

    #[test]
    fn a_version_is_equal_only_for_the_same_bytes_of_the_same_reference() {
        let first = secret("bao:a#k", "one", Some(1));
        assert_eq!(first.version(), secret("bao:a#k", "one", Some(1)).version());
        // Deleted and written again: the store counts from 1 once more.
        assert_ne!(first.version(), secret("bao:a#k", "two", Some(1)).version());
        assert_ne!(first.version(), secret("bao:b#k", "one", Some(1)).version());
        assert_ne!(first.version(), secret("bao:a#k", "one", Some(2)).version());
    }

    #[test]
    fn without_a_number_the_version_is_a_keyed_digest_of_the_value() {
        let version = secret("file:a", "one", None).version().to_string();
        assert_eq!(version.len(), 12);
        assert!(version.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(version, secret("file:a", "one", None).version().as_str());
        assert_ne!(version, secret("file:a", "two", None).version().as_str());
    }
}
