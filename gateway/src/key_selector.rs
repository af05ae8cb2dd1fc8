//! The keys that one call goes through.
//!
//! **Invariant:** a version of a key is tried once in a call, and no more than a few keys are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use tokio::time::Instant;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::name::Name;
use tollgate_policy::policy::Credential;
use tollgate_secrets::{Secret, Version};

use crate::core::Core;
use crate::key_health::{Exclusion, ExclusionKind, SelectedKey};
use crate::upstream::Answer;

/// An error body that is longer says nothing of a key.
const BODY: usize = 64 << 10;
/// How long the rest of such a body is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many keys one call goes through: it counts once against the caller's limits, and the provider gets all of it each time.
const KEYS: usize = 3;

/// What an answer says against its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyVerdict {
    /// The provider does not know it.
    Rejected(u16),
    /// What it has access to is used up; the provider's word for it.
    Spent(Arc<str>),
    /// It has to rest for so long.
    Cooling(Duration),
}

impl KeyVerdict {
    /// Whether the key only has to rest.
    pub(crate) const fn is_cooling(&self) -> bool {
        matches!(self, Self::Cooling(_))
    }
}

impl fmt::Display for KeyVerdict {
    /// One word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(status) => write!(f, "status_{status}"),
            // Some providers say it in a sentence.
            Self::Spent(word) if word.contains(' ') => f.write_str("spent"),
            Self::Spent(word) => f.write_str(word),
            Self::Cooling(_) => f.write_str("cooling"),
        }
    }
}

/// The keys of one call, one after the other.
pub(crate) struct KeySelector<'a> {
    core: &'a Core,
    permit: &'a Permit,
    /// What was carried, and keys that could not be had. Empty for most calls.
    tried: Vec<TriedKey>,
    /// The store was waited for.
    refreshed: bool,
    /// When the last key of a pool was chosen: its call leaves no earlier.
    left: Option<Instant>,
}

struct TriedKey {
    key: usize,
    /// What was carried; `None`: it could not be had.
    carried: Option<SelectedKey>,
    /// What its provider said of it; `None`: the provider was not asked.
    verdict: Option<KeyVerdict>,
}

impl<'a> KeySelector<'a> {
    pub(crate) fn new(core: &'a Core, permit: &'a Permit) -> Self {
        Self { core, permit, tried: Vec::new(), refreshed: false, left: None }
    }

    /// The caller's own key, or the next that can be used. `None`: the grant has no credential.
    ///
    /// # Errors
    /// `secret_unavailable`, `keys_cooling`, `credential_rejected`: what keeps the keys from being used.
    pub(crate) async fn first(&mut self) -> Result<Option<SelectedKey>, Denial> {
        let Some(credential) = self.permit.credential() else { return Ok(None) };
        if let Some(chosen) = self.pick(credential).await {
            return Ok(Some(chosen));
        }
        Box::pin(self.renewed(credential)).await.map(Some).ok_or_else(|| self.refusal())
    }

    /// What the answer says against its key. Short bodies are read for that, and stay in the answer.
    pub(crate) async fn judge(&mut self, chosen: &SelectedKey, answer: &mut Answer) -> Option<KeyVerdict> {
        let credential = self.permit.credential()?;
        let rules = self.permit.http()?.destination().dialect.keys();
        let status = answer.response.status().as_u16();
        if answer.response.status().is_success() {
            if chosen.secret.is_rejected() {
                self.core.shared.secrets.taken(credential, chosen.key, &chosen.secret);
            }
            if credential.is_pool() {
                self.did_well(credential, chosen);
            }
            return None;
        }
        // Where the caller's own token is on the call too, that is what a bare status may be about.
        let is_dead = rules.dead(status) && self.permit.grant().caller_token.is_none();
        let mut verdict = is_dead.then_some(KeyVerdict::Rejected(status));
        if verdict.is_none() && rules.may_be_spent(status) {
            let body = Box::pin(answer.response.body_mut().peek(BODY, PATIENCE)).await;
            verdict = body.and_then(|body| rules.spent(status, &body)).map(KeyVerdict::Spent);
        }
        if verdict.is_none() && rules.rate_limited(status) && credential.is_pool() {
            let headers = answer.response.headers();
            let rest = rules.rest(|name| only(headers, name), Timestamp::now());
            verdict = Some(KeyVerdict::Cooling(rest));
        }
        let verdict = verdict?;
        if credential.is_pool() && self.is_current(credential, chosen) {
            self.strike(credential, chosen, &verdict);
        }
        let carried = Some(chosen.clone());
        self.tried.push(TriedKey { key: chosen.key, carried, verdict: Some(verdict.clone()) });
        Some(verdict)
    }

    /// The key to go on with after `chosen` was found to be of no use; `again`: whether the call can be sent again. The store is asked
    /// for a newer version of a dead one: beside, where the call can go on without it, or else before it ends.
    pub(crate) async fn next(
        &mut self,
        chosen: &SelectedKey,
        verdict: &KeyVerdict,
        again: bool,
    ) -> Option<SelectedKey> {
        let credential = self.permit.credential()?;
        let next = if again { self.pick(credential).await } else { None };
        if verdict.is_cooling() {
            return next;
        }
        if next.is_some() {
            let (secrets, credential) = (Arc::clone(&self.core.shared.secrets), Arc::clone(credential));
            let (key, version) = (chosen.key, chosen.secret.version().clone());
            tokio::spawn(async move { secrets.rejected(&credential, key, &version).await });
            return next;
        }
        // No other key is left: the store is waited for, and may have nothing newer.
        let secrets = &self.core.shared.secrets;
        let newer = secrets.rejected(credential, chosen.key, chosen.secret.version()).await;
        // The refresh helps the calls that come after, also where this one cannot be sent again.
        if !again || std::mem::replace(&mut self.refreshed, true) {
            return None;
        }
        match newer {
            Some(secret) => Some(self.chosen(credential, chosen.key, secret)),
            // That of a key before may have come meanwhile.
            None => match self.pick(credential).await {
                Some(next) => Some(next),
                None => self.benched(credential),
            },
        }
    }

    /// Why the call ends after a key was found to be of no use and there is no other.
    pub(crate) fn refusal(&self) -> Denial {
        let now = Instant::now();
        let cooling = self.permit.credential().and_then(|credential| {
            let exclusions = (0..credential.keys.len()).filter_map(|at| self.exclusion(credential, at, now));
            exclusions
                .filter_map(|exclusion| (exclusion.kind == ExclusionKind::Cooling).then_some(exclusion.until))
                .min()
        });
        if let Some(until) = cooling {
            let wait = Duration::from_secs((until - now).as_secs() + 1);
            return Denial::new(
                Reason::KeysCooling,
                "no key can be used now, at least one because of the destination's own limits; try again when the first of these is free",
            )
            .retry_after(wait);
        }
        if self.tried.iter().any(|tried| tried.carried.is_none()) {
            // The store's own words go to the operator's log, once per change; the caller learns only that it failed.
            let detail = "the credential for this destination cannot be had at the moment";
            return Denial::new(Reason::SecretUnavailable, detail).retry_after(Duration::from_secs(5));
        }
        Denial::new(
            Reason::CredentialRejected,
            "the destination rejected the gateway's credential; its owner has to look at it",
        )
    }

    /// The first key that can be used and had, of those that this call has not tried.
    async fn pick(&mut self, credential: &Arc<Credential>) -> Option<SelectedKey> {
        loop {
            let at = self.choose(credential)?;
            let secrets = &self.core.shared.secrets;
            if let Some(cached) = secrets.peek(credential, at) {
                return Some(self.chosen(credential, at, cached));
            }
            let fetched = Box::pin(secrets.get(credential, at)).await.ok();
            let chosen = fetched.map(|secret| self.chosen(credential, at, secret));
            match chosen {
                // The store may have had nothing newer.
                Some(chosen) if !self.was_refused(credential, &chosen) => return Some(chosen),
                carried => self.tried.push(TriedKey { key: at, carried, verdict: None }),
            }
        }
    }

    /// One whose bench is not over: better than none, and it may be good again.
    fn benched(&mut self, credential: &Credential) -> Option<SelectedKey> {
        if self.is_through() {
            return None;
        }
        let now = Instant::now();
        let at = credential.choose(self.permit.caller().id(), |at| {
            let exclusion = self.exclusion(credential, at, now);
            !self.was_tried(credential, at)
                && exclusion.is_some_and(|exclusion| exclusion.kind == ExclusionKind::Benched)
        })?;
        self.peek(credential, at).map(|secret| self.chosen(credential, at, secret))
    }

    fn choose(&self, credential: &Credential) -> Option<usize> {
        if !credential.is_pool() {
            return (!self.was_tried(credential, 0)).then_some(0);
        }
        let now = Instant::now();
        if self.is_through() {
            return None;
        }
        let caller = self.permit.caller().id();
        let usable =
            |at: usize| !self.was_tried(credential, at) && self.exclusion(credential, at, now).is_none();
        let doubtful = |at: usize| {
            !self.was_tried(credential, at)
                && self.exclusion(credential, at, now).is_some_and(|exclusion| !exclusion.is_own)
        };
        let at = credential.choose(caller, usable).or_else(|| credential.choose(caller, doubtful))?;
        self.core.shared.keys.taken(credential, at, caller, now);
        Some(at)
    }

    /// Whether the provider was asked with as many keys as one call may go through.
    fn is_through(&self) -> bool {
        self.tried.iter().filter(|tried| tried.verdict.is_some()).count() >= KEYS
    }

    fn exclusion(&self, credential: &Credential, at: usize, now: Instant) -> Option<Exclusion> {
        let caller = self.permit.caller().id();
        self.core.shared.keys.exclusion(credential, at, caller, || self.peek(credential, at), now)
    }

    /// Whether a call of the caller's was refused with this very version.
    fn was_refused(&self, credential: &Credential, chosen: &SelectedKey) -> bool {
        let (keys, caller) = (&self.core.shared.keys, self.permit.caller().id());
        let secret = || Some(Arc::clone(&chosen.secret));
        let exclusion = keys.exclusion(credential, chosen.key, caller, secret, Instant::now());
        exclusion.is_some_and(|exclusion| exclusion.is_own)
    }

    /// Whether the call carried what the key is now, or could not have it.
    fn was_tried(&self, credential: &Credential, at: usize) -> bool {
        let mut tried = self.tried.iter().filter(|tried| tried.key == at).peekable();
        if tried.peek().is_none() {
            return false;
        }
        let now = self.peek(credential, at);
        let now = now.as_ref().map(|secret| secret.version());
        tried.any(|tried| now.is_none() || tried.version().is_none_or(|version| Some(version) == now))
    }

    /// Where every key is benched: a newer version of the caller's own, if the store has one by now.
    async fn renewed(&mut self, credential: &Arc<Credential>) -> Option<SelectedKey> {
        let can = |at| !self.tried.iter().any(|tried| tried.key == at);
        let at = credential.choose(self.permit.caller().id(), can)?;
        let exclusion = self.exclusion(credential, at, Instant::now());
        if exclusion.is_none_or(|exclusion| exclusion.kind == ExclusionKind::Cooling) {
            return None;
        }
        let held = self.peek(credential, at)?;
        let newer = self.core.shared.secrets.newer(credential, at, held.version()).await?;
        Some(self.chosen(credential, at, newer))
    }

    fn chosen(&mut self, credential: &Credential, key: usize, secret: Arc<Secret>) -> SelectedKey {
        self.left = credential.is_pool().then(Instant::now);
        let alias = credential.keys.get(key).and_then(|key| key.alias.clone());
        SelectedKey { key, alias, secret }
    }

    fn peek(&self, credential: &Credential, at: usize) -> Option<Arc<Secret>> {
        self.core.shared.secrets.peek(credential, at)
    }

    /// Whether calls still get what this one carried: what is said of an old version is forgotten.
    fn is_current(&self, credential: &Credential, chosen: &SelectedKey) -> bool {
        let held = self.peek(credential, chosen.key);
        held.is_none_or(|held| held.version() == chosen.secret.version())
    }

    /// Notes what the provider said of the key.
    fn strike(&self, credential: &Credential, chosen: &SelectedKey, verdict: &KeyVerdict) {
        let (keys, caller, now) = (&self.core.shared.keys, self.permit.caller().id(), Instant::now());
        if let KeyVerdict::Cooling(rest) = verdict {
            keys.cool(credential, chosen, caller, *rest, now);
        } else if keys.bench(credential, chosen, caller, now) {
            let reason: Arc<str> = verdict.to_string().into();
            let alias = chosen.alias.as_ref().map(Name::as_str);
            let (name, version) = (&credential.name, chosen.secret.version());
            tracing::warn!(credential = %name, alias, %version, reason = &*reason, "key benched: its provider refuses it");
            self.core.uses.benched(self.permit, name.clone(), chosen, reason);
        }
    }

    /// Notes that the key answered well, and that those before it on this call did not.
    fn did_well(&self, credential: &Credential, chosen: &SelectedKey) {
        let (keys, caller, now) = (&self.core.shared.keys, self.permit.caller().id(), Instant::now());
        if self.is_current(credential, chosen) {
            keys.answered_well(credential, chosen, caller, self.left.unwrap_or(now), now);
        }
        let refused = self.tried.iter().filter(|tried| tried.verdict.is_some());
        for worse in refused.filter_map(|tried| tried.carried.as_ref()) {
            if self.is_current(credential, worse) {
                keys.did_worse(credential, worse, caller, now);
            }
        }
    }
}

impl TriedKey {
    fn version(&self) -> Option<&Version> {
        self.carried.as_ref().map(|chosen| chosen.secret.version())
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
