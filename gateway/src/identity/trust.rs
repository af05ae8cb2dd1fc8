//! Trust bundles, one per trust domain, and the verification of an X.509-SVID against them.
//!
//! **Invariant:** a chain is only ever checked against the bundle of the trust domain that its own URI SAN names, never against a union
//! (SPIFFE X.509-SVID, section 5; a federated domain cannot speak for another).

mod verified_chain_cache;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tollgate_policy::caller::{Identity, Proof, Proven, SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use self::verified_chain_cache::VerifiedChainCache;
use super::bundle::Bundle;
use super::chain;
use super::refusal::Refusal;
use super::tokens::TokenIssuers;

/// Whom a chain proves, or the word of a listed proxy. Only [`Trust`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedIdentity {
    identity: Identity,
    proof: Proof,
    expires: Timestamp,
    generation: u64,
}

impl VerifiedIdentity {
    /// The earliest end of validity on the path to its root.
    pub(super) const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The bundles it was verified against.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }
}

impl Proven for VerifiedIdentity {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn proof(&self) -> Proof {
        self.proof
    }
}

#[derive(Debug, Default)]
struct Bundles {
    generation: u64,
    domains: HashMap<TrustDomain, Arc<Bundle>>,
}

/// The bundles in force.
#[derive(Debug)]
pub(crate) struct Trust {
    /// How far in the future a certificate may begin.
    skew: Duration,
    bundles: ArcSwap<Bundles>,
    chains: VerifiedChainCache,
    tokens: TokenIssuers,
    changed: watch::Sender<u64>,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Trust {
    /// Nobody is proven by a token.
    #[cfg(test)]
    pub(crate) fn new(domains: HashMap<TrustDomain, Arc<Bundle>>, skew: Duration) -> Arc<Self> {
        Self::with_tokens(domains, skew, TokenIssuers::default())
    }

    pub(crate) fn with_tokens(
        domains: HashMap<TrustDomain, Arc<Bundle>>,
        skew: Duration,
        tokens: TokenIssuers,
    ) -> Arc<Self> {
        let bundles = Bundles { generation: 1, domains };
        Arc::new(Self {
            skew,
            bundles: ArcSwap::from_pointee(bundles),
            chains: VerifiedChainCache::default(),
            tokens,
            changed: watch::Sender::new(1),
            refused: Default::default(),
        })
    }

    /// Takes new bundles; connections are told and verify again.
    pub(crate) fn replace(&self, domains: HashMap<TrustDomain, Arc<Bundle>>) {
        let generation = self.generation() + 1;
        self.bundles.store(Arc::new(Bundles { generation, domains }));
        self.changed.send_replace(generation);
    }

    /// Whose tokens prove callers.
    pub(crate) const fn tokens(&self) -> &TokenIssuers {
        &self.tokens
    }

    pub(crate) fn generation(&self) -> u64 {
        self.bundles.load().generation
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Counts a handshake that was turned away.
    pub(crate) fn count(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many handshakes were turned away, by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::ALL.into_iter().map(|r| (r.as_str(), self.refused[r as usize].load(Ordering::Relaxed)))
    }

    /// Takes the word of a listed proxy for a workload of a trust domain that is in force. It has no end of its own.
    pub(super) fn vouched(&self, id: &SpiffeId) -> Result<VerifiedIdentity, Refusal> {
        let bundles = self.bundles.load();
        // A domain that is trusted no more may have an empty bundle.
        if bundles.domains.get(id.trust_domain()).is_none_or(|bundle| bundle.roots().is_empty()) {
            return Err(Refusal::UnknownTrustDomain);
        }
        let (identity, generation) = (Identity::Spiffe(id.clone()), bundles.generation);
        Ok(VerifiedIdentity { identity, proof: Proof::ListedProxy, expires: Timestamp::MAX, generation })
    }

    /// Verifies `chain` (leaf first) at `now`.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedIdentity, Refusal> {
        let bundles = self.bundles.load();
        let generation = bundles.generation;
        self.chains.get_or_verify(chain, (now, generation), || {
            let id = spiffe_id(chain.first().ok_or(Refusal::NoCertificate)?)?;
            let bundle = bundles.domains.get(id.trust_domain()).ok_or(Refusal::UnknownTrustDomain)?;
            let expires = chain::verify(chain, bundle, now, self.skew)?;
            // Of several lists that may be of one issuer, another one decides once one has ended.
            let lists = bundle.revocations().iter().map(|list| list.ends);
            let until =
                lists.filter(|ends| ends.as_second() >= chain::seconds(now)).fold(expires, Timestamp::min);
            let (identity, proof) = (Identity::Spiffe(id), Proof::MutualTls);
            Ok((VerifiedIdentity { identity, proof, expires, generation }, until))
        })
    }
}

/// The one URI SAN of a leaf that may not sign (SPIFFE X.509-SVID, sections 2 and 4).
pub(super) fn spiffe_id(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Refusal> {
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| Refusal::Malformed)?;
    if !rest.is_empty() {
        return Err(Refusal::Malformed);
    }
    let constraints = certificate.basic_constraints().map_err(|_| Refusal::Malformed)?;
    let usage = certificate.key_usage().map_err(|_| Refusal::Malformed)?;
    let signs = usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign());
    if signs || constraints.is_some_and(|c| c.value.ca) {
        return Err(Refusal::SigningCertificate);
    }
    let mut uris = chain::uris(&certificate)?.into_iter();
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(Refusal::NotOneUriSan) };
    uri.parse().map_err(|_| Refusal::NotSpiffe)
}

#[cfg(test)]
mod tests;
