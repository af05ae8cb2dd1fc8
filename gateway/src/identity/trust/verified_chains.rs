//! The chains that were verified lately.
//!
//! A workload shows the same chain whenever it connects, and a listener looks at it twice. To go through its signatures is the dearest of what a
//! gateway does for a connection that is resumed, and a third of that for a new one.
//!
//! **Invariant:** a chain counts as verified only byte for byte as it was, under the very bundles, from the time at which it was looked at until
//! something on its path ends. What was refused is not remembered: it is looked at again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::VerifiedIdentity;

/// Those of so many workloads; 300 bytes each. One more, and all are forgotten.
pub(super) const REMEMBERED: usize = 8192;

type ChainDigest = [u8; SHA256_OUTPUT_LEN];

/// Shared by all cores. It is held for no longer than a look takes.
#[derive(Debug, Default)]
pub(super) struct VerifiedChains(Mutex<HashMap<ChainDigest, Remembered>>);

#[derive(Debug)]
struct Remembered {
    whom: VerifiedIdentity,
    /// When it was looked at.
    since: UnixTime,
}

impl VerifiedChains {
    /// Whom the chain proves at `now` under the bundles of this generation: what `verify` says, or said before.
    ///
    /// # Errors
    /// Those of `verify`.
    pub(super) fn get_or_verify<E>(
        &self,
        chain: &[CertificateDer<'_>],
        (now, generation): (UnixTime, u64),
        verify: impl FnOnce() -> Result<VerifiedIdentity, E>,
    ) -> Result<VerifiedIdentity, E> {
        let digest = digest(chain);
        if let Some(known) = self.lock().get(&digest)
            && known.holds(now, generation)
        {
            return Ok(known.whom.clone());
        }
        let whom = verify()?;
        let mut all = self.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(digest, Remembered { whom: whom.clone(), since: now });
        Ok(whom)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChainDigest, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn holds(&self, now: UnixTime, generation: u64) -> bool {
        let ends = u64::try_from(self.whom.expires().as_second()).unwrap_or_default();
        self.whom.generation() == generation && self.since <= now && now.as_secs() < ends
    }
}

/// Of each certificate with its length: no two chains are written alike.
fn digest(chain: &[CertificateDer<'_>]) -> ChainDigest {
    let mut context = Context::new(&SHA256);
    for certificate in chain {
        context.update(&(certificate.len() as u64).to_le_bytes());
        context.update(certificate);
    }
    let mut digest = [0; SHA256_OUTPUT_LEN];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
