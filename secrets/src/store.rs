//! The stores: one enum, one `fetch`.
//!
//! **Invariant:** a store reads only what its definition confines it to, and its health tells one change of state per
//! log line, however many secrets fail with it.
//!
//! Deliberately lacks: caching, which is the cache's, and writing, but for the encrypted file that `tollgate secret`
//! keeps.

pub(crate) mod age;
mod aws;
mod environment;
mod field;
pub(crate) mod file;
pub(crate) mod kubernetes;
pub(crate) mod state;
mod svid;
pub(crate) mod vault;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{Store as Definition, StoreKind};
use tracing::{info, warn};

use self::age::AgeLocation;
pub(crate) use self::kubernetes::Cluster;
pub(crate) use self::state::Shift;
use self::state::{Line, State};
pub(crate) use self::vault::Lease;
use crate::dial::Dialable;
use crate::error::Failure;
use crate::read::{self, FileStamp};
use crate::reference::Reference;
use crate::svid::SvidSource;
use crate::value::Value;

/// What a store answered.
pub(crate) struct Fetched {
    /// Every field that the reference names; none of them empty.
    pub(crate) value: Value,
    /// The store's own name of the version, where it has one: short, and of characters that are harmless in a log.
    pub(crate) version: Option<Arc<str>>,
    /// Whoever keeps the value keeps this, and uses neither longer than it runs.
    pub(crate) lease: Option<Arc<Lease>>,
    /// When it must no longer be used, whatever the freshness of its credential allows.
    pub(crate) expires: Option<Instant>,
}

/// One store of the policy, with what it holds between fetches (client, login).
pub(crate) struct Store {
    definition: Arc<Definition>,
    backend: Backend,
    state: Mutex<State>,
    fetches: AtomicU64,
    failures: AtomicU64,
}

enum Backend {
    File(file::FileStore),
    Age(age::AgeStore),
    Vault(vault::Vault),
    Aws(Box<aws::Aws>),
    Env(environment::Variables),
    Kubernetes(kubernetes::NamespaceSecrets),
    Svid(svid::SvidStore),
    #[cfg(test)]
    Script(Arc<crate::cache::tests::Script>),
}

impl Store {
    pub(crate) fn new(
        definition: Arc<Definition>,
        dialable: &Dialable,
        (cluster, svids): (&Cluster, &SvidSource),
    ) -> Self {
        let backend = match &definition.kind {
            StoreKind::File { root } => Backend::File(file::FileStore::new(root.clone())),
            StoreKind::Age { file, identity_file } => Backend::Age(age::AgeStore::new(AgeLocation {
                file: file.clone(),
                identity: identity_file.clone(),
            })),
            StoreKind::Vault(vault) => {
                Backend::Vault(vault::Vault::new(vault, Arc::clone(dialable), svids.clone()))
            }
            StoreKind::Aws(aws) => Backend::Aws(Box::new(aws::Aws::new(aws.clone(), Arc::clone(dialable)))),
            StoreKind::Env { prefix } => Backend::Env(environment::Variables::new(prefix.clone())),
            StoreKind::Kubernetes => {
                let namespace = definition.name.namespace();
                Backend::Kubernetes(kubernetes::NamespaceSecrets::new(namespace, cluster.clone()))
            }
            StoreKind::Svid { audience } => {
                Backend::Svid(svid::SvidStore::new(audience.clone(), svids.clone()))
            }
        };
        Self::over(definition, backend)
    }

    #[cfg(test)]
    pub(crate) fn scripted(definition: Arc<Definition>, script: Arc<crate::cache::tests::Script>) -> Self {
        Self::over(definition, Backend::Script(script))
    }

    fn over(definition: Arc<Definition>, backend: Backend) -> Self {
        Self {
            definition,
            backend,
            state: Mutex::new(State::new()),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    pub(crate) const fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// Asks the store. Has to run on a tokio runtime with time and network.
    pub(crate) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let fetched = match &self.backend {
            Backend::File(store) => store.fetch(reference).await,
            Backend::Age(store) => store.fetch(reference).await,
            Backend::Vault(store) => store.fetch(reference).await,
            Backend::Aws(store) => store.fetch(reference).await,
            Backend::Env(store) => store.fetch(reference),
            Backend::Kubernetes(store) => store.fetch(reference).await,
            Backend::Svid(store) => store.fetch(reference).await,
            #[cfg(test)]
            Backend::Script(script) => script.fetch(reference).await,
        };
        match fetched {
            Ok(fetched) if fetched.value.has_gap() => Err(Failure::Malformed("it is empty")),
            other => other,
        }
    }

    /// Somebody says that a login that was refused may be shown again.
    pub(crate) fn open(&self) {
        match &self.backend {
            Backend::Vault(store) => store.open(),
            Backend::Aws(store) => store.open(),
            _ => {}
        }
    }

    /// The state of the files that a secret of it is read from; `None` where there are none, and only asking tells.
    pub(crate) async fn stamp(&self, reference: &Reference) -> Option<FileStamp> {
        let files = match &self.backend {
            Backend::File(store) => vec![store.place(&reference.secret.path)?],
            Backend::Age(store) => store.files().into(),
            #[cfg(test)]
            Backend::Script(script) => return script.stamp(),
            _ => return None,
        };
        read::off_runtime(move || Ok(read::stamp(files.iter()))).await.ok()
    }

    /// Ready when a secret of it is another one than was last fetched, where the store tells. Elsewhere never.
    pub(crate) async fn changed(&self, reference: &Reference) {
        match &self.backend {
            Backend::Kubernetes(store) => store.changed(reference).await,
            _ => std::future::pending().await,
        }
    }

    /// Whether asking it costs nobody else anything.
    pub(crate) const fn is_local(&self) -> bool {
        matches!(self.backend, Backend::File(_) | Backend::Age(_) | Backend::Env(_) | Backend::Svid(_))
    }

    /// Whether it lent something that was not given back yet.
    pub(crate) fn lends(&self) -> bool {
        matches!(&self.backend, Backend::Vault(store) if store.lends())
    }

    /// Gives back what it lent, and its own login. Nothing is fetched afterwards.
    pub(crate) async fn close(&self) {
        if let Backend::Vault(store) = &self.backend {
            store.close().await;
        }
    }

    /// Notes how a fetch ended. Says, and gives, when the store as a whole begins or ceases to fail.
    pub(crate) fn note(&self, failure: Option<Failure>) -> Option<Shift> {
        if failure.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let broken = failure.filter(|failure| !failure.spares_store());
        let (shift, line) = self.state.lock().unwrap_or_else(PoisonError::into_inner).note(broken);
        let (store, at) = (self.definition.name.as_str(), Place(&self.definition));
        match line {
            None => {}
            Some(Line::Fails(error)) => {
                warn!(store, %at, %error, "secret store fails; cached secrets are used while they last");
            }
            Some(Line::FailsOtherwise(error)) => {
                warn!(store, %at, %error, "secret store still fails, for another reason");
            }
            Some(Line::Works(after)) => {
                info!(store, seconds = after.as_secs(), "secret store works again");
            }
        }
        shift
    }

    pub(crate) fn health(&self) -> StoreHealth {
        let failing = self.state.lock().unwrap_or_else(PoisonError::into_inner).failing();
        StoreHealth {
            store: self.definition.name.clone(),
            failing_for: failing.map(|failing| failing.since.elapsed()),
            error: failing.map(|failing| failing.failure.as_str()),
            cause: failing.map(|failing| failing.failure.to_string()),
            fetches: self.fetches.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            secrets: 0,
            stale: 0,
            unavailable: 0,
        }
    }
}

/// Where a store is, as its definition says, for the operator's log.
struct Place<'a>(&'a Definition);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            StoreKind::File { root } => write!(f, "{}", root.display()),
            StoreKind::Age { file, identity_file } => {
                write!(f, "{} with {}", file.display(), identity_file.display())
            }
            StoreKind::Vault(vault) => f.write_str(&vault.address),
            StoreKind::Aws(aws) => f.write_str(aws.endpoint.as_deref().unwrap_or(&aws.region)),
            StoreKind::Env { prefix } => write!(f, "{prefix}*"),
            StoreKind::Kubernetes => write!(f, "Secrets of namespace {}", self.0.name.namespace()),
            StoreKind::Svid { audience: Some(audience) } => write!(f, "SVIDs for {audience}"),
            StoreKind::Svid { audience: None } => f.write_str("SVIDs"),
        }
    }
}

/// How one store does, for readiness and metrics.
#[derive(Clone, Debug)]
pub struct StoreHealth {
    /// The store, as in the policy.
    pub store: ResourceId,
    /// How long the store as a whole has been failing; `None` while it works or was never asked. A secret that does
    /// not exist is no failure of its store.
    pub failing_for: Option<Duration>,
    /// The last failure of the store as a whole, one snake_case word (`sealed`, `timeout`, `tls` …).
    pub error: Option<&'static str>,
    /// The same in a sentence of fixed words: which login fails and why, what is wrong with the TLS.
    pub cause: Option<String>,
    /// Times it was asked for a secret.
    pub fetches: u64,
    /// How many of them failed, for whatever reason.
    pub failures: u64,
    /// Secrets of it that the policy uses.
    pub secrets: usize,
    /// How many of them are being served past their refresh time because they could not be fetched again.
    pub stale: usize,
    /// How many of them were asked for and cannot be had.
    pub unavailable: usize,
}
