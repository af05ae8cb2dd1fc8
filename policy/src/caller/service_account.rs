//! Service accounts of Kubernetes clusters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

use super::IdentityError;
use crate::name::Name;

/// A Kubernetes service account, written `k8s:CLUSTER/NAMESPACE/NAME`. Cheap to clone.
///
/// The cluster is the name that the gateway gives to whatever vouches for its accounts: two clusters may have the same namespaces.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount(Arc<str>);

/// The name of a service account: an RFC 1123 subdomain, 1 to 253 of `a-z 0-9 - .`, each label beginning and ending with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AccountName(Box<str>);

/// The text is no name of a service account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a service account's name is 1 to 253 of a-z, 0-9, `-` and `.`, each part of it beginning and ending with a letter or digit"
)]
pub struct AccountNameError;

impl AccountName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> Result<Self, AccountNameError> {
        let is_label = |label: &str| label.parse::<Name>().is_ok();
        let valid = text.len() <= 253 && text.split('.').all(is_label);
        if valid { Ok(Self(text.into())) } else { Err(AccountNameError) }
    }
}

impl TryFrom<String> for AccountName {
    type Error = AccountNameError;

    fn try_from(text: String) -> Result<Self, AccountNameError> {
        text.parse()
    }
}

impl AsRef<str> for AccountName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ServiceAccount {
    pub(crate) const SCHEME: &str = "k8s:";

    /// The account of this name.
    pub fn new(cluster: &Name, namespace: &Name, name: &AccountName) -> Self {
        Self(format!("{}{cluster}/{namespace}/{name}", Self::SCHEME).into())
    }

    /// The cluster that vouches for it.
    pub fn cluster(&self) -> &str {
        self.part(0)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.part(1)
    }

    /// Its name within the namespace.
    pub fn name(&self) -> &str {
        self.part(2)
    }

    /// The whole identity, `k8s:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, index: usize) -> &str {
        let parts = self.0.get(Self::SCHEME.len()..).unwrap_or_default();
        parts.split('/').nth(index).unwrap_or_default()
    }
}

impl FromStr for ServiceAccount {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let parts = text.strip_prefix(Self::SCHEME).ok_or(IdentityError::Scheme)?;
        let read = || {
            let (cluster, rest) = parts.split_once('/')?;
            let (namespace, name) = rest.split_once('/')?;
            Some(Self::new(&cluster.parse().ok()?, &namespace.parse().ok()?, &name.parse().ok()?))
        };
        read().ok_or(IdentityError::ServiceAccount)
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
