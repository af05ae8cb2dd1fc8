//! What a connection shows of its caller, and what is worked out of that once for all requests on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use tollgate_policy::caller::Caller;
use tollgate_policy::decision::CallerGrants;
use tollgate_policy::denial::{Denial, Reason};

use crate::caller_usage::{CallerUsage, CallerUsages};
use crate::identity::{Peer, Refusal, Trust};
use crate::snapshot::Snapshot;

/// The chain that a peer has shown, and whom it proves.
#[derive(Debug)]
pub(crate) struct Proofs {
    chain: Vec<CertificateDer<'static>>,
    state: Mutex<ProofState>,
    usage: Arc<CallerUsage>,
}

#[derive(Debug)]
struct ProofState {
    peer: Peer,
    /// With the generation of the policy.
    grants: Option<(u64, Arc<CallerGrants>)>,
    /// When the chain was first seen not to prove the caller any more.
    unproven_since: Option<Timestamp>,
}

/// The caller of a connection under one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct CallerContext {
    grants: Arc<CallerGrants>,
    usage: Arc<CallerUsage>,
}

impl CallerContext {
    /// The caller, and what it was granted.
    pub(crate) const fn grants(&self) -> &Arc<CallerGrants> {
        &self.grants
    }

    /// Who was proven, and how.
    pub(crate) fn caller(&self) -> &Caller {
        self.grants.caller()
    }

    /// What the caller occupies.
    pub(crate) const fn usage(&self) -> &Arc<CallerUsage> {
        &self.usage
    }
}

impl ProofState {
    fn grants(&mut self, snapshot: &Snapshot) -> Arc<CallerGrants> {
        if let Some((generation, grants)) = &self.grants
            && *generation == snapshot.generation
        {
            return Arc::clone(grants);
        }
        let grants = Arc::new(snapshot.policy.grants_of(&self.peer.caller));
        self.grants = Some((snapshot.generation, Arc::clone(&grants)));
        grants
    }
}

impl Proofs {
    /// Verifies the peer's chain, leaf first, and gives what its caller occupies. For a full handshake rustls has done so already; a
    /// resumed one brings an old chain that may have expired or lost its bundle since.
    ///
    /// # Errors
    /// Why the chain proves nobody.
    pub(super) fn of(
        chain: Vec<CertificateDer<'static>>,
        trust: &Trust,
        usages: &CallerUsages,
    ) -> Result<(Self, Arc<CallerUsage>), Refusal> {
        let peer = trust.verify(&chain, UnixTime::now())?;
        let usage = usages.of(peer.caller.id());
        let state = Mutex::new(ProofState { peer, grants: None, unproven_since: None });
        Ok((Self { chain, state, usage: Arc::clone(&usage) }, usage))
    }

    /// Who calls, under `snapshot`. Worked out anew when the snapshot, the bundles or the clock ask for it.
    ///
    /// # Errors
    /// `certificate_expired` where the chain verifies no longer.
    pub(crate) fn caller(
        &self,
        trust: &Trust,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<CallerContext, Denial> {
        let mut state = self.state();
        self.verify(&mut state, trust, now).map_err(|_| {
            Denial::new(Reason::CertificateExpired, "the client certificate is no longer valid")
        })?;
        Ok(CallerContext { grants: state.grants(snapshot), usage: Arc::clone(&self.usage) })
    }

    /// The caller's grants under `snapshot`, for an answer that is under way already: its connection may outlive its proof by that.
    pub(crate) fn grants(&self, snapshot: &Snapshot) -> Arc<CallerGrants> {
        self.state().grants(snapshot)
    }

    /// Since when the chain does not prove the caller; `None`: it does.
    pub(super) fn unproven_since(&self, trust: &Trust, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state();
        state.unproven_since = match self.verify(&mut state, trust, now) {
            Ok(()) => None,
            Err(_) => Some(state.unproven_since.unwrap_or(now)),
        };
        state.unproven_since
    }

    fn verify(&self, state: &mut ProofState, trust: &Trust, now: Timestamp) -> Result<(), Refusal> {
        if state.peer.generation != trust.generation() {
            state.peer = trust.verify(&self.chain, UnixTime::now())?;
            state.grants = None;
        }
        if now >= state.peer.expires { Err(Refusal::Expired) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, ProofState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
