//! TLS towards the mesh.

use std::io;
use std::sync::Arc;

use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::{AlertDescription, Error};

use crate::identity::{Refusal, SpiffeVerifier, Trust, refusal_of};
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

/// Why TLS itself turned a handshake away, and whether its verifier has counted that; `None` where the connection only ended, as a
/// port check's does.
pub(super) fn refusal(error: &io::Error) -> Option<(Refusal, bool)> {
    let refusal = match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => return Some((refusal_of(error), true)),
        Error::NoCertificatesPresented | Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Refusal::NoCertificate
        }
        Error::AlertReceived(AlertDescription::UnknownCA) => Refusal::IssuerRefused,
        Error::AlertReceived(AlertDescription::BadCertificate | AlertDescription::CertificateExpired) => {
            Refusal::CertificateRefused
        }
        Error::AlertReceived(_) => Refusal::Alert,
        Error::PeerIncompatible(_) => Refusal::Incompatible,
        _ => Refusal::Protocol,
    };
    Some((refusal, false))
}
