//! A raise of a Budget that is an object: applied with a field manager of its own, so that whoever owns the other fields keeps them.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tollgate_policy::name::ResourceId;

use super::ClusterError;
use super::client::{Connection, chain};
use super::kind::ObjectKind;
use super::raw::RawObject;
use crate::settings::KubernetesSettings;

const MANAGER: &str = "tollgate-budget-raise";
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
const KIND: ObjectKind = ObjectKind::Budget;

/// Why a Budget of a cluster was not raised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RaiseError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("there is no Budget {0} in this cluster")]
    Missing(ResourceId),
    #[error(
        "`spec.raises` is written by somebody else, who would take the raise back: add it where that is written, as in git. The API server says: {0}"
    )]
    Owned(String),
    #[error("the Budget was changed meanwhile: try again")]
    Changed,
    #[error("the API server: {0}")]
    Api(String),
    #[error("the API server does not answer")]
    Silent,
}

/// A Budget as it stands in a cluster.
pub(crate) struct BudgetObject {
    api: Api<RawObject>,
    id: ResourceId,
    version: String,
    /// Its `spec`.
    pub(crate) spec: Value,
}

impl BudgetObject {
    /// Reads it.
    ///
    /// # Errors
    /// Where it is not there, or cannot be read.
    pub(crate) async fn read(settings: &KubernetesSettings, id: &ResourceId) -> Result<Self, RaiseError> {
        let connection = Connection::open(settings).await?;
        let api: Api<RawObject> = Api::namespaced_with(connection.client, id.namespace(), &KIND.api());
        let found = said(api.get_opt(id.name())).await?.ok_or_else(|| RaiseError::Missing(id.clone()))?;
        let spec = found.spec.and_then(|spec| serde_json::from_str(spec.get()).ok()).unwrap_or_default();
        let version = found.metadata.resource_version.unwrap_or_default();
        Ok(Self { api, id: id.clone(), version, spec })
    }

    /// The same `spec` with one raise more.
    pub(crate) fn with(&self, raise: &Value) -> Value {
        let mut raises = self.spec.get("raises").and_then(Value::as_array).cloned().unwrap_or_default();
        raises.push(raise.clone());
        let mut spec = self.spec.clone();
        spec["raises"] = raises.into();
        spec
    }

    /// Applies the raises of this `spec`, if nobody has changed the object since; `is_trial`: only has the API server judge it.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub(crate) async fn apply(&self, spec: &Value, is_trial: bool) -> Result<(), RaiseError> {
        let body = json!({
            "apiVersion": KIND.api_version(), "kind": KIND.word(),
            "metadata": {
                "name": self.id.name(), "namespace": self.id.namespace(), "resourceVersion": self.version,
            },
            "spec": { "raises": spec["raises"] },
        });
        let mut parameters = PatchParams::apply(MANAGER);
        parameters.dry_run = is_trial;
        said(self.api.patch(self.id.name(), &parameters, &Patch::Apply(&body))).await.map(drop)
    }
}

async fn said<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RaiseError> {
    match tokio::time::timeout(CALL_TIMEOUT, asked).await {
        Ok(Ok(said)) => Ok(said),
        // Both are conflicts: of fields that another manager applies, and of versions.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            let is_owned = status.message.contains("Apply failed");
            Err(if is_owned { RaiseError::Owned(status.message.clone()) } else { RaiseError::Changed })
        }
        Ok(Err(error)) => Err(RaiseError::Api(chain(&error))),
        Err(_) => Err(RaiseError::Silent),
    }
}
