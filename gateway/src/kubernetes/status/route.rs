//! What is to be said of the objects of the Gateway API, from what was compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tollgate_policy::name::ResourceId;

use super::super::Published;
use super::super::gateway_api::{
    GatewayPlace, GatewayWorld, TranslatedDestination, Translation, refusal, translated,
};
use super::super::kind::ObjectKind;
use super::super::object::{ClusterObject, ObjectSet};
use super::finding::Findings;
use super::{Refused, Standing};

/// What was translated, by object.
pub(super) struct RouteFindings<'a> {
    published: &'a Published,
    translation: Translation,
    /// As of the findings.
    is_latest: bool,
}

impl<'a> RouteFindings<'a> {
    /// What is in force is told of, beside what the API server has now: generations, and what others wrote into a status.
    pub(super) fn of(
        published: &'a Published,
        latest: &ObjectSet,
        standing: &Standing,
        place: Option<&GatewayPlace>,
        findings: &Findings<'_>,
    ) -> Self {
        let Some(place) = place else {
            return Self { published, translation: Translation::default(), is_latest: false };
        };
        let consents = published.objects.consents();
        let mut world = GatewayWorld::new(place, &consents);
        for object in published.objects.iter() {
            let same = latest.get(&object.key).filter(|it| published.objects.has(it));
            let object = same.unwrap_or(object);
            world.add(object, standing.of(object));
        }
        let made = translated(&world);
        let id = |it: &TranslatedDestination| (Arc::clone(&it.namespace), Arc::clone(&it.name));
        let why = |it| Some((id(it), findings.destination(&it.namespace, &it.name)?));
        let refused = made.destinations.iter().filter_map(why).collect();
        let host = |it: &TranslatedDestination| {
            let known = ResourceId::new(Some(&it.namespace.parse().ok()?), &it.name.parse().ok()?);
            Some((id(it), findings.held_hosts(&known).next()?))
        };
        let hosts = made.destinations.iter().chain(&made.withheld).filter_map(host).collect();
        let translation = translated(&world.compiled(refused, hosts));
        Self { published, translation, is_latest: findings.is_latest() }
    }

    /// How many objects of each kind are refused.
    pub(super) fn refused(&self) -> Refused {
        let mut counts = BTreeMap::new();
        for (key, _) in self.translation.statuses.iter().filter(|(_, status)| refusal(status).is_some()) {
            *counts.entry(key.kind).or_default() += 1;
        }
        counts
    }

    /// The status of an object, where what was translated is what it says now; `None`: it is not ours. Of an XBackend it says who holds a
    /// host.
    pub(super) fn status(&self, object: &ClusterObject) -> Option<Value> {
        let is_current = self.published.objects.has(object);
        let is_known = is_current && (self.is_latest || object.key.kind != ObjectKind::Backend);
        self.translation.statuses.get(&object.key).filter(|_| is_known).cloned()
    }
}
