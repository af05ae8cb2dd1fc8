//! The client of the API server.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::settings::KubernetesSettings;

/// The longest that nothing comes: bookmarks of a watch come about once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

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
        let own = settings.gateway_namespace.as_ref().map(ToString::to_string);
        let namespace = own.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(ClusterError::Client)?;
        Ok(Self { client, namespace })
    }
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
