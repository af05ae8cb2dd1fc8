//! The TLS side of the proof: what rustls asks when a client presents its chain.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::trust::{Refusal, Trust};

/// Verifies client chains as X.509-SVIDs. Resumed handshakes do not come here: the listener verifies those again itself.
#[derive(Debug)]
pub(crate) struct SpiffeVerifier {
    trust: Arc<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SpiffeVerifier {
    pub(crate) fn new(trust: Arc<Trust>) -> Self {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { trust, algorithms }
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> =
            std::iter::once(end_entity).chain(intermediates).cloned().collect();
        match self.trust.verify(&chain, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refusal) => {
                self.trust.count(refusal);
                Err(Error::InvalidCertificate(alert(refusal)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The error whose TLS alert says what is wrong (RFC 8446, section 6.2).
fn alert(refusal: Refusal) -> CertificateError {
    match refusal {
        Refusal::Expired | Refusal::RootNotInDate => CertificateError::Expired,
        Refusal::NotYetValid => CertificateError::NotValidYet,
        Refusal::UnknownIssuer | Refusal::UnknownTrustDomain => CertificateError::UnknownIssuer,
        Refusal::Malformed | Refusal::NoCertificate => CertificateError::BadEncoding,
        Refusal::NotOneUriSan
        | Refusal::NotSpiffe
        | Refusal::SigningCertificate
        | Refusal::IssuerMayNotSign
        | Refusal::NameNotPermitted
        | Refusal::Unverified
        | Refusal::TooMany => CertificateError::ApplicationVerificationFailure,
    }
}
