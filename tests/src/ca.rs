//! Throw-away certificate authorities: SVIDs, server certificates, and everything that must not be accepted as one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::sandbox::Sandbox;

/// A certificate authority and its bundle.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    bundle: PathBuf,
}

impl Authority {
    /// A new root; its bundle is written to `inputs/<name>.pem`.
    pub fn new(sandbox: &Sandbox, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key"))
            .expect("self-signed root");
        let bundle = sandbox.input(&format!("{name}.pem"), issuer.pem());
        Self { issuer, bundle }
    }

    /// The file with the root certificate in PEM.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// The root certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The root's private key in PEM, for a part that issues by it.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A leaf signed by this root, written to `inputs/<name>.crt` and `inputs/<name>.key`.
    pub fn issue(&self, sandbox: &Sandbox, name: &str, leaf: &Leaf) -> Identity {
        let key = KeyPair::generate().expect("key");
        let cert = leaf.params().signed_by(&key, &*self.issuer).expect("leaf");
        Identity {
            cert: sandbox.input(&format!("{name}.crt"), cert.pem()),
            key: sandbox.input(&format!("{name}.key"), key.serialize_pem()),
        }
    }

    /// A revocation list of these serial numbers in PEM, which ends in so many seconds.
    pub fn revocation_list(&self, serials: &[u64], ends_in: i64) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: at(-60).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: at(-60).into(),
            next_update: at(ends_in).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    /// An X.509-SVID for a workload.
    pub fn svid(&self, sandbox: &Sandbox, spiffe: &str) -> Identity {
        self.issue(sandbox, &format!("svid-{:08x}", crate::sandbox::random() as u32), &Leaf::svid(spiffe))
    }

    /// A server certificate for these DNS names and 127.0.0.1.
    pub fn server(&self, sandbox: &Sandbox, names: &[&str]) -> Identity {
        self.issue(sandbox, &format!("server-{:08x}", crate::sandbox::random() as u32), &Leaf::server(names))
    }

    /// A store that trusts this root alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("root");
        roots
    }
}

/// What to put into a leaf certificate.
#[derive(Clone, Default)]
pub struct Leaf {
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// DNS names and addresses as subject alternative names.
    pub names: Vec<String>,
    /// `cA=true`.
    pub ca: bool,
    /// Seconds until it ends; in the past when negative.
    pub ends_in: i64,
    /// Seconds until it begins; in the past when negative.
    pub begins_in: i64,
    /// Its serial number; without it one of the key.
    pub serial: Option<u64>,
}

impl Leaf {
    /// A workload's SVID as the SPIFFE specification wants it: one URI SAN, `cA=false`, an hour long.
    pub fn svid(spiffe: &str) -> Self {
        Self { uris: vec![spiffe.to_owned()], ends_in: 3600, begins_in: -60, ..Self::default() }
    }

    /// A server certificate.
    pub fn server(names: &[&str]) -> Self {
        let names = names.iter().map(ToString::to_string).collect();
        Self { names, ends_in: 3600, begins_in: -60, ..Self::default() }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("an ASCII URI"));
        let dns = |name: &String| {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            let text = || SanType::DnsName(name.as_str().try_into().expect("an ASCII name"));
            bare.parse().map_or_else(|_| text(), SanType::IpAddress)
        };
        params.subject_alt_names = self.uris.iter().map(uri).chain(self.names.iter().map(dns)).collect();
        if !self.names.is_empty() {
            params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        }
        params.is_ca = if self.ca { IsCa::Ca(BasicConstraints::Constrained(0)) } else { IsCa::ExplicitNoCa };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = self.serial.map(SerialNumber::from);
        params.not_before = at(self.begins_in).into();
        params.not_after = at(self.ends_in).into();
        params
    }
}

fn at(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}

/// A certificate and its key, as PEM files.
#[derive(Clone)]
pub struct Identity {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Identity {
    fn load(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(&self.cert).expect("certificate file");
        let chain = chain.map(|cert| cert.expect("certificate")).collect();
        (chain, PrivateKeyDer::from_pem_file(&self.key).expect("key file"))
    }

    /// TLS for a server with this certificate; asks callers for a certificate of `callers` when given.
    pub fn server_config(&self, protocols: &[&str], callers: Option<RootCertStore>) -> Arc<ServerConfig> {
        let (chain, key) = self.load();
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("TLS");
        let builder = match callers {
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().expect("verifier"))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).expect("server certificate");
        config.alpn_protocols = alpn(protocols);
        Arc::new(config)
    }

    /// Certificate and key in one file, as HAProxy reads them.
    pub fn combined(&self) -> PathBuf {
        let path = self.cert.with_extension("combined.pem");
        let both = [fs::read(&self.cert).expect("certificate"), fs::read(&self.key).expect("key")].concat();
        fs::write(&path, both).expect("combined file");
        path
    }
}

/// TLS for a caller: trusts `roots`, shows `identity` when given, offers `protocols`.
pub fn client_config(
    roots: RootCertStore,
    identity: Option<&Identity>,
    protocols: &[&str],
) -> Arc<ClientConfig> {
    Arc::new(client_config_of(rustls::DEFAULT_VERSIONS, roots, identity, protocols))
}

/// The same with TLS 1.3 alone, and without the name of a server (SNI), as clients of an ambient mesh have it.
pub fn mesh_config(
    roots: RootCertStore,
    identity: Option<&Identity>,
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut config = client_config_of(&[&rustls::version::TLS13], roots, identity, protocols);
    config.enable_sni = false;
    Arc::new(config)
}

fn client_config_of(
    versions: &[&'static SupportedProtocolVersion],
    roots: RootCertStore,
    identity: Option<&Identity>,
    protocols: &[&str],
) -> ClientConfig {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).expect("TLS");
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let (chain, key) = identity.load();
            builder.with_client_auth_cert(chain, key).expect("client certificate")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn(protocols);
    config
}

fn alpn(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
