//! What calls do with secrets, counted where it happens.
//!
//! **Invariant:** what is counted is bounded, and nothing is left out: beyond [`KINDS`] kinds, callers are counted together, and so are hosts.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tollgate_policy::caller::Identity;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::Reason;
use tollgate_policy::map::Map;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_secrets::Secret;

use super::{Entry, Word};
use crate::key_health::SelectedKey;
use crate::ledger::{Bounded, Record};

/// Kinds of uses that are told apart on one core in a second, and on all cores in a minute.
const KINDS: usize = 10_000;
/// What stands for the caller and the host where they are not told apart.
const OTHERS: &str = "others";

/// The uses that one core has seen since they were last taken. Its lock is contended once a second.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<Counts>);

/// Uses, told apart.
#[derive(Debug, Default)]
pub(super) struct Counts(Map<Use, Count>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    caller: Option<Identity>,
    credential: ResourceId,
    alias: Option<Name>,
    secret: Option<Arc<str>>,
    version: Option<Arc<str>>,
    host: Option<Bounded>,
    deed: Deed,
}

/// What happened to the secret, or because of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Deed {
    Injected,
    /// The call was refused.
    Refused(Reason),
    /// The provider's answer to the call benched the key; its word for why.
    Benched(Arc<str>),
}

/// The same where nothing of it is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
struct UseRef<'a> {
    caller: Option<&'a Identity>,
    credential: &'a ResourceId,
    alias: Option<&'a Name>,
    secret: Option<&'a str>,
    version: Option<&'a str>,
    host: Option<&'a str>,
    deed: &'a Deed,
}

/// One that is kept or not: so one that was counted is found without making another.
trait AnyUse {
    fn parts(&self) -> UseRef<'_>;
}

impl AnyUse for Use {
    fn parts(&self) -> UseRef<'_> {
        UseRef {
            caller: self.caller.as_ref(),
            credential: &self.credential,
            alias: self.alias.as_ref(),
            secret: self.secret.as_deref(),
            version: self.version.as_deref(),
            host: self.host.as_ref().map(Bounded::as_str),
            deed: &self.deed,
        }
    }
}

impl AnyUse for UseRef<'_> {
    fn parts(&self) -> UseRef<'_> {
        *self
    }
}

impl<'a> Borrow<dyn AnyUse + 'a> for Use {
    fn borrow(&self) -> &(dyn AnyUse + 'a) {
        self
    }
}

impl PartialEq for dyn AnyUse + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn AnyUse + '_ {}

impl Hash for dyn AnyUse + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let UseRef { caller, credential, host, deed, .. } = self.parts();
        // These tell most uses apart; the rest rarely differs and is left to `Eq`.
        (caller, host, credential, deed).hash(state);
    }
}

impl Hash for Use {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let any: &dyn AnyUse = self;
        any.hash(state);
    }
}

#[derive(Clone, Copy, Debug)]
struct Count {
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

impl Uses {
    /// A call is about to carry this secret.
    pub(crate) fn injected(&self, record: &Record, secret: &Secret) {
        let (reference, version) = (secret.reference_shared(), secret.version().shared());
        self.note(record, (Some(&reference), Some(&version)), Deed::Injected);
    }

    /// A call is about to leave on a connection that shows this client certificate.
    pub(crate) fn shown(&self, record: &Record, certificate: &ResourceId, secret: &Secret) {
        let version = secret.version().shared();
        self.about(record, certificate, Some((secret.reference_shared(), version)), Deed::Injected);
    }

    /// A call is refused; counted where that is because of its secret, or of the client certificate `blamed`.
    pub(crate) fn refused(&self, record: &Record, blamed: Option<&ResourceId>, reason: Reason) {
        if !matches!(reason, Reason::SecretUnavailable | Reason::CredentialRejected) {
            return;
        }
        if let Some(certificate) = blamed {
            self.about(record, certificate, None, Deed::Refused(reason));
        } else {
            self.note(record, (None, record.credential_version.as_ref()), Deed::Refused(reason));
        }
    }

    /// What a provider answered to a call benched a key.
    pub(crate) fn benched(
        &self,
        permit: &Permit,
        credential: ResourceId,
        key: &SelectedKey,
        reason: Arc<str>,
    ) {
        self.add(Use {
            caller: Some(permit.caller().id().clone()),
            credential,
            alias: key.alias.clone(),
            secret: Some(key.secret.reference_shared()),
            version: Some(key.secret.version().shared()),
            host: Some(Bounded::from(&permit.target().host_shared())),
            deed: Deed::Benched(reason),
        });
    }

    fn note(&self, record: &Record, (secret, version): (Option<&Arc<str>>, Option<&Arc<str>>), deed: Deed) {
        let Some(credential) = &record.credential else { return };
        let kind = UseRef {
            caller: record.caller.as_ref(),
            credential,
            alias: record.alias.as_ref(),
            secret: secret.map(|secret| &**secret),
            version: version.map(|version| &**version),
            host: record.host.as_ref().map(Bounded::as_str),
            deed: &deed,
        };
        let now = Timestamp::now();
        let mut counts = self.counts();
        if counts.again(&kind, now) {
            return;
        }
        let (caller, host, alias) = (record.caller.clone(), record.host.clone(), record.alias.clone());
        let (credential, secret, version) = (credential.clone(), secret.cloned(), version.cloned());
        counts.add(Use { caller, credential, alias, secret, version, host, deed }, Count::once(now));
    }

    /// About a client certificate, which is no key of the call.
    fn about(
        &self,
        record: &Record,
        certificate: &ResourceId,
        secret: Option<(Arc<str>, Arc<str>)>,
        deed: Deed,
    ) {
        let (secret, version) = secret.unzip();
        let (caller, host) = (record.caller.clone(), record.host.clone());
        self.add(Use { caller, credential: certificate.clone(), alias: None, secret, version, host, deed });
    }

    fn add(&self, kind: Use) {
        self.counts().add(kind, Count::once(Timestamp::now()));
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was counted.
    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts())
    }
}

impl Count {
    const fn once(now: Timestamp) -> Self {
        Self { first: now, last: now, count: 1 }
    }
}

impl Counts {
    /// Counts one more, if there was one of its kind.
    fn again(&mut self, kind: &UseRef<'_>, now: Timestamp) -> bool {
        let kind: &dyn AnyUse = kind;
        let Some(own) = self.0.get_mut(kind) else { return false };
        own.last = own.last.max(now);
        own.count += 1;
        true
    }

    fn add(&mut self, mut kind: Use, more: Count) {
        if self.0.len() >= KINDS && !self.0.contains_key(&kind) {
            (kind.caller, kind.host) = (None, None);
        }
        let own = self.0.entry(kind).or_insert(Count { count: 0, ..more });
        own.first = own.first.min(more.first);
        own.last = own.last.max(more.last);
        own.count += more.count;
    }

    /// Adds those of one core.
    pub(super) fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|(kind, count)| self.add(kind, count));
    }

    /// When each key of each credential was last put on a call.
    pub(super) fn last_uses(&self) -> impl Iterator<Item = ((ResourceId, Option<Name>), Timestamp)> {
        let injected = self.0.iter().filter(|(kind, _)| kind.deed == Deed::Injected);
        injected.map(|(kind, count)| ((kind.credential.clone(), kind.alias.clone()), count.last))
    }

    /// A line for each kind, in the order of their first.
    pub(super) fn entries(&self, at: Timestamp) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.0.iter().map(|(kind, count)| entry(at, kind, *count)).collect();
        entries.sort_by_key(|entry| entry.first);
        entries
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn entry(at: Timestamp, kind: &Use, count: Count) -> Entry {
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    let (word, reason) = match &kind.deed {
        Deed::Injected => (Word::Injected, ""),
        Deed::Refused(reason) => (Word::Refused, reason.as_str()),
        Deed::Benched(reason) => (Word::Benched, &**reason),
    };
    Entry {
        credentials: vec![kind.credential.to_string()],
        alias: kind.alias.as_ref().map(ToString::to_string).unwrap_or_default(),
        secret: text(&kind.secret),
        version: text(&kind.version),
        reason: reason.to_owned(),
        caller: kind.caller.as_ref().map_or(OTHERS, Identity::as_str).to_owned(),
        host: kind.host.as_ref().map_or(OTHERS, Bounded::as_str).to_owned(),
        first: Some(count.first),
        last: Some(count.last),
        count: Some(count.count),
        ..Entry::new(at, word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RecordId;

    fn record(caller: &str) -> Record {
        let mut record = Record::new(RecordId::new(), Timestamp::now(), Bounded::new("GET"));
        record.caller = Some(caller.parse().unwrap());
        record.credential = Some("openai-prod".parse().unwrap());
        record.credential_version = Some("7".into());
        record.host = Some(Bounded::new("api.openai.com"));
        record
    }

    #[test]
    fn like_refusals_are_one_line_with_their_number_and_others_are_none() {
        let cores = [Uses::default(), Uses::default()];
        let web = record("spiffe://prod.acme/ns/shop/sa/web");
        for core in &cores {
            for _ in 0..500 {
                core.refused(&web, None, Reason::SecretUnavailable);
                core.refused(&web, None, Reason::NoGrant);
            }
        }
        let mut counts = Counts::default();
        cores.iter().for_each(|core| counts.merge(core.take()));
        cores.iter().for_each(|core| counts.merge(core.take()));
        let [entry] = counts.entries(Timestamp::now()).try_into().unwrap();
        assert_eq!(
            (&*entry.what, &*entry.reason, entry.count),
            ("refused", "secret_unavailable", Some(1000))
        );
        assert_eq!(
            (entry.caller.as_str(), entry.host.as_str()),
            (web.caller.unwrap().as_str(), "api.openai.com")
        );
        assert!(entry.first <= entry.last);
        assert_eq!(counts.last_uses().count(), 0, "a refused call used nothing");
    }

    #[test]
    fn callers_without_number_are_counted_together_and_none_is_left_out() {
        let uses = Uses::default();
        for number in 0..KINDS + 50 {
            let record = record(&format!("spiffe://prod.acme/ns/n/sa/a{number}"));
            uses.refused(&record, None, Reason::CredentialRejected);
        }
        let entries = uses.take().entries(Timestamp::now());
        assert_eq!(entries.len(), KINDS + 1);
        assert_eq!(entries.iter().filter_map(|entry| entry.count).sum::<u64>(), KINDS as u64 + 50);
        assert_eq!(entries.iter().filter(|entry| entry.caller == OTHERS).count(), 1);
    }

    #[test]
    fn hosts_without_number_are_counted_together_too() {
        let uses = Uses::default();
        for number in 0..KINDS + 50 {
            let mut record = record("spiffe://prod.acme/ns/shop/sa/web");
            record.host = Some(Bounded::new(&format!("a{number}.openai.azure.com")));
            uses.refused(&record, None, Reason::CredentialRejected);
        }
        let entries = uses.take().entries(Timestamp::now());
        assert_eq!(entries.len(), KINDS + 1);
        assert_eq!(entries.iter().filter_map(|entry| entry.count).sum::<u64>(), KINDS as u64 + 50);
        let others: Vec<_> = entries.iter().filter(|entry| entry.host == OTHERS).collect();
        assert!(matches!(&*others, [one] if one.caller == OTHERS && one.count == Some(50)), "{others:?}");
    }
}
