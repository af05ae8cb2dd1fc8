//! Which secrets the policy uses, where they are, and how long a value may serve: the one place that reads the compiled
//! policy.
//!
//! **Invariant:** two equal [`Reference`]s name the same secret in the same place, so a value cached under one may be
//! served for the other.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::name::Name;
use tollgate_policy::policy::{Credential, Policy, SecretRef, Store};

/// Where one secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The whole definition: a store that is redefined under its name is another place.
    pub(crate) store: Arc<Store>,
    pub(crate) secret: SecretRef,
}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.secret.hash(state);
    }
}

impl Reference {
    /// `store:path#field@version`, for operators.
    pub(crate) fn describe(&self) -> String {
        self.secret.to_string()
    }
}

/// How old a value may become, counted from its fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// From this age on, the store is asked again before the value is used.
    pub(crate) refresh: Duration,
    /// Up to this age a value is used while the store cannot be asked. Never below `refresh`.
    pub(crate) max_stale: Duration,
}

impl Freshness {
    /// A refresh time of zero would ask without a pause.
    const LEAST: Duration = Duration::from_secs(1);

    pub(crate) fn of(credential: &Credential) -> Self {
        if credential.from.dynamic {
            // Its lease says how long it is good; without one it is good for nothing.
            return Self { refresh: Duration::ZERO, max_stale: Duration::ZERO };
        }
        let refresh = credential.refresh.max(Self::LEAST);
        Self { refresh, max_stale: credential.max_stale.max(refresh) }
    }

    /// The stricter of both, for credentials that share one secret.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { refresh: self.refresh.min(other.refresh), max_stale: self.max_stale.min(other.max_stale) }
    }
}

/// One credential that the cache has to serve.
pub(crate) struct Wanted {
    pub(crate) credential: Name,
    pub(crate) reference: Reference,
    pub(crate) freshness: Freshness,
}

/// The credentials of a policy, each with the place of its secret.
pub(crate) fn wanted(policy: &Policy) -> Vec<Wanted> {
    policy
        .credentials()
        .filter_map(|credential| {
            // A compiled policy has every store that it names.
            let store = policy.store(credential.from.store.as_str())?;
            Some(Wanted {
                credential: credential.name.clone(),
                reference: Reference { store: Arc::clone(store), secret: credential.from.clone() },
                freshness: Freshness::of(credential),
            })
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use tollgate_policy::policy::{Inject, Injection, StoreKind};

    use super::*;

    /// A reference to `path` in a store of this kind.
    pub(crate) fn reference_to(kind: StoreKind, path: &str, field: Option<&str>) -> Reference {
        let store: Name = "store".parse().unwrap();
        let secret = SecretRef {
            store: store.clone(),
            path: path.into(),
            fields: field.into_iter().map(Into::into).collect(),
            version: None,
            stage: None,
            version_id: None,
            dynamic: false,
        };
        Reference { store: Arc::new(Store { name: store, kind }), secret }
    }

    /// A credential for a reference.
    pub(crate) fn credential_for(name: &str, reference: &Reference, freshness: Freshness) -> Credential {
        Credential {
            name: name.parse().unwrap(),
            destinations: Vec::new(),
            from: reference.secret.clone(),
            inject: vec![Injection { field: None, way: Inject::Bearer }],
            refresh: freshness.refresh,
            max_stale: freshness.max_stale,
        }
    }

    fn file(root: &str) -> StoreKind {
        StoreKind::File { root: root.into() }
    }

    #[test]
    fn a_reference_is_described_in_full() {
        let mut reference = reference_to(file("/keys"), "llm/openai", Some("api_key"));
        assert_eq!(reference.describe(), "store:llm/openai#api_key");
        reference.secret.version = Some(7);
        assert_eq!(reference.describe(), "store:llm/openai#api_key@7");
        reference.secret.version = None;
        reference.secret.stage = Some("AWSPREVIOUS".into());
        assert_eq!(reference.describe(), "store:llm/openai#api_key@AWSPREVIOUS");
    }

    #[test]
    fn a_store_that_is_redefined_under_its_name_is_another_place() {
        assert_eq!(reference_to(file("/keys"), "a", None), reference_to(file("/keys"), "a", None));
        assert_ne!(reference_to(file("/keys"), "a", None), reference_to(file("/other"), "a", None));
    }

    #[test]
    fn a_refresh_time_of_zero_does_not_ask_without_a_pause() {
        let none = Freshness { refresh: Duration::ZERO, max_stale: Duration::ZERO };
        let credential = credential_for("c", &reference_to(file("/keys"), "a", None), none);
        let second = Duration::from_secs(1);
        assert_eq!(Freshness::of(&credential), Freshness { refresh: second, max_stale: second });
    }
}
