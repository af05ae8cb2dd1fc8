//! A verified connection from the mesh.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;

use super::deadline::{HeaderDeadline, Late};
use super::progress::{WriteProgress, Writes};
use super::proof::Proofs;
use super::shutdown::ShutdownSignal;
use crate::caller_body::BodyProgress;
use crate::caller_usage::{CallerUsages, UsagePermit};
use crate::identity::{Refusal, Trust};
use crate::pace::LeastRate;

/// What is known of a caller's connection, for all requests on it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) address: SocketAddr,
    pub(crate) http2: bool,
    pub(crate) proofs: Proofs,
    pub(crate) shutdown: ShutdownSignal,
    pub(crate) deadline: Arc<HeaderDeadline>,
    pub(super) writes: Writes,
    /// Of the request under way, where there is one at a time.
    body: Option<Arc<BodyProgress>>,
    _place: UsagePermit,
}

impl Session {
    /// Verifies the peer's chain.
    ///
    /// # Errors
    /// Why it proves nobody, or that its caller has as many connections as one caller may.
    pub(crate) fn open(
        trust: &Trust,
        usages: &CallerUsages,
        address: SocketAddr,
        tls: &ServerConnection,
        deadline: Arc<HeaderDeadline>,
    ) -> Result<Self, Refusal> {
        let chain = tls.peer_certificates().unwrap_or_default().iter().cloned();
        let (proofs, usage) = Proofs::of(chain.map(CertificateDer::into_owned).collect(), trust, usages)?;
        let place = usage.connection().ok_or(Refusal::TooMany)?;
        let http2 = tls.alpn_protocol() == Some(b"h2");
        Ok(Self {
            address,
            http2,
            proofs,
            shutdown: ShutdownSignal::default(),
            deadline,
            writes: Writes::default(),
            body: (!http2).then(|| Arc::new(BodyProgress::new())),
            _place: place,
        })
    }

    /// Whether its caller takes too long to ask for something. Over HTTP/2 that is answered by pings.
    pub(super) fn late(&self, now: Timestamp) -> Option<Late> {
        if self.http2 {
            None
        } else if self.is_answered_early(now) {
            Some(Late::Body)
        } else {
            self.deadline.late(now.as_second())
        }
    }

    /// Whether the answer has been over for a while, and the body of its request still comes.
    pub(crate) fn is_answered_early(&self, now: Timestamp) -> bool {
        let is_late = |body: &Arc<BodyProgress>| body.is_late(now.as_second());
        !self.deadline.is_answering() && self.body.as_ref().is_some_and(is_late)
    }

    /// Told how far the body of a request has come.
    pub(crate) const fn body(&self) -> Option<&Arc<BodyProgress>> {
        self.body.as_ref()
    }

    /// For an answer that streams to this caller, who has to take it at the least rate where one is given.
    pub(crate) fn write_progress(&self, least: Option<LeastRate>) -> Arc<WriteProgress> {
        let progress = Arc::new(WriteProgress::new(least));
        self.writes.add(Arc::downgrade(&progress));
        progress
    }
}
