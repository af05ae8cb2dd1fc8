//! What grants are held against: boundaries after compilation.

use super::grant::{Allow, Assume, Unpriced};
use crate::limit::Limit;
use crate::name::ResourceId;
use crate::pattern::{CallerPattern, HostPattern};

/// The broadest grant there may be.
#[derive(Debug, Clone)]
pub struct Boundary {
    /// Its name.
    pub name: ResourceId,
    /// Whom grants may be for; at least one.
    pub callers: Vec<CallerPattern>,
    /// What they may be for; at least one.
    pub destinations: Vec<ResourceId>,
    /// The hosts that these may have; `None`: any.
    pub hosts: Option<Vec<HostPattern>>,
    /// The keys that may be put on calls.
    pub credentials: Vec<ResourceId>,
    /// The audience whose tokens may be passed on.
    pub caller_token: Option<Box<str>>,
    /// Which calls.
    pub allow: Allow,
    /// What every grant has to be limited to at least.
    pub limits: Vec<Limit>,
    /// The most that the cap of calls without one may be; `None`: none is needed.
    pub default_output_cap: Option<u64>,
    /// The least that calls may be held at that nothing bounds; `None`: such calls may not be permitted.
    pub assume: Option<Assume>,
    /// What may become of a model without a price, at most.
    pub unpriced: Unpriced,
}
