//! The Gateway API: HTTPRoutes that lead from a Gateway of ours to an XBackend, as resources of ours.
//!
//! An XBackend that an accepted route leads to is a Destination of its own namespace and name, so credentials, grants and limits refer to
//! it as to any other. Whether a call is allowed is said by grants alone, so a route that would say more is refused.
//!
//! **Invariant:** an object that cannot be had exactly as it is written is refused with a condition that says why, and translated into
//! nothing.
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
use serde::de::DeserializeOwned;
use serde_json::Value;
use tollgate_policy::name::Name;

use self::attach::Attached;
use self::backend::translate;
use self::condition::{Condition, Conditions, Reported};
use self::written::{Backend, Gateway, GatewayClass, Route};

/// The controller that a GatewayClass names to be ours.
pub(crate) const CONTROLLER: &str = "tollgate.dev/egress";

/// What of the Gateway API there is, and what of it is ours.
#[derive(Debug)]
pub(crate) struct GatewayWorld<'a> {
    pub(crate) classes: &'a [Written<GatewayClass>],
    pub(crate) gateways: &'a [Written<Gateway>],
    pub(crate) routes: &'a [Written<Route>],
    pub(crate) backends: &'a [Written<Backend>],
    /// The labels of each namespace.
    pub(crate) labels: &'a BTreeMap<Name, BTreeMap<String, String>>,
    /// Destinations that were written as such.
    pub(crate) destinations: BTreeSet<(Arc<str>, Arc<str>)>,
    /// The listeners of this gateway.
    pub(crate) listeners: &'a [OwnListener],
    /// The names that are the gateway's own, below which the first segment of a path names the destination.
    pub(crate) names: &'a [String],
    /// The namespace whose destinations a path names without it.
    pub(crate) home: &'a str,
    /// Where callers find this gateway: IP addresses or host names.
    pub(crate) addresses: &'a [String],
}

/// A listener of `tollgate.yaml`.
#[derive(Debug, Clone)]
pub(crate) struct OwnListener {
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// An object as far as it is read.
#[derive(Debug, Clone)]
pub(crate) struct Written<T> {
    /// Empty: it is of no namespace.
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) created: Timestamp,
    pub(crate) generation: i64,
    /// What it says, or why that cannot be read.
    pub(crate) spec: Result<T, String>,
    pub(crate) status: Value,
}

/// The kinds whose status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GatewayKind {
    GatewayClass,
    Gateway,
    Route,
    Backend,
}

/// An object of one of these kinds.
pub(crate) type GatewayKey = (GatewayKind, Arc<str>, Arc<str>);

/// What comes of it.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    pub(crate) destinations: Vec<TranslatedDestination>,
    /// The status of each object that is ours, whole.
    pub(crate) statuses: BTreeMap<GatewayKey, Value>,
}

/// A Destination that an XBackend stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TranslatedDestination {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) created: Timestamp,
    /// The resource, as its own file would say it.
    pub(crate) resource: Value,
}

impl GatewayWorld<'_> {
    /// Whether it is one of the gateway's own names.
    fn has_name(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

impl<T: DeserializeOwned> Written<T> {
    /// An object as the API server gives it; `None`: it has no name, as no stored object.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str();
        Some(Self {
            namespace: text("namespace").unwrap_or_default().into(),
            name: text("name")?.into(),
            created: text("creationTimestamp").and_then(|time| time.parse().ok()).unwrap_or(Timestamp::MAX),
            generation: metadata["generation"].as_i64().unwrap_or_default(),
            spec: T::deserialize(&object["spec"]).map_err(|error| error.to_string()),
            status: object["status"].clone(),
        })
    }
}

impl<T> Written<T> {
    fn id(&self) -> (Arc<str>, Arc<str>) {
        (Arc::clone(&self.namespace), Arc::clone(&self.name))
    }

    fn reported(&self) -> Reported<'_> {
        Reported { generation: self.generation, status: &self.status }
    }
}

/// Translates all of it, and says of each object what became of it.
pub(crate) fn translated(world: &GatewayWorld<'_>) -> Translation {
    let mut translation = Translation::default();
    let classes = classes(world, &mut translation);
    let attached = Attached::of(world, &classes);
    attached.report(world, &mut translation);
    for backend in world.backends {
        let ancestors = attached.gateways_of(&backend.id());
        if ancestors.is_empty() {
            continue;
        }
        let made = translate(backend, world);
        let accepted = match &made {
            Ok(_) => Condition::yes("Accepted", "Accepted", "it is a Destination of this name"),
            Err(refused) => Condition::no("Accepted", refused.reason, refused.message.clone()),
        };
        let status = condition::of_backend(backend, &ancestors, &accepted);
        translation.statuses.insert(
            (GatewayKind::Backend, Arc::clone(&backend.namespace), Arc::clone(&backend.name)),
            status,
        );
        translation.destinations.extend(made.ok());
    }
    translation
}

/// The classes that are ours.
fn classes(world: &GatewayWorld<'_>, translation: &mut Translation) -> BTreeSet<Arc<str>> {
    let mut ours = BTreeSet::new();
    for class in world.classes {
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
        let mut status = Conditions::new(class.reported()).with([accepted]).status();
        if let Some(members) = status.as_object_mut() {
            let features = attach::FEATURES.map(|name| serde_json::json!({ "name": name }));
            members.insert("supportedFeatures".to_owned(), Value::from(features.to_vec()));
        }
        let key = (GatewayKind::GatewayClass, Arc::clone(&class.namespace), Arc::clone(&class.name));
        translation.statuses.insert(key, status);
    }
    ours
}

#[cfg(test)]
mod tests;
