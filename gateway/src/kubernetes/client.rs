//! The client of the API server.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use kube::client::ClientBuilder;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::time::Instant;
use tollgate_policy::name::Name;
use tower::util::MapResponseLayer;

use crate::settings::KubernetesSettings;

/// The longest that nothing comes: bookmarks of a watch come about once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// What is believed of how long an API server wants to be left alone.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Where a pod finds the namespace that it is in.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Why it is not known how to reach an API server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(
        "resources.kubernetes: this is no pod with a service account ({0}): name a `kubeconfig` outside of a cluster"
    )]
    NoPod(InClusterError),
    #[error("resources.kubernetes.kubeconfig: {0}: {1}")]
    Kubeconfig(PathBuf, KubeconfigError),
    #[error("resources.kubernetes: {0}")]
    Client(kube::Error),
}

/// A client, and the namespace of the gateway itself.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) retry_after: RetryAfter,
}

/// When the API server last said that it is to be asked again: in seconds, as it always does. The date that RFC 9110, section 10.2.3, allows
/// besides is not read, and the pause is then the usual one.
#[derive(Clone, Debug, Default)]
pub(super) struct RetryAfter(Arc<Mutex<Option<Instant>>>);

impl RetryAfter {
    /// How long that is from now.
    pub(super) fn left(&self) -> Duration {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn note<B>(&self, response: &Response<B>) {
        if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let said = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
        if let Some(seconds) = said {
            let pause = Duration::from_secs(seconds).min(MOST_RETRY_AFTER);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Connection {
    /// Reads how to reach it and asks nothing of it. Inside of a runtime.
    pub(super) async fn open(settings: &KubernetesSettings) -> Result<Self, ClusterError> {
        let mut config = match &settings.kubeconfig {
            None => Config::incluster().map_err(ClusterError::NoPod)?,
            Some(file) => {
                let failed = |error| ClusterError::Kubeconfig(file.clone(), error);
                let kubeconfig = Kubeconfig::read_from(file).map_err(failed)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?
            }
        };
        // What the gateway knows of its keys' owners goes through nobody's proxy.
        config.proxy_url = None;
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        // Fifteen further tries would go by unseen. Whoever asks knows when to ask again, and says that it failed.
        config.default_retry = false;
        let own = own_namespace(settings).map(|own| own.to_string());
        let namespace = own.unwrap_or_else(|| config.default_namespace.clone());
        let retry_after = RetryAfter::default();
        let noted = retry_after.clone();
        let noting = MapResponseLayer::new(move |response| {
            noted.note(&response);
            response
        });
        let builder = ClientBuilder::try_from(config).map_err(ClusterError::Client)?;
        let client = builder.with_layer(&noting).build();
        Ok(Self { client, namespace, retry_after })
    }
}

/// The namespace of the gateway itself: as the settings say, else that of the kubeconfig's context or of the pod.
pub(crate) fn own_namespace(settings: &KubernetesSettings) -> Option<Name> {
    if let Some(own) = &settings.gateway_namespace {
        return Some(own.clone());
    }
    let found = match &settings.kubeconfig {
        None => std::fs::read_to_string(POD_NAMESPACE).ok()?,
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).ok()?;
            let current = kubeconfig.current_context?;
            let context = kubeconfig.contexts.into_iter().find(|context| context.name == current)?.context?;
            context.namespace.unwrap_or_else(|| "default".to_owned())
        }
    };
    found.trim().parse().ok()
}

/// An error with all that caused it. What the layers in between repeat is said once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !said.contains(&next) {
            said.push_str(": ");
            said.push_str(&next);
        }
        source = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(status: StatusCode, said: &str) -> Duration {
        let retry_after = RetryAfter::default();
        let response = Response::builder().status(status).header(RETRY_AFTER, said).body(()).unwrap();
        retry_after.note(&response);
        retry_after.left()
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_is_left_alone_for_the_seconds_it_says_a_minute_at_most_and_dates_are_not_read() {
        assert_eq!(left(StatusCode::TOO_MANY_REQUESTS, "4"), Duration::from_secs(4));
        assert_eq!(left(StatusCode::SERVICE_UNAVAILABLE, "3600"), MOST_RETRY_AFTER);
        assert_eq!(left(StatusCode::OK, "4"), Duration::ZERO);
        for unread in ["Fri, 31 Dec 2100 23:59:59 GMT", "-1", "soon"] {
            assert_eq!(left(StatusCode::TOO_MANY_REQUESTS, unread), Duration::ZERO, "{unread}");
        }
    }
}
