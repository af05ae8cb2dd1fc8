//! A verified connection, and what is worked out once for all requests on it.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use tollgate_policy::denial::Denial;

use super::due::{Due, Late};
use super::open::Ear;
use super::pulse::{Pulse, Pulses};
use crate::caller_body::BodyProgress;
use crate::core::Core;
use crate::identity::{self, CallerContext, Proofs, Refusal};
use crate::load::Share;
use crate::snapshot::Snapshot;

/// A connection from the mesh.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) core: Arc<Core>,
    pub(crate) address: SocketAddr,
    pub(crate) http2: bool,
    proofs: Proofs,
    pub(super) ear: Ear,
    pub(super) pulses: Pulses,
    pub(crate) due: Arc<Due>,
    /// Of the request under way, where there is one at a time.
    body: Option<Arc<BodyProgress>>,
    _place: Share,
}

impl Connection {
    /// Verifies the peer's chain.
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
        let (proofs, usage) = Proofs::of(chain, &core.shared.trust, &core.shared.loads)?;
        let place = usage.connection().ok_or(Refusal::TooMany)?;
        let http2 = tls.alpn_protocol() == Some(b"h2");
        Ok(Self {
            core,
            address,
            http2,
            proofs,
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
    pub(crate) fn caller(&self, snapshot: &Snapshot, now: Timestamp) -> Result<CallerContext, Denial> {
        let shared = &self.core.shared;
        identity::authenticate(&self.proofs, &shared.trust, &shared.loads, snapshot, now)
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

    /// For an answer that streams to this caller, who has to take it at the least rate where it holds what others share.
    pub(crate) fn pulse(&self, shared: bool) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new(shared.then(|| self.core.shared.limits.least())));
        self.pulses.add(Arc::downgrade(&pulse));
        pulse
    }

    /// What its callers have to show.
    pub(crate) const fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    /// Since when the chain does not prove the caller; `None`: it does.
    pub(super) fn unproven_since(&self, now: Timestamp) -> Option<Timestamp> {
        let shared = &self.core.shared;
        self.proofs.unproven_since(&shared.trust, &shared.loads, now)
    }
}
