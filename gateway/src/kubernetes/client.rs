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

/// When the API server last said that it is to be asked again (RFC 9110, section 10.2.3).
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
