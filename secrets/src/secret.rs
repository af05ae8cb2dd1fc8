//! The one type that holds the value of a secret, and the word by which its content is told apart.
//!
//! **Invariant:** a [`Secret`] is zeroized when its last owner lets go; it cannot be copied, compared, printed or
//! serialized. Two [`Version`]s are equal only if they name the same bytes of the same reference.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::{hmac, rand};
use tollgate_policy::policy::Credential;

use crate::digest::hex;
use crate::error::Failure;
use crate::store::Lease;
use crate::value::Value;

/// Whether a credential can use a value; if not, why, in words that hold nothing of it.
pub type Fits = Arc<dyn Fn(&Credential, &Secret) -> Result<(), &'static str> + Send + Sync>;

/// The value of one secret.
pub struct Secret {
    reference: Arc<str>,
    version: Version,
    value: Value,
    /// Given back when the last owner of the value lets go of it.
    lease: Option<Arc<Lease>>,
    /// A provider refused it, and took it on no call since.
    rejected: AtomicBool,
}

impl Secret {
    /// `label` is the store's own name of this version, where it has one.
    pub(crate) fn new(
        reference: Arc<str>,
        value: Value,
        label: Option<Arc<str>>,
        key: &VersionKey,
    ) -> Result<Self, Failure> {
        let version = Version::of(&reference, &value, label, key)?;
        Ok(Self { reference, version, value, lease: None, rejected: AtomicBool::new(false) })
    }

    /// The same, to be used while the lease runs.
    pub(crate) fn leased(self, lease: Option<Arc<Lease>>) -> Self {
        Self { lease, ..self }
    }

    pub(crate) const fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    /// Whether it is the same content of the same lease, if any.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let lease = |secret: &Self| secret.lease.as_ref().map(Arc::as_ptr);
        self.version == other.version && lease(self) == lease(other)
    }

    /// The bytes of one field, as the store gave them: never empty. Without a name, of the only one; `None` where there are several, or
    /// none of that name.
    #[must_use]
    pub fn expose(&self, field: Option<&str>) -> Option<&[u8]> {
        field.map_or_else(|| self.value.sole(), |name| self.value.field(name))
    }

    /// Whether its provider refused it, and took it on no call since.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Notes whether its provider refuses it; gives what was known before.
    pub(crate) fn set_rejected(&self, rejected: bool) -> bool {
        self.rejected.swap(rejected, Ordering::Relaxed)
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

/// The key of the digests by which contents are named. Those who have the same one name the same content alike.
#[derive(Clone)]
pub struct VersionKey(Option<Arc<hmac::Key>>);

impl VersionKey {
    /// The bytes of a key.
    pub const LENGTH: usize = 32;

    /// The key with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8; Self::LENGTH]) -> Self {
        Self(Some(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))))
    }

    /// One that nobody else has: names under it are of no use to others, or after a restart.
    #[must_use]
    pub fn random() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        // Without randomness no value can be named, and so none is used.
        Self(key.ok().map(Arc::new))
    }
}

impl fmt::Debug for VersionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VersionKey")
    }
}

/// Names one content of one reference.
///
/// `Display` is the store's own name of the version (`7`, a version id) where it has one, else 12 hex digits of an
/// HMAC-SHA-256 of the value under a [`VersionKey`], which tells nothing about the value to whoever has not that key.
/// Equality also covers a digest of reference and value: a store that counts from 1 again after a secret was deleted,
/// or a credential that now reads another path, never yields an equal version for other bytes. It is thus safe as
/// part of a cache key.
#[derive(Clone)]
pub struct Version {
    label: Arc<str>,
    digest: [u8; 16],
    is_digest: bool,
}

impl Version {
    fn of(
        reference: &str,
        value: &Value,
        label: Option<Arc<str>>,
        key: &VersionKey,
    ) -> Result<Self, Failure> {
        let key = key.0.as_deref().ok_or(Failure::Internal)?;
        let mut context = hmac::Context::with_key(key);
        // Lengths keep apart what concatenates to the same bytes.
        let mut add = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        add(reference.as_bytes());
        value.values().for_each(add);
        let mut digest = [0; 16];
        let tag = context.sign();
        digest.copy_from_slice(tag.as_ref().get(..16).ok_or(Failure::Internal)?);
        let is_digest = label.is_none();
        let label: Arc<str> = match label {
            Some(label) => label,
            None => hex(own(key, value).as_ref().get(..6).ok_or(Failure::Internal)?).into(),
        };
        Ok(Self { label, digest, is_digest })
    }

    /// The word that `Display` gives, for whoever keeps it.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }

    /// Whether that word is a digest, which only those who have the same [`VersionKey`] can compare.
    #[must_use]
    pub const fn is_digest(&self) -> bool {
        self.is_digest
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

/// Of the value alone, so that two paths with one value show it.
fn own(key: &hmac::Key, value: &Value) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for bytes in value.values() {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const KEY: [u8; VersionKey::LENGTH] = [7; VersionKey::LENGTH];

    fn secret(reference: &str, value: &str, label: Option<u64>) -> Secret {
        keyed(reference, value, label, &VersionKey::of(&KEY))
    }

    fn keyed(reference: &str, value: &str, label: Option<u64>, key: &VersionKey) -> Secret {
        let label = label.map(|number| number.to_string().into());
        Secret::new(reference.into(), Zeroizing::new(value.as_bytes().to_vec()).into(), label, key).unwrap()
    }

    #[test]
    fn debug_prints_reference_and_version_but_no_value() {
        let secret = secret("bao:llm/openai#api_key", "sk-canary", Some(7));
        assert_eq!(format!("{secret:?}"), "Secret(bao:llm/openai#api_key version 7)");
        assert_eq!(secret.expose(None), Some(b"sk-canary".as_slice()));
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
    fn fields_are_told_apart_by_name_and_none_is_the_only_one_where_there_are_several() {
        let pair = |id: &str, key: &str| {
            let field = |name: &str, text: &str| (name.into(), Zeroizing::new(text.as_bytes().to_vec()));
            let value = Value::of(vec![field("id", id), field("key", key)]);
            Secret::new("bao:aws#id,key".into(), value, None, &VersionKey::of(&KEY)).unwrap()
        };
        let secret = pair("AKIA", "abc");
        assert_eq!(secret.expose(Some("key")), Some(b"abc".as_slice()));
        assert_eq!((secret.expose(None), secret.expose(Some("other"))), (None, None));
        assert_ne!(secret.version(), pair("AKIAa", "bc").version(), "the same bytes, divided otherwise");
        assert_ne!(secret.version().as_str(), pair("AKIAa", "bc").version().as_str());
    }

    #[test]
    fn without_a_label_the_version_is_a_keyed_digest_of_the_value() {
        let version = secret("file:a", "one", None).version().to_string();
        assert_eq!(version.len(), 12);
        assert!(version.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(version, secret("file:a", "one", None).version().as_str());
        assert_ne!(version, secret("file:a", "two", None).version().as_str());
    }

    #[test]
    fn a_version_is_the_same_under_the_same_key_and_says_nothing_under_another() {
        let named = |value: &str, key: &VersionKey| keyed("file:a", value, None, key).version().to_string();
        let key = || VersionKey::of(&KEY);
        assert_eq!(named("one", &key()), named("one", &key()), "also in another process");
        assert_ne!(named("one", &key()), named("one", &VersionKey::of(&[8; VersionKey::LENGTH])));
        assert_ne!(named("one", &VersionKey::random()), named("one", &VersionKey::random()));
    }
}
