//! A verified connection, and what is worked out once for all requests on it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustls::ServerConnection;
use rustls::pki_types::{CertificateDer, UnixTime};
use tollgate_policy::decision::CallerGrants;
use tollgate_policy::denial::{Denial, Reason};

use super::due::{Due, Late};
use super::open::Ear;
use super::pulse::{Pulse, Pulses};
use crate::caller_body::BodyProgress;
use crate::core::Core;
use crate::identity::{Peer, Refusal};
use crate::load::{Load, Share};
use crate::snapshot::Snapshot;

/// A connection from the mesh.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) core: Arc<Core>,
    pub(crate) address: SocketAddr,
    pub(crate) http2: bool,
    chain: Vec<CertificateDer<'static>>,
    state: Mutex<State>,
    load: Arc<Load>,
    pub(super) ear: Ear,
    pub(super) pulses: Pulses,
    pub(crate) due: Arc<Due>,
    /// Of the request under way, where there is one at a time.
    body: Option<Arc<BodyProgress>>,
    _place: Share,
}

#[derive(Debug)]
struct State {
    peer: Peer,
    standing: Option<(u64, Arc<CallerGrants>)>,
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
        if let Some((generation, grants)) = &self.standing
            && *generation == snapshot.generation
        {
            return Arc::clone(grants);
        }
        let grants = Arc::new(snapshot.policy.grants_of(&self.peer.caller));
        self.standing = Some((snapshot.generation, Arc::clone(&grants)));
        grants
    }
}

impl Connection {
    /// Verifies the peer's chain. For a full handshake rustls has done so already; a resumed one brings an old chain that may have
    /// expired or lost its bundle since.
    pub(super) fn open(
        core: Arc<Core>,
        address: SocketAddr,
        tls: &ServerConnection,
        due: Arc<Due>,
    ) -> Result<Self, Refusal> {
        let chain: Vec<_> = tls
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .cloned()
            .map(CertificateDer::into_owned)
            .collect();
        let peer = core.shared.trust.verify(&chain, UnixTime::now())?;
        let load = core.shared.loads.of(peer.caller.id());
        let place = load.connection().ok_or(Refusal::TooMany)?;
        let http2 = tls.alpn_protocol() == Some(b"h2");
        let state = Mutex::new(State { peer, standing: None, unproven_since: None });
        Ok(Self {
            core,
            address,
            http2,
            chain,
            state,
            load,
            ear: Ear::default(),
            pulses: Pulses::default(),
            due,
            body: (!http2).then(|| Arc::new(BodyProgress::new())),
            _place: place,
        })
    }

    /// Who calls, under `snapshot`. Worked out anew when the snapshot, the bundles or the clock ask for it.
    ///
    /// # Errors
    /// `certificate_expired` where the chain verifies no longer.
    pub(crate) fn caller(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Standing, Denial> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.verify(&mut state, now).map_err(|_| {
            Denial::new(Reason::CertificateExpired, "the client certificate is no longer valid")
        })?;
        Ok(Standing { grants: state.grants(snapshot), load: Arc::clone(&self.load) })
    }

    /// Whether its caller takes too long to ask for something. Over HTTP/2 that is answered by pings.
    pub(super) fn late(&self, now: Timestamp) -> Option<Late> {
        if self.http2 {
            None
        } else if self.is_answered_early(now) {
            Some(Late::Body)
        } else {
            self.due.late(now.as_second())
        }
    }

    /// Whether the answer has been over for a while, and the body of its request still comes.
    pub(super) fn is_answered_early(&self, now: Timestamp) -> bool {
        let is_late = |body: &Arc<BodyProgress>| body.is_late(now.as_second());
        !self.due.is_ours() && self.body.as_ref().is_some_and(is_late)
    }

    /// Told how far the body of a request has come.
    pub(crate) const fn body(&self) -> Option<&Arc<BodyProgress>> {
        self.body.as_ref()
    }

    /// For an answer that streams to this caller.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new());
        self.pulses.add(Arc::downgrade(&pulse));
        pulse
    }

    /// The caller's grants under `snapshot`, for an answer that is under way already: its connection may outlive its proof by that.
    pub(crate) fn grants(&self, snapshot: &Snapshot) -> Arc<CallerGrants> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).grants(snapshot)
    }

    /// Since when the chain does not prove the caller; `None`: it does.
    pub(super) fn unproven_since(&self, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unproven_since = match self.verify(&mut state, now) {
            Ok(()) => None,
            Err(_) => Some(state.unproven_since.unwrap_or(now)),
        };
        state.unproven_since
    }

    fn verify(&self, state: &mut State, now: Timestamp) -> Result<(), Refusal> {
        let trust = &self.core.shared.trust;
        if state.peer.generation != trust.generation() {
            state.peer = trust.verify(&self.chain, UnixTime::now())?;
            state.standing = None;
        }
        if now >= state.peer.expires { Err(Refusal::Expired) } else { Ok(()) }
    }
}
