//! Own certificate and trust bundles from files, taken anew when their bytes change.
//!
//! **Invariant:** the own certificate with its key, and the bundle of each trust domain, are taken each for itself and
//! each whole or not at all, and only after two looks found the same; the last good one serves until the next good one. So what a
//! partner's file holds decides on the partner's callers alone. A bundle without certificates is a good one: nobody of its domain is
//! trusted. One in which nothing may sign is none.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_policy::caller::TrustDomain;
use tollgate_policy::compile::HomeCluster;
use tollgate_policy::target::GatewayName;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::bundle::{Bundle, Root, Unfit};
use super::tokens::{TokenIssuerSettings, TokenIssuers};
use super::trust::{Trust, spiffe_id};
use crate::expiry::{Dated, Purpose, Validity};
use crate::stable_file::{Look, StableFile};

/// Where the gateway's own certificate and the trust bundles are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySettings {
    /// The gateway's own certificate.
    pub certificate: CertificateFiles,
    /// A bundle for each trust domain whose workloads may call with a client certificate. Required unless `tokens` is there.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, BundleFile>")]
    pub trust_domains: BTreeMap<TrustDomain, BundleFile>,
    /// The issuers whose tokens prove callers. See [callers by token](#callers-by-token).
    #[serde(default)]
    pub tokens: Vec<TokenIssuerSettings>,
    /// How far in the future a caller's certificate or token may begin, and how long past its end a token is taken, for clocks that differ:
    /// `0s` to `60s`.
    #[serde(default = "clock_skew", deserialize_with = "crate::settings::pause")]
    #[schemars(with = "crate::settings::PauseText", extend("default" = "5s"))]
    pub clock_skew: Duration,
}

/// The most that `clockSkew` may be.
pub(crate) const MOST_SKEW: Duration = Duration::from_secs(60);

const fn clock_skew() -> Duration {
    Duration::from_secs(5)
}

/// A PEM chain, leaf first, and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// The PEM file with the certificate chain, its own certificate first.
    pub cert_file: PathBuf,
    /// The PEM file with its key: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
}

/// A PEM file of CA certificates.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleFile {
    /// The PEM file with its certificate authorities.
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
    #[error("{0}: no certificate in it may sign others: {1}")]
    NoAuthority(PathBuf, Unfit),
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
    own: Watched,
    pub(crate) trust: Arc<Trust>,
    bundles: BTreeMap<TrustDomain, LoadedBundle>,
    standing: Arc<FilesInForce>,
}

/// Files that are taken together.
#[derive(Debug)]
struct Watched {
    settle: StableFile<Digest>,
    /// As they were when they were taken; `None` where they never were.
    in_force: Option<Digest>,
    /// Why what is there now is not in force.
    fault: Option<FileError>,
}

/// Tells files from what they were; what the system says where they cannot be read.
type Digest = Result<Vec<u8>, String>;

impl Watched {
    const fn new(taken: Digest, fault: Option<FileError>) -> Self {
        Self { settle: StableFile::new(Some(taken)), in_force: None, fault }
    }

    /// Whether files that are now like this are to be taken.
    fn is_new(&mut self, now: &Digest) -> bool {
        if self.settle.look(now.clone()) != Look::Settled {
            return false;
        }
        let is_old = self.in_force.as_ref() == Some(now);
        if is_old {
            self.fault = None;
        }
        !is_old
    }

    fn took(&mut self, now: Digest) {
        (self.in_force, self.fault) = (Some(now), None);
    }
}

/// The bundle of one trust domain, as it was taken.
#[derive(Debug)]
struct LoadedBundle {
    bundle: Arc<Bundle>,
    /// What was left out of it.
    unfit: Vec<Unfit>,
    watched: Watched,
}

/// The settings that name the files, whether each is in force as it is on disk, and when what is in force ends.
#[derive(Debug, Default)]
pub(crate) struct FilesInForce {
    files: ArcSwap<Vec<(String, bool)>>,
    dated: ArcSwap<Vec<Dated>>,
}

impl FilesInForce {
    /// The settings in a fixed order.
    pub(crate) fn all(&self) -> Arc<Vec<(String, bool)>> {
        self.files.load_full()
    }

    /// The own certificate, and the roots of all bundles.
    pub(crate) fn dated(&self) -> Arc<Vec<Dated>> {
        self.dated.load_full()
    }
}

impl IdentityFiles {
    /// Reads everything. Relative paths count from `base`; `home` is where one workload has two names. A bundle that cannot be used is an error where it is of the
    /// gateway's own trust domain, or where none can be used; of any other domain nobody is trusted until it can.
    pub(crate) fn load(
        mut settings: IdentitySettings,
        base: &Path,
        home: HomeCluster,
    ) -> Result<Self, FileError> {
        settings.certificate.cert_file = base.join(&settings.certificate.cert_file);
        settings.certificate.key_file = base.join(&settings.certificate.key_file);
        for bundle in settings.trust_domains.values_mut() {
            bundle.bundle_file = base.join(&bundle.bundle_file);
        }
        let pems = Pems::read(&settings.certificate)?;
        let key = pems.certified(&settings.certificate)?;
        let mut own = Watched::new(pems.digest(), None);
        own.took(pems.digest());
        let id = key.cert.first().and_then(|leaf| spiffe_id(leaf).ok());
        let mut bundles = BTreeMap::new();
        for (domain, BundleFile { bundle_file }) in &settings.trust_domains {
            let is_own = id.as_ref().is_some_and(|id| id.trust_domain() == domain);
            let taken = LoadedBundle::first(domain, bundle_file);
            match taken.watched.fault {
                Some(error) if is_own => return Err(error),
                _ => bundles.insert(domain.clone(), taken),
            };
        }
        if bundles.values().all(|taken| taken.watched.fault.is_some())
            && let Some(error) = bundles.values_mut().rev().find_map(|taken| taken.watched.fault.take())
        {
            return Err(error);
        }
        let certificate = Arc::new(OwnCertificate(ArcSwap::from_pointee(key)));
        let tokens = TokenIssuers::new(&settings.tokens, base, settings.clock_skew, home);
        let trust = Trust::with_tokens(domains(&bundles), settings.clock_skew, tokens);
        let files = Self { certificate, trust, own, bundles, standing: Arc::default(), settings };
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

    /// What is not in force as it is on disk, and why.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &FileError> {
        let bundles = self.bundles.values().map(|taken| &taken.watched);
        std::iter::once(&self.own).chain(bundles).filter_map(|watched| watched.fault.as_ref())
    }

    /// What is in force and will not do, by the setting that names it. `names`: those that callers use.
    pub(crate) fn remarks(&self, names: &[GatewayName], now: Timestamp) -> Vec<(String, String)> {
        let mut remarks = Vec::new();
        let file = self.settings.certificate.cert_file.display();
        for name in unnamed(&self.certificate.0.load().cert, names) {
            let message = format!(
                "{file}: the certificate is not for `{name}`, which is one of `names`: who calls it by that name refuses the gateway"
            );
            remarks.push((CERTIFICATE.to_owned(), message));
        }
        for (domain, taken) in &self.bundles {
            let file = self.settings.trust_domains.get(domain).map(|bundle| bundle.bundle_file.display());
            let Some(file) = file else { continue };
            let unfit = taken.unfit.iter().map(|unfit| (bundle_field(domain), format!("{file}: {unfit}")));
            remarks.extend(unfit);
        }
        for dated in self.standing.dated().iter() {
            let field = match dated.purpose {
                Purpose::Bundle => format!("identity.trustDomains.{}.bundleFile", dated.name),
                _ => CERTIFICATE.to_owned(),
            };
            remarks.extend(dated.warning(now, self.settings.clock_skew).map(|warning| (field, warning)));
        }
        remarks
    }

    /// Takes what changed on disk; says which parts were taken.
    pub(crate) fn refresh(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        if self.refresh_own() {
            said.push("certificate".to_owned());
        }
        let before = said.len();
        for (domain, BundleFile { bundle_file }) in &self.settings.trust_domains {
            let Some(taken) = self.bundles.get_mut(domain) else { continue };
            if taken.refresh(domain, bundle_file) {
                let nobody = if taken.bundle.roots().is_empty() { ", which trusts nobody," } else { "" };
                said.push(format!("trust bundle of {domain}{nobody}"));
            }
        }
        if said.len() > before {
            self.trust.replace(domains(&self.bundles));
        }
        self.stand();
        said
    }

    fn refresh_own(&mut self) -> bool {
        let files = &self.settings.certificate;
        let pems = Pems::read(files);
        let digest = pems.as_ref().map_or_else(|error| Err(error.to_string()), Pems::digest);
        if !self.own.is_new(&digest) {
            return false;
        }
        match pems.and_then(|pems| pems.certified(files)) {
            Ok(key) => {
                self.certificate.0.store(Arc::new(key));
                self.own.took(digest);
                true
            }
            Err(error) => {
                self.own.fault = Some(error);
                false
            }
        }
    }

    fn stand(&self) {
        let bundles = self.bundles.keys().map(bundle_field);
        let fields = [CERTIFICATE, KEY].into_iter().map(str::to_owned).chain(bundles);
        let stands = |field: &String| !self.faults().any(|error| error.field == *field);
        let all = fields.map(|field| {
            let stands = stands(&field);
            (field, stands)
        });
        self.standing.files.store(Arc::new(all.collect()));
        self.standing.dated.store(Arc::new(self.dated()));
    }

    fn dated(&self) -> Vec<Dated> {
        let mut dated = Vec::new();
        let CertificateFiles { cert_file, .. } = &self.settings.certificate;
        if let Some(validity) = of_chain(&self.certificate.0.load().cert) {
            let (name, title) = (CERTIFICATE.to_owned(), format!("{}: the certificate", cert_file.display()));
            dated.push(Dated { purpose: Purpose::Own, name, title, validity });
        }
        for (domain, taken) in &self.bundles {
            let Some(BundleFile { bundle_file }) = self.settings.trust_domains.get(domain) else { continue };
            for Root { validity, title, .. } in taken.bundle.roots() {
                let title = format!("{}: {title}", bundle_file.display());
                let name = domain.to_string();
                dated.push(Dated { purpose: Purpose::Bundle, name, title, validity: *validity });
            }
        }
        dated
    }
}

impl LoadedBundle {
    /// At the start there is no last good one to wait with.
    fn first(domain: &TrustDomain, file: &Path) -> Self {
        let pem = read(file).map_err(|fault| fault.at(bundle_field(domain)));
        let digest = bundle_digest(&pem);
        let watched = Watched::new(digest.clone(), None);
        let mut taken = Self { bundle: Arc::default(), unfit: Vec::new(), watched };
        taken.take(domain, file, pem, digest);
        taken
    }

    /// Whether another bundle was taken.
    fn refresh(&mut self, domain: &TrustDomain, file: &Path) -> bool {
        let pem = read(file).map_err(|fault| fault.at(bundle_field(domain)));
        let digest = bundle_digest(&pem);
        self.watched.is_new(&digest) && self.take(domain, file, pem, digest)
    }

    fn take(
        &mut self,
        domain: &TrustDomain,
        file: &Path,
        pem: Result<Vec<u8>, FileError>,
        digest: Digest,
    ) -> bool {
        match pem.and_then(|pem| read_bundle(file, &pem).map_err(|fault| fault.at(bundle_field(domain)))) {
            Ok((bundle, unfit)) => {
                (self.bundle, self.unfit) = (Arc::new(bundle), unfit);
                self.watched.took(digest);
                true
            }
            Err(error) => {
                self.watched.fault = Some(error);
                false
            }
        }
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

/// The own certificate's files.
struct Pems {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Pems {
    fn read(files: &CertificateFiles) -> Result<Self, FileError> {
        let chain = read(&files.cert_file).map_err(|fault| fault.at(CERTIFICATE))?;
        let key = Zeroizing::new(read(&files.key_file).map_err(|fault| fault.at(KEY))?);
        Ok(Self { chain, key })
    }

    fn digest(&self) -> Digest {
        Ok(digest(&[&self.chain, &self.key]))
    }

    /// The key with its chain. The key's bytes are not kept.
    fn certified(&self, files: &CertificateFiles) -> Result<CertifiedKey, FileError> {
        let CertificateFiles { cert_file, key_file } = files;
        let chain = certificates(cert_file, &self.chain).map_err(|fault| fault.at(CERTIFICATE))?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| Fault::NoKey(key_file.clone()).at(KEY))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => Fault::Apart(cert_file.clone(), key_file.clone()).at(KEY),
            Error::InvalidCertificate(_) => {
                Fault::Unusable(cert_file.clone(), error.to_string()).at(CERTIFICATE)
            }
            error => Fault::Unusable(key_file.clone(), error.to_string()).at(KEY),
        })
    }
}

/// The names that a certificate is not for.
fn unnamed<'a>(chain: &[CertificateDer<'_>], names: &'a [GatewayName]) -> Vec<&'a str> {
    let Some(leaf) = chain.first().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok()) else {
        return Vec::new();
    };
    let is_for = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(bare).is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    };
    names.iter().map(GatewayName::host).filter(|host| !is_for(host)).collect()
}

/// What the certificates of a chain have in common.
fn of_chain(chain: &[CertificateDer<'_>]) -> Option<Validity> {
    let read = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
    read.map(|(_, read)| Validity::of(&read)).reduce(Validity::and)
}

fn bundle_digest(pem: &Result<Vec<u8>, FileError>) -> Digest {
    pem.as_ref().map_or_else(|error| Err(error.to_string()), |pem| Ok(digest(&[pem])))
}

fn read_bundle(file: &Path, pem: &[u8]) -> Result<(Bundle, Vec<Unfit>), Fault> {
    let certificates = if is_hollow(pem) { Vec::new() } else { certificates(file, pem)? };
    let read = Bundle::of(&certificates).map_err(|error| Fault::Unusable(file.into(), error))?;
    match read {
        (bundle, mut unfit) if bundle.roots().is_empty() && !unfit.is_empty() => {
            Err(Fault::NoAuthority(file.into(), unfit.swap_remove(0)))
        }
        read => Ok(read),
    }
}

/// Whether there is nothing but white space, and comments as bundles have them.
fn is_hollow(pem: &[u8]) -> bool {
    pem.split(|byte| *byte == b'\n').all(|line| matches!(line.trim_ascii_start(), [] | [b'#', ..]))
}

fn bundle_field(domain: &TrustDomain) -> String {
    format!("identity.trustDomains.{domain}.bundleFile")
}

fn domains(bundles: &BTreeMap<TrustDomain, LoadedBundle>) -> HashMap<TrustDomain, Arc<Bundle>> {
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
