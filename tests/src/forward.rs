//! What programs behind a proxy need: the authority of `interception`, and TLS of their own in a tunnel.

use std::path::PathBuf;
use std::process::Command;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ca::client_config;
use crate::client::{Client, Failure, Protocol, full};
use crate::gateway::binary;
use crate::sandbox::Sandbox;

/// An authority for the TLS that the gateway reads.
pub struct Interception {
    cert: PathBuf,
    key: PathBuf,
}

impl Interception {
    /// One that may sign for these hosts, as `tollgate ca init` makes it. Its key is something to search for.
    pub fn new(sandbox: &Sandbox, hosts: &[&str]) -> Self {
        let folder = sandbox.inputs().join("interception");
        let mut command = Command::new(binary());
        command.args(["ca", "init", "--out"]).arg(&folder);
        for host in hosts {
            command.args(["--host", host]);
        }
        let made = command.output().expect("tollgate ca init");
        assert!(made.status.success(), "{made:?}");
        let own = Self { cert: folder.join("ca.pem"), key: folder.join("ca.key") };
        let key = std::fs::read_to_string(&own.key).expect("a key");
        key.lines().filter(|line| !line.starts_with('-')).for_each(|line| sandbox.needle(line));
        own
    }

    /// The member of the settings.
    pub fn settings(&self) -> String {
        format!("interception: {{caCertFile: {}, caKeyFile: {}}}\n", self.cert.display(), self.key.display())
    }

    /// A store that trusts it alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.cert).expect("an authority") {
            roots.add(certificate.expect("a certificate")).expect("a root");
        }
        roots
    }
}

/// Asks the proxy at this client's address for a tunnel, with these fields.
pub async fn ask(
    program: &Client,
    protocol: Protocol,
    authority: &str,
    fields: HeaderMap,
) -> Result<Response<Incoming>, Failure> {
    let mut request = Request::connect(authority).body(full(""))?;
    *request.headers_mut() = fields;
    program.open(protocol).await?.start(request).await
}

/// The tunnel that this answer opens.
pub async fn tunnel(answer: Response<Incoming>) -> Result<TokioIo<Upgraded>, Failure> {
    Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
}

/// TLS in what the gateway carries, for a server that these roots prove.
pub async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
    carrier: S,
    host: &str,
    roots: RootCertStore,
    protocols: &[&str],
) -> Result<TlsStream<S>, Failure> {
    let connector = TlsConnector::from(client_config(roots, None, protocols));
    Ok(connector.connect(ServerName::try_from(host.to_owned())?, carrier).await?)
}
