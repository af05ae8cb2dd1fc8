//! Where resources come from: a directory of files, or the objects of a cluster.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tollgate_policy::caller::TrustDomain;
use tollgate_policy::model::Interval;
use tollgate_policy::name::Name;

/// Where resources come from.
#[derive(Clone, Debug)]
pub enum ResourceSettings {
    /// A directory of files.
    Directory(PathBuf),
    /// The objects of a cluster.
    Kubernetes(KubernetesSettings),
}

/// `{kubernetes: …}`: the objects of a cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSources {
    /// Take the objects of a cluster: see [In a cluster](#in-a-cluster).
    kubernetes: KubernetesSettings,
}

/// A cluster, and which of its objects count.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesSettings {
    /// The kubeconfig file that says how to reach the API server and to log in. Without it the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The namespaces whose objects count. Without it all of them.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    pub namespaces: Option<Vec<Name>>,
    /// The namespace of the gateway itself. Its objects are the platform's, and there replicas agree on the one that writes status. Without
    /// it that of the pod's service account, or of the kubeconfig's context.
    #[schemars(with = "Option<String>")]
    pub gateway_namespace: Option<Name>,
    /// What grants call this cluster where they name service accounts.
    #[schemars(with = "Option<String>", extend("default" = "local"))]
    pub cluster: Option<Name>,
    /// The trust domain of the cluster's workloads, as in `spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`. Without it the only one of
    /// `identity.trustDomains`; where there are several, grants of app namespaces name no SPIFFE ids.
    #[schemars(with = "Option<String>")]
    pub trust_domain: Option<TrustDomain>,
    /// How old the [persisted objects](#without-the-api-server) may be that serve after a start without the API server. Without it as old as they are.
    pub persisted_for: Option<Interval>,
    /// Serve Gateways of the [Gateway API](#gateway-api), and the routes that attach to them.
    pub gateway_api: Option<GatewayApiSettings>,
}

/// The Gateway API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayApiSettings {
    /// Where callers find this gateway, for the status of Gateways: host names, as that of its Service, and IP addresses.
    #[schemars(length(min = 1, max = 16))]
    pub addresses: Vec<String>,
    /// The namespaces whose Gateways are served besides the gateway's own. Whoever may write Gateways there says which namespaces lead to
    /// hosts outside (`allowedRoutes`).
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub gateway_namespaces: Vec<Name>,
}

impl KubernetesSettings {
    /// What grants call the cluster.
    pub(crate) fn name(&self) -> Option<Name> {
        self.cluster.clone().or_else(|| "local".parse().ok())
    }
}

impl ResourceSettings {
    /// The same, where relative paths count from `base`.
    pub(super) fn within(self, base: &Path) -> Self {
        match self {
            Self::Directory(directory) => Self::Directory(base.join(directory)),
            Self::Kubernetes(settings) => Self::Kubernetes(KubernetesSettings {
                kubeconfig: settings.kubeconfig.map(|file| base.join(file)),
                ..settings
            }),
        }
    }

    /// The directory, if it is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory),
            Self::Kubernetes(_) => None,
        }
    }

    /// What a user may have meant to say, and did not.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        let Self::Kubernetes(settings) = self else { return None };
        let is_empty = settings.namespaces.as_ref().is_some_and(Vec::is_empty);
        let has_no_address = settings.gateway_api.as_ref().is_some_and(|it| it.addresses.is_empty());
        let name = "name the Service of the gateway, as `tollgate.tollgate.svc`, or another address that callers find it at";
        is_empty
            .then_some(("resources.kubernetes.namespaces", "leave it out for all namespaces, or name some"))
            .or_else(|| has_no_address.then_some(("resources.kubernetes.gatewayApi.addresses", name)))
    }
}

impl<'de> Deserialize<'de> for ResourceSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = ResourceSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a directory or `{kubernetes: {}}`")
            }

            fn visit_str<E: Error>(self, directory: &str) -> Result<ResourceSettings, E> {
                Ok(ResourceSettings::Directory(directory.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<ResourceSettings, A::Error> {
                let sources = ResourceSources::deserialize(MapAccessDeserializer::new(members))?;
                Ok(ResourceSettings::Kubernetes(sources.kubernetes))
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

/// What a schema says of it.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let sources = generator.subschema_for::<ResourceSources>();
    json_schema!({ "anyOf": [{ "type": "string" }, sources] })
}
