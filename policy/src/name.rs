//! Names, and the ids of resources: what other resources, metrics and records call them.
//!
//! **Invariant:** a `Name` is an RFC 1123 label, so it needs no escaping in a path, a metric label or a file name. An id has one text
//! and no other, so ids are told apart by their texts.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An RFC 1123 label: 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The text is not an RFC 1123 label, or not two with a slash between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit")]
pub struct NameError(String);

/// What a resource is told apart by from all others of its kind: `namespace/name`, or the name alone in the default namespace.
/// Cheap to clone and hash.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceId {
    text: Arc<str>,
    /// Where the name begins; 0: the namespace is the default one.
    name_at: u8,
}

/// What one resource calls another: `name` in its own namespace, or `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    namespace: Option<Name>,
    name: Name,
}

impl Name {
    /// The label itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let valid = bytes.len() <= 63
            && ends.iter().all(|end| end.is_some_and(|b| letter(*b)))
            && bytes.iter().all(|b| letter(*b) || *b == b'-');
        if valid { Ok(Self(text.into())) } else { Err(NameError(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl ResourceId {
    /// The namespace of a resource that names none.
    pub const DEFAULT_NAMESPACE: &str = "default";

    /// The resource of this name in this namespace; `None`: in the default one.
    pub fn new(namespace: Option<&Name>, name: &Name) -> Self {
        match namespace.map(Name::as_str).filter(|namespace| *namespace != Self::DEFAULT_NAMESPACE) {
            Some(namespace) => Self::in_namespace(namespace, name.as_str()),
            None => Self { text: Arc::clone(&name.0), name_at: 0 },
        }
    }

    fn in_namespace(namespace: &str, name: &str) -> Self {
        // Labels have at most 63 bytes.
        let name_at = u8::try_from(namespace.len() + 1).unwrap_or(u8::MAX);
        Self { text: format!("{namespace}/{name}").into(), name_at }
    }

    /// `name` in the default namespace, else `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// [`ResourceId::as_str`], shared.
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        match usize::from(self.name_at).checked_sub(1) {
            Some(end) => self.text.get(..end).unwrap_or_default(),
            None => Self::DEFAULT_NAMESPACE,
        }
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        self.text.get(usize::from(self.name_at)..).unwrap_or_default()
    }
}

impl FromStr for ResourceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Reference { namespace, name } = text.parse()?;
        Ok(Self::new(namespace.as_ref(), &name))
    }
}

impl TryFrom<String> for ResourceId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ResourceId> for String {
    fn from(id: ResourceId) -> Self {
        id.as_str().to_owned()
    }
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ResourceId {}

impl PartialOrd for ResourceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ResourceId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for ResourceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl AsRef<str> for ResourceId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for ResourceId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Reference {
    /// What it means in a resource that has this id.
    pub(crate) fn within(&self, owner: &ResourceId) -> ResourceId {
        match (&self.namespace, owner.name_at) {
            (None, 1..) => ResourceId::in_namespace(owner.namespace(), self.name.as_str()),
            (namespace, _) => ResourceId::new(namespace.as_ref(), &self.name),
        }
    }
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, name)) => {
                let refuse = |_| NameError(text.chars().take(80).collect());
                let namespace = Some(namespace.parse().map_err(refuse)?);
                Ok(Self { namespace, name: name.parse().map_err(refuse)? })
            }
            None => Ok(Self { namespace: None, name: text.parse()? }),
        }
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ResourceId {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_reads_back_from_its_text() {
        for (text, namespace, name) in
            [("openai", "default", "openai"), ("platform/openai", "platform", "openai"), ("a/a", "a", "a")]
        {
            let id = id(text);
            assert_eq!((id.as_str(), id.namespace(), id.name()), (text, namespace, name));
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("{text:?}"));
        }
        let longest = "x".repeat(63);
        assert_eq!(id(&format!("{longest}/{longest}")).name(), longest);
    }

    #[test]
    fn an_id_in_the_default_namespace_has_one_text() {
        assert_eq!(id("default/openai"), id("openai"));
        assert_eq!(id("default/openai").as_str(), "openai");
        assert_ne!(id("platform/openai"), id("openai"));
    }

    #[test]
    fn what_is_no_two_labels_is_no_id() {
        for text in ["", "/", "a/", "/a", "a/b/c", "a//b", "A/b", "a/b_c"] {
            assert!(text.parse::<ResourceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_reference_without_a_namespace_means_the_one_of_its_owner() {
        let means = |reference: &str, owner: &str| {
            reference.parse::<Reference>().unwrap().within(&id(owner)).as_str().to_owned()
        };
        assert_eq!(means("openai", "checkout"), "openai");
        assert_eq!(means("openai", "shop/checkout"), "shop/openai");
        assert_eq!(means("platform/openai", "shop/checkout"), "platform/openai");
        assert_eq!(means("default/openai", "shop/checkout"), "openai");
    }

    #[test]
    fn a_label_is_a_name() {
        for text in ["a", "openai", "openai-prod", "9lives", &"x".repeat(63)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_would_need_escaping_is_not_a_name() {
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
