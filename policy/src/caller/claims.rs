//! What a verified token says of its caller beside who it is: those of its claims that the settings name.
//!
//! **Invariant:** who a caller is never follows from them.

use std::fmt;
use std::sync::Arc;

use crate::name::Name;

/// Texts of claims, by the names that the settings have for them; several under one name where the claim is a list. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Claims(Arc<[(Name, Box<str>)]>);

impl Claims {
    /// Each text, with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &str)> {
        self.0.iter().map(|(name, text)| (name, &**text))
    }
}

impl FromIterator<(Name, Box<str>)> for Claims {
    fn from_iter<T: IntoIterator<Item = (Name, Box<str>)>>(texts: T) -> Self {
        Self(texts.into_iter().collect())
    }
}

/// They are about people, so only how many there are is shown.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} claims", self.0.len())
    }
}
