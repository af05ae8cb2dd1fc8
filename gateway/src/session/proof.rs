//! What a connection shows of its caller, and what is worked out of that once for all requests on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use tollgate_policy::decision::CallerGrants;
use tollgate_policy::denial::{Denial, Reason};

use crate::identity::{Peer, Refusal, Trust};
use crate::load::{Load, Loads};
use crate::snapshot::Snapshot;

/// The chain that a peer has shown, and whom it proves.
#[derive(Debug)]
pub(crate) struct Proofs {
    chain: Vec<CertificateDer<'static>>,
    state: Mutex<State>,
    load: Arc<Load>,
}

#[derive(Debug)]
struct State {
    peer: Peer,
    /// With the generation of the policy.
    grants: Option<(u64, Arc<CallerGrants>)>,
    /// When the chain was first seen not to prove the caller any more.
    unproven_since: Option<Timestamp>,
}

/// The caller of a connection under one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) grants: Arc<CallerGrants>,
    pub(crate) load: Arc<Load>,
}

impl State {
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
        loads: &Loads,
    ) -> Result<(Self, Arc<Load>), Refusal> {
        let peer = trust.verify(&chain, UnixTime::now())?;
        let load = loads.of(peer.caller.id());
        let state = Mutex::new(State { peer, grants: None, unproven_since: None });
        Ok((Self { chain, state, load: Arc::clone(&load) }, load))
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
    ) -> Result<Standing, Denial> {
        let mut state = self.state();
        self.verify(&mut state, trust, now).map_err(|_| {
            Denial::new(Reason::CertificateExpired, "the client certificate is no longer valid")
        })?;
        Ok(Standing { grants: state.grants(snapshot), load: Arc::clone(&self.load) })
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

    fn verify(&self, state: &mut State, trust: &Trust, now: Timestamp) -> Result<(), Refusal> {
        if state.peer.generation != trust.generation() {
            state.peer = trust.verify(&self.chain, UnixTime::now())?;
            state.grants = None;
        }
        if now >= state.peer.expires { Err(Refusal::Expired) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
