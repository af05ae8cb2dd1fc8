//! Which keys of a pool can be used: what providers said of each, shared by all cores.
//!
//! **Invariant:** what is known of a key is of one version, the one that calls get; a new one starts with nothing. Nothing is a word against
//! a key but what its provider answered, and no caller is refused because of another: a call benches its only dead key where another one did
//! better, or else only what has answered nobody else well in the last minute. From that others are moved, but try it before they are refused.
//!
//! A credential with one key has no state: there is nothing to choose.

mod known;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tollgate_policy::caller::SpiffeId;
use tollgate_policy::map::{Map, Seed};
use tollgate_policy::name::Name;
use tollgate_policy::policy::{Credential, Policy};
use tollgate_secrets::{Secret, Secrets, Version};

use known::{Known, Out};
pub(crate) use turn::Turn;

/// A good answer is noted at most this often.
const NOTED_EVERY: Duration = Duration::from_secs(1);

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
#[derive(Debug)]
pub(crate) struct Keys {
    began: Instant,
    seed: Seed,
    pools: ArcSwap<Map<Name, Vec<Arc<State>>>>,
}

/// One key.
#[derive(Debug)]
struct State {
    alias: Name,
    known: Mutex<Known>,
    /// Whether `known` has anything against it.
    is_out: AtomicU64,
    /// Until when nothing more has to be noted of good answers: to this caller, and to whomever. In milliseconds.
    noted: [AtomicU64; 3],
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

impl Default for Keys {
    fn default() -> Self {
        Self { began: Instant::now(), seed: Seed::default(), pools: ArcSwap::default() }
    }
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

    /// What stands for a caller where it is remembered.
    fn mark(&self, caller: &SpiffeId) -> u64 {
        self.seed.hash_one(caller.as_str())
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
                        Some((Out::Benched | Out::Probed, _)) => "benched",
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

    /// Why and until when a key is out of use. `version` is asked for only if something is known against it.
    fn out(
        &self,
        credential: &Credential,
        key: usize,
        version: impl FnOnce() -> Option<Arc<Secret>>,
        now: Instant,
    ) -> Option<(Out, Instant)> {
        self.with(credential, key, |state| {
            if state.is_out.load(Ordering::Relaxed) == 0 {
                return None;
            }
            let secret = version();
            state.known().out(secret.as_ref().map(|secret| secret.version()), now)
        })?
    }

    fn taken(&self, credential: &Credential, key: usize, now: Instant) {
        self.with(credential, key, |state| {
            if state.is_out.load(Ordering::Relaxed) != 0 {
                state.known().taken(now);
            }
        });
    }

    fn answered_well(&self, credential: &Credential, chosen: &Chosen, caller: u64, now: Instant) {
        let millis = |at: Instant| u64::try_from((at - self.began).as_millis()).unwrap_or(u64::MAX);
        self.with(credential, chosen.key, |state| {
            let [latest, to_latest, to_both] = &state.noted;
            let at = millis(now);
            let is_noted = at < to_both.load(Ordering::Relaxed)
                || (latest.load(Ordering::Relaxed) == caller && at < to_latest.load(Ordering::Relaxed));
            if is_noted && state.is_out.load(Ordering::Relaxed) == 0 {
                return;
            }
            let mut known = state.of(chosen.secret.version());
            known.answered_well(caller, now);
            state.is_out.store(0, Ordering::Relaxed);
            let until = |well: Option<(u64, Instant)>| well.map_or(0, |(_, at)| millis(at + NOTED_EVERY));
            let [one, other] = known.well();
            latest.store(caller, Ordering::Relaxed);
            to_latest.store(until(one), Ordering::Relaxed);
            to_both.store(until(one).min(until(other)), Ordering::Relaxed);
        });
    }

    fn cool(&self, credential: &Credential, chosen: &Chosen, rest: Duration, now: Instant) {
        self.with(credential, chosen.key, |state| {
            state.of(chosen.secret.version()).cool(rest, now);
            state.is_out.store(1, Ordering::Relaxed);
        });
    }

    fn speaks_for_itself(&self, credential: &Credential, key: usize, accuser: u64, now: Instant) -> bool {
        let speaks = self.with(credential, key, |state| state.known().speaks_for_itself(accuser, now));
        speaks.unwrap_or_default()
    }

    /// Whether another caller may try a benched key, because nobody but the accuser has found it dead.
    fn is_doubtful(&self, credential: &Credential, key: usize, caller: u64) -> bool {
        self.with(credential, key, |state| state.known().is_doubtful(caller)).unwrap_or_default()
    }

    /// Benches a key, by the word of `accuser` alone if there is one. Whether that is news.
    fn bench(&self, credential: &Credential, chosen: &Chosen, accuser: Option<u64>, now: Instant) -> bool {
        let is_news = self.with(credential, chosen.key, |state| {
            let is_news = state.of(chosen.secret.version()).bench(accuser, now);
            state.is_out.store(1, Ordering::Relaxed);
            state.benchings.fetch_add(u64::from(is_news), Ordering::Relaxed);
            is_news
        });
        is_news.unwrap_or_default()
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
            is_out: AtomicU64::new(0),
            noted: Default::default(),
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
