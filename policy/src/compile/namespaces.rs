//! Namespaces of a cluster: who may refer to whose resources, and which of them are the gateway's own.
//!
//! **Invariant:** of what has not agreed to be referred to, nothing is told: neither what it says nor whether it is there.

use std::collections::{BTreeMap, HashMap};

use super::{Environment, HomeCluster, Scope};
use crate::consent::{Consents, GROUP, ReferenceGrant};
use crate::model::{
    AllowedNamespaces, Model, OperatorWord, RequirementSpec, Resource, SelectorSpec, SomeNamespacesSpec, Spec,
};
use crate::name::{Name, ResourceId};

/// What the namespaces have agreed to, as it is asked.
pub(super) struct Namespaces<'a> {
    home: &'a HomeCluster,
    labels: &'a BTreeMap<Name, BTreeMap<String, String>>,
    /// Whether there may be Destinations that are not among the resources.
    pub(super) lacks_destinations: bool,
    /// By the namespace that each speaks for.
    grants: HashMap<&'a str, Vec<&'a ReferenceGrant>>,
    /// What resources say themselves, by kind and id.
    allowed: HashMap<(&'static str, &'a ResourceId), &'a AllowedNamespaces>,
    /// What stores show to other namespaces.
    paths: HashMap<&'a ResourceId, Vec<&'a str>>,
}

impl<'a> Namespaces<'a> {
    pub(super) fn new(model: &'a Model, environment: &'a Environment, consents: &'a Consents) -> Self {
        let mut grants: HashMap<&str, Vec<&ReferenceGrant>> = HashMap::new();
        for grant in &consents.reference_grants {
            grants.entry(grant.namespace.as_str()).or_default().push(grant);
        }
        let stores = model.stores.iter();
        let mut namespaces = Self {
            home: &environment.home,
            labels: &consents.namespaces,
            lacks_destinations: consents.lacks_destinations,
            grants,
            allowed: HashMap::new(),
            paths: stores
                .map(|it| (&it.id, it.spec.allowed_paths.values().map(String::as_str).collect()))
                .collect(),
        };
        namespaces.add(&model.destinations);
        namespaces.add(&model.stores);
        namespaces.add(&model.credentials);
        namespaces.add(&model.source_pools);
        namespaces.add(&model.budgets);
        namespaces
    }

    fn add<T: Spec>(&mut self, resources: &'a [Resource<T>]) {
        let written = |it: &'a Resource<T>| Some(((T::KIND, &it.id), it.spec.allowed_namespaces()?));
        self.allowed.extend(resources.iter().filter_map(written));
    }

    /// Whether it is the gateway's own namespace, whose owner may name anybody and use what is the gateway's.
    pub(super) fn is_gateways(&self, namespace: &str) -> bool {
        self.home.gateway_namespace.as_ref().is_some_and(|own| own.as_str() == namespace)
    }

    /// The namespaces with such labels.
    pub(super) fn selected(&self, selector: &SelectorSpec) -> impl Iterator<Item = &'a Name> {
        self.labels.iter().filter(|(_, labels)| matches(selector, labels)).map(|(name, _)| name)
    }

    fn consents(&self, (from, namespace): (&str, &str), (kind, to): (&'static str, &ResourceId)) -> bool {
        let grants = self.grants.get(to.namespace()).into_iter().flatten();
        let mut grants = grants.map(|it| it.allows((GROUP, from, namespace), (GROUP, kind, to.name())));
        grants.any(|allows| allows)
            || self.allowed.get(&(kind, to)).is_some_and(|allowed| self.selects(allowed, namespace))
    }

    fn selects(&self, allowed: &AllowedNamespaces, namespace: &str) -> bool {
        let SomeNamespacesSpec { names, selector } = match allowed {
            AllowedNamespaces::All => return true,
            AllowedNamespaces::Some(some) => some,
        };
        let is_selected = |selector: &SelectorSpec| {
            self.labels.get(namespace).is_some_and(|labels| matches(selector, labels))
        };
        names.values().any(|name| name.as_str() == namespace) || selector.as_ref().is_some_and(is_selected)
    }
}

/// Whether all that is written holds of the labels
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>).
fn matches(selector: &SelectorSpec, labels: &BTreeMap<String, String>) -> bool {
    let SelectorSpec { match_labels, match_expressions } = selector;
    let holds = |requirement: &RequirementSpec| {
        let value = requirement.key.as_ref().and_then(|key| labels.get(key));
        let is_listed = value.is_some_and(|value| requirement.values.values().any(|listed| listed == value));
        match requirement.operator {
            Some(OperatorWord::In) => is_listed,
            Some(OperatorWord::NotIn) => !is_listed,
            Some(OperatorWord::Exists) => value.is_some(),
            Some(OperatorWord::DoesNotExist) => value.is_none(),
            None => false,
        }
    };
    match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && match_expressions.values().all(holds)
        && match_expressions.written().unwrap_or_default() == match_expressions.values().count()
}

impl Scope<'_> {
    /// The namespace of an app: one of a cluster that is not the gateway's own.
    pub(super) fn app_namespace(&self) -> Option<&str> {
        let own = self.owner.namespace();
        self.namespaces.filter(|namespaces| !namespaces.is_gateways(own)).map(|_| own)
    }

    /// Whether it is in another namespace, whose owner is asked.
    pub(super) fn is_foreign(&self, id: &ResourceId) -> bool {
        self.namespaces.is_some() && id.namespace() != self.owner.namespace()
    }

    /// Whether it may be referred to from here, if it is there.
    pub(super) fn has_consent(&self, kind: &'static str, id: &ResourceId) -> bool {
        let own = self.owner.namespace();
        self.namespaces.is_none_or(|it| id.namespace() == own || it.consents((self.kind, own), (kind, id)))
    }

    /// The same for what is not there and for what has not agreed.
    pub(super) fn refuse_reference(&mut self, path: &str, kind: &str, id: &ResourceId) {
        let (own, other, from) = (self.owner.namespace(), id.namespace(), self.kind);
        let message = format!(
            "there is no {kind} `{id}` that the namespace `{own}` may refer to: if there is one, its `allowedNamespaces` has to have \
             `{own}`, or a ReferenceGrant in `{other}` has to allow it to every {from} of `{own}`",
        );
        self.problem(path, message);
    }

    /// A store of another namespace shows only what its owner lists.
    pub(super) fn check_shared_path(&mut self, at: &str, store: &ResourceId, path: &str) {
        let Some(namespaces) = self.namespaces.filter(|_| self.is_foreign(store)) else { return };
        let own = self.owner.namespace();
        let is_below = |listed: &str| {
            let rest = path.strip_prefix(listed.replace("{namespace}", own).as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let listed = namespaces.paths.get(store).into_iter().flatten();
        // One that may not be referred to has been reported.
        if !self.has_consent("SecretStore", store) || listed.into_iter().any(|listed| is_below(listed)) {
            return;
        }
        let message = format!(
            "SecretStore/{store} does not show this path to the namespace `{own}`: its owner lists in `allowedPaths` what it shows to others"
        );
        self.problem(at, message);
    }
}
