//! Which keys of a pool can be used: what providers said of each, shared by all cores.
//!
//! **Invariant:** what is known of a key is of one version, the one that calls get; a new one starts with nothing. Nothing is a word against
//! a key but what its provider answered, and no caller can take keys from others: whoever was not refused itself tries a key before it is
//! refused, whatever others have found.
//!
//! A credential with one key has no state: there is nothing to choose.

mod known;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tollgate_policy::caller::Identity;
use tollgate_policy::map::Map;
use tollgate_policy::name::Name;
use tollgate_policy::policy::{Credential, Policy};
use tollgate_secrets::{Secret, Secrets, Version};

use known::{Against, Known, Out};
pub(crate) use turn::Turn;

/// The key that an attempt carries.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// Its place in the credential.
    pub(crate) key: usize,
    /// What the credential calls it, if it has others.
    pub(crate) alias: Option<Name>,
    pub(crate) secret: Arc<Secret>,
}

/// The keys of all pools of the policy in force.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pools: ArcSwap<Map<Name, Vec<Arc<State>>>>,
}

/// One key.
#[derive(Debug)]
struct State {
    alias: Name,
    known: Mutex<Known>,
    /// Whether `known` may have anything against it.
    is_accused: AtomicBool,
    benchings: AtomicU64,
}

/// How a key does, for whoever looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyStatus {
    pub(crate) credential: Name,
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

impl Keys {
    /// Takes over a new policy. What is known of keys that stay, stays.
    pub(crate) fn apply(&self, policy: &Policy) {
        let before = self.pools.load();
        let state = |credential: &Name, alias: &Name| {
            let known = before.get(credential).and_then(|pool| find(pool, alias));
            known.map_or_else(|| Arc::new(State::new(alias.clone())), Arc::clone)
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
                let out = state.known().out(secret.as_ref().map(|secret| secret.version()), now);
                status.push(KeyStatus {
                    credential: credential.name.clone(),
                    alias: alias.clone(),
                    state: match out {
                        None => "usable",
                        Some((Out::Cooling, _)) => "cooling",
                        Some((Out::Benched, _)) => "benched",
                    },
                    rest: out.map(|(_, until)| until - now),
                    benchings: state.benchings.load(Ordering::Relaxed),
                });
            }
        }
        status
    }

    /// Runs `f` on the state of a key. A call of an older policy may have one that the policy in force has not.
    fn with<T>(&self, credential: &Credential, key: usize, f: impl FnOnce(&State) -> T) -> Option<T> {
        let alias = credential.keys.get(key)?.alias.as_ref()?;
        let pools = self.pools.load();
        Some(f(find(pools.get(&credential.name)?, alias)?))
    }

    /// What keeps a caller from a key. `secret` is asked for only if something is known against it.
    fn against(
        &self,
        credential: &Credential,
        key: usize,
        caller: &Identity,
        secret: impl FnOnce() -> Option<Arc<Secret>>,
        now: Instant,
    ) -> Option<Against> {
        self.with(credential, key, |state| {
            if !state.is_accused.load(Ordering::Relaxed) {
                return None;
            }
            let secret = secret();
            state.known().against(secret.as_ref().map(|secret| secret.version()), caller, now)
        })?
    }

    fn taken(&self, credential: &Credential, key: usize, caller: &Identity, now: Instant) {
        self.with(credential, key, |state| {
            if state.is_accused.load(Ordering::Relaxed) {
                state.known().taken(caller, now);
            }
        });
    }

    /// A call that left at `left` was answered well.
    fn answered_well(
        &self,
        credential: &Credential,
        chosen: &Chosen,
        caller: &Identity,
        left: Instant,
        now: Instant,
    ) {
        self.with(credential, chosen.key, |state| {
            if state.is_accused.load(Ordering::Relaxed) {
                let mut known = state.of(chosen.secret.version());
                known.answered_well(caller, left, now);
                state.is_accused.store(!known.is_clear(), Ordering::Relaxed);
            }
        });
    }

    fn cool(
        &self,
        credential: &Credential,
        chosen: &Chosen,
        caller: &Identity,
        rest: Duration,
        now: Instant,
    ) {
        self.with(credential, chosen.key, |state| {
            let mut known = state.of(chosen.secret.version());
            known.cool(caller, rest, now);
            state.is_accused.store(true, Ordering::Relaxed);
        });
    }

    /// Benches a key by the word of a call of this caller's. Whether that is news.
    fn bench(&self, credential: &Credential, chosen: &Chosen, caller: &Identity, now: Instant) -> bool {
        let is_news = self.with(credential, chosen.key, |state| {
            let mut known = state.of(chosen.secret.version());
            let is_news = known.bench(caller, now);
            state.is_accused.store(true, Ordering::Relaxed);
            state.benchings.fetch_add(u64::from(is_news), Ordering::Relaxed);
            is_news
        });
        is_news.unwrap_or_default()
    }

    /// Another key did better on a call of this caller's than this one, which was refused.
    fn did_worse(&self, credential: &Credential, chosen: &Chosen, caller: &Identity, now: Instant) {
        self.with(credential, chosen.key, |state| {
            state.of(chosen.secret.version()).did_worse(caller, now);
        });
    }
}

fn find<'a>(pool: &'a [Arc<State>], alias: &Name) -> Option<&'a Arc<State>> {
    pool.iter().find(|state| state.alias == *alias)
}

impl State {
    fn new(alias: Name) -> Self {
        Self {
            alias,
            known: Mutex::default(),
            is_accused: AtomicBool::new(false),
            benchings: AtomicU64::new(0),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of this version; what is known of another is forgotten.
    fn of(&self, version: &Version) -> MutexGuard<'_, Known> {
        let mut known = self.known();
        known.turn_to(version);
        known
    }
}
