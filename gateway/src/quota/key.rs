//! For whom a limit counts.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use tollgate_policy::caller::Identity;
use tollgate_policy::limit::LimitKey;
use tollgate_policy::map::Seed;

/// Another in each process, so that nobody outside knows whose hash is whose.
static SEED: LazyLock<Seed> = LazyLock::new(Seed::default);

/// One caller's key under each [`LimitKey`]. No two namespaces and no two callers ever have the same one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a> {
    caller: &'a str,
    namespace: &'a str,
    /// Of caller, namespace and domain.
    hashes: [u64; 3],
}

impl<'a> Keys<'a> {
    /// A namespace's key holds its domain, and an identity outside any namespace is alone: sharing is never a default.
    pub(crate) fn of(id: &'a Identity) -> Self {
        let caller = id.as_str();
        let namespace = id.domain_and_namespace().unwrap_or(caller);
        let hashes = [caller, namespace, id.domain()].map(|text| SEED.hash_one(text));
        Self { caller, namespace, hashes }
    }

    /// Hashes of caller, namespace and domain: what tells them apart where an error would make nobody pay for another.
    pub(super) const fn hashes(&self) -> [u64; 3] {
        self.hashes
    }

    /// Empty where all share one count, as in the ledger.
    pub(super) fn get(&self, key: LimitKey) -> &'a str {
        match key {
            LimitKey::Shared => "",
            LimitKey::Namespace => self.namespace,
            LimitKey::Caller => self.caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: &str) -> (String, String) {
        let id: Identity = id.parse().unwrap();
        let keys = Keys::of(&id);
        (keys.get(LimitKey::Namespace).to_owned(), keys.get(LimitKey::Caller).to_owned())
    }

    #[test]
    fn callers_of_one_namespace_share_its_key_and_nobody_else_does() {
        let (namespace, caller) = keys("spiffe://prod.acme/ns/shop/sa/web");
        assert_eq!(namespace, "spiffe://prod.acme/ns/shop");
        assert_eq!(caller, "spiffe://prod.acme/ns/shop/sa/web");
        assert_eq!(keys("spiffe://prod.acme/ns/shop/sa/api").0, namespace);
        assert_eq!(keys("spiffe://prod.acme/ns/shop").0, namespace);
        for other in [
            "spiffe://prod.acme/ns/shop2/sa/web",
            "spiffe://test.acme/ns/shop/sa/web",
            "spiffe://prod.acme/ns",
        ] {
            assert_ne!(keys(other).0, namespace);
        }
    }

    #[test]
    fn an_identity_outside_any_namespace_is_alone() {
        for id in ["spiffe://prod.acme", "spiffe://prod.acme/web", "spiffe://prod.acme/team/web"] {
            assert_eq!(keys(id), (id.to_owned(), id.to_owned()));
        }
    }
}
