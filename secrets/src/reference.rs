//! Which secrets the policy uses, where they are, and how long a value may serve: the one place that reads the compiled
//! policy.
//!
//! **Invariant:** two equal [`Reference`]s name the same secret in the same place, so a value cached under one may be
//! served for the other.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::name::Name;
use tollgate_policy::policy::{Credential, Key, Mint, Policy, SecretRef, Store};

/// Where one secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The whole definition: a store that is redefined under its name is another place.
    pub(crate) store: Arc<Store>,
    pub(crate) secret: SecretRef,
    /// What is made of it before it is used.
    pub(crate) mint: Option<Minting>,
}

/// How a value is made of a stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Minting {
    pub(crate) mint: Arc<Mint>,
    /// The client's own secret, where the mint takes one beside the stored value.
    pub(crate) client: Option<Box<Reference>>,
}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.secret.hash(state);
    }
}

impl Reference {
    fn of(policy: &Policy, secret: &SecretRef) -> Option<Self> {
        // A compiled policy has every store that it names.
        let store = policy.store(secret.store.as_str())?;
        Some(Self { store: Arc::clone(store), secret: secret.clone(), mint: None })
    }

    /// Whether it is what this key of the credential is.
    pub(crate) fn is_of(&self, credential: &Credential, key: &Key) -> bool {
        self.secret == key.from && self.mint.as_ref().map(|minting| &minting.mint) == credential.mint.as_ref()
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
    /// The same, for a value that has only `life` left.
    pub(crate) fn within(self, life: Duration) -> Self {
        self.min(Self { refresh: life, max_stale: life })
    }

    /// A refresh time of zero would ask without a pause.
    const LEAST: Duration = Duration::from_secs(1);

    pub(crate) fn of(credential: &Credential, key: &Key) -> Self {
        if key.from.dynamic {
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

/// One key that the cache has to serve.
pub(crate) struct Wanted {
    pub(crate) credential: Arc<Credential>,
    /// What that credential calls it, if it has others.
    pub(crate) alias: Option<Name>,
    /// What operators know the value by.
    pub(crate) description: String,
    pub(crate) reference: Reference,
    pub(crate) freshness: Freshness,
}

/// The keys of all credentials of a policy, each with the place of its secret; those of a credential in their order.
pub(crate) fn wanted(policy: &Policy) -> Vec<Wanted> {
    policy
        .credentials()
        .flat_map(|credential| credential.keys.iter().map(move |key| (credential, key)))
        .filter_map(|(credential, key)| {
            let mut reference = Reference::of(policy, &key.from)?;
            if let Some(mint) = &credential.mint {
                let client = match mint.client_secret() {
                    Some(secret) => Some(Box::new(Reference::of(policy, secret)?)),
                    None => None,
                };
                reference.mint = Some(Minting { mint: Arc::clone(mint), client });
            }
            Some(Wanted {
                credential: Arc::clone(credential),
                alias: key.alias.clone(),
                description: credential.reference(key),
                reference,
                freshness: Freshness::of(credential, key),
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
        let store: tollgate_policy::name::ResourceId = "store".parse().unwrap();
        let secret = SecretRef {
            store: store.clone(),
            path: path.into(),
            fields: field.into_iter().map(Into::into).collect(),
            version: None,
            stage: None,
            version_id: None,
            dynamic: false,
        };
        Reference { store: Arc::new(Store { name: store, kind }), secret, mint: None }
    }

    /// A credential for a reference.
    pub(crate) fn credential_for(name: &str, reference: &Reference, freshness: Freshness) -> Credential {
        Credential {
            name: name.parse().unwrap(),
            destinations: Vec::new(),
            keys: vec![Key { alias: None, weight: 1, from: reference.secret.clone() }],
            inject: vec![Injection { field: None, way: Inject::Bearer }],
            refresh: freshness.refresh,
            max_stale: freshness.max_stale,
            prefetch: false,
            mint: reference.mint.as_ref().map(|minting| Arc::clone(&minting.mint)),
        }
    }

    fn file(root: &str) -> StoreKind {
        StoreKind::File { root: root.into() }
    }

    fn described(reference: &Reference) -> String {
        let none = Freshness { refresh: Duration::ZERO, max_stale: Duration::ZERO };
        let credential = credential_for("c", reference, none);
        credential.reference(&credential.keys[0])
    }

    #[test]
    fn a_reference_is_described_in_full() {
        let mut reference = reference_to(file("/keys"), "llm/openai", Some("api_key"));
        reference.secret.version = Some(7);
        assert_eq!(described(&reference), "store:llm/openai#api_key@7");
        reference.secret.version = None;
        reference.secret.stage = Some("AWSPREVIOUS".into());
        assert_eq!(described(&reference), "store:llm/openai#api_key@AWSPREVIOUS");
    }

    #[test]
    fn a_shorter_life_shortens_how_long_a_value_is_used() {
        let second = Duration::from_secs(1);
        let freshness = Freshness { refresh: second * 10, max_stale: second * 60 };
        assert_eq!(freshness.within(second * 90), freshness);
        assert_eq!(freshness.within(second * 30), Freshness { max_stale: second * 30, ..freshness });
        assert_eq!(freshness.within(second * 5), Freshness { refresh: second * 5, max_stale: second * 5 });
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
        assert_eq!(
            Freshness::of(&credential, &credential.keys[0]),
            Freshness { refresh: second, max_stale: second }
        );
    }
}
