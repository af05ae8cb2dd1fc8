//! Own certificate and trust bundles from files, taken anew when their bytes change.
//!
//! **Invariant:** the own certificate with its key, and the bundle of each trust domain, are taken each for itself and
//! each whole or not at all; the last good one serves until the next good one. So what a partner's file holds decides
//! on the partner's callers alone. A bundle without certificates is a good one: nobody of its domain is trusted.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tollgate_policy::caller::TrustDomain;

use super::trust::{Bundle, Trust, spiffe_id};

/// Where the gateway's own certificate and the trust bundles are.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySettings {
    /// What the gateway presents.
    pub certificate: CertificateFiles,
    /// One bundle for each trust domain whose workloads may call.
    pub trust_domains: BTreeMap<TrustDomain, BundleFile>,
}

/// A PEM chain, leaf first, and its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain.
    pub cert_file: PathBuf,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
}

/// A PEM file of CA certificates.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleFile {
    /// The file.
    pub bundle_file: PathBuf,
}

/// Why a file was not taken: which setting names it, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {fault}")]
pub(crate) struct FileError {
    pub(crate) field: String,
    pub(crate) fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: no PEM certificate in it")]
    NoCertificate(PathBuf),
    #[error("{0}: no PEM private key in it")]
    NoKey(PathBuf),
    #[error("certFile {0} and keyFile {1} do not belong together")]
    Apart(PathBuf, PathBuf),
    #[error("{0}: {1}")]
    Unusable(PathBuf, String),
}

const CERTIFICATE: &str = "identity.certificate.certFile";
const KEY: &str = "identity.certificate.keyFile";

impl Fault {
    fn at(self, field: impl Into<String>) -> FileError {
        FileError { field: field.into(), fault: self }
    }
}

/// The identity in force: what TLS presents, and whom it trusts.
#[derive(Debug)]
pub(crate) struct IdentityFiles {
    settings: IdentitySettings,
    certificate: Arc<OwnCertificate>,
    pub(crate) trust: Arc<Trust>,
    /// A digest of the own certificate's files as they were taken.
    seen: Vec<u8>,
    bundles: BTreeMap<TrustDomain, Taken>,
    faults: Vec<FileError>,
    standing: Arc<FilesInForce>,
}

/// The bundle of one trust domain, as it was taken.
#[derive(Debug, Default)]
struct Taken {
    bundle: Arc<Bundle>,
    /// Of the file; empty where none was good yet.
    digest: Vec<u8>,
    /// The file was empty when it was last looked at.
    hollow: bool,
}

/// The settings that name the files, and whether each is in force as it is on disk.
#[derive(Debug, Default)]
pub(crate) struct FilesInForce(ArcSwap<Vec<(String, bool)>>);

impl FilesInForce {
    /// The settings in a fixed order.
    pub(crate) fn all(&self) -> Arc<Vec<(String, bool)>> {
        self.0.load_full()
    }
}

impl IdentityFiles {
    /// Reads everything. Relative paths count from `base`. A bundle that cannot be used is an error where it is of the
    /// gateway's own trust domain, or where none can be used; of any other domain nobody is trusted until it can.
    pub(crate) fn load(mut settings: IdentitySettings, base: &Path) -> Result<Self, FileError> {
        settings.certificate.cert_file = base.join(&settings.certificate.cert_file);
        settings.certificate.key_file = base.join(&settings.certificate.key_file);
        for bundle in settings.trust_domains.values_mut() {
            bundle.bundle_file = base.join(&bundle.bundle_file);
        }
        let (key, seen) = read_certificate(&settings.certificate)?;
        let own = key.cert.first().and_then(|leaf| spiffe_id(leaf).ok());
        let mut bundles = BTreeMap::new();
        let mut faults = Vec::new();
        for (domain, BundleFile { bundle_file }) in &settings.trust_domains {
            let taken = match read_bundle(domain, bundle_file) {
                Ok(taken) => taken,
                Err(error) if own.as_ref().is_some_and(|own| own.trust_domain() == domain) => {
                    return Err(error);
                }
                Err(error) => {
                    faults.push(error);
                    Taken::default()
                }
            };
            bundles.insert(domain.clone(), taken);
        }
        if faults.len() == bundles.len()
            && let Some(error) = faults.pop()
        {
            return Err(error);
        }
        let certificate = Arc::new(OwnCertificate(ArcSwap::from_pointee(key)));
        let trust = Trust::new(domains(&bundles));
        let files = Self { certificate, trust, seen, bundles, faults, standing: Arc::default(), settings };
        files.stand();
        Ok(files)
    }

    /// What the TLS listeners present.
    pub(crate) fn certificate(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::<OwnCertificate>::clone(&self.certificate)
    }

    /// Which files are in force, kept up to date.
    pub(crate) fn standing(&self) -> Arc<FilesInForce> {
        Arc::clone(&self.standing)
    }

    /// What the last look did not take, and why.
    pub(crate) fn faults(&self) -> &[FileError] {
        &self.faults
    }

    /// Takes what changed on disk; says which parts were taken.
    pub(crate) fn refresh(&mut self) -> Vec<String> {
        self.faults.clear();
        let mut said = Vec::new();
        match read_certificate(&self.settings.certificate) {
            Ok((key, digest)) if digest != self.seen => {
                self.certificate.0.store(Arc::new(key));
                self.seen = digest;
                said.push("certificate".to_owned());
            }
            Ok(_) => {}
            Err(error) => self.faults.push(error),
        }
        let before = said.len();
        for (domain, BundleFile { bundle_file }) in &self.settings.trust_domains {
            let last = self.bundles.entry(domain.clone()).or_default();
            match read_bundle(domain, bundle_file) {
                Ok(new) if new.digest == last.digest => last.hollow = new.hollow,
                // Whoever writes a file in place empties it first: what is empty has to be so twice.
                Ok(new) if new.hollow && !last.hollow => last.hollow = true,
                Ok(new) => {
                    let nobody = if new.hollow { ", which trusts nobody," } else { "" };
                    said.push(format!("trust bundle of {domain}{nobody}"));
                    *last = new;
                }
                Err(error) => {
                    last.hollow = false;
                    self.faults.push(error);
                }
            }
        }
        if said.len() > before {
            self.trust.replace(domains(&self.bundles));
        }
        self.stand();
        said
    }

    fn stand(&self) {
        let bundles = self.bundles.keys().map(bundle_field);
        let fields = [CERTIFICATE, KEY].into_iter().map(str::to_owned).chain(bundles);
        let stands = |field: &String| !self.faults.iter().any(|error| error.field == *field);
        let all = fields.map(|field| {
            let stands = stands(&field);
            (field, stands)
        });
        self.standing.0.store(Arc::new(all.collect()));
    }
}

#[derive(Debug)]
struct OwnCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(file).map_err(|error| Fault::Read(file.into(), error))
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Fault::NoCertificate(file.into())),
    }
}

/// The key with its chain, and a digest of both files to tell a change by. The key's bytes are not kept.
fn read_certificate(files: &CertificateFiles) -> Result<(CertifiedKey, Vec<u8>), FileError> {
    let CertificateFiles { cert_file, key_file } = files;
    let chain_pem = read(cert_file).map_err(|fault| fault.at(CERTIFICATE))?;
    let key_pem = zeroize::Zeroizing::new(read(key_file).map_err(|fault| fault.at(KEY))?);
    let chain = certificates(cert_file, &chain_pem).map_err(|fault| fault.at(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| Fault::NoKey(key_file.clone()).at(KEY))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => Fault::Apart(cert_file.clone(), key_file.clone()).at(KEY),
        Error::InvalidCertificate(_) => Fault::Unusable(cert_file.clone(), error.to_string()).at(CERTIFICATE),
        error => Fault::Unusable(key_file.clone(), error.to_string()).at(KEY),
    })?;
    Ok((certified, digest(&[&chain_pem, &key_pem])))
}

fn read_bundle(domain: &TrustDomain, file: &Path) -> Result<Taken, FileError> {
    let at = |fault: Fault| fault.at(bundle_field(domain));
    let pem = read(file).map_err(at)?;
    let hollow = is_hollow(&pem);
    let mut bundle = Bundle::default();
    let read = if hollow { Vec::new() } else { certificates(file, &pem).map_err(at)? };
    for certificate in read {
        let anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|error| at(Fault::Unusable(file.into(), error.to_string())))?;
        bundle.anchors.push(anchor.to_owned());
    }
    Ok(Taken { bundle: Arc::new(bundle), digest: digest(&[&pem]), hollow })
}

/// Whether there is nothing but white space, and comments as bundles have them.
fn is_hollow(pem: &[u8]) -> bool {
    pem.split(|byte| *byte == b'\n').all(|line| matches!(line.trim_ascii_start(), [] | [b'#', ..]))
}

fn bundle_field(domain: &TrustDomain) -> String {
    format!("identity.trustDomains.{domain}.bundleFile")
}

fn domains(bundles: &BTreeMap<TrustDomain, Taken>) -> HashMap<TrustDomain, Arc<Bundle>> {
    bundles.iter().map(|(domain, taken)| (domain.clone(), Arc::clone(&taken.bundle))).collect()
}

fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests;
