//! The keys that one call goes through.
//!
//! **Invariant:** a version of a key is tried once in a call. What the call says of its keys counts when it is over, however it ends.

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

use super::Chosen;
use super::known::Out;
use crate::core::Core;
use crate::upstream::Answer;

/// An error body that is longer says nothing of a key.
const BODY: usize = 64 << 10;
/// How long the rest of such a body is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an answer says against its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The provider does not know it.
    Rejected(u16),
    /// What it has access to is used up; the provider's word for it.
    Spent(Arc<str>),
    /// It has to rest.
    Cooling,
}

impl fmt::Display for Said {
    /// One word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(status) => write!(f, "status_{status}"),
            // Some providers say it in a sentence.
            Self::Spent(word) if word.contains(' ') => f.write_str("spent"),
            Self::Spent(word) => f.write_str(word),
            Self::Cooling => f.write_str("cooling"),
        }
    }
}

/// The keys of one call, one after the other.
pub(crate) struct Turn<'a> {
    core: &'a Core,
    permit: &'a Permit,
    /// What was carried, and keys that could not be had. Empty for most calls.
    tried: Vec<Tried>,
    /// The store was waited for.
    refreshed: bool,
    /// A key was answered well.
    well: bool,
}

struct Tried {
    key: usize,
    /// What was carried; `None`: it could not be had.
    carried: Option<Chosen>,
    dead: Option<Said>,
}

impl<'a> Turn<'a> {
    pub(crate) const fn new(core: &'a Core, permit: &'a Permit) -> Self {
        Self { core, permit, tried: Vec::new(), refreshed: false, well: false }
    }

    /// The caller's own key, or the next that can be used. `None`: the grant has no credential.
    ///
    /// # Errors
    /// `secret_unavailable`, `keys_cooling`, `credential_rejected`: what keeps the keys from being used.
    pub(crate) async fn first(&mut self) -> Result<Option<Chosen>, Denial> {
        let Some(credential) = self.permit.credential() else { return Ok(None) };
        if let Some(chosen) = self.pick(credential).await {
            return Ok(Some(chosen));
        }
        if let Some(chosen) = Box::pin(self.renewed(credential)).await {
            return Ok(Some(chosen));
        }
        let caller = self.mark();
        let doubtful = |at| self.core.shared.keys.is_doubtful(credential, at, caller);
        self.benched(credential, doubtful).map(Some).ok_or_else(|| self.refusal())
    }

    /// What the answer says against its key. Short bodies are read for that, and stay in the answer.
    pub(crate) async fn hear(&mut self, chosen: &Chosen, answer: &mut Answer) -> Option<Said> {
        let credential = self.permit.credential()?;
        let rules = self.permit.destination().dialect.keys();
        let status = answer.response.status().as_u16();
        if answer.response.status().is_success() {
            if credential.is_pool() {
                let caller = self.mark();
                if self.is_current(credential, chosen) {
                    self.core.shared.keys.answered_well(credential, chosen, caller, Instant::now());
                }
                self.well = true;
            }
            return None;
        }
        let mut said = rules.dead(status).then_some(Said::Rejected(status));
        if said.is_none() && rules.may_be_spent(status) {
            let body = Box::pin(answer.response.body_mut().peek(BODY, PATIENCE)).await;
            said = body.and_then(|body| rules.spent(status, &body)).map(Said::Spent);
        }
        if said.is_none() && rules.rate_limited(status) && credential.is_pool() {
            let headers = answer.response.headers();
            let rest = rules.rest(|name| only(headers, name), Timestamp::now());
            if self.is_current(credential, chosen) {
                self.core.shared.keys.cool(credential, chosen, rest, Instant::now());
            }
            said = Some(Said::Cooling);
        }
        let dead = said.clone().filter(|said| *said != Said::Cooling);
        said.as_ref()?;
        self.tried.push(Tried { key: chosen.key, carried: Some(chosen.clone()), dead });
        said
    }

    /// The key to go on with after `chosen` was found to be of no use; `again`: whether the call can be sent again. The store is asked
    /// for a newer version of a dead one: beside, where the call can go on without it, or else before it ends.
    pub(crate) async fn next(&mut self, chosen: &Chosen, said: &Said, again: bool) -> Option<Chosen> {
        let credential = self.permit.credential()?;
        let next = if again { self.pick(credential).await } else { None };
        if *said == Said::Cooling {
            return next;
        }
        if next.is_some() {
            let (secrets, credential) = (Arc::clone(&self.core.shared.secrets), Arc::clone(credential));
            let (key, version) = (chosen.key, chosen.secret.version().clone());
            tokio::spawn(async move { secrets.rejected(&credential, key, &version).await });
            return next;
        }
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
                None => self.benched(credential, |_| true),
            },
        }
    }

    /// Whether an answer that says something against its key is passed on where there is no other: the provider's own limits are the
    /// caller's to know, what it says of our key is not.
    pub(crate) fn passes_on(&self, answer: &Answer) -> bool {
        self.permit.destination().dialect.keys().rate_limited(answer.response.status().as_u16())
    }

    /// Why the call ends after a key was found to be of no use and there is no other.
    pub(crate) fn refusal(&self) -> Denial {
        let (keys, now) = (&self.core.shared.keys, Instant::now());
        let cooling = self.permit.credential().and_then(|credential| {
            let out = |at| keys.out(credential, at, || self.peek(credential, at), now);
            let outs = (0..credential.keys.len()).filter_map(out);
            outs.filter_map(|(out, until)| (out == Out::Cooling).then_some(until)).min()
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
    async fn pick(&mut self, credential: &Arc<Credential>) -> Option<Chosen> {
        loop {
            let at = self.choose(credential, Instant::now())?;
            let secrets = &self.core.shared.secrets;
            let secret = match secrets.peek(credential, at) {
                Some(cached) => Some(cached),
                None => Box::pin(secrets.get(credential, at)).await.ok(),
            };
            match secret {
                Some(secret) => return Some(self.chosen(credential, at, secret)),
                None => self.tried.push(Tried { key: at, carried: None, dead: None }),
            }
        }
    }

    /// One whose bench is not over: better than none, and it may be good again.
    fn benched(&self, credential: &Credential, may: impl Fn(usize) -> bool) -> Option<Chosen> {
        let (keys, now) = (&self.core.shared.keys, Instant::now());
        let at = credential.choose(self.permit.caller().id(), |at| {
            let out = keys.out(credential, at, || self.peek(credential, at), now);
            !self.was_tried(credential, at) && out.is_some_and(|(out, _)| out != Out::Cooling) && may(at)
        })?;
        self.peek(credential, at).map(|secret| self.chosen(credential, at, secret))
    }

    fn choose(&self, credential: &Credential, now: Instant) -> Option<usize> {
        let keys = &self.core.shared.keys;
        if !credential.is_pool() {
            return (!self.was_tried(credential, 0)).then_some(0);
        }
        let at = credential.choose(self.permit.caller().id(), |at| {
            !self.was_tried(credential, at)
                && keys.out(credential, at, || self.peek(credential, at), now).is_none()
        })?;
        keys.taken(credential, at, now);
        Some(at)
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
    async fn renewed(&self, credential: &Arc<Credential>) -> Option<Chosen> {
        let can = |at| !self.tried.iter().any(|tried| tried.key == at);
        let at = credential.choose(self.permit.caller().id(), can)?;
        let out = self.core.shared.keys.out(credential, at, || self.peek(credential, at), Instant::now());
        if out.is_none_or(|(out, _)| out == Out::Cooling) {
            return None;
        }
        let held = self.peek(credential, at)?;
        let newer = self.core.shared.secrets.newer(credential, at, held.version()).await?;
        Some(self.chosen(credential, at, newer))
    }

    fn mark(&self) -> u64 {
        self.core.shared.keys.mark(self.permit.caller().id())
    }

    fn chosen(&self, credential: &Credential, key: usize, secret: Arc<Secret>) -> Chosen {
        let alias = credential.keys.get(key).and_then(|key| key.alias.clone());
        Chosen { key, alias, secret }
    }

    fn peek(&self, credential: &Credential, at: usize) -> Option<Arc<Secret>> {
        self.core.shared.secrets.peek(credential, at)
    }

    /// Whether calls still get what this one carried: what is said of an old version is forgotten.
    fn is_current(&self, credential: &Credential, chosen: &Chosen) -> bool {
        let held = self.peek(credential, chosen.key);
        held.is_none_or(|held| held.version() == chosen.secret.version())
    }

    /// Benches what this call has proven to be dead: the one key that was refused where another was not, or keys that nobody else has
    /// been answered well with lately.
    fn bench(&self, credential: &Credential) {
        let (shared, now) = (&self.core.shared, Instant::now());
        let accuser = self.mark();
        let dead = || self.tried.iter().filter_map(|tried| tried.dead.as_ref().map(|said| (tried, said)));
        let Some((first, _)) = dead().next() else { return };
        let is_proven = self.well && dead().all(|(tried, _)| tried.key == first.key);
        for (tried, said) in dead() {
            let Some(chosen) = tried.carried.as_ref().filter(|chosen| self.is_current(credential, chosen))
            else {
                continue;
            };
            if !is_proven && shared.keys.speaks_for_itself(credential, tried.key, accuser, now) {
                continue;
            }
            if shared.keys.bench(credential, chosen, (!is_proven).then_some(accuser), now) {
                let reason: Arc<str> = said.to_string().into();
                let alias = chosen.alias.as_ref().map(Name::as_str);
                let (name, version) = (&credential.name, chosen.secret.version());
                tracing::warn!(credential = %name, alias, %version, reason = &*reason, "key benched: its provider refuses it");
                self.core.uses.benched(self.permit, name.clone(), chosen, reason);
            }
        }
    }
}

impl Tried {
    fn version(&self) -> Option<&Version> {
        self.carried.as_ref().map(|chosen| chosen.secret.version())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(credential) = self.permit.credential().filter(|credential| credential.is_pool())
            && !self.tried.is_empty()
        {
            self.bench(credential);
        }
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
