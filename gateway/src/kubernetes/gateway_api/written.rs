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
pub(super) struct GatewayClassSpec {
    pub(super) controller_name: String,
    pub(super) parameters_ref: Option<Value>,
}

/// `spec` of a Gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewaySpec {
    pub(super) gateway_class_name: String,
    #[serde(default)]
    pub(super) listeners: Vec<GatewayListener>,
    #[serde(default)]
    pub(super) addresses: Vec<Value>,
    pub(super) tls: Option<Value>,
    pub(super) infrastructure: Option<Value>,
}

/// A listener of a Gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayListener {
    pub(super) name: String,
    pub(super) hostname: Option<String>,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) tls: Option<ListenerTls>,
    #[serde(default)]
    pub(super) allowed_routes: AllowedRoutes,
}

/// How a listener ends TLS. There is no other mode for HTTPS.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListenerTls {
    #[serde(default)]
    pub(super) certificate_refs: Vec<ObjectRef>,
    #[serde(default)]
    pub(super) options: BTreeMap<String, String>,
}

/// Which routes a listener takes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AllowedRoutes {
    pub(super) namespaces: RouteNamespaces,
    pub(super) kinds: Vec<RouteKind>,
}

/// From which namespaces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RouteNamespaces {
    pub(super) from: Option<String>,
    pub(super) selector: Option<Value>,
}

/// A kind of routes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct RouteKind {
    pub(super) group: Option<String>,
    pub(super) kind: String,
}

/// `spec` of an HTTPRoute.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteSpec {
    #[serde(default)]
    pub(super) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(super) hostnames: Vec<String>,
    #[serde(default)]
    pub(super) rules: Vec<RouteRule>,
}

/// The Gateway that a route wants to attach to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParentRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) section_name: Option<String>,
    pub(super) port: Option<u16>,
}

/// A rule of a route.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteRule {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    pub(super) matches: Vec<RouteMatch>,
    #[serde(default)]
    pub(super) filters: Vec<Value>,
    #[serde(default)]
    pub(super) backend_refs: Vec<BackendRef>,
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

/// What a rule matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteMatch {
    pub(super) path: Option<PathMatch>,
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

/// A path that a rule matches.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PathMatch {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) value: Option<String>,
}

/// Where a rule leads.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<u16>,
    pub(super) weight: Option<i64>,
    #[serde(default)]
    pub(super) filters: Vec<Value>,
}

/// `spec` of an XBackend.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendSpec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) external_hostname: Option<ExternalHostname>,
    pub(super) port: BackendPort,
    pub(super) protocol: Option<String>,
    pub(super) tls: Option<BackendTls>,
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

/// The host outside.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ExternalHostname {
    pub(super) hostname: String,
}

/// Its port: `number` since 1.7, `port` in 1.6, where it may have a name, too.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct BackendPort {
    pub(super) number: Option<u16>,
    pub(super) port: Option<u16>,
}

/// How TLS is spoken to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendTls {
    pub(super) mode: String,
    pub(super) client_certificate_ref: Option<ObjectRef>,
    pub(super) validation: Option<BackendValidation>,
}

/// An object that is referred to.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ObjectRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// How it is known.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendValidation {
    #[serde(default)]
    pub(super) ca_certificate_refs: Vec<Value>,
    #[serde(rename = "wellKnownCACertificates")]
    pub(super) well_known_ca_certificates: Option<String>,
    pub(super) hostname: String,
    #[serde(default)]
    pub(super) subject_alt_names: Vec<Value>,
}
