//! Own certificate and trust bundles from files, taken anew when their bytes change.
//!
//! **Invariant:** a set of files is taken whole or not at all; the last good one serves until the next good one.

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

use super::trust::{Bundle, Trust};

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
    seen: (Vec<u8>, Vec<u8>),
}

impl IdentityFiles {
    /// Reads everything. Relative paths count from `base`.
    pub(crate) fn load(mut settings: IdentitySettings, base: &Path) -> Result<Self, FileError> {
        settings.certificate.cert_file = base.join(&settings.certificate.cert_file);
        settings.certificate.key_file = base.join(&settings.certificate.key_file);
        for bundle in settings.trust_domains.values_mut() {
            bundle.bundle_file = base.join(&bundle.bundle_file);
        }
        let (key, own) = read_certificate(&settings.certificate)?;
        let (domains, bundles) = read_bundles(&settings.trust_domains)?;
        let certificate = Arc::new(OwnCertificate(ArcSwap::from_pointee(key)));
        Ok(Self { certificate, trust: Trust::new(domains), seen: (own, bundles), settings })
    }

    /// What the TLS listeners present.
    pub(crate) fn certificate(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::<OwnCertificate>::clone(&self.certificate)
    }

    /// Takes what changed on disk; says which part was taken.
    pub(crate) fn refresh(&mut self) -> Result<Option<&'static str>, FileError> {
        let (key, own) = read_certificate(&self.settings.certificate)?;
        let (domains, bundles) = read_bundles(&self.settings.trust_domains)?;
        let (new_own, new_bundles) = (own != self.seen.0, bundles != self.seen.1);
        if new_own {
            self.certificate.0.store(Arc::new(key));
        }
        if new_bundles {
            self.trust.replace(domains);
        }
        self.seen = (own, bundles);
        Ok(match (new_own, new_bundles) {
            (true, true) => Some("certificate and trust bundles"),
            (true, false) => Some("certificate"),
            (false, true) => Some("trust bundles"),
            (false, false) => None,
        })
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

fn read_bundles(
    files: &BTreeMap<TrustDomain, BundleFile>,
) -> Result<(HashMap<TrustDomain, Bundle>, Vec<u8>), FileError> {
    let mut domains = HashMap::new();
    let mut all = Vec::new();
    for (domain, BundleFile { bundle_file }) in files {
        let at = |fault: Fault| fault.at(format!("identity.trustDomains.{domain}.bundleFile"));
        let pem = read(bundle_file).map_err(at)?;
        let mut bundle = Bundle::default();
        for certificate in certificates(bundle_file, &pem).map_err(at)? {
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| at(Fault::Unusable(bundle_file.clone(), error.to_string())))?;
            bundle.anchors.push(anchor.to_owned());
        }
        all.push(pem);
        domains.insert(domain.clone(), bundle);
    }
    let parts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    Ok((domains, digest(&parts)))
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
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    #[test]
    fn a_file_that_is_not_taken_is_named_with_its_setting() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let CertifiedKey { cert, signing_key } =
                generate_simple_self_signed(vec!["tollgate".into()]).unwrap();
            std::fs::write(directory.path().join(format!("{name}.crt")), cert.pem()).unwrap();
            std::fs::write(directory.path().join(format!("{name}.key")), signing_key.serialize_pem())
                .unwrap();
        }
        let load = |cert: &str, key: &str, bundle: &str| {
            let certificate = CertificateFiles { cert_file: cert.into(), key_file: key.into() };
            let bundle = BundleFile { bundle_file: bundle.into() };
            let trust_domains = BTreeMap::from([("prod.acme".parse().unwrap(), bundle)]);
            let loaded =
                IdentityFiles::load(IdentitySettings { certificate, trust_domains }, directory.path());
            let base = format!("{}/", directory.path().display());
            loaded.map(drop).map_err(|error| error.to_string().replace(&base, ""))
        };
        load("a.crt", "a.key", "b.crt").unwrap();
        for (files, said) in [
            (("a.crt", "b.key", "a.crt"), "keyFile: certFile a.crt and keyFile b.key do not belong together"),
            (("a.crt", "c.key", "a.crt"), "keyFile: c.key: No such file"),
            (("c.crt", "a.key", "a.crt"), "certFile: c.crt: No such file"),
            (("a.crt", "a.crt", "a.crt"), "keyFile: a.crt: no PEM private key in it"),
            (("a.key", "a.key", "a.crt"), "certFile: a.key: no PEM certificate in it"),
        ] {
            let error = load(files.0, files.1, files.2).unwrap_err();
            assert!(error.starts_with(&format!("identity.certificate.{said}")), "{error}");
        }
        let error = load("a.crt", "a.key", "a.key").unwrap_err();
        assert_eq!(error, "identity.trustDomains.prod.acme.bundleFile: a.key: no PEM certificate in it");
    }
}
