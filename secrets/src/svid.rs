//! The gateway's own SVIDs, which it logs in to stores with and is known to others by.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::error::Failure;

/// What comes later, or why not.
pub type Making<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// Makes the gateway's own SVIDs, anew each time.
pub trait OwnSvids: Send + Sync {
    /// A token for this audience.
    fn jwt(&self, audience: String) -> Making<JwtSvid>;

    /// A certificate and its key.
    fn x509(&self) -> Making<X509Svid>;
}

/// A token that says who the gateway is.
pub struct JwtSvid {
    /// In compact form (RFC 7515, section 7.1).
    pub token: Zeroizing<Vec<u8>>,
    /// When it ends.
    pub ends: Timestamp,
}

/// A certificate that says who the gateway is.
pub struct X509Svid {
    /// PEM, leaf first.
    pub chain: Vec<u8>,
    /// PEM.
    pub key: Zeroizing<Vec<u8>>,
    /// When the first of the chain to end ends.
    pub ends: Timestamp,
}

/// Who makes them, from when the gateway says so.
#[derive(Clone, Default)]
pub(crate) struct SvidSource(Arc<OnceLock<Arc<dyn OwnSvids>>>);

impl SvidSource {
    /// Takes who makes them. What it was told first stays.
    pub(crate) fn reach(&self, svids: Arc<dyn OwnSvids>) {
        let _ = self.0.set(svids);
    }

    pub(crate) fn svids(&self) -> Result<&dyn OwnSvids, Failure> {
        self.0
            .get()
            .map(|svids| &**svids)
            .ok_or(Failure::Misconfigured("the gateway has no identity of its own"))
    }
}
