//! The certificates themselves: made, kept for half of their life, and thrown away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::authority::CertificateAuthority;

const LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Clocks differ.
const BEFORE: SignedDuration = SignedDuration::from_hours(1);
/// Most that are kept. Policies name fewer hosts than that; where one names more, they are made more often.
const KEPT: usize = 4096;
/// The longest common name (RFC 5280, appendix A.1).
const LONGEST_NAME: usize = 64;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    #[error("{0}")]
    Certificate(#[from] rcgen::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("the authority has expired")]
    Expired,
    #[error("making it has ended")]
    Ended,
}

/// A certificate for one host pattern.
#[derive(Debug)]
pub(super) struct MintedLeaf {
    config: Arc<ServerConfig>,
    /// From then on another one is made.
    renewed: Timestamp,
}

impl MintedLeaf {
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// The certificates that are in use, by name.
#[derive(Debug)]
pub(super) struct Leaves {
    kept: HashMap<String, MintedLeaf>,
    most: usize,
}

impl Default for Leaves {
    fn default() -> Self {
        Self::with_most(KEPT)
    }
}

impl Leaves {
    /// Room for so many.
    pub(super) fn with_most(most: usize) -> Self {
        Self { kept: HashMap::new(), most }
    }

    pub(super) fn get(&self, name: &str, now: Timestamp) -> Option<Arc<ServerConfig>> {
        self.kept.get(name).filter(|leaf| now < leaf.renewed).map(MintedLeaf::config)
    }

    /// Keeps one more. Those that are due go first, and where none is, the one that will be.
    pub(super) fn insert(&mut self, name: String, leaf: MintedLeaf) {
        if self.kept.len() >= self.most {
            let now = Timestamp::now();
            self.kept.retain(|_, leaf| now < leaf.renewed);
        }
        if self.kept.len() >= self.most {
            let next = self.kept.iter().min_by_key(|(_, leaf)| leaf.renewed).map(|(name, _)| name.clone());
            next.map(|name| self.kept.remove(&name));
        }
        self.kept.insert(name, leaf);
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

/// Makes a certificate for `name`, a host, `*.` before one, or an address.
///
/// # Errors
/// What keeps it from being made.
pub(super) fn make(
    authority: &CertificateAuthority,
    name: &str,
    now: Timestamp,
) -> Result<MintedLeaf, MintError> {
    let ends = now.saturating_add(LIFETIME).unwrap_or(Timestamp::MAX).min(authority.validity.ends);
    if ends <= now {
        return Err(MintError::Expired);
    }
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![match bare.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into()?),
    }];
    params.distinguished_name = DistinguishedName::new();
    if name.len() <= LONGEST_NAME {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let at = |time: Timestamp| {
        let since = u64::try_from(time.as_second()).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since)
    };
    params.not_before = at(now.saturating_sub(BEFORE).unwrap_or(Timestamp::MIN));
    params.not_after = at(ends);
    // ECDSA on P-256.
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    let mut chain = vec![certificate.der().clone()];
    chain.extend(authority.chain.iter().cloned());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let certified = CertifiedKey::from_der(chain, key, &provider)?;
    let config = server(Arc::new(SingleCertAndKey::from(certified)))?;
    let renewed = now.saturating_add(now.duration_until(ends) / 2).unwrap_or(ends);
    Ok(MintedLeaf { config, renewed })
}

/// How TLS is spoken with whoever is to be turned away.
///
/// # Errors
/// What rustls says.
pub(super) fn nothing() -> Result<Arc<ServerConfig>, MintError> {
    server(Arc::new(Nothing))
}

#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// TLS without resumption: what was proven is the tunnel's, and each is a new one.
fn server(certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, MintError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
