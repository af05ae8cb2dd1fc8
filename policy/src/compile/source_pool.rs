//! Source pools: local addresses of the gateway's, in one list once each.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::own::check_allowed;
use super::{Compiler, Scope};
use crate::model::{Address, DestinationSpec, FailoverWord, OrderWord, Resource, SourcePoolSpec, StickyWord};
use crate::resource::{SourceOrder, SourcePool, SourceRules};

/// More than a machine's addresses for one destination, and few enough to weigh all of them for a call.
const MOST_ADDRESSES: usize = 64;

impl Compiler<'_> {
    pub(super) fn source_pools(&mut self) {
        for resource in &self.model.source_pools {
            let before = self.problems.len();
            let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
            let rules = rules(resource, &mut scope);
            // What is left of a pool may be other addresses than what was written.
            if resource.is_whole && self.problems.len() == before {
                self.parts.source_pools.insert(resource.id.clone(), Arc::new(SourcePool::new(rules)));
            }
        }
    }

    /// What calls to a destination leave from. `None`: it is written, and is not known.
    pub(super) fn sources(&mut self, resource: &Resource<DestinationSpec>) -> Option<SourcePool> {
        let spec = &resource.spec;
        let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
        let Some(reference) = &spec.source_pool else {
            if resource.source.claims("spec.sourcePool") {
                return None;
            }
            let single = spec.source_address.map(|Address(address)| SourcePool::single(address));
            return Some(single.unwrap_or_default());
        };
        if resource.source.has("spec.sourceAddress") {
            let message = "`sourceAddress` is a pool of one: leave one of both out";
            scope.problem("spec.sourcePool", message);
        }
        let known = (self.model.source_pools.as_slice(), self.model.incomplete);
        let pool = scope.resolve(("spec.sourcePool", reference), known, &self.parts.source_pools)?;
        for (index, Address(address)) in spec.addresses.iter().filter(|(_, it)| !pool.reaches(it.0)) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message =
                format!("`{address}` cannot be reached from `sourcePool`, which has no {family} address");
            scope.problem(&format!("spec.addresses[{index}]"), message);
        }
        Some(SourcePool::clone(&pool))
    }
}

fn rules(resource: &Resource<SourcePoolSpec>, scope: &mut Scope<'_>) -> SourceRules {
    let SourcePoolSpec { addresses, order, sticky_by, failover, freebind, allowed_namespaces } =
        &resource.spec;
    scope.at_least_one("spec.addresses", addresses, "local IP addresses, as in `[192.0.2.7]`");
    if scope.app_namespace().is_some() {
        let message = "these would be the gateway's own addresses, by which others let its callers in: only a SourcePool of the gateway's \
                       namespace lists them. Refer to one there that has this namespace in its `allowedNamespaces`";
        scope.problem("spec.addresses", message);
    }
    if addresses.written().is_some_and(|count| count > MOST_ADDRESSES) {
        scope.problem("spec.addresses", format!("a pool has at most {MOST_ADDRESSES} addresses"));
    }
    let mut seen = BTreeSet::new();
    for (index, Address(address)) in addresses.iter() {
        let path = format!("spec.addresses[{index}]");
        if let Some(why) = unusable(*address) {
            scope.problem(&path, format!("`{address}` {why}"));
        } else if !seen.insert(*address) {
            scope.problem(&path, format!("`{address}` is in this list twice"));
        }
    }
    let is_ordered = order.map_or(!scope.source.claims("spec.order"), |order| order == OrderWord::Ordered);
    if sticky_by.is_some() && is_ordered {
        scope.problem(
            "spec.stickyBy",
            "this goes with `order: spread`: in order, all calls leave from the first address",
        );
    }
    check_allowed(allowed_namespaces.as_ref(), scope);
    SourceRules {
        name: Some(resource.id.clone()),
        addresses: addresses.values().map(|Address(address)| *address).collect(),
        order: match (order, sticky_by) {
            (None | Some(OrderWord::Ordered), _) => SourceOrder::Ordered,
            (Some(OrderWord::Spread), None | Some(StickyWord::Caller)) => SourceOrder::ByCaller,
            (Some(OrderWord::Spread), Some(StickyWord::Credential)) => SourceOrder::ByCredential,
        },
        failover: *failover != Some(FailoverWord::None),
        freebind: *freebind == Some(true),
    }
}

/// Why nothing leaves from such an address.
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is not the address of one host"),
        _ if address.is_unspecified() || address.is_multicast() => Some("is not the address of one host"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in another form: write it as one")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("is of one link, and leads to no destination"),
        _ => None,
    }
}
