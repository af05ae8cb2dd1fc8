//! The TLS of the connections to one store or token endpoint, and when its files changed.
//!
//! **Invariant:** the private key is read into a zeroized buffer; what rustls makes of it is rustls's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tollgate_policy::policy::ClientCertificate;

use crate::error::Failure;
use crate::read::{self, FileStamp, VALUE_LIMIT, bounded};

/// The files that the TLS is made of.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    /// The certificate authorities that verify the server, in PEM; `None`: the system's.
    pub(crate) ca: Option<PathBuf>,
    /// What we show it, if anything.
    pub(crate) shown: Option<ClientCertificate>,
}

impl TlsFiles {
    pub(super) const fn is_empty(&self) -> bool {
        self.ca.is_none() && self.shown.is_none()
    }

    pub(crate) fn stamp(&self) -> FileStamp {
        let shown = self.shown.iter().flat_map(|shown| [&shown.cert, &shown.key]);
        read::stamp(self.ca.iter().chain(shown))
    }

    pub(super) fn config(&self) -> Result<rustls::ClientConfig, Failure> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| Failure::Internal)?
            .with_root_certificates(roots(self.ca.as_deref())?);
        let Some(ClientCertificate { cert, key }) = &self.shown else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = fs::read(cert)
            .map_err(|_| Failure::Misconfigured("the client certificate cannot be read"))
            .and_then(|pem| {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
                chain.map_err(|_| Failure::Misconfigured("the client certificate is not PEM"))
            })?;
        let unreadable = Failure::Misconfigured("the client certificate's key cannot be read");
        let mut key = File::open(key).map_err(|_| unreadable)?;
        let (key, _) = bounded(&mut key, VALUE_LIMIT).map_err(|_| unreadable)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            Failure::Misconfigured("the client certificate's key is not a private key in PEM")
        })?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|_| Failure::Misconfigured("the client certificate and its key do not fit"))
    }
}

fn roots(ca: Option<&Path>) -> Result<rustls::RootCertStore, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    let Some(path) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() {
            Err(Failure::Misconfigured("this system has no trusted roots"))
        } else {
            Ok(roots)
        };
    };
    let pem = fs::read(path).map_err(|_| Failure::Misconfigured("the CA file cannot be read"))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| Failure::Misconfigured("the CA file is not PEM"))?;
        roots
            .add(certificate)
            .map_err(|_| Failure::Misconfigured("the CA file has a certificate that is no CA"))?;
    }
    if roots.is_empty() { Err(Failure::Misconfigured("the CA file has no certificate")) } else { Ok(roots) }
}

pub(crate) fn word(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::UnknownIssuer) => "certificate of an unknown issuer",
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "certificate expired"
        }
        Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "certificate for another name",
        Error::InvalidCertificate(_) => "certificate not accepted",
        Error::AlertReceived(Alert::CertificateRequired) => "the server wants a client certificate",
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate,
        ) => "the server does not accept the client certificate",
        Error::AlertReceived(_) => "the server ended the handshake",
        _ => "handshake failed",
    }
}
