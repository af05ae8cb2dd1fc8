//! Which local addresses connections leave from.
//!
//! **Invariant:** what a pool offers is in its list. Whose turn an address is follows from the list and from who asks alone, so every
//! replica and every version says the same.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use fnv::FnvHasher;

use crate::caller::Identity;
use crate::name::ResourceId;

/// The local addresses of a destination. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcePool(
    /// `None`: the system's routes choose.
    Option<Arc<SourceRules>>,
);

/// What a pool says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRules {
    /// Its name; `None`: a destination's own address.
    pub name: Option<ResourceId>,
    /// Never empty.
    pub addresses: Box<[IpAddr]>,
    /// Which of them comes first.
    pub order: SourceOrder,
    /// Whether others are tried where that cannot be had.
    pub failover: bool,
    /// Whether the host need not have them.
    pub freebind: bool,
}

/// Which address of a pool comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceOrder {
    /// The first of the list.
    #[default]
    Ordered,
    /// Each caller's own.
    ByCaller,
    /// Each credential's own; where there is none, the caller's.
    ByCredential,
}

/// A pool as one call sees it: all that its order depends on.
#[derive(Debug, Clone, Copy)]
pub struct SourcePlan<'a> {
    pool: &'a SourcePool,
    /// Whose turn it is; `None`: the list's own order.
    seed: Option<u64>,
}

impl SourcePool {
    /// A destination's own address.
    #[must_use]
    pub fn single(address: IpAddr) -> Self {
        Self::new(SourceRules {
            name: None,
            addresses: [address].into(),
            order: SourceOrder::Ordered,
            failover: true,
            freebind: false,
        })
    }

    /// Of no address: the system chooses.
    #[must_use]
    pub fn new(rules: SourceRules) -> Self {
        Self((!rules.addresses.is_empty()).then(|| Arc::new(rules)))
    }

    /// What it says; `None`: the system chooses.
    #[must_use]
    pub fn rules(&self) -> Option<&SourceRules> {
        self.0.as_deref()
    }

    /// All of them, in their order; none: the system chooses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        self.rules().map_or(&[], |rules| &rules.addresses)
    }

    /// The first of the list; `None`: the system chooses.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        self.addresses().first().copied()
    }

    /// Whether `remote` can be reached from it.
    #[must_use]
    pub fn reaches(&self, remote: IpAddr) -> bool {
        self.0.is_none() || self.addresses().iter().any(|own| own.is_ipv4() == remote.is_ipv4())
    }

    /// The pool as a call of `caller` with `credential` sees it.
    #[must_use]
    pub fn plan(&self, caller: &Identity, credential: Option<&ResourceId>) -> SourcePlan<'_> {
        let seed = self.rules().and_then(|rules| match rules.order {
            SourceOrder::Ordered => None,
            SourceOrder::ByCaller => Some(seed(caller.as_str())),
            SourceOrder::ByCredential => Some(seed(credential.map_or(caller.as_str(), ResourceId::as_str))),
        });
        SourcePlan { pool: self, seed }
    }

    /// The pool in the order of its list, whoever asks.
    #[must_use]
    pub fn in_order(&self) -> SourcePlan<'_> {
        SourcePlan { pool: self, seed: None }
    }
}

impl<'a> SourcePlan<'a> {
    /// The pool that it is of.
    #[must_use]
    pub const fn pool(&self) -> &'a SourcePool {
        self.pool
    }

    /// The address of a family that comes first among those that are `usable`. Where none is, the one that would: it is to be refused by
    /// its name. `None`: the system chooses, or there is none of this family.
    pub fn first(&self, is_ipv4: bool, usable: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let rules = self.pool.rules()?;
        let of_family = || rules.addresses.iter().copied().filter(|own| own.is_ipv4() == is_ipv4);
        let best = |usable: &dyn Fn(IpAddr) -> bool| match self.seed {
            None => of_family().find(|own| usable(*own)),
            // The highest of all weights is the turn (rendezvous hashing): without an address only its own turns move.
            Some(seed) => of_family().filter(|own| usable(*own)).max_by_key(|own| (weight(seed, *own), *own)),
        };
        match rules.failover {
            true => best(&usable).or_else(|| best(&|_| true)),
            false => best(&|_| true),
        }
    }

    /// What a connection to `remote` may leave from, in the order to try. Nothing where `remote` cannot be reached from this pool, or the
    /// system chooses.
    #[must_use]
    pub fn towards(&self, remote: IpAddr) -> Vec<IpAddr> {
        let Some(rules) = self.pool.rules() else { return Vec::new() };
        let own = rules.addresses.iter().copied().filter(|own| own.is_ipv4() == remote.is_ipv4());
        let mut own: Vec<IpAddr> = own.collect();
        if let Some(seed) = self.seed {
            own.sort_by_key(|own| std::cmp::Reverse((weight(seed, *own), *own)));
        }
        own.truncate(if rules.failover { usize::MAX } else { 1 });
        own
    }
}

/// As people read it: `192.0.2.1, 192.0.2.2, spread by caller`.
impl fmt::Display for SourcePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rules) = self.rules() else { return f.write_str("what the system chooses") };
        let SourceRules { name: _, addresses, order, failover, freebind } = rules;
        for (index, address) in addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        f.write_str(match order {
            SourceOrder::Ordered => "",
            SourceOrder::ByCaller => ", spread by caller",
            SourceOrder::ByCredential => ", spread by credential",
        })?;
        f.write_str(if *failover { "" } else { ", without fail-over" })?;
        f.write_str(if *freebind { ", whether or not the host has them" } else { "" })
    }
}

/// FNV-1a is fixed for good, as opposed to the hashes of maps
/// (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv-17.html>).
fn seed(text: &str) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// How much `address` is that one's turn.
fn weight(seed: u64, address: IpAddr) -> u64 {
    let mut hasher = FnvHasher::with_key(seed);
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    // The last bytes of FNV-1a move few bits; the finaliser of MurmurHash3 spreads them (https://github.com/aappleby/smhasher).
    let mut mixed = hasher.finish();
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 4] = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"];

    fn pool(order: SourceOrder, failover: bool, addresses: &[&str]) -> SourcePool {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        SourcePool::new(SourceRules { name: None, addresses, order, failover, freebind: false })
    }

    fn towards(plan: SourcePlan<'_>, remote: &str) -> Vec<String> {
        plan.towards(remote.parse().unwrap()).into_iter().map(|own| own.to_string()).collect()
    }

    fn caller(number: usize) -> Identity {
        format!("spiffe://prod.acme/ns/shop/sa/web-{number}").parse().unwrap()
    }

    #[test]
    fn addresses_are_offered_in_their_order_and_only_to_their_family() {
        let some = pool(SourceOrder::Ordered, true, &ALL);
        assert_eq!(towards(some.in_order(), "198.51.100.1"), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(towards(some.in_order(), "2001:db8::9"), ["2001:db8::1"]);
        let alone = SourcePool::single("192.0.2.1".parse().unwrap());
        assert!(
            towards(alone.in_order(), "2001:db8::9").is_empty() && !alone.reaches("::1".parse().unwrap())
        );
        let system = SourcePool::default();
        assert!(system.reaches("2001:db8::9".parse().unwrap()) && system.addresses().is_empty());
        assert_eq!((some.first(), system.first()), (alone.first(), None));
    }

    #[test]
    fn without_failover_there_is_one_address_for_each_family() {
        let some = pool(SourceOrder::Ordered, false, &ALL);
        assert_eq!(towards(some.in_order(), "198.51.100.1"), ["192.0.2.1"]);
        assert_eq!(some.in_order().first(true, |_| false), some.first());
        let spread = pool(SourceOrder::ByCaller, false, &ALL);
        let plan = spread.plan(&caller(7), None);
        assert_eq!(plan.towards("198.51.100.1".parse().unwrap()), [plan.first(true, |_| false).unwrap()]);
    }

    #[test]
    fn an_address_less_moves_only_its_own_callers_and_all_have_their_share() {
        let spread = pool(SourceOrder::ByCaller, true, &ALL);
        let gone: IpAddr = "192.0.2.2".parse().unwrap();
        let mut shares = std::collections::BTreeMap::<IpAddr, usize>::new();
        for number in 0..3000 {
            let caller = caller(number);
            let plan = spread.plan(&caller, None);
            let own = plan.first(true, |_| true).unwrap();
            let order = plan.towards("198.51.100.1".parse().unwrap());
            assert_eq!(order[0], own);
            let without = plan.first(true, |own| own != gone).unwrap();
            assert!(without == own || own == gone);
            assert!(own != gone || without == order[1]);
            *shares.entry(own).or_default() += 1;
        }
        assert_eq!(shares.len(), 3);
        assert!(shares.values().all(|share| (900..1100).contains(share)), "{shares:?}");
    }

    #[test]
    fn whose_turn_an_address_is_never_changes() {
        let spread = pool(SourceOrder::ByCaller, true, &ALL);
        let turns: Vec<_> =
            (0..6).map(|number| spread.plan(&caller(number), None).first(true, |_| true).unwrap()).collect();
        let last = |turn: &IpAddr| turn.to_string().rsplit_once('.').unwrap().1.to_owned();
        assert_eq!(turns.iter().map(last).collect::<Vec<_>>(), ["2", "1", "3", "3", "3", "3"]);
    }

    #[test]
    fn by_credential_all_callers_of_one_leave_from_its_address() {
        let spread = pool(SourceOrder::ByCredential, true, &ALL);
        let of = |number: usize, key: Option<&str>| {
            let key = key.map(|key| key.parse::<ResourceId>().unwrap());
            spread.plan(&caller(number), key.as_ref()).first(true, |_| true)
        };
        assert!((1..50).all(|number| of(number, Some("openai")) == of(0, Some("openai"))));
        assert!((1..50).any(|number| of(number, None) != of(0, None)), "without a key it is the caller's");
    }

    #[test]
    fn a_pool_reads_as_what_it_does() {
        assert_eq!(SourcePool::default().to_string(), "what the system chooses");
        assert_eq!(pool(SourceOrder::Ordered, true, &ALL[..2]).to_string(), "192.0.2.1, 2001:db8::1");
        let words = pool(SourceOrder::ByCredential, false, &ALL[..1]).to_string();
        assert_eq!(words, "192.0.2.1, spread by credential, without fail-over");
    }
}
