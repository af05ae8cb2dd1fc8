//! Whom a proof of a connection has shown, with what is kept of that caller.

use std::sync::Arc;

use tollgate_policy::caller::{Caller, Claims, Identity, Proof, Proven};
use tollgate_policy::decision::CallerGrants;

use super::VerifiedIdentity;
use super::tokens::VerifiedToken;
use crate::caller_occupancy::{CallerOccupancies, CallerOccupancy, OccupancySlot};
use crate::snapshot::Snapshot;

/// Whom a proof shows.
#[derive(Debug)]
pub(super) struct KnownCaller {
    pub(super) verified: KnownProof,
    pub(super) usage: Arc<CallerOccupancy>,
    /// With the generation of the policy.
    grants: Option<(u64, Arc<CallerGrants>)>,
    /// Among the connections of its caller, where no certificate has one.
    pub(super) place: Option<OccupancySlot>,
}

#[derive(Debug)]
pub(super) enum KnownProof {
    Certificate(VerifiedIdentity),
    Token(Arc<VerifiedToken>),
}

impl KnownCaller {
    pub(super) fn new(verified: KnownProof, usages: &CallerOccupancies) -> Self {
        Self { usage: usages.of(verified.identity()), verified, grants: None, place: None }
    }

    pub(super) fn identity(&self) -> &Identity {
        self.verified.identity()
    }

    /// Whether this proof has made that caller.
    pub(super) fn is(&self, caller: &Caller) -> bool {
        *caller == Caller::of(&self.verified)
    }

    pub(super) const fn token(&self) -> Option<&Arc<VerifiedToken>> {
        match &self.verified {
            KnownProof::Token(token) => Some(token),
            KnownProof::Certificate(_) => None,
        }
    }

    pub(super) const fn certificate(&self) -> Option<&VerifiedIdentity> {
        match &self.verified {
            KnownProof::Certificate(shown) => Some(shown),
            KnownProof::Token(_) => None,
        }
    }

    pub(super) fn grants(&mut self, snapshot: &Snapshot) -> Arc<CallerGrants> {
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

impl Proven for KnownProof {
    fn identity(&self) -> &Identity {
        match self {
            Self::Certificate(shown) => shown.identity(),
            Self::Token(token) => token.identity(),
        }
    }

    fn proof(&self) -> Proof {
        match self {
            Self::Certificate(shown) => shown.proof(),
            Self::Token(token) => token.proof(),
        }
    }

    fn claims(&self) -> Claims {
        match self {
            Self::Certificate(shown) => shown.claims(),
            Self::Token(token) => token.claims(),
        }
    }
}
