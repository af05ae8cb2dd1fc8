//! TLS towards upstreams: one client configuration per way of verifying, shared by all that verify alike.
//!
//! **Invariant:** every configuration verifies the server's chain and name; there is no way to switch that off. Early data is off.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tollgate_policy::policy::TlsVerify;

use super::offer::Offer;

/// Why a verifier could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsSetupError {
    #[error("cannot read the CA bundle {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("the CA bundle {0} holds no usable certificate")]
    Empty(PathBuf),
    #[error("the system's trust store holds no usable certificate")]
    NoSystemRoots,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// A client configuration with the identity that pools compare.
#[derive(Clone, Debug)]
pub(crate) struct TlsClient {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) id: u64,
}

/// The configurations of one snapshot. The next snapshot starts from them, so that an unrelated edit keeps connections and
/// sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsClients {
    by_roots: HashMap<[u8; 32], TlsClient>,
    system: Option<TlsClient>,
}

impl TlsClients {
    /// The configuration for `verify`.
    pub(crate) fn client(&mut self, verify: &TlsVerify) -> Result<TlsClient, TlsSetupError> {
        match verify {
            TlsVerify::System => self.system(),
            TlsVerify::Bundle(file) => self.bundle(file),
        }
    }

    fn system(&mut self) -> Result<TlsClient, TlsSetupError> {
        if let Some(known) = &self.system {
            return Ok(known.clone());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsSetupError::NoSystemRoots);
        }
        let client = build(roots)?;
        self.system = Some(client.clone());
        Ok(client)
    }

    fn bundle(&mut self, file: &Path) -> Result<TlsClient, TlsSetupError> {
        let pem = std::fs::read(file).map_err(|error| TlsSetupError::Read(file.into(), error))?;
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, &pem).as_ref());
        if let Some(known) = self.by_roots.get(&key) {
            return Ok(known.clone());
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| TlsSetupError::Empty(file.into()))?;
            roots.add(certificate)?;
        }
        if roots.is_empty() {
            return Err(TlsSetupError::Empty(file.into()));
        }
        let client = build(roots)?;
        self.by_roots.insert(key, client.clone());
        Ok(client)
    }
}

fn build(roots: RootCertStore) -> Result<TlsClient, TlsSetupError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = Offer::Http1.alpn();
    config.enable_early_data = false;
    Ok(TlsClient { config: Arc::new(config), id: NEXT.fetch_add(1, Ordering::Relaxed) })
}
