//! What is compiled of the objects of a cluster.

use jiff::Timestamp;
use tollgate_policy::consent::Consents;
use tollgate_policy::model::SourceFile;

use super::gateway_api::{GatewayPlace, GatewayWorld, translated};
use super::kind::ObjectKind;
use super::object::{ObjectKey, ObjectSet};

/// The resources, and what namespaces agree to. The oldest come first, because of two that contradict each other the first serves: what
/// is translated is as old as the youngest object that it comes from. What has a name that no resource can have was never in force, and nothing can refer
/// to it.
pub(super) fn sources(objects: &ObjectSet, place: Option<&GatewayPlace>) -> (Vec<SourceFile>, Consents) {
    let consents = objects.consents();
    let written = objects.iter().filter(|object| object.key.kind.is_resource() && object.key.id().is_some());
    let mut all: Vec<(Timestamp, ObjectKey, String)> =
        written.map(|object| (object.created, object.key.clone(), object.text.to_string())).collect();
    if let Some(place) = place {
        let mut world = GatewayWorld::new(place, &consents);
        objects.iter().for_each(|object| world.add(object, &object.status));
        let made = translated(&world);
        all.extend(made.destinations.into_iter().chain(made.withheld).map(|it| {
            let (kind, namespace, name) =
                (ObjectKind::Destination, it.namespace.to_string(), it.name.to_string());
            (it.created, ObjectKey { kind, namespace, name }, it.resource.to_string())
        }));
    }
    all.sort_by(|(a, first, _), (b, second, _)| a.cmp(b).then_with(|| first.cmp(second)));
    (all.into_iter().map(|(_, _, text)| SourceFile::object(text)).collect(), consents)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::object::ClusterObject;
    use super::*;

    fn object(kind: ObjectKind, name: &str, second: i64) -> Arc<ClusterObject> {
        let found = serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": name, "uid": name,
                "creationTimestamp": Timestamp::from_second(second).unwrap().to_string(),
            },
            "spec": {"x": 1},
        }));
        Arc::new(ClusterObject::of(kind, found.unwrap()).unwrap())
    }

    fn names(all: impl IntoIterator<Item = Arc<ClusterObject>>) -> Vec<String> {
        let (files, _) = sources(&ObjectSet::new(all.into_iter()), None);
        let name = |file: &SourceFile| {
            let value: Value = serde_json::from_str(&file.text).unwrap();
            value["metadata"]["name"].as_str().unwrap().to_owned()
        };
        files.iter().map(name).collect()
    }

    #[test]
    fn the_oldest_object_comes_first_and_then_the_one_whose_id_does() {
        let all = [
            object(ObjectKind::Grant, "b", 5),
            object(ObjectKind::Grant, "a", 5),
            object(ObjectKind::Grant, "old", 1),
            object(ObjectKind::Grant, "no.label", 0),
        ];
        assert_eq!(names(all), ["old", "a", "b"]);
    }

    #[test]
    fn what_says_what_namespaces_agree_to_and_what_leads_to_destinations_is_no_resource_itself() {
        let kinds = ObjectKind::ALL.iter().filter(|kind| !kind.is_resource());
        let all: Vec<_> = kinds.map(|kind| object(*kind, "x", 1)).collect();
        assert_eq!(all.len(), 6);
        assert!(names(all).is_empty());
    }
}
