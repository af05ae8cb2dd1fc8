//! Which keys of a pool can be used: what providers said of each, shared by all cores.
//!
//! **Invariant:** what is known of a key is of one version, the one that calls get; a new one starts with nothing. Nothing is a strike against
//! a key but what its provider answered, and no caller can take keys from others: whoever was not refused itself tries a key before it is
//! refused, whatever others have found.
//!
//! A credential with one key has no state: there is nothing to choose.

mod health;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tollgate_policy::caller::Identity;
use tollgate_policy::map::Map;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::policy::{Credential, Policy};
use tollgate_secrets::{Secret, Secrets, Version};

use health::KeyHealth;
pub(crate) use health::{Exclusion, ExclusionKind};

/// The key that an attempt carries.
#[derive(Debug, Clone)]
pub(crate) struct SelectedKey {
    /// Its place in the credential.
    pub(crate) key: usize,
    /// What the credential calls it, if it has others.
    pub(crate) alias: Option<Name>,
    pub(crate) secret: Arc<Secret>,
}

/// The keys of all pools of the policy in force.
#[derive(Debug, Default)]
pub(crate) struct KeyPools {
    pools: ArcSwap<Map<ResourceId, Vec<Arc<PooledKey>>>>,
}

/// One key.
#[derive(Debug)]
struct PooledKey {
    alias: Name,
    health: Mutex<KeyHealth>,
    /// Whether `health` may have anything against it.
    has_strikes: AtomicBool,
    benchings: AtomicU64,
}

/// How a key does, for whoever looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyStatus {
    pub(crate) credential: ResourceId,
    pub(crate) alias: Name,
    /// `usable`, `cooling` or `benched`.
    pub(crate) state: &'static str,
    /// For how long it still is not used.
    pub(crate) rest: Option<Duration>,
    pub(crate) benchings: u64,
}

impl KeyStatus {
    /// All states.
    pub(crate) const STATES: [&'static str; 3] = ["usable", "cooling", "benched"];
}

impl KeyPools {
    /// Takes over a new policy. What is known of keys that stay, stays.
    pub(crate) fn apply(&self, policy: &Policy) {
        let before = self.pools.load();
        let state = |credential: &ResourceId, alias: &Name| {
            let known = before.get(credential).and_then(|pool| find(pool, alias));
            known.map_or_else(|| Arc::new(PooledKey::new(alias.clone())), Arc::clone)
        };
        let pools = policy.credentials().filter(|credential| credential.is_pool()).map(|credential| {
            let aliases = credential.keys.iter().filter_map(|key| key.alias.as_ref());
            (credential.name.clone(), aliases.map(|alias| state(&credential.name, alias)).collect())
        });
        self.pools.store(Arc::new(pools.collect()));
    }

    /// How each key of each pool does.
    pub(crate) fn status(&self, policy: &Policy, secrets: &Secrets, now: Instant) -> Vec<KeyStatus> {
        let pools = self.pools.load();
        let mut status = Vec::new();
        for credential in policy.credentials() {
            for (at, key) in credential.keys.iter().enumerate() {
                let Some(alias) = &key.alias else { continue };
                let Some(state) = pools.get(&credential.name).and_then(|pool| find(pool, alias)) else {
                    continue;
                };
                let secret = secrets.peek(credential, at);
                let out = state.health().out(secret.as_ref().map(|secret| secret.version()), now);
                status.push(KeyStatus {
                    credential: credential.name.clone(),
                    alias: alias.clone(),
                    state: match out {
                        None => "usable",
                        Some((ExclusionKind::Cooling, _)) => "cooling",
                        Some((ExclusionKind::Benched, _)) => "benched",
                    },
                    rest: out.map(|(_, until)| until - now),
                    benchings: state.benchings.load(Ordering::Relaxed),
                });
            }
        }
        status
    }

    /// Runs `f` on the state of a key. A call of an older policy may have one that the policy in force has not.
    fn with<T>(&self, credential: &Credential, key: usize, f: impl FnOnce(&PooledKey) -> T) -> Option<T> {
        let alias = credential.keys.get(key)?.alias.as_ref()?;
        let pools = self.pools.load();
        Some(f(find(pools.get(&credential.name)?, alias)?))
    }

    /// What keeps a caller from a key. `secret` is asked for only if something is known against it.
    pub(crate) fn exclusion(
        &self,
        credential: &Credential,
        key: usize,
        caller: &Identity,
        secret: impl FnOnce() -> Option<Arc<Secret>>,
        now: Instant,
    ) -> Option<Exclusion> {
        self.with(credential, key, |state| {
            if !state.has_strikes.load(Ordering::Relaxed) {
                return None;
            }
            let secret = secret();
            state.health().exclusion(secret.as_ref().map(|secret| secret.version()), caller, now)
        })?
    }

    pub(crate) fn taken(&self, credential: &Credential, key: usize, caller: &Identity, now: Instant) {
        self.with(credential, key, |state| {
            if state.has_strikes.load(Ordering::Relaxed) {
                state.health().taken(caller, now);
            }
        });
    }

    /// A call that left at `left` was answered well.
    pub(crate) fn answered_well(
        &self,
        credential: &Credential,
        chosen: &SelectedKey,
        caller: &Identity,
        left: Instant,
        now: Instant,
    ) {
        self.with(credential, chosen.key, |state| {
            if state.has_strikes.load(Ordering::Relaxed) {
                let mut health = state.health_of(chosen.secret.version());
                health.answered_well(caller, left, now);
                state.has_strikes.store(!health.is_clear(), Ordering::Relaxed);
            }
        });
    }

    pub(crate) fn cool(
        &self,
        credential: &Credential,
        chosen: &SelectedKey,
        caller: &Identity,
        rest: Duration,
        now: Instant,
    ) {
        self.with(credential, chosen.key, |state| {
            let mut health = state.health_of(chosen.secret.version());
            health.cool(caller, rest, now);
            state.has_strikes.store(true, Ordering::Relaxed);
        });
    }

    /// Benches a key because of a call of this caller's. Whether that is news.
    pub(crate) fn bench(
        &self,
        credential: &Credential,
        chosen: &SelectedKey,
        caller: &Identity,
        now: Instant,
    ) -> bool {
        let is_news = self.with(credential, chosen.key, |state| {
            let mut health = state.health_of(chosen.secret.version());
            let is_news = health.bench(caller, now);
            state.has_strikes.store(true, Ordering::Relaxed);
            state.benchings.fetch_add(u64::from(is_news), Ordering::Relaxed);
            is_news
        });
        is_news.unwrap_or_default()
    }

    /// Another key did better on a call of this caller's than this one, which was refused.
    pub(crate) fn did_worse(
        &self,
        credential: &Credential,
        chosen: &SelectedKey,
        caller: &Identity,
        now: Instant,
    ) {
        self.with(credential, chosen.key, |state| {
            state.health_of(chosen.secret.version()).did_worse(caller, now);
        });
    }
}

fn find<'a>(pool: &'a [Arc<PooledKey>], alias: &Name) -> Option<&'a Arc<PooledKey>> {
    pool.iter().find(|state| state.alias == *alias)
}

impl PooledKey {
    fn new(alias: Name) -> Self {
        Self {
            alias,
            health: Mutex::default(),
            has_strikes: AtomicBool::new(false),
            benchings: AtomicU64::new(0),
        }
    }

    fn health(&self) -> MutexGuard<'_, KeyHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of this version; what is known of another is forgotten.
    fn health_of(&self, version: &Version) -> MutexGuard<'_, KeyHealth> {
        let mut health = self.health();
        health.keep_only(version);
        health
    }
}
