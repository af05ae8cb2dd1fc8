//! The kinds of objects that are watched, each declared once: watches, status, CustomResourceDefinitions and references go by it.

use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use serde::{Deserialize, Serialize};
use tollgate_policy::consent::GROUP;

/// The version of the gateway's own kinds.
pub(crate) const VERSION: &str = "v1alpha1";
/// The group of the Gateway API, and that of what is experimental in it.
pub(super) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub(super) const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

/// The controller that a GatewayClass names to be ours.
pub(super) const CONTROLLER: &str = "tollgate.dev/egress";

/// The annotation of an XBackend that says how its usage is read, which it has no field for.
pub(super) const DIALECT: &str = "tollgate.dev/dialect";

/// What objects of a kind are to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A resource of its own.
    Resource,
    /// It says what namespaces agree to. Nothing is written into it.
    Consent,
    /// It leads to a destination, by the Gateway API. It is watched where the settings have `gatewayApi`.
    Route,
}

/// All that is known of a kind.
#[derive(Clone, Copy)]
struct Declared {
    /// As `kind` says it.
    word: &'static str,
    /// As paths of the API say it.
    plural: &'static str,
    group: &'static str,
    version: &'static str,
    /// The version that is read where the API server lacks that one.
    older: Option<&'static str>,
    is_namespaced: bool,
    role: Role,
    /// Whether a cluster may lack the kind.
    is_optional: bool,
}

const fn own(word: &'static str, plural: &'static str) -> Declared {
    let (group, version, role) = (GROUP, VERSION, Role::Resource);
    Declared { word, plural, group, version, older: None, is_namespaced: true, role, is_optional: false }
}

const fn route(group: &'static str, version: &'static str, names: [&'static str; 2]) -> Declared {
    let [word, plural] = names;
    let role = Role::Route;
    Declared { word, plural, group, version, older: None, is_namespaced: true, role, is_optional: true }
}

macro_rules! kinds {
    ($($kind:ident = $declared:expr;)*) => {
        /// What is watched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub(crate) enum ObjectKind { $($kind,)* }

        impl ObjectKind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind,)*];

            const fn declared(self) -> Declared {
                match self { $(Self::$kind => $declared,)* }
            }
        }
    };
}

kinds! {
    Destination = own("Destination", "destinations");
    SecretStore = own("SecretStore", "secretstores");
    Credential = own("Credential", "credentials");
    Grant = own("Grant", "grants");
    Approval = own("Approval", "approvals");
    SourcePool = own("SourcePool", "sourcepools");
    Budget = own("Budget", "budgets");
    // Its `v1` is not in every version of the Gateway API that is in use, and `v1beta1` will not be for ever.
    ReferenceGrant = Declared {
        role: Role::Consent, older: Some("v1beta1"),
        ..route(GATEWAY_GROUP, "v1", ["ReferenceGrant", "referencegrants"])
    };
    Namespace = Declared {
        word: "Namespace", plural: "namespaces", group: "", version: "v1", older: None, is_namespaced: false,
        role: Role::Consent, is_optional: false,
    };
    GatewayClass = Declared {
        is_namespaced: false, ..route(GATEWAY_GROUP, "v1", ["GatewayClass", "gatewayclasses"])
    };
    Gateway = route(GATEWAY_GROUP, "v1", ["Gateway", "gateways"]);
    HttpRoute = route(GATEWAY_GROUP, "v1", ["HTTPRoute", "httproutes"]);
    Backend = route(EXPERIMENTAL_GROUP, "v1alpha1", ["XBackend", "xbackends"]);
}

impl ObjectKind {
    /// Whether it is a resource, which is compiled as it is written.
    pub(super) const fn is_resource(self) -> bool {
        matches!(self.declared().role, Role::Resource)
    }

    /// Whether it is one of the Gateway API's that lead to destinations.
    pub(super) const fn is_route(self) -> bool {
        matches!(self.declared().role, Role::Route)
    }

    /// Whether objects of the kind have hosts, or decide whether others have theirs.
    pub(super) const fn decides_of_hosts(self) -> bool {
        !self.is_resource() || matches!(self, Self::Destination)
    }

    /// Whether a cluster may lack the kind.
    pub(super) const fn is_optional(self) -> bool {
        self.declared().is_optional
    }

    /// Whether objects of the kind are in namespaces.
    pub(super) const fn is_namespaced(self) -> bool {
        self.declared().is_namespaced
    }

    /// As `kind` says it.
    pub(crate) const fn word(self) -> &'static str {
        self.declared().word
    }

    /// As paths of the API say it.
    pub(crate) const fn plural(self) -> &'static str {
        self.declared().plural
    }

    /// As `apiVersion` says it.
    pub(super) fn api_version(self) -> String {
        let Declared { group, version, .. } = self.declared();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    pub(super) fn api(self) -> ApiResource {
        self.api_at(self.declared().version)
    }

    /// The versions that it is read in, the one that is preferred first.
    pub(super) fn apis(self) -> Vec<ApiResource> {
        let Declared { version, older, .. } = self.declared();
        std::iter::once(version).chain(older).map(|version| self.api_at(version)).collect()
    }

    fn api_at(self, version: &str) -> ApiResource {
        let Declared { group, word, plural, .. } = self.declared();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, word), plural)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_grants_are_read_in_their_stable_version_where_it_is_there() {
        let versions =
            |kind: ObjectKind| kind.apis().into_iter().map(|api| api.api_version).collect::<Vec<_>>();
        let both = ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
        assert_eq!(versions(ObjectKind::ReferenceGrant), both);
        assert_eq!(versions(ObjectKind::Grant), ["tollgate.dev/v1alpha1"]);
    }
}
