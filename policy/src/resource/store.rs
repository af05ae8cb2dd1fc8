//! Where keys live: secret stores after compilation, and what is read in them.

use std::fmt;
use std::path::PathBuf;

use super::vault::VaultStore;
use crate::name::ResourceId;

/// Where keys live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub name: ResourceId,
    /// What it is and where.
    pub kind: StoreKind,
}

/// The kinds of secret stores. Relative paths are absolute, or relative to the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// Plain files below `root`, one secret each.
    File {
        /// No secret is read from outside of it, after symbolic links.
        root: PathBuf,
    },
    /// One file of secrets, encrypted with age.
    Age {
        /// The encrypted file.
        file: PathBuf,
        /// The age identity that decrypts it.
        identity_file: PathBuf,
    },
    /// OpenBao or Vault.
    Vault(VaultStore),
    /// AWS Secrets Manager.
    Aws(AwsStore),
    /// Variables of the process's own environment.
    Env {
        /// What the names of all of them begin with. No setting of the gateway, and nothing that it logs in with, does.
        prefix: String,
    },
    /// Kubernetes Secrets of the namespace that the store is in.
    Kubernetes,
    /// The gateway's own SVIDs.
    Svid {
        /// Whom its JWT-SVIDs are for; `None`: it has none.
        audience: Option<String>,
    },
}

/// The kinds of SVIDs of the gateway's own, each under a path of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Svid {
    /// A token, which has no fields.
    Jwt,
    /// A certificate with its key, which have the fields of [`Svid::FIELDS`].
    X509,
}

impl Svid {
    /// The PEM chain, leaf first, and its key.
    pub const FIELDS: [&str; 2] = ["certificate", "key"];

    /// What there is at this path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "jwt" => Some(Self::Jwt),
            "x509" => Some(Self::X509),
            _ => None,
        }
    }
}

/// How to reach and log in to AWS Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsStore {
    /// The region that the secrets are in.
    pub region: String,
    /// `https://host:port` instead of the region's own endpoint; `http` only on loopback.
    pub endpoint: Option<String>,
    /// The certificate authorities that verify it, in PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Access keys, in the form of `~/.aws/credentials`; then nothing else is looked at for them.
    pub credentials_file: Option<PathBuf>,
    /// The profile of that file, or of the SDK's own files. Where neither is named, its whole chain is gone through.
    pub profile: Option<String>,
    /// A role to assume with these.
    pub role_arn: Option<String>,
}

/// Where a secret is read. [`crate::policy::Policy::store`] has the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// The store's name.
    pub store: ResourceId,
    /// The path in the store; relative, without `.` and `..`.
    pub path: String,
    /// The fields of the secret, each once. None: the whole value, where the store has such;
    /// elsewhere members of the JSON that it is.
    pub fields: Vec<String>,
    /// A fixed version; only for version 2 of Vault's KV engine. `None`: the newest.
    pub version: Option<u64>,
    /// The staging label of the version; only for AWS. `None`: `AWSCURRENT`, unless `version_id` says otherwise.
    pub stage: Option<String>,
    /// A fixed version by its id; only for AWS, and not beside `stage`.
    pub version_id: Option<String>,
    /// Made by an engine of a Vault for this gateway alone, and leased; `path` then begins with the engine's mount.
    pub dynamic: bool,
}

impl fmt::Display for SecretRef {
    /// `store:path#field,field@version`, for operators; a stage or a version id stands where a version does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.store, self.path)?;
        if !self.fields.is_empty() {
            write!(f, "#{}", self.fields.join(","))?;
        }
        if let Some(label) = self.stage.as_ref().or(self.version_id.as_ref()) {
            write!(f, "@{label}")?;
        }
        self.version.map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}
