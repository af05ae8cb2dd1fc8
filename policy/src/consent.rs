//! Who has agreed to be referred to from which namespace: what stands in a cluster beside the resources themselves.
//!
//! Plain data. [`crate::compile::compile_each`] asks it, together with the `allowedNamespaces` of what is referred to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::name::Name;

/// The API group of the resources of this crate, as references between objects name it.
pub const GROUP: &str = "tollgate.dev";

/// What the namespaces of a cluster have agreed to. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consents {
    /// The ReferenceGrants of all namespaces, in any order.
    pub reference_grants: Vec<ReferenceGrant>,
    /// The labels of each namespace. One that is missing here is selected by nothing.
    pub namespaces: BTreeMap<Name, BTreeMap<String, String>>,
    /// Whether there may be Destinations that nobody has listed. A grant of one that is not among the resources then denies nothing elsewhere.
    pub lacks_destinations: bool,
}

/// A ReferenceGrant of the Gateway API: what may refer to what is in its namespace
/// (<https://gateway-api.sigs.k8s.io/api-types/referencegrant/>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Where it is: it speaks for what is in this namespace and for nothing else.
    pub namespace: Name,
    /// What may refer: any one of these.
    pub from: Vec<ReferenceFrom>,
    /// What may be referred to: any one of these.
    pub to: Vec<ReferenceTo>,
}

/// A kind of object in one namespace that may refer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReferenceFrom {
    /// Its API group; empty: the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: Name,
}

/// A kind of object that may be referred to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReferenceTo {
    /// Its API group; empty: the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Only the one of this name; `None`: all of the kind.
    pub name: Option<String>,
}

/// The object is no ReferenceGrant that can be read. It agrees to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    /// Another kind, or a version that is not known here.
    #[error("this is no ReferenceGrant of `gateway.networking.k8s.io/v1` or `v1beta1`")]
    Kind,
    /// It lacks something, or something of it has another form.
    #[error("the ReferenceGrant cannot be read: {0}")]
    Form(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct GrantDocument {
    metadata: GrantMetadata,
    spec: GrantRules,
}

#[derive(Deserialize)]
struct GrantMetadata {
    namespace: Name,
}

#[derive(Deserialize)]
struct GrantRules {
    from: Vec<ReferenceFrom>,
    to: Vec<ReferenceTo>,
}

impl ReferenceGrant {
    /// Reads the JSON of an object, as the API server gives it. Fields that are not known are passed over, as by every client.
    ///
    /// # Errors
    /// It is another object, or something is missing that every ReferenceGrant has.
    pub fn read(object: &Value) -> Result<Self, ConsentError> {
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        let is_known = matches!(
            text("apiVersion"),
            Some("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1")
        );
        if !is_known || text("kind") != Some("ReferenceGrant") {
            return Err(ConsentError::Kind);
        }
        let GrantDocument { metadata, spec } = GrantDocument::deserialize(object)?;
        Ok(Self { namespace: metadata.namespace, from: spec.from, to: spec.to })
    }

    /// Whether an object of this group, kind and namespace may refer to the one of this group, kind and name in its namespace.
    pub fn allows(&self, from: (&str, &str, &str), to: (&str, &str, &str)) -> bool {
        let is_from =
            |it: &ReferenceFrom| (it.group.as_str(), it.kind.as_str(), it.namespace.as_str()) == from;
        let is_to = |it: &ReferenceTo| {
            (it.group.as_str(), it.kind.as_str()) == (to.0, to.1)
                && it.name.as_deref().is_none_or(|name| name.is_empty() || name == to.2)
        };
        self.from.iter().any(is_from) && self.to.iter().any(is_to)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: &Value) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": {"namespace": "platform", "name": "shop", "uid": "x"}, "spec": spec,
        })
    }

    #[test]
    fn a_reference_grant_allows_each_of_its_kinds_from_each_of_its_namespaces_and_nothing_else() {
        let grant = ReferenceGrant::read(&object(&json!({
            "from": [
                {"group": "tollgate.dev", "kind": "Grant", "namespace": "shop"},
                {"group": "tollgate.dev", "kind": "Credential", "namespace": "web"},
            ],
            "to": [
                {"group": "tollgate.dev", "kind": "Destination"},
                {"group": "tollgate.dev", "kind": "Credential", "name": "openai"},
            ],
        })))
        .unwrap();
        assert_eq!(grant.namespace.as_str(), "platform");
        let allows =
            |from: (&str, &str), to: (&str, &str)| grant.allows((GROUP, from.0, from.1), (GROUP, to.0, to.1));
        for (from, to) in [
            (("Grant", "shop"), ("Destination", "any")),
            (("Grant", "shop"), ("Credential", "openai")),
            (("Credential", "web"), ("Destination", "any")),
        ] {
            assert!(allows(from, to), "{from:?} {to:?}");
        }
        for (from, to) in [
            (("Grant", "web"), ("Destination", "any")),
            (("Credential", "shop"), ("Destination", "any")),
            (("Grant", "shop"), ("Credential", "other")),
            (("Grant", "shop"), ("SecretStore", "openai")),
        ] {
            assert!(!allows(from, to), "{from:?} {to:?}");
        }
        assert!(!grant.allows(("apps", "Grant", "shop"), (GROUP, "Destination", "any")));
        assert!(!grant.allows((GROUP, "Grant", "shop"), ("", "Destination", "any")));
    }

    #[test]
    fn what_is_no_reference_grant_or_lacks_something_is_none() {
        let right = json!({"from": [], "to": []});
        assert!(ReferenceGrant::read(&object(&right)).is_ok());
        let mut v1 = object(&right);
        v1["apiVersion"] = json!("gateway.networking.k8s.io/v1");
        assert!(ReferenceGrant::read(&v1).is_ok());
        for (field, value) in
            [("apiVersion", "gateway.networking.k8s.io/v2"), ("apiVersion", "v1"), ("kind", "HTTPRoute")]
        {
            let mut other = object(&right);
            other[field] = json!(value);
            assert!(matches!(ReferenceGrant::read(&other), Err(ConsentError::Kind)), "{field}");
        }
        for spec in [
            json!({"from": []}),
            json!({"to": []}),
            json!({"from": [{"group": "", "kind": "Grant"}], "to": []}),
            json!({"from": [{"group": "", "kind": "Grant", "namespace": "*"}], "to": []}),
            json!({"from": [], "to": [{"kind": "Destination"}]}),
        ] {
            assert!(matches!(ReferenceGrant::read(&object(&spec)), Err(ConsentError::Form(_))), "{spec}");
        }
    }
}
