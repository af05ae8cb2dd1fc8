//! TLS towards upstreams: one client configuration per way of verifying, shared by all that verify alike.
//!
//! **Invariant:** every configuration verifies the server's chain and name; there is no way to switch that off. Early data is off. A root
//! of a bundle that is out of date is not trusted; when that changes, so does what the bundle is taken for.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tollgate_policy::policy::TlsVerify;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::expiry::{Age, Validity, title};

use super::alpn::AlpnOffer;

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
    /// For the proxy before the destination, where TLS is spoken to it.
    pub(crate) proxy: Option<Arc<ClientConfig>>,
}

/// The configurations of one snapshot. The next snapshot starts from them, so that an unrelated edit keeps connections and
/// sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsClients {
    system: Option<TlsClient>,
    bundles: BTreeMap<PathBuf, CaBundle>,
    /// Of the snapshot before.
    before: HashMap<CaState, TlsClient>,
}

/// Tells a CA bundle from what it was: its bytes, and which of its certificates are in date.
pub(crate) type CaState = [u8; 32];

#[derive(Clone, Debug)]
struct CaBundle {
    state: CaState,
    client: TlsClient,
    roots: Vec<(String, Validity)>,
}

/// How far in the future the certificate of a CA may begin, for clocks that differ.
const SKEW: Duration = Duration::from_secs(5);

impl TlsClients {
    /// For the next snapshot.
    pub(crate) fn next(&self) -> Self {
        let bundles = self.bundles.values();
        let before = bundles.map(|bundle| (bundle.state, bundle.client.clone())).collect();
        Self { system: self.system.clone(), bundles: BTreeMap::new(), before }
    }

    /// The configuration for `verify`.
    pub(crate) fn client(&mut self, verify: &TlsVerify) -> Result<TlsClient, TlsSetupError> {
        match verify {
            TlsVerify::System => self.system(),
            TlsVerify::Bundle(file) => self.bundle(file),
        }
    }

    /// The files that configurations were made of, and what they were.
    pub(crate) fn states(&self) -> BTreeMap<PathBuf, Option<CaState>> {
        self.bundles.iter().map(|(file, bundle)| (file.clone(), Some(bundle.state))).collect()
    }

    /// From when to when the certificates of a bundle are valid, by what people call them.
    pub(crate) fn roots(&self, file: &Path) -> &[(String, Validity)] {
        self.bundles.get(file).map_or(&[], |bundle| &bundle.roots)
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
        if let Some(known) = self.bundles.get(file) {
            return Ok(known.client.clone());
        }
        let ca = CaFile::read(file, Timestamp::now())?;
        let known = self.before.get(&ca.state).cloned();
        let alike = self.bundles.values().find(|bundle| bundle.state == ca.state);
        let client = match known.or_else(|| alike.map(|bundle| bundle.client.clone())) {
            Some(client) => client,
            None => build(ca.in_date)?,
        };
        let bundle = CaBundle { state: ca.state, client: client.clone(), roots: ca.roots };
        self.bundles.insert(file.into(), bundle);
        Ok(client)
    }
}

/// What a CA bundle is now; `None` where it cannot be used.
pub(crate) fn ca_state(file: &Path) -> Option<CaState> {
    CaFile::read(file, Timestamp::now()).ok().map(|ca| ca.state)
}

/// A CA bundle as it was read. A certificate that is out of date verifies nobody: rustls does not ask for the dates of a root.
struct CaFile {
    state: CaState,
    in_date: RootCertStore,
    roots: Vec<(String, Validity)>,
}

impl CaFile {
    fn read(file: &Path, now: Timestamp) -> Result<Self, TlsSetupError> {
        let pem = std::fs::read(file).map_err(|error| TlsSetupError::Read(file.into(), error))?;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&pem);
        let (mut in_date, mut roots) = (RootCertStore::empty(), Vec::new());
        for (index, der) in CertificateDer::pem_slice_iter(&pem).enumerate() {
            let der = der.map_err(|_| TlsSetupError::Empty(file.into()))?;
            let read = X509Certificate::from_der(&der).ok();
            let read = read.map(|(_, read)| (title(index, &read), Validity::of(&read)));
            let (title, validity) = read.ok_or_else(|| TlsSetupError::Empty(file.into()))?;
            let age = validity.age(now, SKEW);
            roots.push((title, validity));
            if matches!(age, Age::NotYet | Age::Ended) {
                RootCertStore::empty().add(der)?;
                context.update(b"-");
            } else {
                in_date.add(der)?;
                context.update(b"+");
            }
        }
        if roots.is_empty() {
            return Err(TlsSetupError::Empty(file.into()));
        }
        let mut state = [0; 32];
        state.copy_from_slice(context.finish().as_ref());
        Ok(Self { state, in_date, roots })
    }
}

fn build(roots: RootCertStore) -> Result<TlsClient, TlsSetupError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = AlpnOffer::Http1.alpn();
    config.enable_early_data = false;
    Ok(TlsClient { config: Arc::new(config), id: NEXT.fetch_add(1, Ordering::Relaxed), proxy: None })
}
