//! What the Workload API says of certificates.
//!
//! **Invariant:** an own SVID is whole: its leaf has the one SPIFFE id that the API says, and the key belongs to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tollgate_policy::caller::{SpiffeId, TrustDomain};
use tollgate_secrets::X509Svid;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::WorkloadSocket;
use super::client::{ApiClient, ApiFault, PATIENCE};
use super::message::{self, X509SvidResponse};
use crate::identity::svid_pem;
use crate::identity::trust::spiffe_id;

/// The gateway's own X.509-SVID.
#[derive(Debug)]
pub(in crate::identity) struct OwnSvid {
    pub(in crate::identity) id: SpiffeId,
    pub(in crate::identity) key: Arc<CertifiedKey>,
}

/// The certificates of a bundle, or why they cannot be read.
pub(in crate::identity) type ApiBundle = Result<Vec<CertificateDer<'static>>, String>;

/// The gateway's own SVID, and the bundles of its own trust domain and of those that are federated with it.
#[derive(Debug)]
pub(in crate::identity) struct X509Context {
    pub(in crate::identity) svid: OwnSvid,
    pub(in crate::identity) bundles: BTreeMap<TrustDomain, ApiBundle>,
    /// Revocation lists in DER, of any of these trust domains.
    pub(in crate::identity) lists: Vec<Vec<u8>>,
}

impl X509Context {
    /// Reads an answer. Of several SVIDs the first is the default one (SPIFFE Workload API, section 5.1).
    ///
    /// # Errors
    /// What is wrong with the own SVID.
    pub(super) fn read(message: X509SvidResponse) -> Result<Self, String> {
        let X509SvidResponse { svids, federated_bundles, crl: lists } = message;
        let mut bundles = BTreeMap::new();
        for (domain, der) in federated_bundles {
            // A name that is none can be nobody's.
            if let Ok(domain) = domain.strip_prefix("spiffe://").unwrap_or(&domain).parse() {
                bundles.insert(domain, certificates(&der));
            }
        }
        let own = svids.first().ok_or("it says no SVID")?;
        let svid =
            OwnSvid::read(own).map_err(|fault| format!("its SVID {}: {fault}", shown(&own.spiffe_id)))?;
        // Of its own domains it knows better than whoever it is federated with; of one with two SVIDs the first counts.
        for svid in svids.iter().rev() {
            if let Ok(id) = svid.spiffe_id.parse::<SpiffeId>() {
                bundles.insert(id.trust_domain().clone(), certificates(&svid.bundle));
            }
        }
        Ok(Self { svid, bundles, lists })
    }
}

impl OwnSvid {
    fn read(svid: &message::X509Svid) -> Result<Self, String> {
        let chain = certificates(&svid.x509_svid)?;
        let leaf = chain.first().ok_or("there is no certificate in it")?;
        let id = spiffe_id(leaf).map_err(|refusal| refusal.to_string())?;
        if id.as_str() != svid.spiffe_id {
            return Err("its certificate has another SPIFFE id".to_owned());
        }
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.x509_svid_key.as_slice())).clone_key();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())?;
        Ok(Self { id, key: Arc::new(key) })
    }
}

/// The gateway's own X.509-SVID with its key. Asked for each time: the agent keeps it.
pub(in crate::identity) async fn x509_svid(socket: &WorkloadSocket) -> Result<X509Svid, ApiFault> {
    let mut said = ApiClient::connect(socket).await?.x509_svids().await?;
    let message = tokio::time::timeout(PATIENCE, said.message()).await.map_err(|_| ApiFault::Late)??;
    let message = message.ok_or(ApiFault::Ended)?;
    let own = message.svids.first().ok_or_else(|| ApiFault::Unusable("it says no SVID".to_owned()))?;
    let unusable = |fault: String| ApiFault::Unusable(format!("its SVID {}: {fault}", shown(&own.spiffe_id)));
    let OwnSvid { key, .. } = OwnSvid::read(own).map_err(unusable)?;
    svid_pem::svid(&key.cert, &own.x509_svid_key)
        .ok_or_else(|| unusable("its certificate has no end".to_owned()))
}

/// The DER certificates in `bytes`, one behind the other.
fn certificates(mut bytes: &[u8]) -> ApiBundle {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (rest, _) = X509Certificate::from_der(bytes).map_err(|error| error.to_string())?;
        let (certificate, rest) = bytes.split_at(bytes.len() - rest.len());
        all.push(CertificateDer::from(certificate).into_owned());
        bytes = rest;
    }
    Ok(all)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}
