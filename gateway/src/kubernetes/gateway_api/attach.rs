//! Which routes attach to which listeners of Gateways of ours, and what is said of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::condition::Condition;
use super::condition::{self, MOST_ENTRIES, Objection};
use super::listener::{self, ListenerVerdict};
use super::route::{self, RouteVerdict};
use super::written::{GatewaySpec, ParentRef, RouteSpec};
use super::{CONTROLLER, GatewayWorld, Id, ObjectKind, Translation, Written};

/// What of the Gateway API's features is there, in alphabetic order (its `pkg/features`).
pub(super) const FEATURES: [&str; 4] = ["Gateway", "HTTPRoute", "HTTPRouteParentRefPort", "ReferenceGrant"];

const NOT_SERVED: &str = "only Gateways of the gateway's own namespace are served, and of those that \
                          `resources.kubernetes.gatewayApi.gatewayNamespaces` of tollgate.yaml names";

/// A Gateway of ours, with what is to be said of its listeners.
struct OwnGateway<'a> {
    written: &'a Written<GatewaySpec>,
    spec: &'a GatewaySpec,
    refused: Option<Objection>,
    listeners: Vec<ListenerVerdict>,
    /// The routes that each listener has.
    attached: Vec<usize>,
}

/// A route that names Gateways of ours.
struct OwnRoute<'a> {
    written: &'a Written<RouteSpec>,
    verdict: RouteVerdict,
    /// Each of its parents that is ours.
    parents: Vec<RouteParent>,
}

struct RouteParent {
    reference: Value,
    gateway: Id,
    accepted: Result<(), Objection>,
}

/// All Gateways and routes that are ours.
pub(super) struct Attached<'a> {
    gateways: BTreeMap<Id, OwnGateway<'a>>,
    routes: Vec<OwnRoute<'a>>,
}

impl<'a> Attached<'a> {
    pub(super) fn of(world: &'a GatewayWorld<'_>, classes: &BTreeSet<Arc<str>>) -> Self {
        let mut all = Self { gateways: BTreeMap::new(), routes: Vec::new() };
        for written in &world.gateways {
            let Ok(spec) = &written.spec else { continue };
            if !classes.contains(&*spec.gateway_class_name) {
                continue;
            }
            let listeners = listener::judged(written, spec, world);
            let attached = vec![0; listeners.len()];
            let refused = match world.place.has_gateways_of(&written.namespace) {
                true => listener::refused(spec, &world.place.addresses),
                false => Some(Objection::new("NamespaceNotServed", NOT_SERVED)),
            };
            all.gateways.insert(written.id(), OwnGateway { written, spec, refused, listeners, attached });
        }
        for written in &world.routes {
            all.attach(written, world);
        }
        all
    }

    fn attach(&mut self, written: &'a Written<RouteSpec>, world: &GatewayWorld<'_>) {
        let Ok(spec) = &written.spec else { return };
        let verdict = route::judged(written, spec, world);
        let mut parents = Vec::new();
        for parent in &spec.parent_refs {
            let namespace = parent.namespace.as_deref().unwrap_or(&written.namespace);
            let id: Id = (namespace.into(), parent.name.as_str().into());
            let Some(gateway) = self.gateways.get_mut(&id).filter(|_| is_gateway(parent)) else { continue };
            let took = gateway.takes(written, spec, parent, world);
            let accepted = match (&verdict.accepted, took) {
                (_, Err(refused)) => Err(refused),
                (Err(refused), Ok(_)) => Err(refused.clone()),
                (Ok(()), Ok(listeners)) => {
                    listeners.into_iter().for_each(|at| gateway.attached[at] += 1);
                    Ok(())
                }
            };
            parents.push(RouteParent { reference: reference(parent, namespace), gateway: id, accepted });
        }
        if !parents.is_empty() || was_ours(&written.status) {
            self.routes.push(OwnRoute { written, verdict, parents });
        }
    }

    /// The Gateways that lead to a backend, as references.
    pub(super) fn gateways_of(&self, backend: &Id) -> Vec<Value> {
        let mut ids = BTreeSet::new();
        for route in self.routes.iter().filter(|route| route.verdict.backends.contains(backend)) {
            ids.extend(
                route.parents.iter().filter(|parent| parent.accepted.is_ok()).map(|parent| &parent.gateway),
            );
        }
        let reference = |(namespace, name): &Id| json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": namespace, "name": name});
        ids.into_iter().map(reference).collect()
    }

    /// Since when an accepted route leads to a backend: as long as the younger of the route and its Gateway is there.
    pub(super) fn leads_since(&self, backend: &Id) -> Option<Timestamp> {
        let routes = self.routes.iter().filter(|route| route.verdict.backends.contains(backend));
        let since = routes.flat_map(|route| {
            let accepted = route.parents.iter().filter(|parent| parent.accepted.is_ok());
            let gateways = accepted.filter_map(|parent| self.gateways.get(&parent.gateway));
            gateways.map(|gateway| gateway.written.created.max(route.written.created))
        });
        since.min()
    }

    /// Says what became of each; `refused` are backends that are not to be had.
    pub(super) fn report(
        &self,
        world: &GatewayWorld<'_>,
        refused: &BTreeMap<Id, String>,
        translation: &mut Translation,
    ) {
        for gateway in self.gateways.values() {
            let key = gateway.written.key(ObjectKind::Gateway);
            translation.statuses.insert(key, gateway.status(&world.place.addresses));
        }
        for route in &self.routes {
            translation.statuses.insert(route.written.key(ObjectKind::HttpRoute), route.status(refused));
        }
    }
}

fn is_gateway(parent: &ParentRef) -> bool {
    parent.group.as_deref().unwrap_or("gateway.networking.k8s.io") == "gateway.networking.k8s.io"
        && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway"
}

/// Whether a status has something of ours, which is to go when no parent is ours any more.
fn was_ours(status: &Value) -> bool {
    let parents = status["parents"].as_array();
    parents.into_iter().flatten().any(|parent| parent["controllerName"] == CONTROLLER)
}

/// The reference as the status repeats it.
fn reference(parent: &ParentRef, namespace: &str) -> Value {
    let mut reference = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": namespace, "name": parent.name,
    });
    if let Some(members) = reference.as_object_mut() {
        members.extend(parent.section_name.as_ref().map(|name| ("sectionName".to_owned(), json!(name))));
        members.extend(parent.port.map(|port| ("port".to_owned(), json!(port))));
    }
    reference
}

impl OwnGateway<'_> {
    /// The listeners that take the route.
    fn takes(
        &self,
        route: &Written<RouteSpec>,
        spec: &RouteSpec,
        parent: &ParentRef,
        world: &GatewayWorld<'_>,
    ) -> Result<Vec<usize>, Objection> {
        if self.refused.is_some() {
            return Err(Objection::new("NoMatchingParent", "the Gateway itself is not accepted"));
        }
        let is_named = |(_, listener): &(usize, &super::written::GatewayListener)| {
            parent.section_name.as_ref().is_none_or(|name| *name == listener.name)
                && parent.port.is_none_or(|port| port == listener.port)
        };
        let named: Vec<_> = self.spec.listeners.iter().enumerate().filter(is_named).collect();
        if named.is_empty() {
            return Err(Objection::new(
                "NoMatchingParent",
                "the Gateway has no listener of this name and port",
            ));
        }
        let own = &*self.written.namespace;
        let allowed: Vec<_> = named
            .into_iter()
            .filter(|(at, listener)| {
                self.listeners.get(*at).is_some_and(ListenerVerdict::takes_http_routes)
                    && listener::allows_namespace(
                        &listener.allowed_routes,
                        &route.namespace,
                        own,
                        &world.consents.namespaces,
                    )
            })
            .collect();
        if allowed.is_empty() {
            let message = "no listener of the Gateway takes HTTPRoutes of this namespace (allowedRoutes)";
            return Err(Objection::new("NotAllowedByListeners", message));
        }
        let hosted: Vec<usize> = allowed
            .into_iter()
            .filter(|(_, listener)| listener::has_host(listener.hostname.as_deref(), &spec.hostnames))
            .map(|(at, _)| at)
            .collect();
        if hosted.is_empty() {
            let message = "no listener of the Gateway has any of the route's hostnames";
            return Err(Objection::new("NoMatchingListenerHostname", message));
        }
        Ok(hosted)
    }

    fn status(&self, addresses: &[String]) -> Value {
        let generation = self.written.generation;
        let works = self.refused.is_none() && self.listeners.iter().any(ListenerVerdict::is_programmed);
        let all = self.listeners.iter().all(ListenerVerdict::is_programmed);
        let accepted = match &self.refused {
            Some(refused) => Condition::no("Accepted", refused.reason, refused.message.clone()),
            None if !works => {
                Condition::no("Accepted", "ListenersNotValid", "no listener can be had as it is written")
            }
            None if !all => Condition::yes(
                "Accepted",
                "ListenersNotValid",
                "some listeners cannot be had as they are written",
            ),
            None => Condition::yes("Accepted", "Accepted", "all listeners are served"),
        };
        let programmed = match works {
            true => Condition::yes("Programmed", "Programmed", "callers may call"),
            false => Condition::no("Programmed", "Invalid", "nothing of it is served"),
        };
        let conditions = condition::list(generation, &self.written.status, [accepted, programmed]);
        let before = &self.written.status["listeners"];
        let listeners = self.listeners.iter().zip(&self.attached).map(|(listener, attached)| {
            let had = before.as_array().into_iter().flatten().find(|it| it["name"] == listener.name);
            let conditions = condition::list(generation, had.unwrap_or(&Value::Null), listener.conditions());
            json!({
                "name": listener.name, "attachedRoutes": attached,
                "supportedKinds": listener.kinds(), "conditions": conditions,
            })
        });
        let listeners: Vec<Value> = listeners.collect();
        let addresses: Vec<Value> = match works {
            true => addresses.iter().map(|address| listener::address(address)).collect(),
            false => Vec::new(),
        };
        json!({ "conditions": conditions, "listeners": listeners, "addresses": addresses })
    }
}

impl OwnRoute<'_> {
    fn status(&self, refused: &BTreeMap<Id, String>) -> Value {
        let before = self.written.status["parents"].as_array();
        let mut of_backends = self.verdict.backends.iter().filter_map(|id| Some((id, refused.get(id)?)));
        let of_backend = of_backends.next();
        let ours = self.parents.iter().map(|parent| {
            let same =
                |it: &&Value| it["parentRef"] == parent.reference && it["controllerName"] == CONTROLLER;
            let had = before.into_iter().flatten().find(same).unwrap_or(&Value::Null);
            let accepted = match &parent.accepted {
                Ok(()) => Condition::yes("Accepted", "Accepted", "the route is served"),
                Err(refused) => Condition::no("Accepted", refused.reason, refused.message.clone()),
            };
            let resolved = match (&self.verdict.resolved, of_backend) {
                (Ok(()), None) => Condition::yes("ResolvedRefs", "ResolvedRefs", "all backends are known"),
                (Ok(()), Some(((_, name), why))) => {
                    let message = format!("XBackend `{name}` is not accepted: {why}");
                    Condition::no("ResolvedRefs", "BackendNotAccepted", message)
                }
                (Err(refused), _) => Condition::no("ResolvedRefs", refused.reason, refused.message.clone()),
            };
            let conditions = condition::list(self.written.generation, had, [accepted, resolved]);
            json!({ "parentRef": parent.reference, "controllerName": CONTROLLER, "conditions": conditions })
        });
        let others = before.into_iter().flatten().filter(|it| it["controllerName"] != CONTROLLER).cloned();
        let parents: Vec<Value> = others.chain(ours).take(MOST_ENTRIES).collect();
        json!({ "parents": parents })
    }
}
