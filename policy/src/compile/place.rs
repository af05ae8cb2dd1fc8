//! Where a secret really is: two stores, or two spellings, may name the same place.
//!
//! **Invariant:** what cannot be told apart counts as the same place.
//!
//! Deliberately lacks: what only the file system or the network knows: symbolic links, and two names of one vault.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use crate::resource::{AwsStore, KvVersion, SecretRef, StoreKind, Svid, VaultStore};

/// The place of one secret.
#[derive(Debug)]
pub(super) struct Place<'a> {
    backend: Backend<'a>,
    fields: &'a [String],
}

#[derive(Debug)]
enum Backend<'a> {
    /// A file, and the member of it where it holds several secrets.
    File(PathBuf, Option<&'a str>),
    /// The path of the API below the address, namespace included, and how it is read.
    Vault(Cow<'a, str>, String, VaultRead),
    Aws(Arn<'a>),
    Variable(String),
    /// Namespace and name.
    Kubernetes(&'a str, &'a str),
    /// An SVID of the gateway's own, and whom it is for.
    Svid(&'a str, Option<&'a str>),
}

#[derive(Debug, PartialEq, Eq)]
enum VaultRead {
    Kv(KvVersion),
    Dynamic,
}

/// An AWS secret, as far as it is known which.
#[derive(Debug)]
struct Arn<'a> {
    region: &'a str,
    account: Option<&'a str>,
    /// The name, and what it is without the six characters that an ARN may end with.
    names: (&'a str, &'a str),
}

impl<'a> Place<'a> {
    pub(super) fn of(secret: &'a SecretRef, store: &'a StoreKind) -> Self {
        let path = secret.path.as_str();
        let backend = match store {
            StoreKind::File { root } => Backend::File(normalised(&root.join(path)), None),
            StoreKind::Age { file, .. } => Backend::File(normalised(file), Some(path)),
            StoreKind::Vault(vault) => vault_place(vault, secret),
            StoreKind::Aws(store) => Backend::Aws(Arn::of(path, store)),
            StoreKind::Env { prefix } => Backend::Variable(format!("{prefix}{path}")),
            StoreKind::Kubernetes => Backend::Kubernetes(secret.store.namespace(), path),
            StoreKind::Svid { audience } => {
                Backend::Svid(path, audience.as_deref().filter(|_| Svid::at(path) == Some(Svid::Jwt)))
            }
        };
        Self { backend, fields: &secret.fields }
    }

    /// Whether both have some value in common.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (&self.backend, &other.backend) {
            (Backend::File(one, member), Backend::File(two, other_member)) => {
                member == other_member && is_same_file(one, two) && self.shares_field(other)
            }
            (Backend::Vault(one, path, reading), Backend::Vault(two, other_path, other_reading)) => {
                // What one reading calls a field is another's whole secret.
                (one, path) == (two, other_path) && (reading != other_reading || self.shares_field(other))
            }
            (Backend::Aws(one), Backend::Aws(two)) => one.may_be(two) && self.shares_field(other),
            (Backend::Variable(one), Backend::Variable(two)) => one == two && self.shares_field(other),
            (Backend::Kubernetes(near, one), Backend::Kubernetes(far, two)) => {
                (near, one) == (far, two) && self.shares_field(other)
            }
            (Backend::Svid(one, near), Backend::Svid(two, far)) => (one, near) == (two, far),
            _ => false,
        }
    }

    fn shares_field(&self, other: &Self) -> bool {
        // Without fields it is all of it.
        let shares = |field: &String| other.fields.contains(field);
        self.fields.is_empty() || other.fields.is_empty() || self.fields.iter().any(shares)
    }
}

fn vault_place<'a>(vault: &'a VaultStore, secret: &SecretRef) -> Backend<'a> {
    let namespace = vault.namespace.as_deref().unwrap_or_default().trim_matches('/');
    let (reading, below) = match (secret.dynamic, vault.kv) {
        (true, _) => (VaultRead::Dynamic, [None, None]),
        (false, KvVersion::V1) => (VaultRead::Kv(KvVersion::V1), [Some(vault.mount.as_str()), None]),
        (false, KvVersion::V2) => (VaultRead::Kv(KvVersion::V2), [Some(vault.mount.as_str()), Some("data")]),
    };
    // A namespace may be named by a header or by the path alike.
    let segments = [Some(namespace).filter(|namespace| !namespace.is_empty())].into_iter().chain(below);
    let path: Vec<&str> = segments.flatten().chain([secret.path.as_str()]).collect();
    let default_port = if vault.address.starts_with("https:") { ":443" } else { ":80" };
    let address = vault.address.strip_suffix(default_port).unwrap_or(&vault.address);
    Backend::Vault(address.into(), path.join("/"), reading)
}

/// Without `.` and `..`; one that leads out of where a relative path begins stays in front.
pub(super) fn normalised(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        let parent = plain.components().next_back();
        match (component, parent) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                plain.pop();
            }
            (component, _) => plain.push(component),
        }
    }
    plain
}

fn is_same_file(one: &Path, two: &Path) -> bool {
    match (one.is_absolute(), two.is_absolute()) {
        (true, false) => one.ends_with(inner(two)),
        (false, true) => two.ends_with(inner(one)),
        _ => one == two,
    }
}

/// What is left of a relative path wherever it begins.
fn inner(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::ParentDir).collect()
}

impl<'a> Arn<'a> {
    fn of(path: &'a str, store: &'a AwsStore) -> Self {
        let role_account = store.role_arn.as_deref().and_then(|role| role.split(':').nth(4));
        let parts = path.strip_prefix("arn:").map(|arn| arn.splitn(6, ':').collect::<Vec<_>>());
        let (account, names) = match parts.as_deref() {
            Some([.., account, _, name]) => {
                let stem = name.rsplit_once('-').filter(|(_, end)| end.len() == 6);
                (Some(*account), (*name, stem.map_or(*name, |(stem, _)| stem)))
            }
            _ => (role_account, (path, path)),
        };
        Self { region: &store.region, account, names }
    }

    fn may_be(&self, other: &Self) -> bool {
        let is_elsewhere = self.account.zip(other.account).is_some_and(|(one, two)| one != two);
        let (one, two) = (self.names, other.names);
        self.region == other.region
            && !is_elsewhere
            && (one.0 == two.0 || one.0 == two.1 || one.1 == two.0 || one.1 == two.1)
    }
}

#[cfg(test)]
mod tests;
