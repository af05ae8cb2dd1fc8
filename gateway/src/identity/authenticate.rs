//! Who calls, worked out of what shows it: the client certificate of the connection.
//!
//! **Invariant:** a [`CallerContext`] is made only here, of a proof that holds at that moment under the trust in force.
//!
//! What a proof has shown is kept with it, so that one connection may carry the proofs of several callers. A few are remembered, and each is
//! worked out anew when trust, policy or clock ask for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use tollgate_policy::caller::{Caller, Proven};
use tollgate_policy::decision::CallerGrants;
use tollgate_policy::denial::{Denial, Reason};

use super::{Refusal, Trust, VerifiedIdentity};
use crate::caller_usage::{CallerUsage, CallerUsages, UsagePermit};
use crate::snapshot::Snapshot;

/// Proofs that are remembered of one connection.
const REMEMBERED: usize = 8;

/// What shows who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProofKey {
    ClientCertificate,
}

/// What a connection has to show, and whom it showed.
#[derive(Debug)]
pub(crate) struct Proofs {
    /// The client certificate and its issuers, leaf first.
    chain: Vec<CertificateDer<'static>>,
    state: Mutex<ProofState>,
}

#[derive(Debug, Default)]
struct ProofState {
    known: Recent<ProofKey, KnownCaller>,
    /// When the chain was first seen to prove nobody any more.
    unproven_since: Option<Timestamp>,
}

/// Whom a proof shows.
#[derive(Debug)]
struct KnownCaller {
    verified: VerifiedIdentity,
    usage: Arc<CallerUsage>,
    /// With the generation of the policy.
    grants: Option<(u64, Arc<CallerGrants>)>,
}

/// The caller of a request under one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct CallerContext {
    grants: Arc<CallerGrants>,
    usage: Arc<CallerUsage>,
}

/// Who calls, under `snapshot`.
///
/// # Errors
/// `no_certificate` where the connection has shown nothing, `certificate_expired` where its chain verifies no longer.
pub(crate) fn authenticate(
    proofs: &Proofs,
    trust: &Trust,
    usages: &CallerUsages,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<CallerContext, Denial> {
    let mut state = proofs.state();
    let caller = proofs.of_certificate(&mut state.known, trust, usages, now).map_err(unproven)?;
    Ok(CallerContext { grants: caller.grants(snapshot), usage: Arc::clone(&caller.usage) })
}

fn unproven(refusal: Refusal) -> Denial {
    match refusal {
        Refusal::NoCertificate => {
            Denial::new(Reason::NoCertificate, "the connection has shown no client certificate")
        }
        _ => Denial::new(Reason::CertificateExpired, "the client certificate is no longer valid"),
    }
}

impl Proofs {
    /// Of a connection whose peer has shown `chain`, leaf first, with its place among those of its caller. For a full handshake rustls has
    /// verified the chain already; a resumed one brings an old one that may have expired or lost its bundle since. An empty chain proves
    /// nobody, and its requests are refused.
    ///
    /// # Errors
    /// Why the chain proves nobody, or that its caller has as many connections as one caller may.
    pub(crate) fn of(
        chain: Vec<CertificateDer<'static>>,
        trust: &Trust,
        usages: &CallerUsages,
    ) -> Result<(Self, Option<UsagePermit>), Refusal> {
        let proofs = Self { chain, state: Mutex::default() };
        if proofs.chain.is_empty() {
            return Ok((proofs, None));
        }
        let mut state = proofs.state();
        let caller = proofs.of_certificate(&mut state.known, trust, usages, Timestamp::now())?;
        let place = caller.usage.connection().ok_or(Refusal::TooMany)?;
        drop(state);
        Ok((proofs, Some(place)))
    }

    /// The grants of a caller that was proven here, for an answer that is under way already: it may outlive the proof by that.
    pub(crate) fn grants(&self, caller: &Caller, snapshot: &Snapshot) -> Arc<CallerGrants> {
        let mut state = self.state();
        let is_it = |known: &&mut KnownCaller| known.verified.identity() == caller.id();
        match state.known.values().find(is_it) {
            Some(known) => known.grants(snapshot),
            None => Arc::new(snapshot.policy.grants_of(caller)),
        }
    }

    /// Since when the chain proves nobody; `None`: it does.
    pub(crate) fn unproven_since(
        &self,
        trust: &Trust,
        usages: &CallerUsages,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let state = &mut *self.state();
        state.unproven_since = match self.of_certificate(&mut state.known, trust, usages, now) {
            Ok(_) => None,
            Err(_) => Some(state.unproven_since.unwrap_or(now)),
        };
        state.unproven_since
    }

    fn of_certificate<'a>(
        &self,
        known: &'a mut Recent<ProofKey, KnownCaller>,
        trust: &Trust,
        usages: &CallerUsages,
        now: Timestamp,
    ) -> Result<&'a mut KnownCaller, Refusal> {
        let verify = || trust.verify(&self.chain, UnixTime::now());
        let make = || verify().map(|verified| KnownCaller::new(verified, usages));
        let caller = known.get_or_make(ProofKey::ClientCertificate, make)?;
        if caller.verified.generation() != trust.generation() {
            caller.verified = verify()?;
        }
        if now >= caller.verified.expires() { Err(Refusal::Expired) } else { Ok(caller) }
    }

    fn state(&self) -> MutexGuard<'_, ProofState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownCaller {
    fn new(verified: VerifiedIdentity, usages: &CallerUsages) -> Self {
        let usage = usages.of(verified.identity());
        Self { verified, usage, grants: None }
    }

    fn grants(&mut self, snapshot: &Snapshot) -> Arc<CallerGrants> {
        if let Some((generation, grants)) = &self.grants
            && *generation == snapshot.generation
        {
            return Arc::clone(grants);
        }
        let grants = Arc::new(snapshot.policy.grants_of(&Caller::of(&self.verified)));
        self.grants = Some((snapshot.generation, Arc::clone(&grants)));
        grants
    }
}

impl CallerContext {
    /// The caller, and what it was granted.
    pub(crate) fn grants(&self) -> &Arc<CallerGrants> {
        &self.grants
    }

    /// Who was proven, and how.
    pub(crate) fn caller(&self) -> &Caller {
        self.grants.caller()
    }

    /// What the caller occupies.
    pub(crate) fn usage(&self) -> &Arc<CallerUsage> {
        &self.usage
    }
}

/// The few values that were looked up last, the latest first.
#[derive(Debug)]
struct Recent<K, V>(Vec<(K, V)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq, V> Recent<K, V> {
    /// What is kept under `key`. Where nothing is, it is made, and the one that was looked up the longest ago may have to go for it.
    fn get_or_make<E>(&mut self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<&mut V, E> {
        let at = match self.0.iter().position(|(other, _)| *other == key) {
            Some(at) => at,
            None => {
                let made = make()?;
                self.0.truncate(REMEMBERED - 1);
                self.0.push((key, made));
                self.0.len() - 1
            }
        };
        self.0[..=at].rotate_right(1);
        Ok(&mut self.0[0].1)
    }

    fn values(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_that_was_not_looked_up_the_longest_is_the_one_forgotten() {
        let mut recent = Recent::default();
        let mut made = Vec::new();
        let mut look_up = |key: usize| {
            recent
                .get_or_make(key, || {
                    made.push(key);
                    Ok::<_, ()>(key)
                })
                .copied()
        };
        for key in (0..REMEMBERED).chain([0, REMEMBERED, 0, 1]) {
            assert_eq!(look_up(key), Ok(key));
        }
        assert_eq!(
            made,
            (0..=REMEMBERED).chain([1]).collect::<Vec<_>>(),
            "1 went for the last one, 0 stayed"
        );
        assert_eq!(recent.0.len(), REMEMBERED);
        assert_eq!(recent.get_or_make(99, || Err::<usize, _>("unproven")), Err("unproven"));
        assert!(recent.values().all(|key| *key != 99));
    }
}
