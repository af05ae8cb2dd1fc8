//! Which local addresses connections leave from.

use std::net::IpAddr;
use std::sync::Arc;

/// The local addresses of a destination, in the order in which they are tried. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcePool(
    /// Never empty; `None`: the system's routes choose.
    Option<Arc<[IpAddr]>>,
);

impl SourcePool {
    /// `addresses` in their order; where there are none, the system chooses.
    #[must_use]
    pub fn ordered(addresses: &[IpAddr]) -> Self {
        Self((!addresses.is_empty()).then(|| addresses.into()))
    }

    /// All of them, in their order; none: the system chooses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The address to try first; `None`: the system chooses.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        self.0.as_ref()?.first().copied()
    }

    /// What a connection to `remote` may leave from, in order: an address of its family each; one `None` where the system chooses. Nothing
    /// where `remote` cannot be reached from this pool.
    pub fn towards(&self, remote: IpAddr) -> impl Iterator<Item = Option<IpAddr>> {
        let addresses = self.0.as_deref();
        let fitting =
            addresses.unwrap_or_default().iter().filter(move |own| own.is_ipv4() == remote.is_ipv4());
        addresses.is_none().then_some(None).into_iter().chain(fitting.copied().map(Some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_offered_in_their_order_and_only_to_their_family() {
        let [one, two, six]: [IpAddr; 3] =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|a| a.parse().unwrap());
        let pool = SourcePool::ordered(&[two, six, one]);
        let towards = |pool: &SourcePool, remote: &str| -> Vec<Option<IpAddr>> {
            pool.towards(remote.parse().unwrap()).collect()
        };
        assert_eq!(towards(&pool, "198.51.100.1"), [Some(two), Some(one)]);
        assert_eq!(towards(&pool, "2001:db8::9"), [Some(six)]);
        assert_eq!(towards(&SourcePool::ordered(&[one]), "2001:db8::9"), []);
        assert_eq!(towards(&SourcePool::default(), "2001:db8::9"), [None]);
        assert_eq!((pool.first(), SourcePool::ordered(&[]).first()), (Some(two), None));
    }
}
