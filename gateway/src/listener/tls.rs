//! TLS towards the mesh.

use std::io;
use std::sync::Arc;

use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::{AlertDescription, CertificateError, Error};

use crate::identity::{Refusal, SpiffeVerifier, Trust};
use crate::settings::Protocol;

/// The configuration of one listener: client certificates required, tickets of its own, no early data.
///
/// # Errors
/// What rustls says of the parts.
pub(crate) fn server_config(
    trust: &Arc<Trust>,
    certificate: Arc<dyn ResolvesServerCert>,
    protocols: &[Protocol],
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(SpiffeVerifier::new(Arc::clone(trust))))
        .with_cert_resolver(certificate);
    config.alpn_protocols = protocols.iter().map(|p| p.alpn().to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Whether a handshake failed because the client offered no certificate.
pub(super) fn is_missing_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(
        inner,
        Some(Error::NoCertificatesPresented | Error::AlertReceived(AlertDescription::CertificateRequired))
    )
}

/// The word for a handshake that TLS itself turned away; `None` where the connection only ended, as a port check's does. Of a
/// certificate it knows what the alert says; the metrics count the exact reason.
pub(super) fn refusal(error: &io::Error) -> Option<&'static str> {
    if is_missing_certificate(error) {
        return Some(Refusal::NoCertificate.as_str());
    }
    Some(match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(CertificateError::Expired) => Refusal::Expired.as_str(),
        Error::InvalidCertificate(CertificateError::NotValidYet) => Refusal::NotYetValid.as_str(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => "unknown_issuer_or_trust_domain",
        Error::InvalidCertificate(CertificateError::BadEncoding) => Refusal::Malformed.as_str(),
        Error::InvalidCertificate(_) => "no_valid_svid",
        Error::AlertReceived(AlertDescription::UnknownCA) => "caller_does_not_trust_our_issuer",
        Error::AlertReceived(AlertDescription::BadCertificate | AlertDescription::CertificateExpired) => {
            "caller_refuses_our_certificate"
        }
        Error::AlertReceived(_) => "alert_received",
        Error::PeerIncompatible(_) => "incompatible",
        _ => "protocol",
    })
}
