//! What the Workload API says of tokens: the gateway's own JWT-SVIDs, and the keys of trust domains.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tollgate_policy::caller::TrustDomain;
use tollgate_secrets::JwtSvid;
use zeroize::Zeroizing;

use super::WorkloadSocket;
use super::client::{ApiClient, ApiFault};
use super::message::JwtBundlesResponse;
use crate::identity::jwt::UnverifiedJwt;

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

/// A JWT-SVID of the gateway's own for an audience. Asked for each time: the agent keeps them.
pub(in crate::identity) async fn jwt_svid(
    socket: &WorkloadSocket,
    audience: String,
) -> Result<JwtSvid, ApiFault> {
    let answer = ApiClient::connect(socket).await?.jwt_svid(audience).await?;
    // Of several the first is the default one (SPIFFE Workload API, section 6.1).
    let svid = answer.svids.first().ok_or_else(|| ApiFault::Unusable("it says no JWT-SVID".to_owned()))?;
    let token = Zeroizing::new(svid.svid.as_bytes().to_vec());
    // It is the agent's word; whoever is shown it verifies it. `exp` is required (JWT-SVID, section 3.3).
    let ends = UnverifiedJwt::read(&token).and_then(|jwt| jwt.claims.exp).and_then(|seconds| {
        let whole = (0.0..1e11).contains(&seconds).then_some(seconds as i64)?;
        Timestamp::from_second(whole).ok()
    });
    let ends = ends.ok_or_else(|| ApiFault::Unusable("its JWT-SVID has no end".to_owned()))?;
    Ok(JwtSvid { token, ends })
}
