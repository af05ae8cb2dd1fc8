//! Staying connected to the Workload API.
//!
//! **Invariant:** one connection at a time, and whatever ends it, another is tried after a pause that grows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tollgate_secrets::jittered;

use super::client::{ApiClient, ApiFault};
use super::jwt::{self, JwtBundles};
use super::x509::X509Context;
use super::{WorkloadSocket, X509State};
use crate::log_throttle::LogThrottle;

/// Between two connections: at first, and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];

/// Takes what the API says of certificates, for ever.
pub(super) async fn x509(socket: WorkloadSocket, states: watch::Sender<X509State>) {
    let throttle = LogThrottle::default();
    let [mut again, most] = AGAIN;
    loop {
        let Err(fault) = listen(&socket, &states, &mut again).await;
        let problem = fault.to_string();
        if throttle.is_due(()) {
            match &states.borrow().said {
                None => tracing::warn!(%socket, problem, "waiting for the Workload API; said once a minute"),
                Some(_) => {
                    tracing::warn!(%socket, problem, "the Workload API is gone; what it last said serves; said once a minute");
                }
            }
        }
        states.send_modify(|state| state.fault = Some(problem.into()));
        tokio::time::sleep(jittered(again)).await;
        again = most.min(again * 2);
    }
}

/// Hands what the API says of the keys of trust domains to `take`, for ever; and why nothing more is heard of it.
pub(in crate::identity) async fn jwt(socket: WorkloadSocket, take: impl Fn(Result<&JwtBundles, &str>)) {
    let [mut again, most] = AGAIN;
    loop {
        let Err(fault) = listen_for_keys(&socket, &take, &mut again).await;
        take(Err(&fault.to_string()));
        tokio::time::sleep(jittered(again)).await;
        again = most.min(again * 2);
    }
}

async fn listen_for_keys(
    socket: &WorkloadSocket,
    take: &impl Fn(Result<&JwtBundles, &str>),
    again: &mut Duration,
) -> Result<Infallible, ApiFault> {
    let mut said = ApiClient::connect(socket).await?.jwt_bundles().await?;
    loop {
        let message = said.message().await?.ok_or(ApiFault::Ended)?;
        [*again, _] = AGAIN;
        take(Ok(&jwt::bundles(message)));
    }
}

/// Takes what one connection says, until it ends.
async fn listen(
    socket: &WorkloadSocket,
    states: &watch::Sender<X509State>,
    again: &mut Duration,
) -> Result<Infallible, ApiFault> {
    let mut said = ApiClient::connect(socket).await?.x509_svids().await?;
    loop {
        let message = said.message().await?.ok_or(ApiFault::Ended)?;
        let context = X509Context::read(message).map_err(ApiFault::Unusable)?;
        [*again, _] = AGAIN;
        states.send_replace(X509State { said: Some(Arc::new(context)), fault: None });
    }
}
