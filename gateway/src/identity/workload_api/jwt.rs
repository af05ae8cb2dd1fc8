//! What the Workload API says of tokens: the gateway's own JWT-SVIDs, and the keys of trust domains.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use tollgate_policy::caller::TrustDomain;
use tollgate_secrets::{Failure, JwtSvids};
use zeroize::Zeroizing;

use super::WorkloadSocket;
use super::client::{ApiClient, ApiFault};
use super::message::JwtBundlesResponse;
use crate::log_throttle::LogThrottle;

/// The keys of trust domains, each as a JSON Web Key Set.
pub(in crate::identity) type JwtBundles = BTreeMap<TrustDomain, Vec<u8>>;

/// Reads an answer.
pub(super) fn bundles(message: JwtBundlesResponse) -> JwtBundles {
    let named = message.bundles.into_iter().filter_map(|(domain, keys)| {
        // A name that is none can be nobody's.
        Some((domain.strip_prefix("spiffe://").unwrap_or(&domain).parse().ok()?, keys))
    });
    named.collect()
}

/// How the gateway gets a JWT-SVID of its own for an audience, anew each time: the agent keeps them.
pub(in crate::identity) fn svids(socket: WorkloadSocket) -> JwtSvids {
    let said = Arc::new(LogThrottle::default());
    Arc::new(move |audience| {
        let (socket, said) = (socket.clone(), Arc::clone(&said));
        async move {
            svid(&socket, audience).await.map_err(|fault| {
                if said.is_due(()) {
                    let problem = fault.to_string();
                    tracing::warn!(%socket, problem, "the Workload API says no JWT-SVID; said once a minute");
                }
                Failure::Login("the Workload API says no JWT-SVID of the gateway")
            })
        }
        .boxed()
    })
}

async fn svid(socket: &WorkloadSocket, audience: String) -> Result<Zeroizing<Vec<u8>>, ApiFault> {
    let answer = ApiClient::connect(socket).await?.jwt_svid(audience).await?;
    // Of several the first is the default one (SPIFFE Workload API, section 6.1).
    let svid = answer.svids.first().ok_or_else(|| ApiFault::Unusable("it says no JWT-SVID".to_owned()))?;
    Ok(Zeroizing::new(svid.svid.as_bytes().to_vec()))
}
