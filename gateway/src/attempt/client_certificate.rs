//! The client certificate of a destination, and a newer one where it was refused.

use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::{Credential, Destination};
use tollgate_secrets::Secret;

use super::log_unconnected;
use crate::core::Core;
use crate::metering::Account;
use crate::snapshot::Snapshot;
use crate::upstream::ClientCert;

/// The client certificate that the destination names, if it does.
///
/// # Errors
/// `secret_unavailable`
pub(crate) async fn certificate(
    core: &Core,
    snapshot: &Snapshot,
    destination: &Destination,
    account: &mut Account,
) -> Result<Option<(Arc<Credential>, Arc<Secret>)>, Denial> {
    if destination.client_certificate.is_none() {
        return Ok(None);
    }
    let credential = snapshot.policy.client_certificate(destination);
    let credential = credential.ok_or_else(|| {
        Denial::new(Reason::Internal, "the destination's client certificate is not in the policy")
    })?;
    let secret = secret(core, destination, credential).await;
    let secret = secret.inspect_err(|_| account.blame(&credential.name))?;
    Ok(Some((Arc::clone(credential), secret)))
}

/// The client certificate of a credential: from the cache, or fetched.
async fn secret(
    core: &Core,
    destination: &Destination,
    credential: &Credential,
) -> Result<Arc<Secret>, Denial> {
    if let Some(cached) = core.shared.secrets.peek(credential, 0) {
        return Ok(cached);
    }
    match Box::pin(core.shared.secrets.get(credential, 0)).await {
        Ok(secret) => Ok(secret),
        // The store's own words go to the operator's log; the caller learns only that it failed.
        Err(error) => {
            let reason = Reason::SecretUnavailable;
            let (name, failure) = (&credential.name, error.failure());
            log_unconnected(core, &destination.name, reason, &failure, Some(name));
            let detail = "the credential for this destination cannot be had at the moment";
            Err(Denial::new(reason, detail).retry_after(Duration::from_secs(5)))
        }
    }
}

/// A newer version of the client certificate that was refused.
pub(super) async fn newer(core: &Core, refused: Option<ClientCert<'_>>, spent: bool) -> Option<Arc<Secret>> {
    let ClientCert { credential, secret } = refused?;
    let newer = core.shared.secrets.rejected(credential, 0, secret.version()).await?;
    // The refresh helps the calls that come after, also where this one cannot be sent again.
    (!spent).then_some(newer)
}
