//! The TLS side of the proof: what rustls asks when a client presents its chain.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::refusal::Refusal;
use super::trust::Trust;

/// Verifies client chains as X.509-SVIDs. Resumed handshakes do not come here: the listener verifies those again itself.
#[derive(Debug)]
pub(crate) struct SpiffeVerifier {
    trust: Arc<Trust>,
    is_required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SpiffeVerifier {
    /// Whether a client that shows no chain `is_required` to.
    pub(crate) fn new(trust: Arc<Trust>, is_required: bool) -> Self {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { trust, is_required, algorithms }
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

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

/// The error whose TLS alert says what is wrong (RFC 8446, section 6.2), and which still says the exact word: alerts are fewer.
fn alert(refusal: Refusal) -> CertificateError {
    match refusal {
        Refusal::Expired => CertificateError::Expired,
        Refusal::NotYetValid => CertificateError::NotValidYet,
        Refusal::UnknownIssuer => CertificateError::UnknownIssuer,
        Refusal::Malformed => CertificateError::BadEncoding,
        Refusal::Revoked => CertificateError::Revoked,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

/// The word for an error that [`SpiffeVerifier`] made.
pub(crate) fn refusal_of(error: &CertificateError) -> Refusal {
    match error {
        CertificateError::Expired => Refusal::Expired,
        CertificateError::NotValidYet => Refusal::NotYetValid,
        CertificateError::UnknownIssuer => Refusal::UnknownIssuer,
        CertificateError::BadEncoding => Refusal::Malformed,
        CertificateError::Revoked => Refusal::Revoked,
        CertificateError::Other(OtherError(error)) => {
            error.downcast_ref().copied().unwrap_or(Refusal::Unverified)
        }
        _ => Refusal::Unverified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_the_word_that_the_metric_has() {
        for refusal in Refusal::ALL {
            assert_eq!(refusal_of(&alert(refusal)), refusal);
        }
    }
}
