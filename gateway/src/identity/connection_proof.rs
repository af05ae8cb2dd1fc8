//! What a connection has shown of who has opened it.

use rustls::pki_types::{CertificateDer, UnixTime};
use tollgate_policy::caller::SpiffeId;

use super::{Refusal, Trust, VerifiedIdentity};

/// What a connection has shown of who has opened it.
#[derive(Clone, Debug)]
pub(super) enum ConnectionProof {
    /// Nothing: its requests are proven by tokens or not at all.
    Nothing,
    /// The client certificate and its issuers, leaf first.
    Chain(Vec<CertificateDer<'static>>),
    /// The word of a listed proxy.
    Vouched(SpiffeId),
}

impl ConnectionProof {
    /// Of the certificates that were shown, if any.
    pub(super) fn of_chain(chain: Vec<CertificateDer<'static>>) -> Self {
        if chain.is_empty() { Self::Nothing } else { Self::Chain(chain) }
    }

    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Whom it proves under the trust in force.
    pub(super) fn verify(&self, trust: &Trust) -> Result<VerifiedIdentity, Refusal> {
        match self {
            Self::Nothing => Err(Refusal::NoCertificate),
            Self::Chain(chain) => trust.verify(chain, UnixTime::now()),
            Self::Vouched(id) => trust.vouched(id),
        }
    }
}
