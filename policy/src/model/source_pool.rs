//! `kind: SourcePool`, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::allowed::AllowedNamespaces;
use super::field::{Address, List};

/// The local addresses that calls leave from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["addresses"]))]
pub(crate) struct SourcePoolSpec {
    /// Local IP addresses, IPv4 and IPv6; 64 at most. A destination is reached only over the families that are here.
    pub(crate) addresses: List<Address>,
    /// `ordered`: the first address that can be had. `spread`: each caller, or each credential, has an address of its own.
    #[schemars(extend("default" = "ordered"))]
    pub(crate) order: Option<OrderWord>,
    /// Whose address it is, with `order: spread`. By `credential`, a call without one leaves from its caller's address.
    #[schemars(extend("default" = "caller"))]
    pub(crate) sticky_by: Option<StickyWord>,
    /// What is done where an address is missing, used up, or does not lead to the destination. `next`: the next of `addresses` is
    /// tried. `none`: the call is refused.
    #[schemars(extend("default" = "next"))]
    pub(crate) failover: Option<FailoverWord>,
    /// Whether addresses may be used that the host does not have (`IP_FREEBIND`). Answers arrive only where the network and a route of the
    /// host (`ip route add local`) lead them to it all the same. Without that route nothing leaves from an IPv4 address.
    #[schemars(extend("default" = false))]
    pub(crate) freebind: Option<bool>,
    /// The namespaces whose Destinations may refer to this pool, besides its own: `All`, or some. See [namespaces](#namespaces).
    pub(crate) allowed_namespaces: Option<AllowedNamespaces>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum OrderWord {
    Ordered,
    Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum StickyWord {
    Caller,
    Credential,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FailoverWord {
    Next,
    None,
}
