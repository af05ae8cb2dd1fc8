//! The chains that were verified lately.
//!
//! A workload shows the same chain whenever it connects, and a listener looks at it twice. To verify it is the largest cost of a resumed
//! connection, and would be a third of that of a new one.
//!
//! **Invariant:** a chain counts as verified only byte for byte as it was, under the very bundles, from the time at which it was looked
//! at until something on its path ends, or a revocation list of its bundle. What was refused is not remembered: it is looked at again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::VerifiedIdentity;

/// At most so many chains, about 300 bytes each. One more clears all.
pub(super) const CAPACITY: usize = 8192;

type ChainDigest = [u8; SHA256_OUTPUT_LEN];

/// One chain for each leaf, so that whoever has a leaf takes no more room with other certificates behind it. Shared by all cores; the lock is
/// held for no longer than a look takes.
#[derive(Debug, Default)]
pub(super) struct VerifiedChainCache(Mutex<HashMap<ChainDigest, CachedChain>>);

#[derive(Debug)]
struct CachedChain {
    /// Of the certificates behind the leaf.
    issuers: ChainDigest,
    whom: VerifiedIdentity,
    /// When it was looked at, and until when the same would be found.
    since: UnixTime,
    until: Timestamp,
}

impl VerifiedChainCache {
    /// Whom the chain proves at `now` under the bundles of this generation: what `verify` says, or said before, until the time that it gave.
    ///
    /// # Errors
    /// Those of `verify`.
    pub(super) fn get_or_verify<E>(
        &self,
        chain: &[CertificateDer<'_>],
        (now, generation): (UnixTime, u64),
        verify: impl FnOnce() -> Result<(VerifiedIdentity, Timestamp), E>,
    ) -> Result<VerifiedIdentity, E> {
        let (leaf, issuers) = chain.split_at(chain.len().min(1));
        let (leaf, issuers) = (digest(leaf), digest(issuers));
        if let Some(known) = self.lock().get(&leaf)
            && known.issuers == issuers
            && known.holds(now, generation)
        {
            return Ok(known.whom.clone());
        }
        let (whom, until) = verify()?;
        let mut all = self.lock();
        if all.len() >= CAPACITY && !all.contains_key(&leaf) {
            all.clear();
        }
        all.insert(leaf, CachedChain { issuers, whom: whom.clone(), since: now, until });
        Ok(whom)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChainDigest, CachedChain>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedChain {
    fn holds(&self, now: UnixTime, generation: u64) -> bool {
        let until = u64::try_from(self.until.as_second()).unwrap_or_default();
        self.whom.generation() == generation && self.since <= now && now.as_secs() < until
    }
}

/// Of each certificate with its length: no two lists are written alike.
fn digest(certificates: &[CertificateDer<'_>]) -> ChainDigest {
    let mut context = Context::new(&SHA256);
    for certificate in certificates {
        context.update(&(certificate.len() as u64).to_le_bytes());
        context.update(certificate);
    }
    let mut digest = [0; SHA256_OUTPUT_LEN];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
