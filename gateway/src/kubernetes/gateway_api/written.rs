//! The objects of the Gateway API, as far as they are read.
//!
//! What decides where a call goes is read strictly: a field of a route's rule that is not known here is one that would be left out in
//! silence, so it is kept and refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// `spec` of a GatewayClass.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayClass {
    pub(crate) controller_name: String,
    pub(crate) parameters_ref: Option<Value>,
}

/// `spec` of a Gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Gateway {
    pub(crate) gateway_class_name: String,
    #[serde(default)]
    pub(crate) listeners: Vec<Listener>,
    #[serde(default)]
    pub(crate) addresses: Vec<Value>,
    pub(crate) tls: Option<Value>,
    pub(crate) infrastructure: Option<Value>,
}

/// A listener of a Gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) hostname: Option<String>,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) tls: Option<ListenerTls>,
    #[serde(default)]
    pub(crate) allowed_routes: AllowedRoutes,
}

/// How a listener ends TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerTls {
    pub(crate) mode: Option<String>,
    #[serde(default)]
    pub(crate) certificate_refs: Vec<Value>,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

/// Which routes a listener takes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AllowedRoutes {
    pub(crate) namespaces: RouteNamespaces,
    pub(crate) kinds: Vec<RouteKind>,
}

/// From which namespaces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteNamespaces {
    pub(crate) from: Option<String>,
    pub(crate) selector: Option<Value>,
}

/// A kind of routes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RouteKind {
    pub(crate) group: Option<String>,
    pub(crate) kind: String,
}

/// `spec` of an HTTPRoute.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Route {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    #[serde(default)]
    pub(crate) rules: Vec<RouteRule>,
}

/// The Gateway that a route wants to attach to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParentRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) section_name: Option<String>,
    pub(crate) port: Option<u16>,
}

/// A rule of a route.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteRule {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    pub(crate) matches: Vec<RouteMatch>,
    #[serde(default)]
    pub(crate) filters: Vec<Value>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<BackendRef>,
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, Value>,
}

/// What a rule matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteMatch {
    pub(crate) path: Option<PathMatch>,
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, Value>,
}

/// A path that a rule matches.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PathMatch {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) value: Option<String>,
}

/// Where a rule leads.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    pub(crate) weight: Option<i64>,
    #[serde(default)]
    pub(crate) filters: Vec<Value>,
}

/// `spec` of an XBackend.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Backend {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) external_hostname: Option<ExternalHostname>,
    pub(crate) port: BackendPort,
    pub(crate) protocol: Option<String>,
    pub(crate) tls: Option<BackendTls>,
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, Value>,
}

/// The host outside.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ExternalHostname {
    pub(crate) hostname: String,
}

/// Its port: `number` since 1.7, `port` in 1.6.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BackendPort {
    #[serde(alias = "port")]
    pub(crate) number: u16,
}

/// How TLS is spoken to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendTls {
    pub(crate) mode: String,
    pub(crate) client_certificate_ref: Option<ObjectRef>,
    pub(crate) validation: Option<BackendValidation>,
}

/// An object that is referred to.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ObjectRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// How it is known.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendValidation {
    #[serde(default)]
    pub(crate) ca_certificate_refs: Vec<Value>,
    pub(crate) well_known_ca_certificates: Option<String>,
    pub(crate) hostname: String,
    #[serde(default)]
    pub(crate) subject_alt_names: Vec<Value>,
}
