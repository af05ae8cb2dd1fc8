//! TLS towards the mesh.

use std::io;
use std::sync::Arc;

use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::{AlertDescription, Error};

use crate::identity::{SpiffeVerifier, Trust};
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
