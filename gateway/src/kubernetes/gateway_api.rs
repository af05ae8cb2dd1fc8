//! The Gateway API: HTTPRoutes that lead from a Gateway of ours to an XBackend, as resources of ours.
//!
//! An XBackend that an accepted route leads to is a Destination of its own namespace and name, so credentials, grants and limits refer to
//! it as to any other. Whether a call is allowed is said by grants alone, so a route that would say more is refused.
//!
//! **Invariant:** an object that cannot be had exactly as it is written is refused with a condition that says why, and an XBackend that is
//! no Destination is withheld as one: its host falls to no other, and grants of it are denied there.
//!
//! Sources: Gateway API 1.7 (`apis/v1`, `apisx/v1alpha1`), and 1.6 where XBackend differs.

mod attach;
mod backend;
mod condition;
mod listener;
mod route;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tollgate_policy::consent::Consents;
use tollgate_policy::target::GatewayName;

use self::attach::Attached;
use self::backend::{translate, withheld};
pub(super) use self::condition::{refusal, stands};
use self::written::{BackendSpec, GatewayClassSpec, GatewaySpec, RouteSpec};
use super::client::own_namespace;
use super::condition::Condition;
use super::kind::{CONTROLLER, DIALECT, ObjectKind};
use super::object::{ClusterObject, ObjectKey};
use crate::settings::{ListenerKind, ResourceSettings, Settings};

/// A namespace and a name.
pub(super) type Id = (Arc<str>, Arc<str>);

/// Where Gateways of ours are served: what the settings say of this gateway.
#[derive(Debug, Clone)]
pub(crate) struct GatewayPlace {
    listeners: Vec<OwnListener>,
    /// The names that are the gateway's own, below which the first segment of a path names the destination.
    names: Vec<GatewayName>,
    /// The namespace whose destinations a path names without it.
    home: String,
    /// Where callers find this gateway: IP addresses or host names.
    addresses: Vec<String>,
    /// The namespaces whose Gateways count, besides its own.
    gateway_namespaces: Vec<String>,
}

/// A listener of `tollgate.yaml`.
#[derive(Debug, Clone)]
struct OwnListener {
    name: String,
    port: u16,
    kind: ListenerKind,
}

impl GatewayPlace {
    /// `None`: the settings do not ask for the Gateway API.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let ResourceSettings::Kubernetes(cluster) = &settings.resources else { return None };
        let asked = cluster.gateway_api.as_ref()?;
        let listeners = settings.listeners.iter();
        Some(Self {
            listeners: listeners
                .map(|it| OwnListener { name: it.name.clone(), port: it.address.port(), kind: it.kind })
                .collect(),
            names: settings.names.clone(),
            home: own_namespace(cluster).map(|own| own.to_string()).unwrap_or_default(),
            addresses: asked.addresses.clone(),
            gateway_namespaces: asked.gateway_namespaces.iter().map(ToString::to_string).collect(),
        })
    }

    /// Whether Gateways of a namespace are the platform's.
    fn has_gateways_of(&self, namespace: &str) -> bool {
        *namespace == *self.home || self.gateway_namespaces.iter().any(|it| *it == *namespace)
    }

    /// Whether it is one of the gateway's own names.
    fn has_name(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.host().eq_ignore_ascii_case(host))
    }
}

/// What of the Gateway API there is in a cluster.
#[derive(Debug)]
pub(super) struct GatewayWorld<'a> {
    place: &'a GatewayPlace,
    consents: &'a Consents,
    classes: Vec<Written<GatewayClassSpec>>,
    gateways: Vec<Written<GatewaySpec>>,
    routes: Vec<Written<RouteSpec>>,
    backends: Vec<Written<BackendSpec>>,
    /// Destinations that were written as such.
    destinations: BTreeSet<Id>,
    /// What compiling found wrong with a translated Destination.
    refused: BTreeMap<Id, String>,
    /// The host that a translated Destination holds.
    held_hosts: BTreeMap<Id, String>,
}

/// An object as far as it is read.
#[derive(Debug, Clone)]
struct Written<T> {
    /// Empty: it is of no namespace.
    namespace: Arc<str>,
    name: Arc<str>,
    created: Timestamp,
    generation: i64,
    /// What it says, or why that cannot be read.
    spec: Result<T, String>,
    /// The dialect that it names.
    dialect: Option<String>,
    /// The host outside that it names, whether or not the rest can be read.
    host: Option<String>,
    /// The hosts that its status says that it holds.
    held_hosts: Vec<String>,
    /// Whether nothing of what it says is known, so that it may be any host.
    is_unreadable: bool,
    status: Value,
}

/// What comes of it.
#[derive(Debug, Default)]
pub(super) struct Translation {
    pub(super) destinations: Vec<TranslatedDestination>,
    /// Those that are not to be had, and say why.
    pub(super) withheld: Vec<TranslatedDestination>,
    /// The status of each object that is ours, whole.
    pub(super) statuses: BTreeMap<ObjectKey, Value>,
}

/// A Destination that an XBackend stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TranslatedDestination {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    /// As old as the youngest of what leads to it.
    pub(super) created: Timestamp,
    /// The resource, as its own file would say it.
    pub(super) resource: Value,
}

impl<'a> GatewayWorld<'a> {
    pub(super) fn new(place: &'a GatewayPlace, consents: &'a Consents) -> Self {
        let (classes, gateways, routes, backends) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        let (destinations, refused, held_hosts) = <(BTreeSet<_>, BTreeMap<_, _>, BTreeMap<_, _>)>::default();
        Self { place, consents, classes, gateways, routes, backends, destinations, refused, held_hosts }
    }

    /// Whether a ReferenceGrant of a namespace permits a reference to what is there.
    fn permits(&self, from: (&str, &str, &str), to: (&str, &str, &str), namespace: &str) -> bool {
        let grants = self.consents.reference_grants.iter();
        grants.filter(|grant| grant.namespace.as_str() == namespace).any(|grant| grant.allows(from, to))
    }

    /// What compiling found wrong with the Destinations that come of it, and the hosts that they hold.
    pub(super) fn compiled(
        mut self,
        refused: BTreeMap<Id, String>,
        held_hosts: BTreeMap<Id, String>,
    ) -> Self {
        (self.refused, self.held_hosts) = (refused, held_hosts);
        self
    }

    /// An object, with the status that stands there.
    pub(super) fn add(&mut self, object: &ClusterObject, status: &Value) {
        match object.key.kind {
            ObjectKind::GatewayClass => self.classes.push(Written::of(object, status)),
            ObjectKind::Gateway => self.gateways.push(Written::of(object, status)),
            ObjectKind::HttpRoute => self.routes.push(Written::of(object, status)),
            ObjectKind::Backend => self.backends.push(Written::of(object, status)),
            ObjectKind::Destination => drop(self.destinations.insert(id(&object.key))),
            _ => {}
        }
    }
}

impl<T: DeserializeOwned> Written<T> {
    fn of(object: &ClusterObject, status: &Value) -> Self {
        #[derive(Deserialize)]
        struct Document<T> {
            metadata: Metadata,
            spec: T,
        }
        #[derive(Deserialize)]
        struct Left {
            unreadable: String,
        }
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            annotations: BTreeMap<String, String>,
        }
        let (namespace, name) = id(&object.key);
        let left = serde_json::from_str::<Left>(&object.text);
        let raw: Value = serde_json::from_str(&object.text).unwrap_or_default();
        let is_unreadable = raw.is_null() || left.is_ok();
        let host = raw.pointer("/spec/externalHostname/hostname").and_then(Value::as_str).map(str::to_owned);
        let held_hosts =
            raw.get("heldHosts").and_then(|hosts| Vec::deserialize(hosts).ok()).unwrap_or_default();
        let (spec, dialect) = match serde_json::from_str(&object.text) {
            Ok(Document { mut metadata, spec }) => (Ok(spec), metadata.annotations.remove(DIALECT)),
            Err(error) => (Err(left.map_or_else(|_| error.to_string(), |left| left.unreadable)), None),
        };
        Self {
            namespace,
            name,
            created: object.created,
            generation: object.generation,
            spec,
            dialect,
            host,
            held_hosts,
            is_unreadable,
            status: status.clone(),
        }
    }
}

impl<T> Written<T> {
    fn id(&self) -> Id {
        (Arc::clone(&self.namespace), Arc::clone(&self.name))
    }

    fn key(&self, kind: ObjectKind) -> ObjectKey {
        ObjectKey { kind, namespace: self.namespace.to_string(), name: self.name.to_string() }
    }
}

fn id(key: &ObjectKey) -> Id {
    (key.namespace.as_str().into(), key.name.as_str().into())
}

/// Translates all of it, and says of each object what became of it.
pub(super) fn translated(world: &GatewayWorld<'_>) -> Translation {
    let mut translation = Translation::default();
    let classes = classes(world, &mut translation);
    let attached = Attached::of(world, &classes);
    let mut refused = BTreeMap::new();
    for backend in &world.backends {
        let ancestors = attached.gateways_of(&backend.id());
        let host = world.held_hosts.get(&backend.id()).map(String::as_str);
        let since = attached.leads_since(&backend.id()).map(|since| since.max(backend.created));
        let Some(since) = since else {
            translation.withheld.extend(withheld(backend, world, (None, "no accepted route leads to it")));
            if condition::is_told(backend) {
                let gone = Condition::no("Accepted", "Invalid", "no accepted route leads to it");
                let status = condition::of_backend(backend, &ancestors, (&gone, host));
                translation.statuses.insert(backend.key(ObjectKind::Backend), status);
            }
            continue;
        };
        let made = translate(backend, world);
        let accepted = match (&made, world.refused.get(&backend.id())) {
            (Ok(_), None) => Condition::yes("Accepted", "Accepted", "it is a Destination of this name"),
            (Ok(_), Some(why)) => Condition::no("Accepted", "Invalid", why.clone()),
            (Err(refused), _) => Condition::no("Accepted", refused.reason, refused.message.clone()),
        };
        if !accepted.holds {
            refused.insert(backend.id(), accepted.message.clone());
        }
        let status = condition::of_backend(backend, &ancestors, (&accepted, host));
        translation.statuses.insert(backend.key(ObjectKind::Backend), status);
        match made {
            Ok(made) => translation.destinations.push(TranslatedDestination { created: since, ..made }),
            Err(why) => {
                translation.withheld.extend(withheld(backend, world, (Some(since), &*why.message)));
            }
        }
    }
    attached.report(world, &refused, &mut translation);
    translation
}

/// The classes that are ours.
fn classes(world: &GatewayWorld<'_>, translation: &mut Translation) -> BTreeSet<Arc<str>> {
    let mut ours = BTreeSet::new();
    for class in &world.classes {
        let Ok(spec) = &class.spec else { continue };
        if spec.controller_name != CONTROLLER {
            continue;
        }
        let accepted = match &spec.parameters_ref {
            None => Condition::yes("Accepted", "Accepted", "its Gateways are served by Tollgate"),
            Some(_) => Condition::no(
                "Accepted",
                "InvalidParameters",
                "a class of Tollgate takes no parameters: its settings are tollgate.yaml",
            ),
        };
        if accepted.holds {
            ours.insert(Arc::clone(&class.name));
        }
        let status = json!({
            "conditions": condition::list(class.generation, &class.status, [accepted]),
            "supportedFeatures": attach::FEATURES.map(|name| json!({ "name": name })),
        });
        translation.statuses.insert(class.key(ObjectKind::GatewayClass), status);
    }
    ours
}

#[cfg(test)]
mod tests;
