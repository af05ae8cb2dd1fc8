//! The gateway's own SVIDs for others than its listeners: logins, token endpoints, and destinations that are shown who calls.
//!
//! **Invariant:** each is made when it is asked for and kept by nobody here. An agent's fault is logged; whoever asked learns fixed words.

use std::sync::Arc;

use futures_util::FutureExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tollgate_secrets::{Failure, JwtSvid, Making, OwnSvids, X509Svid};
use zeroize::Zeroizing;

use super::settings::CertificateFiles;
use super::watched::read;
use super::workload_api::{ApiFault, WorkloadSocket, jwt_svid, x509_svid};
use crate::expiry::Validity;
use crate::log_throttle::LogThrottle;

/// Where the own SVIDs come from. Certificates are of the files, where there are such.
#[derive(Debug)]
pub(super) struct SvidOrigin {
    socket: Option<WorkloadSocket>,
    files: Option<CertificateFiles>,
    said: Arc<LogThrottle<&'static str>>,
}

impl SvidOrigin {
    pub(super) fn new(socket: Option<WorkloadSocket>, files: Option<CertificateFiles>) -> Self {
        Self { socket, files, said: Arc::default() }
    }
}

impl OwnSvids for SvidOrigin {
    fn jwt(&self, audience: String) -> Making<JwtSvid> {
        let (socket, said) = (self.socket.clone(), Arc::clone(&self.said));
        async move {
            let without = Failure::Misconfigured(
                "the gateway has no JWT-SVIDs: `identity.workloadApi` of its settings names no Workload API",
            );
            let socket = socket.ok_or(without)?;
            let svid = jwt_svid(&socket, audience).await;
            svid.map_err(|fault| told(&said, ("JWT-SVID", &socket), &fault))
        }
        .boxed()
    }

    fn x509(&self) -> Making<X509Svid> {
        let (socket, files, said) = (self.socket.clone(), self.files.clone(), Arc::clone(&self.said));
        async move {
            match (files, socket) {
                (Some(files), _) => {
                    let read = tokio::task::spawn_blocking(move || of_files(&files)).await;
                    read.map_err(|_| Failure::Internal)?
                }
                (None, Some(socket)) => {
                    let svid = x509_svid(&socket).await;
                    svid.map_err(|fault| told(&said, ("X.509-SVID", &socket), &fault))
                }
                (None, None) => Err(Failure::Misconfigured("the gateway has no certificate of its own")),
            }
        }
        .boxed()
    }
}

fn told(
    said: &LogThrottle<&'static str>,
    (what, socket): (&'static str, &WorkloadSocket),
    fault: &ApiFault,
) -> Failure {
    if said.is_due(what) {
        let problem = fault.to_string();
        tracing::warn!(%socket, problem, "the Workload API says no {what}; said once a minute");
    }
    Failure::Login("the Workload API says no such SVID of the gateway")
}

fn of_files(files: &CertificateFiles) -> Result<X509Svid, Failure> {
    let unreadable = |_| Failure::Login("the files of the gateway's own certificate cannot be read");
    let chain = read(&files.cert_file).map_err(unreadable)?;
    let key = Zeroizing::new(read(&files.key_file).map_err(unreadable)?);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&chain).filter_map(Result::ok).collect();
    match (Validity::of_chain(&certificates), PrivateKeyDer::from_pem_slice(&key)) {
        (Some(Validity { ends, .. }), Ok(_)) => Ok(X509Svid { chain, key, ends }),
        _ => Err(Failure::Malformed("the files of the gateway's own certificate have none, or no key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_there_is_told_in_fixed_words() {
        let none = SvidOrigin::new(None, None);
        assert!(matches!(none.jwt("a".into()).await.err(), Some(Failure::Misconfigured(_))));
        assert!(matches!(none.x509().await.err(), Some(Failure::Misconfigured(_))));
        let socket: WorkloadSocket = serde_json::from_str(r#""unix:///nowhere/agent.sock""#).unwrap();
        let api = SvidOrigin::new(Some(socket), None);
        assert!(matches!(api.jwt("a".into()).await.err(), Some(Failure::Login(_))));
        assert!(matches!(api.x509().await.err(), Some(Failure::Login(_))));
        let files =
            CertificateFiles { cert_file: "/nowhere/a.pem".into(), key_file: "/nowhere/a.key".into() };
        let files = SvidOrigin::new(None, Some(files));
        assert!(matches!(files.x509().await.err(), Some(Failure::Login(_))));
    }
}
