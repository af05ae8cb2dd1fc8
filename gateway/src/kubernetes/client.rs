//! The client of the API server.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tollgate_policy::name::Name;

use crate::settings::KubernetesSettings;

/// The longest that nothing comes: bookmarks of a watch come about once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

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
        let own = own_namespace(settings).map(|own| own.to_string());
        let namespace = own.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(ClusterError::Client)?;
        Ok(Self { client, namespace })
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
