//! The gateway's own JWT-SVIDs, which it logs in to stores with.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::error::Failure;

/// Makes a JWT-SVID for an audience.
pub type JwtSvids = Arc<dyn Fn(String) -> MakesSvid + Send + Sync>;

type MakesSvid = Pin<Box<dyn Future<Output = Result<Zeroizing<Vec<u8>>, Failure>> + Send>>;

/// Who makes them, from when the gateway says so.
#[derive(Clone, Default)]
pub(crate) struct SvidSource(Arc<OnceLock<JwtSvids>>);

impl SvidSource {
    /// Takes who makes them. What it was told first stays.
    pub(crate) fn reach(&self, svids: JwtSvids) {
        let _ = self.0.set(svids);
    }

    pub(crate) async fn svid(&self, audience: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let without = Failure::Misconfigured(
            "the gateway has no SVIDs of its own: `identity.workloadApi` of its settings names no Workload API",
        );
        self.0.get().ok_or(without)?(audience.to_owned()).await
    }
}
