//! TLS towards the mesh.

use std::io;
use std::sync::Arc;

use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::{AlertDescription, Error};

use crate::identity::{Refusal, SpiffeVerifier, Trust, refusal_of};
use crate::settings::{ClientCertificate, ListenerKind, ListenerSettings, Protocol};

/// The configuration of one listener: client certificates as it says, tickets of its own, no early data.
///
/// # Errors
/// What rustls says of the parts.
pub(crate) fn server_config(
    trust: &Arc<Trust>,
    certificate: Arc<dyn ResolvesServerCert>,
    listener: &ListenerSettings,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // What a mesh speaks, and nothing older (istio/ztunnel, `src/tls`).
    let versions = match listener.kind {
        ListenerKind::Http | ListenerKind::Forward | ListenerKind::Tcp => rustls::DEFAULT_VERSIONS,
        ListenerKind::Hbone => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let verifier = |is_required| Arc::new(SpiffeVerifier::new(Arc::clone(trust), is_required));
    let builder = match listener.client_certificate {
        ClientCertificate::Required => builder.with_client_cert_verifier(verifier(true)),
        ClientCertificate::Optional => builder.with_client_cert_verifier(verifier(false)),
        ClientCertificate::None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificate);
    config.alpn_protocols = match listener.kind {
        ListenerKind::Http | ListenerKind::Forward => {
            listener.protocols.iter().map(|p| p.alpn().to_vec()).collect()
        }
        ListenerKind::Hbone => vec![Protocol::H2.alpn().to_vec()],
        ListenerKind::Tcp => Vec::new(),
    };
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
    };
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;
    use crate::identity::Bundle;
    use crate::settings::TlsMode;

    type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

    fn issuer() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, san: SanType) -> Chain {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![san];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
        (vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// How many certificates the listener has of a client that shows `chain`.
    fn shown(
        issuer: &CertifiedIssuer<'static, KeyPair>,
        client_certificate: ClientCertificate,
        chain: Option<Chain>,
    ) -> Result<usize, Error> {
        let bundle = Arc::new(Bundle::of(&[issuer.der().clone()]).unwrap().0);
        let trust = Trust::new(HashMap::from([("prod.acme".parse().unwrap(), bundle)]), Duration::ZERO);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let (own, key) = leaf(issuer, SanType::DnsName("tollgate".try_into().unwrap()));
        let own = CertifiedKey::new(own, provider.key_provider.load_private_key(key).unwrap());
        let listener = ListenerSettings {
            name: "mesh".to_owned(),
            kind: ListenerKind::Http,
            destination: None,
            address: ([127, 0, 0, 1], 0).into(),
            protocols: Vec::new(),
            client_certificate,
            proxy_protocol: None,
            double_hbone: None,
            tls: TlsMode::Required,
        };
        let server = server_config(&trust, Arc::new(SingleCertAndKey::from(own)), &listener)?;
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone())?;
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let client = match chain {
            Some((chain, key)) => client.with_client_auth_cert(chain, key)?,
            None => client.with_no_client_auth(),
        };
        let mut server = ServerConnection::new(server)?;
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("tollgate").unwrap())?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(server.peer_certificates().map_or(0, <[_]>::len))
    }

    #[test]
    fn a_listener_asks_for_the_certificate_that_it_needs_and_verifies_what_it_is_shown() {
        use ClientCertificate::{None as Never, Optional, Required};

        let (issuer, stranger) = (issuer(), issuer());
        let web = |issuer| leaf(issuer, SanType::URI("spiffe://prod.acme/web".try_into().unwrap()));
        assert_eq!(shown(&issuer, Required, Some(web(&issuer))), Ok(1));
        assert_eq!(shown(&issuer, Required, None), Err(Error::NoCertificatesPresented));
        assert_eq!(shown(&issuer, Optional, Some(web(&issuer))), Ok(1));
        assert_eq!(shown(&issuer, Optional, None), Ok(0));
        assert_eq!(shown(&issuer, Never, Some(web(&issuer))), Ok(0));
        for policy in [Required, Optional] {
            let refused = shown(&issuer, policy, Some(web(&stranger)));
            assert!(matches!(refused, Err(Error::InvalidCertificate(_))), "{refused:?}");
        }
    }
}
