//! Objects of a cluster: resources, and what says which namespaces agree to be referred to.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tollgate_policy::consent::{Consents, ReferenceGrant};
use tollgate_policy::name::{Name, ResourceId};

use super::claim;
use super::kind::{DIALECT, ObjectKind};
use super::raw::RawObject;

/// The most bytes of one object that are kept, of what it says and of its status alike, as the API server sends them. etcd takes six times
/// as much of whoever may write one; of a resource nothing comes near it.
const LARGEST: usize = 256 * 1024;

/// What an object is told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct ObjectKey {
    pub(super) kind: ObjectKind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectKey {
    /// Its id as a resource; `None`: it has a name that no resource can have.
    pub(super) fn id(&self) -> Option<ResourceId> {
        let namespace: Name = self.namespace.parse().ok()?;
        Some(ResourceId::new(Some(&namespace), &self.name.parse().ok()?))
    }
}

/// What is compiled of an object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompiledText {
    api_version: String,
    kind: &'static str,
    metadata: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Box<RawValue>>,
    /// Why its `spec` is left out, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// The hosts that its status says that it holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held_hosts: Vec<String>,
}

/// One object: what is compiled of it, and what its status says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ClusterObject {
    #[serde(flatten)]
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) created: Timestamp,
    pub(super) generation: i64,
    /// JSON of what is compiled.
    pub(super) text: Arc<str>,
    /// `metadata.resourceVersion`.
    #[serde(skip)]
    pub(super) version: String,
    #[serde(skip)]
    pub(super) status: Value,
}

impl ClusterObject {
    /// `None`: it has no name, as no stored object.
    pub(super) fn of(kind: ObjectKind, found: RawObject) -> Option<Self> {
        let RawObject { metadata, spec, status } = found;
        let (namespace, name) = match kind.is_namespaced() {
            true => (metadata.namespace?, metadata.name?),
            false => (String::new(), metadata.name?),
        };
        let annotations = metadata.annotations.unwrap_or_default();
        let dialect = annotations.get(DIALECT).filter(|_| kind == ObjectKind::Backend);
        let bytes = spec.as_ref().map_or(0, |it| it.get().len()) + dialect.map_or(0, String::len);
        let is_readable = bytes <= LARGEST;
        let dialect = dialect.filter(|_| is_readable);
        // A resource says it in its status; the others may have none of ours.
        if !is_readable && !kind.is_resource() && kind != ObjectKind::Namespace {
            tracing::warn!(kind = kind.word(), %namespace, %name, bytes, "an object is too large and is not read");
        }
        let status = status.filter(|it| (kind.is_resource() || kind.is_route()) && it.get().len() <= LARGEST);
        let status: Value = status.and_then(|it| serde_json::from_str(it.get()).ok()).unwrap_or_default();
        let written = CompiledText {
            api_version: kind.api_version(),
            kind: kind.word(),
            metadata: match (kind, dialect) {
                (ObjectKind::Namespace, _) => {
                    json!({"name": name, "labels": metadata.labels.unwrap_or_default()})
                }
                (_, Some(dialect)) => {
                    json!({"namespace": namespace, "name": name, "annotations": {DIALECT: dialect}})
                }
                (_, None) => json!({"namespace": namespace, "name": name}),
            },
            // Whoever compiles it says what of it cannot be read.
            spec: spec.filter(|_| kind != ObjectKind::Namespace && is_readable),
            unreadable: (!is_readable && kind != ObjectKind::Namespace).then(|| {
                let (bytes, most) = (bytes.div_ceil(1024), LARGEST / 1024);
                format!("this has {bytes} KiB and is not read: {most} KiB are the most of one object, so make several of it")
            }),
            held_hosts: claim::held_hosts(kind, &status),
        };
        Some(Self {
            key: ObjectKey { kind, namespace, name },
            uid: metadata.uid.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(Timestamp::MAX, |time| time.0),
            generation: metadata.generation.unwrap_or_default(),
            text: serde_json::to_string(&written).ok()?.into(),
            version: metadata.resource_version.unwrap_or_default(),
            status,
        })
    }

    /// Whether both compile to the same.
    fn compiles_like(&self, other: &Self) -> bool {
        self.created == other.created && self.text == other.text
    }
}

/// All objects at an instant.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectSet {
    objects: BTreeMap<ObjectKey, Arc<ClusterObject>>,
    is_persisted: bool,
    lacks_destinations: bool,
    is_unsettled: bool,
}

impl ObjectSet {
    pub(super) fn new(objects: impl Iterator<Item = Arc<ClusterObject>>) -> Self {
        let objects = objects.map(|object| (object.key.clone(), object)).collect();
        Self { objects, ..Self::default() }
    }

    /// The same, where a kind that stands for Destinations may not have been listed.
    pub(super) fn lacking_destinations(self, lacks_destinations: bool) -> Self {
        Self { lacks_destinations, ..self }
    }

    /// The same, where the API server does not know a kind, and may know it in a moment.
    pub(super) fn unsettled(self, is_unsettled: bool) -> Self {
        Self { is_unsettled, ..self }
    }

    pub(super) fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }

    /// The same, as it was read from the disk.
    pub(super) fn persisted(self) -> Self {
        Self { is_persisted: true, ..self }
    }

    pub(super) fn lacks_destinations(&self) -> bool {
        self.lacks_destinations
    }

    /// Whether it has this object, as it is compiled.
    pub(super) fn has(&self, object: &ClusterObject) -> bool {
        self.objects
            .get(&object.key)
            .is_some_and(|known| known.uid == object.uid && known.compiles_like(object))
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<ClusterObject>> {
        self.objects.get(key)
    }

    pub(super) fn is_persisted(&self) -> bool {
        self.is_persisted
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<ClusterObject>> {
        self.objects.values()
    }

    /// Whether both compile to the same, whatever is said in status. One from the disk is never like one from the API server: what
    /// is in force is to be known as confirmed.
    pub(super) fn compiles_like(&self, other: &Self) -> bool {
        (self.is_persisted, self.lacks_destinations) == (other.is_persisted, other.lacks_destinations)
            && self.objects.len() == other.objects.len()
            && self.objects.iter().zip(&other.objects).all(|((key, one), (other_key, two))| {
                key == other_key && (Arc::ptr_eq(one, two) || one.compiles_like(two))
            })
    }

    /// Whether the same objects may have hosts in both, and name the same.
    pub(super) fn claims_like(&self, other: &Self) -> bool {
        let (mut others, mut own) = (other.claims(), self.claims());
        own.all(|one| {
            let two = others.next();
            two.is_some_and(|two| one.key == two.key && (Arc::ptr_eq(one, two) || one.compiles_like(two)))
        }) && others.next().is_none()
    }

    /// What decides who holds a host.
    fn claims(&self) -> impl Iterator<Item = &Arc<ClusterObject>> {
        self.iter().filter(|object| object.key.kind.decides_of_hosts())
    }

    /// What the namespaces have agreed to. What cannot be read agrees to nothing.
    pub(super) fn consents(&self) -> Consents {
        let mut consents = Consents { lacks_destinations: self.lacks_destinations, ..Consents::default() };
        for object in self.iter() {
            let kind = object.key.kind;
            if !matches!(kind, ObjectKind::ReferenceGrant | ObjectKind::Namespace) {
                continue;
            }
            let written: Value = serde_json::from_str(&object.text).unwrap_or_default();
            if kind == ObjectKind::ReferenceGrant {
                consents.reference_grants.extend(ReferenceGrant::read(&written).ok());
            } else if let (Ok(name), Some(labels)) =
                (object.key.name.parse(), written.pointer("/metadata/labels"))
            {
                consents.namespaces.insert(name, BTreeMap::deserialize(labels).unwrap_or_default());
            }
        }
        consents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: ObjectKind, name: &str, second: i64) -> Arc<ClusterObject> {
        let found = serde_json::from_value(json!({
            "apiVersion": "tollgate.dev/v1alpha1", "kind": kind.word(),
            "metadata": {
                "namespace": "shop", "name": name, "uid": name, "generation": 3, "resourceVersion": "7",
                "creationTimestamp": Timestamp::from_second(second).unwrap().to_string(),
                "labels": {"a": "b"}, "annotations": {"note": "not compiled"},
            },
            "spec": {"x": 1}, "status": {"conditions": []},
        }));
        Arc::new(ClusterObject::of(kind, found.unwrap()).unwrap())
    }

    #[test]
    fn an_object_is_compiled_from_its_spec_and_its_id_alone() {
        let object = object(ObjectKind::Grant, "web", 0);
        let written: Value = serde_json::from_str(&object.text).unwrap();
        let members = json!({
            "apiVersion": "tollgate.dev/v1alpha1", "kind": "Grant",
            "metadata": {"namespace": "shop", "name": "web"}, "spec": {"x": 1},
        });
        assert_eq!(written, members);
        assert_eq!((object.generation, object.status.clone()), (3, json!({"conditions": []})));
    }

    #[test]
    fn an_object_larger_than_any_is_kept_without_what_it_says_and_says_why() {
        let of = |kind: ObjectKind, bytes: usize| {
            let found = json!({
                "metadata": {"namespace": "shop", "name": "large"}, "spec": {"x": "y".repeat(bytes)},
                "status": {"x": "y".repeat(bytes)},
            });
            ClusterObject::of(kind, serde_json::from_value(found).unwrap()).unwrap()
        };
        let whole = of(ObjectKind::Grant, LARGEST - 8);
        assert!(
            whole.text.len() > LARGEST && whole.status["x"].is_string() && !whole.text.contains("unreadable")
        );
        for kind in [ObjectKind::Grant, ObjectKind::Backend, ObjectKind::ReferenceGrant] {
            let large = of(kind, LARGEST);
            assert!(large.text.len() < 512 && large.status.is_null(), "{}", large.text);
            assert!(
                large.text.contains("this has 257 KiB and is not read: 256 KiB are the most"),
                "{}",
                large.text
            );
        }
        let grants = ObjectSet::new(std::iter::once(Arc::new(of(ObjectKind::ReferenceGrant, LARGEST))));
        assert!(grants.consents().reference_grants.is_empty());
    }

    #[test]
    fn what_namespaces_agree_to_is_read_from_their_labels_and_reference_grants() {
        let of = |kind: ObjectKind, object: Value| {
            Arc::new(ClusterObject::of(kind, serde_json::from_value(object).unwrap()).unwrap())
        };
        let namespace = |label: &str| json!({"metadata": {"name": "shop", "labels": {"team": label}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let rules = json!({
            "from": [{"group": "tollgate.dev", "kind": "Grant", "namespace": "shop"}],
            "to": [{"group": "tollgate.dev", "kind": "Destination"}],
        });
        let grant = json!({"metadata": {"namespace": "platform", "name": "shop"}, "spec": rules});
        let broken = json!({"metadata": {"namespace": "platform", "name": "broken"}, "spec": {"from": 1}});
        let set = ObjectSet::new(
            [
                of(ObjectKind::Namespace, namespace("checkout")),
                of(ObjectKind::ReferenceGrant, grant),
                of(ObjectKind::ReferenceGrant, broken),
            ]
            .into_iter(),
        );
        let consents = set.consents();
        assert_eq!(consents.namespaces["shop"]["team"], "checkout");
        assert_eq!(consents.reference_grants.len(), 1);
        assert_eq!(consents.reference_grants[0].namespace.as_str(), "platform");
        let other = of(ObjectKind::Namespace, namespace("billing"));
        assert!(!set.objects.values().any(|object| object.compiles_like(&other)));
    }

    #[test]
    fn a_change_of_status_alone_compiles_nothing_anew() {
        let one = object(ObjectKind::Grant, "a", 5);
        let two = Arc::new(ClusterObject { status: json!({}), version: "8".to_owned(), ..(*one).clone() });
        let three = Arc::new(ClusterObject { text: "{}".into(), ..(*one).clone() });
        let set = |object: &Arc<ClusterObject>| ObjectSet::new(std::iter::once(Arc::clone(object)));
        assert!(set(&one).compiles_like(&set(&two)));
        assert!(!set(&one).compiles_like(&set(&three)));
        assert!(!set(&one).persisted().compiles_like(&set(&one)));
    }

    #[test]
    fn who_holds_a_host_is_decided_by_what_may_have_some_and_by_nothing_else() {
        let set = |objects: &[(ObjectKind, &str, i64)]| {
            ObjectSet::new(objects.iter().map(|(kind, name, second)| object(*kind, name, *second)))
        };
        let one = set(&[(ObjectKind::Destination, "a", 1), (ObjectKind::Grant, "a", 1)]);
        assert!(one.claims_like(&set(&[(ObjectKind::Destination, "a", 1)])));
        assert!(
            one.claims_like(&set(&[(ObjectKind::Destination, "a", 1), (ObjectKind::Credential, "b", 2)]))
        );
        for more in [ObjectKind::Destination, ObjectKind::Backend, ObjectKind::HttpRoute, ObjectKind::Gateway]
        {
            assert!(!one.claims_like(&set(&[(ObjectKind::Destination, "a", 1), (more, "b", 1)])), "{more:?}");
        }
        assert!(!one.claims_like(&set(&[(ObjectKind::Destination, "a", 2)])));
        assert!(!one.claims_like(&set(&[(ObjectKind::Destination, "b", 1)])));
    }
}
