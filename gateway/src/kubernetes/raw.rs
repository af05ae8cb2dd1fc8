//! Objects as an API server sends them: of each its identity is read, and the rest stays text.
//!
//! **Invariant:** nothing that somebody may write into an object keeps the others of its list, or of its watch, from being read. `kube`
//! reads a list as a whole, and `serde_json` refuses what is nested more than 128 levels deep, as the members may be that our definitions
//! keep without knowing them, and `managedFields` with them. No schema can bound how deep those are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::api::ApiResource;
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One object. Of its metadata what is watched for is there, and nothing else.
#[derive(Clone, Debug)]
pub(super) struct RawObject {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Option<Box<RawValue>>,
    pub(super) status: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RawParts {
    #[serde(default)]
    metadata: RawMetadata,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

/// Whatever else there is, `managedFields` above all, is skipped and not read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMetadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawParts { metadata, spec, status } = RawParts::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            generation: metadata.generation,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, spec, status })
    }
}

impl Resource for RawObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectList;
    use kube::core::WatchEvent;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    fn object(name: &str, deep: &str) -> String {
        format!(
            r#"{{"apiVersion":"tollgate.dev/v1alpha1","kind":"Grant","metadata":{{"name":"{name}","namespace":"shop",
            "resourceVersion":"7","creationTimestamp":"2026-01-01T00:00:00Z","managedFields":[{deep}]}},
            "spec":{{"from":{deep}}},"status":{deep}}}"#
        )
    }

    #[test]
    fn an_object_that_is_nested_without_end_keeps_no_other_from_being_read() {
        let deep = nested(5_000);
        let items = [object("a", "1"), object("b", &deep), object("c", "1")].join(",");
        let list = format!(
            r#"{{"apiVersion":"v1","kind":"List","metadata":{{"resourceVersion":"9"}},"items":[{items}]}}"#
        );
        let list: ObjectList<RawObject> = serde_json::from_str(&list).unwrap();
        let names: Vec<_> = list.iter().map(|object| object.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let spec = list.items[1].spec.as_ref().unwrap();
        assert_eq!(spec.get(), format!(r#"{{"from":{deep}}}"#));
        let event = format!(r#"{{"type":"MODIFIED","object":{}}}"#, object("b", &deep));
        let event = serde_json::from_str::<WatchEvent<RawObject>>(&event).unwrap();
        let WatchEvent::Modified(object) = event else { panic!("{event:?}") };
        assert_eq!(object.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(object.metadata.creation_timestamp.unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_line_that_breaks_off_in_the_middle_is_no_object() {
        let line = format!(r#"{{"type":"ADDED","object":{}}}"#, object("a", "1"));
        for end in [line.len() - 1, line.len() - 20, 60] {
            assert!(serde_json::from_str::<WatchEvent<RawObject>>(&line[..end]).is_err_and(|it| it.is_eof()));
        }
    }
}
