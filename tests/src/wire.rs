//! What the benchmark programs share: flags, a runtime, and TLS from PEM files.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::runtime::{Builder, Runtime};

/// `--name value` pairs of the command line.
pub struct Flags(HashMap<String, String>);

impl Flags {
    /// The process's own.
    pub fn read() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let pair = |pair: &[String]| (pair[0].trim_start_matches("--").to_owned(), pair[1].clone());
        Self(words.chunks_exact(2).map(pair).collect())
    }

    /// The text of a flag that must be there.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("--{name} is missing"))
    }

    /// The number of a flag, or a default.
    pub fn number(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).map_or(default, |text| text.parse().expect("a number"))
    }

    /// Whether a flag is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// A runtime of so many threads as `--threads` says, or of one.
pub fn runtime(flags: &Flags) -> Runtime {
    let threads = flags.number("threads", 1) as usize;
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.worker_threads(threads).enable_all().build().expect("a runtime")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(file: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(file).expect("a CA file") {
        roots.add(cert.expect("a certificate")).expect("a root");
    }
    roots
}

fn identity(cert: &str, key: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(cert).expect("a certificate file");
    (
        chain.map(|cert| cert.expect("a certificate")).collect(),
        PrivateKeyDer::from_pem_file(key).expect("a key"),
    )
}

/// A server; callers of `callers` only when given.
pub fn server(cert: &str, key: &str, callers: Option<&str>, alpn: &[&str]) -> Arc<ServerConfig> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("TLS");
    let builder = match callers {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)), provider());
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let (chain, key) = identity(cert, key);
    let mut config = builder.with_single_cert(chain, key).expect("a certificate");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticketer");
    Arc::new(config)
}

/// A client; with a certificate when given.
pub fn client(ca: &str, own: Option<(&str, &str)>, alpn: &[&str]) -> ClientConfig {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("TLS");
    let builder = builder.with_root_certificates(roots(ca));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let (chain, key) = identity(cert, key);
            builder.with_client_auth_cert(chain, key).expect("a certificate")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// What a server answers to `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
pub fn websocket_accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}
