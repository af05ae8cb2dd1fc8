//! The operator's authority: its certificate, what it may sign, and its key.

use std::sync::Arc;

use rcgen::{Issuer, PublicKeyData, SignatureAlgorithm};
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::constraints::Constraints;
use crate::expiry::Validity;

/// An authority that can sign.
#[derive(Debug)]
pub(super) struct CertificateAuthority {
    pub(super) issuer: Issuer<'static, CaKey>,
    /// Its own certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) validity: Validity,
    /// For people.
    pub(super) title: String,
    constraints: Constraints,
}

/// The two files of an authority, in PEM.
pub(crate) struct CaMaterial<'a> {
    pub(crate) certificate: &'a [u8],
    pub(crate) key: &'a [u8],
    /// Of the certificate, for people.
    pub(crate) title: String,
}

/// What is wrong with an authority.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("no PEM certificate in it")]
    NoCertificate,
    #[error("no PEM private key in it")]
    NoKey,
    #[error("the key is not the certificate's")]
    Apart,
    #[error("the first certificate is no authority: it may not sign others (CA:TRUE, keyCertSign)")]
    NoAuthority,
    #[error("the first certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the key is of a kind that cannot sign here: an ECDSA key of P-256 or P-384, RSA or Ed25519 can")]
    Kind,
}

impl Unusable {
    /// Whether it is the key that is wrong.
    pub(super) const fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Apart | Self::Kind)
    }
}

impl CertificateAuthority {
    /// Of its files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn of(material: CaMaterial<'_>) -> Result<Self, Unusable> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(material.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(Unusable::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(material.key).map_err(|_| Unusable::NoKey)?;
        let own = chain.first().ok_or(Unusable::NoCertificate)?;
        let unreadable = |error: &dyn std::fmt::Display| Unusable::Unreadable(error.to_string());
        let (_, read) = X509Certificate::from_der(own).map_err(|error| unreadable(&error))?;
        let may_sign =
            read.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        if !read.is_ca() || !may_sign {
            return Err(Unusable::NoAuthority);
        }
        let public = read.public_key().subject_public_key.data.to_vec();
        let validity = Validity::of(&read);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => Unusable::Apart,
                rustls::Error::InvalidCertificate(_) => unreadable(&error),
                _ => Unusable::Kind,
            })?;
        let key = CaKey::new(certified.key, public).ok_or(Unusable::Kind)?;
        let issuer = Issuer::from_ca_cert_der(own, key).map_err(|error| unreadable(&error))?;
        let constraints = Constraints::of(&chain);
        Ok(Self { issuer, validity, title: material.title, constraints, chain })
    }

    /// Whether its name constraints, if it has any, let it sign for `name`.
    pub(super) fn permits(&self, name: &str) -> bool {
        self.constraints.permit(name)
    }
}

/// A key as rustls holds it, which signs certificates.
#[derive(Debug)]
pub(super) struct CaKey {
    key: Arc<dyn SigningKey>,
    public: Vec<u8>,
    scheme: SignatureScheme,
    algorithm: &'static SignatureAlgorithm,
}

impl CaKey {
    fn new(key: Arc<dyn SigningKey>, public: Vec<u8>) -> Option<Self> {
        let kinds = [
            (SignatureScheme::ECDSA_NISTP256_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, &rcgen::PKCS_ECDSA_P384_SHA384),
            (SignatureScheme::RSA_PKCS1_SHA256, &rcgen::PKCS_RSA_SHA256),
            (SignatureScheme::ED25519, &rcgen::PKCS_ED25519),
        ];
        let (scheme, algorithm) =
            kinds.into_iter().find(|(scheme, _)| key.choose_scheme(&[*scheme]).is_some())?;
        Some(Self { key, public, scheme, algorithm })
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl rcgen::SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.key.choose_scheme(&[self.scheme]).ok_or(rcgen::Error::RemoteKeyError)?;
        signer.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
