//! The certificate that a connection shows, where its destination names one.
//!
//! **Invariant:** a configuration is used for the version that it was made of only; it goes with that version, and with the policy. The private key is in
//! zeroized buffers, and in the signing key of rustls; what is wrong with it is said without a word of what it is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys};
use tollgate_policy::map::Map;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{Credential, Policy};
use tollgate_secrets::digest::sha256;
use tollgate_secrets::pem::{self, Label};
use tollgate_secrets::{Secret, Secrets, Version};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::{FromDer, X509Version};

use super::tls::TlsClient;
use crate::expiry::{Dated, Purpose, Validity};

/// What is wrong with a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub(crate) enum BadCertificate {
    Field,
    Chain,
    Version1,
    Key,
    Mismatch,
}

impl BadCertificate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Field => "a field of the secret is missing",
            Self::Chain => "it has no certificate chain in PEM",
            Self::Version1 => {
                "its first certificate is of X.509 version 1, and has to be of version 3: one that is issued with extensions, such as extendedKeyUsage = clientAuth"
            }
            Self::Key => {
                "it has no private key in PEM, or one that a passphrase protects or that is of no known kind"
            }
            Self::Mismatch => "the private key does not belong to the first certificate of the chain",
        }
    }
}

/// A client certificate to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientCert<'a> {
    pub(crate) credential: &'a Arc<Credential>,
    pub(crate) secret: &'a Secret,
}

/// The configurations that one core has ready, by destination.
#[derive(Default)]
pub(super) struct ClientConfigCache(Mutex<Map<ResourceId, CachedConfig>>);

struct CachedConfig {
    credential: Arc<Credential>,
    version: Version,
    tls: u64,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for ClientConfigCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfigCache").finish_non_exhaustive()
    }
}

impl ClientCert<'_> {
    /// What pools compare.
    pub(super) fn key(&self) -> (ResourceId, Version) {
        (self.credential.name.clone(), self.secret.version().clone())
    }
}

impl ClientConfigCache {
    /// `tls`, showing `cert` to `destination`.
    pub(super) fn config(
        &self,
        destination: &ResourceId,
        tls: &TlsClient,
        cert: ClientCert<'_>,
    ) -> Result<Arc<ClientConfig>, BadCertificate> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |kept: &&CachedConfig| {
            Arc::ptr_eq(&kept.credential, cert.credential)
                && kept.version == *cert.secret.version()
                && kept.tls == tls.id
        };
        if let Some(known) = kept.get(destination).filter(is_same) {
            return Ok(Arc::clone(&known.config));
        }
        let certified = certified(cert.credential, cert.secret)?;
        let mut config = (*tls.config).clone();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        // A session of another certificate would be resumed as that one.
        config.resumption = Resumption::default();
        let config = Arc::new(config);
        let (credential, version) = (Arc::clone(cert.credential), cert.secret.version().clone());
        let entry = CachedConfig { credential, version, tls: tls.id, config: Arc::clone(&config) };
        kept.insert(destination.clone(), entry);
        Ok(config)
    }

    /// Forgets everything: the policy changed.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets the certificates of which `current` says that their version is not the one in force: rotated, revoked, or too old.
    pub(super) fn retain(&self, current: impl Fn(&Credential, usize) -> Option<Arc<Secret>>) {
        let is_current = |kept: &CachedConfig| {
            current(&kept.credential, 0).is_some_and(|secret| *secret.version() == kept.version)
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, kept| is_current(kept));
    }
}

/// Whether `secret` can be shown, where `credential` is a client certificate.
pub(crate) fn fits(credential: &Credential, secret: &Secret) -> Result<(), &'static str> {
    if credential.client_certificate().is_none() {
        return Ok(());
    }
    certified(credential, secret).map(drop).map_err(BadCertificate::as_str)
}

/// SHA-256 of its first certificate in lower-case hex: public, and another for each certificate. `None` where it is not one that can be shown.
pub(crate) fn fingerprint(credential: &Credential, secret: &Secret) -> Option<String> {
    Some(sha256(certified(credential, secret).ok()?.cert.first()?))
}

/// When its first certificate ends; `None` where it is not one that can be shown.
pub(crate) fn ends(credential: &Credential, secret: &Secret) -> Option<Timestamp> {
    let certified = certified(credential, secret).ok()?;
    let (_, first) = X509Certificate::from_der(certified.cert.first()?).ok()?;
    Timestamp::from_second(first.validity().not_after.timestamp()).ok()
}

/// The client certificates that `secrets` has for a policy, those that can be read.
pub(crate) fn dated(policy: &Policy, secrets: &Secrets) -> Vec<Dated> {
    let shown = policy.credentials().filter(|credential| credential.client_certificate().is_some());
    let keys = shown.flat_map(|credential| (0..credential.keys.len()).map(move |at| (credential, at)));
    let dated = keys.filter_map(|(credential, at)| {
        let secret = secrets.peek(credential, at)?;
        let (chain, _) = credential.client_certificate()?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(secret.expose(Some(chain))?).flatten().collect();
        let read = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        let validity = read.map(|(_, read)| Validity::of(&read)).reduce(Validity::and)?;
        let alias = credential.keys.get(at).and_then(|key| key.alias.as_ref());
        let name =
            alias.map_or_else(|| credential.name.to_string(), |alias| format!("{} {alias}", credential.name));
        let title = format!("Credential {name}: the client certificate");
        Some(Dated { purpose: Purpose::Client, name, title, validity })
    });
    dated.collect()
}

/// Chain and key of `secret`, which belong together.
fn certified(credential: &Credential, secret: &Secret) -> Result<CertifiedKey, BadCertificate> {
    let (chain, key) = credential.client_certificate().ok_or(BadCertificate::Field)?;
    let field = |name| secret.expose(Some(name)).ok_or(BadCertificate::Field);
    of_pem(field(chain)?, field(key)?)
}

fn of_pem(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, BadCertificate> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(BadCertificate::Chain)?;
    let certified = CertifiedKey::new(chain, signing_key(key)?);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(BadCertificate::Mismatch),
        Err(Error::InconsistentKeys(_)) => Err(BadCertificate::Key),
        Err(_) if certified.cert.first().is_some_and(is_version_1) => Err(BadCertificate::Version1),
        Err(_) => Err(BadCertificate::Chain),
    }
}

fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, read)| read.version() == X509Version::V1)
}

fn signing_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, BadCertificate> {
    let (label, der) = pem::private_key(pem).ok_or(BadCertificate::Key)?;
    let key = match label {
        Label::Pkcs8 => PrivatePkcs8KeyDer::from(der.as_slice()).into(),
        Label::Pkcs1 => PrivatePkcs1KeyDer::from(der.as_slice()).into(),
        Label::Sec1 => PrivateSec1KeyDer::from(der.as_slice()).into(),
    };
    any_supported_type(&key).map_err(|_| BadCertificate::Key)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;
    use tokio::runtime::Handle;
    use tollgate_policy::compile::compile_files;
    use tollgate_policy::model::SourceFile;
    use tollgate_policy::policy::TlsVerify;

    use super::*;
    use crate::app;
    use crate::upstream::TlsClients;

    const RESOURCES: &str = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: up}
spec: {hosts: [api.up.test], tls: {clientCertificate: partner}}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {name: files}
spec: {file: {root: .}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {name: partner}
spec:
  destinations: [up]
  from: {store: files, path: partner, fields: [chain, key]}
  inject: {clientCertificate: {certificate: chain, key: key}}
";

    fn policy(directory: &Path) -> Policy {
        let file = SourceFile { path: directory.join("a.yaml"), text: RESOURCES.to_owned() };
        compile_files(&[file], &app::environment_of(&[], &[]).unwrap()).unwrap().policy
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Of OpenSSL, `x509 -req -signkey` without extensions.
    const OF_VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBFTCBvQIUMB+sRen/vpa5etm/oAwhGmYVuAkwCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwIBcNMjYxMTI2MDIyODEyWhgPMjEyNjExMDIwMjI4MTJaMA0xCzAJ
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE7MltMTEdR0AynDrH
R/FCZWOVbkEC7/3cg21UJXTYXDCi2PiRqGdFkzgsRQvKPoaEIKUOVzETLlTgQiN+
9zRrlzAKBggqhkjOPQQDAgNHADBEAiBoweDiKQdepnCmzAqTRkS1vlODdLoLHZD6
S9NMH/bE8gIgWU0CjPfdpGAeeS8TeRWF9F7OAAJFkrzWBE+c692BEEI=
-----END CERTIFICATE-----
";

    #[test]
    fn a_certificate_of_version_1_is_called_that() {
        let read = |chain: &str| of_pem(chain.as_bytes(), pair().1.as_bytes()).map(drop);
        assert_eq!(read(OF_VERSION_1), Err(BadCertificate::Version1));
        assert!(
            BadCertificate::Version1.to_string().contains("of X.509 version 1, and has to be of version 3")
        );
        let body = "-----BEGIN CERTIFICATE-----\nTWFu\n-----END CERTIFICATE-----\n";
        assert_eq!(read(body), Err(BadCertificate::Chain));
    }

    #[test]
    fn chain_and_key_are_taken_together_or_not_at_all() {
        let ((chain, key), (other, foreign)) = (pair(), pair());
        let read =
            |chain: &str, key: &str| of_pem(chain.as_bytes(), key.as_bytes()).map(|made| made.cert.len());
        assert_eq!(read(&chain, &key), Ok(1));
        assert_eq!(read(&format!("{chain}{other}"), &format!("a key:\n{key}")), Ok(2));
        assert_eq!(read(&chain, &foreign), Err(BadCertificate::Mismatch));
        assert_eq!(read(&format!("{other}{chain}"), &key), Err(BadCertificate::Mismatch));
        for wrong in ["", "no PEM", &key] {
            assert_eq!(read(wrong, &key), Err(BadCertificate::Chain), "{wrong}");
        }
        let cut = &key[..key.len() / 2];
        let garbled = key.replace('M', "*");
        let protected = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for wrong in ["", "no PEM", &chain, cut, &garbled, &protected] {
            assert_eq!(read(&chain, wrong), Err(BadCertificate::Key), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_certificate_that_is_in_force_no_longer_is_forgotten_though_no_call_asks() {
        let directory = TempDir::new().unwrap();
        let write = |(chain, key): (String, String)| {
            let text = serde_json::json!({"chain": chain, "key": key}).to_string();
            std::fs::write(directory.path().join("partner"), text).unwrap();
        };
        write(pair());
        let policy = policy(directory.path());
        let credential = Arc::clone(policy.credentials().next().unwrap());
        let secrets = Secrets::new(Handle::current(), Arc::new(|_| true));
        secrets.apply(&policy);
        let roots = directory.path().join("roots.pem");
        std::fs::write(&roots, pair().0).unwrap();
        let tls = TlsClients::default().client(&TlsVerify::Bundle(roots)).unwrap();
        let (showing, up) = (ClientConfigCache::default(), "up".parse().unwrap());
        let kept = || showing.0.lock().unwrap().len();
        let show =
            |secret: &Secret| showing.config(&up, &tls, ClientCert { credential: &credential, secret });
        let first = secrets.get(&credential, 0).await.unwrap();
        assert!(show(&first).is_ok());
        showing.retain(|credential, key| secrets.peek(credential, key));
        assert_eq!(kept(), 1, "it is in force");
        write(pair());
        let second = secrets.rejected(&credential, 0, first.version()).await.expect("another one");
        assert_eq!(kept(), 1, "nobody has looked");
        showing.retain(|credential, key| secrets.peek(credential, key));
        assert_eq!(kept(), 0);
        assert!(show(&second).is_ok());
        showing.retain(|_, _| None);
        assert_eq!(kept(), 0, "revoked");
    }

    #[test]
    fn what_is_wrong_says_nothing_of_the_content() {
        let (chain, key) = pair();
        let said = of_pem(key.as_bytes(), chain.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(said, "it has no certificate chain in PEM");
        assert_eq!(format!("{:?}", ClientConfigCache::default()), "ClientConfigCache { .. }");
    }
}
