//! Listeners of a Gateway: each is one of `tollgate.yaml`, or it is not to be had.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};
use tollgate_policy::name::Name;

use super::super::condition::Condition;
use super::super::kind::{GATEWAY_GROUP, ObjectKind};
use super::condition::Objection;
use super::written::{AllowedRoutes, GatewayListener, GatewaySpec, ObjectRef, RouteKind};
use super::{GatewayWorld, OwnListener, Written};
use crate::settings::ListenerKind;

/// What `tls.options` says where a listener shows the gateway's own certificate.
const CERTIFICATE_OPTION: (&str, &str) = ("tollgate.dev/certificate", "own");

/// What is to be said of a listener.
#[derive(Debug)]
pub(super) struct ListenerVerdict {
    pub(super) name: String,
    accepted: Result<(), Objection>,
    resolved: Result<(), Objection>,
    conflict: Option<Objection>,
    /// Whether it takes HTTPRoutes, by its protocol and its `allowedRoutes`.
    is_http: bool,
}

impl ListenerVerdict {
    pub(super) fn is_programmed(&self) -> bool {
        self.accepted.is_ok() && self.conflict.is_none() && self.resolved.is_ok()
    }

    pub(super) fn takes_http_routes(&self) -> bool {
        self.is_http && self.accepted.is_ok() && self.conflict.is_none()
    }

    pub(super) fn kinds(&self) -> Value {
        if self.is_http { json!([{"group": GATEWAY_GROUP, "kind": "HTTPRoute"}]) } else { json!([]) }
    }

    pub(super) fn conditions(&self) -> [Condition; 4] {
        let said = |kind: &'static str, reason: &'static str, verdict: &Result<(), Objection>| match verdict {
            Ok(()) => Condition::yes(kind, reason, String::new()),
            Err(refused) => Condition::no(kind, refused.reason, refused.message.clone()),
        };
        let programmed = match self.is_programmed() {
            true => Condition::yes("Programmed", "Programmed", "callers may call"),
            false => Condition::no("Programmed", "Invalid", "the listener is not served"),
        };
        // The one condition that is good when it does not hold.
        let conflicted = match &self.conflict {
            Some(refused) => Condition::yes("Conflicted", refused.reason, refused.message.clone()),
            None => Condition::no("Conflicted", "NoConflicts", String::new()),
        };
        [
            said("Accepted", "Accepted", &self.accepted),
            said("ResolvedRefs", "ResolvedRefs", &self.resolved),
            programmed,
            conflicted,
        ]
    }
}

/// Why the whole Gateway is not to be had.
pub(super) fn refused(gateway: &GatewaySpec, addresses: &[String]) -> Option<Objection> {
    let is_ours = |address: &Value| {
        address["value"].as_str().is_none_or(|value| addresses.iter().any(|own| own == value))
    };
    if !gateway.addresses.iter().all(is_ours) {
        let message = "`spec.addresses`: this gateway has other addresses, which its status names";
        return Some(Objection::new("UnsupportedAddress", message));
    }
    if gateway.tls.is_some() {
        let message = "`spec.tls`: callers are verified against `identity.trustDomains` of tollgate.yaml, and \
                       client certificates are Credentials";
        return Some(Objection::new("Invalid", message));
    }
    if gateway.infrastructure.as_ref().is_some_and(|it| it.get("parametersRef").is_some()) {
        let message = "`spec.infrastructure.parametersRef`: a Gateway of Tollgate takes no parameters";
        return Some(Objection::new("InvalidParameters", message));
    }
    None
}

/// Each listener of a Gateway.
pub(super) fn judged(
    written: &Written<GatewaySpec>,
    gateway: &GatewaySpec,
    world: &GatewayWorld<'_>,
) -> Vec<ListenerVerdict> {
    let judge = |listener: &GatewayListener| ListenerVerdict {
        name: listener.name.clone(),
        accepted: accepted(listener, &world.place.listeners),
        resolved: resolved(listener, &written.namespace, world),
        conflict: conflict(listener, gateway),
        is_http: listener.protocol == "HTTPS"
            && (listener.allowed_routes.kinds.is_empty()
                || listener.allowed_routes.kinds.iter().any(is_http_route)),
    };
    gateway.listeners.iter().map(judge).collect()
}

fn is_http_route(kind: &RouteKind) -> bool {
    kind.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP && kind.kind == "HTTPRoute"
}

/// What a listener's protocol asks for; `HBONE` is Istio's word for the tunnels of an ambient mesh
/// (<https://istio.io/latest/docs/ambient/usage/waypoint/>).
fn kind_of(protocol: &str) -> Option<ListenerKind> {
    match protocol {
        "HTTPS" => Some(ListenerKind::Http),
        "HBONE" => Some(ListenerKind::Hbone),
        _ => None,
    }
}

fn accepted(listener: &GatewayListener, own: &[OwnListener]) -> Result<(), Objection> {
    let protocol = &listener.protocol;
    let Some(kind) = kind_of(protocol) else {
        let message =
            format!("protocol `{protocol}`: callers are served by HTTPS, and tunnels of a mesh by HBONE");
        return Err(Objection::new("UnsupportedProtocol", message));
    };
    let fitting = || own.iter().filter(|it| it.kind == kind);
    if fitting().any(|it| it.name == listener.name || it.port == listener.port) {
        return Ok(());
    }
    let known: Vec<&str> = fitting().map(|it| it.name.as_str()).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!(
        "no listener of tollgate.yaml for {protocol} has this name or this port (there are: {known})"
    );
    Err(Objection::new("PortUnavailable", message))
}

fn resolved(listener: &GatewayListener, namespace: &str, world: &GatewayWorld<'_>) -> Result<(), Objection> {
    let kinds = &listener.allowed_routes.kinds;
    if let Some(other) = kinds.iter().find(|kind| !is_http_route(kind)) {
        return Err(Objection::new(
            "InvalidRouteKinds",
            format!("routes of kind `{}` are not served", other.kind),
        ));
    }
    let Some(tls) = &listener.tls else { return Ok(()) };
    if let Some(other) = tls.certificate_refs.iter().find(|it| !is_permitted(it, namespace, world)) {
        let (other, name) = (other.namespace.as_deref().unwrap_or_default(), &other.name);
        let message = format!(
            "`{other}/{name}`: no ReferenceGrant of `{other}` permits a Gateway of `{namespace}` to refer to it"
        );
        return Err(Objection::new("RefNotPermitted", message));
    }
    let (option, word) = CERTIFICATE_OPTION;
    let is_own = tls.options.get(option).is_some_and(|it| it == word);
    if !tls.certificate_refs.is_empty() || !is_own {
        let message = format!(
            "the gateway shows its own certificate (identity.certificate of tollgate.yaml): leave `certificateRefs` out and say `tls: {{options: {{{option}: {word}}}}}`"
        );
        return Err(Objection::new("InvalidCertificateRef", message));
    }
    Ok(())
}

/// Whether a certificate is in the Gateway's own namespace, or in one that permits the reference.
fn is_permitted(certificate: &ObjectRef, namespace: &str, world: &GatewayWorld<'_>) -> bool {
    let Some(other) = certificate.namespace.as_deref().filter(|other| *other != namespace) else {
        return true;
    };
    let group = certificate.group.as_deref().unwrap_or("");
    let to = (group, certificate.kind.as_deref().unwrap_or("Secret"), certificate.name.as_str());
    world.permits((GATEWAY_GROUP, ObjectKind::Gateway.word(), namespace), to, other)
}

/// Two listeners have one port only where both are of one protocol and have different hostnames.
fn conflict(listener: &GatewayListener, gateway: &GatewaySpec) -> Option<Objection> {
    let others = gateway.listeners.iter().filter(|it| it.name != listener.name && it.port == listener.port);
    for other in others {
        if other.protocol != listener.protocol {
            let message = format!("listener `{}` has the port with another protocol", other.name);
            return Some(Objection::new("ProtocolConflict", message));
        }
        if other.hostname.as_deref().unwrap_or_default() == listener.hostname.as_deref().unwrap_or_default() {
            let message = format!("listener `{}` has the same port and hostname", other.name);
            return Some(Objection::new("HostnameConflict", message));
        }
    }
    None
}

/// Whether routes of a namespace may attach.
pub(super) fn allows_namespace(
    allowed: &AllowedRoutes,
    namespace: &str,
    own: &str,
    labels: &BTreeMap<Name, BTreeMap<String, String>>,
) -> bool {
    match allowed.namespaces.from.as_deref().unwrap_or("Same") {
        "Same" => namespace == own,
        "All" => true,
        "Selector" => {
            let selector = allowed.namespaces.selector.clone().unwrap_or_default();
            let selector = serde_json::from_value::<LabelSelector>(selector).ok();
            let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
            let labels = namespace.parse::<Name>().ok().and_then(|name| labels.get(&name));
            selector.zip(labels).is_some_and(|(selector, labels)| selector.matches(labels))
        }
        _ => false,
    }
}

/// Whether a listener of this hostname has one of these hosts; none: any.
pub(super) fn has_host(listener: Option<&str>, hosts: &[String]) -> bool {
    let Some(listener) = listener.filter(|name| !name.is_empty()) else { return true };
    hosts.is_empty() || hosts.iter().any(|host| meets(listener, host))
}

/// Whether two hostnames, each exact or `*.suffix`, have a host in common.
fn meets(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one == other,
        (Some(suffix), None) => other.len() > suffix.len() && other.ends_with(suffix),
        (None, Some(suffix)) => one.len() > suffix.len() && one.ends_with(suffix),
        (Some(one), Some(other)) => one.ends_with(other) || other.ends_with(one),
    }
}

/// An address as a status names it.
pub(super) fn address(address: &str) -> Value {
    let kind = if address.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    json!({"type": kind, "value": address})
}
