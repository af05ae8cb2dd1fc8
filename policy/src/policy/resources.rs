//! Resources after compilation: every name resolved, every value in the form that the route uses.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::{Class, Dialect};
use crate::limit::{Limit, Unit};
use crate::model::Source;
use crate::name::Name;
use crate::pattern::{HostPattern, MethodPattern, ModelPattern, PathPattern, SpiffePattern};
use crate::policy::VaultStore;
use crate::target::EncodedForms;

/// What is outside, and how to reach it. Always over TLS.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its name, which is also its first path segment at the gateway.
    pub name: Name,
    /// The hosts that are this destination; at least one.
    pub hosts: Vec<HostPattern>,
    /// The port that is dialled.
    pub port: u16,
    /// Dialled instead of what DNS says; empty: DNS decides.
    pub addresses: Vec<IpAddr>,
    /// The local address that connections leave from; `None`: the system's choice.
    pub source_address: Option<IpAddr>,
    /// Whom the destination's certificate has to be verified by.
    pub tls: TlsVerify,
    /// How usage is read.
    pub dialect: Arc<Dialect>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// Path forms that are matched and sent encoded, instead of being refused.
    pub encoded_path: EncodedForms,
    /// Where it was written.
    pub origin: Source,
}

/// Which certificate authorities a destination is verified with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TlsVerify {
    /// Those of the operating system.
    System,
    /// Those in this PEM file and no other; absolute, or relative to the working directory.
    Bundle(PathBuf),
}

/// How long to wait for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// For the connection, TLS included. 3 s unless written otherwise.
    pub connect: Duration,
    /// From the request's last byte to the answer's first. 60 s unless written otherwise.
    pub first_byte: Duration,
    /// Between two bytes of the answer. 300 s unless written otherwise.
    pub idle: Duration,
}

/// Where keys live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub name: Name,
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
}

/// One key: where it comes from, where it may go, and how it is put on a call.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name.
    pub name: Name,
    /// The only destinations that it may be sent to.
    pub destinations: Vec<Arc<Destination>>,
    /// Where its value is read.
    pub from: SecretRef,
    /// How it is put on a call.
    pub inject: Inject,
    /// How old the value may become before it is read again. 5 min unless written otherwise.
    pub refresh: Duration,
    /// How old the value may become while its store is out of reach; never below `refresh`. 1 h unless written otherwise.
    pub max_stale: Duration,
}

/// Where a secret is read. [`crate::policy::Policy::store`] has the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// The store's name.
    pub store: Name,
    /// The path in the store; relative, without `.` and `..`.
    pub path: String,
    /// The field of the secret; always there for Vault and age; in a plain file it is a member of its JSON.
    pub field: Option<String>,
    /// A fixed version; only for version 2 of Vault's KV engine. `None`: the newest.
    pub version: Option<u64>,
    /// Made by an engine of a Vault for this gateway alone, and leased; `path` then begins with the engine's mount.
    pub dynamic: bool,
}

impl fmt::Display for SecretRef {
    /// `store:path#field@version`, for operators.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.store, self.path)?;
        if let Some(field) = &self.field {
            write!(f, "#{field}")?;
        }
        self.version.map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

/// How a secret is put on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inject {
    /// `Authorization: Bearer <secret>`.
    Bearer,
    /// `<name>: <prefix><secret>`.
    Header {
        /// In lower case; never one that frames the message.
        name: String,
        /// Put before the secret as it stands; may be empty.
        prefix: String,
    },
    /// `Authorization: Basic <base64(username:secret)>`.
    Basic {
        /// Without a colon; may be empty.
        username: String,
    },
    /// `?<name>=<secret>`.
    Query {
        /// Unreserved characters only, so it needs no encoding.
        name: String,
    },
}

/// Who may call what, with which key, how much.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its name.
    pub name: Name,
    /// Whom it is for; at least one.
    pub callers: Vec<SpiffePattern>,
    /// What may be called.
    pub destination: Arc<Destination>,
    /// The key that is put on the call; `None`: none is.
    pub credential: Option<Arc<Credential>>,
    /// Which calls.
    pub allow: Allow,
    /// How much, in the order of their ids.
    pub limits: Vec<Limit>,
    /// Output tokens written into a call that names no cap.
    pub default_output_cap: Option<u64>,
    /// What a call that nothing bounds is held at; `None`: it is refused.
    pub assume: Option<Assume>,
    /// What becomes of a model without a price.
    pub unpriced: Unpriced,
}

/// Which calls a grant allows. Each list is in the order of specificity.
#[derive(Debug, Clone)]
pub struct Allow {
    /// At least one.
    pub methods: Vec<MethodPattern>,
    /// At least one.
    pub paths: Vec<PathPattern>,
    /// Empty: models are not limited.
    pub models: Vec<ModelPattern>,
    /// Classes of endpoints besides [`Class::Use`].
    pub classes: Vec<Class>,
    /// Response headers that are passed on though they can carry credentials; in lower case.
    pub response_headers: Vec<Box<str>>,
}

/// The tokens that a call is held at which nothing bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assume {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
}

/// What becomes of a call to a model without a price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unpriced {
    /// Refused where spend is limited.
    #[default]
    Deny,
    /// Charged as the provider's dearest model.
    Dearest,
    /// Let through, and marked as unpriced.
    Flag,
}

impl Destination {
    /// Whether this is one of its hosts; `host` is in canonical spelling.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// The only host, where there is exactly one and it is exact: what the destination means when it is named by path.
    pub fn only_host(&self) -> Option<&Arc<str>> {
        match self.hosts.as_slice() {
            [HostPattern::Exact(host)] => Some(host),
            _ => None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(300),
        }
    }
}

impl Grant {
    /// Whether it limits this unit.
    pub fn limits_unit(&self, unit: Unit) -> bool {
        self.limits.iter().any(|limit| limit.unit == unit)
    }

    /// Whether what the call asks for decides: models are limited, or tokens or spend are.
    pub fn limits_content(&self) -> bool {
        !self.allow.models.is_empty() || self.limits_unit(Unit::Tokens) || self.limits_unit(Unit::Spend)
    }
}
