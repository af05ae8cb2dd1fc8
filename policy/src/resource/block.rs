//! What is denied because a resource has problems: as much as it might have decided.

use super::caller_index::NamesCallers;
use super::destination::Destination;
use crate::denial::{Denial, Reason};
use crate::name::ResourceId;
use crate::pattern::{CallerPattern, HostPattern};

/// Calls that a resource may have decided that could not be compiled. They are denied, whatever another grant allows.
#[derive(Debug)]
pub(crate) struct Block {
    /// The resource, in words.
    pub(crate) resource: Box<str>,
    /// Its callers that could be read.
    pub(crate) callers: Vec<CallerPattern>,
    /// Some of them could not: all callers there are.
    pub(crate) every_caller: bool,
    pub(crate) at: BlockedAt,
}

/// Where a [`Block`] denies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BlockedAt {
    /// At this destination.
    Destination(ResourceId),
    /// At every one whose hosts are not all named: what the grant was for may be among those.
    Wildcards,
    /// At what may be an unlisted destination of this namespace: at every listed one, too, and where hosts are not all named.
    Namespace(Box<str>),
    /// It is not known, so at every one.
    Everywhere,
}

/// Hosts of a destination that could not be compiled.
#[derive(Debug)]
pub(crate) struct BlockedHosts {
    pub(crate) destination: ResourceId,
    pub(crate) hosts: Vec<HostPattern>,
    /// It may have other hosts, too, which could not be read.
    pub(crate) any_other: bool,
}

fn has_wildcard(destination: &Destination) -> bool {
    destination.hosts.iter().any(HostPattern::is_wildcard)
}

impl Block {
    pub(crate) fn is_at(&self, destination: &Destination) -> bool {
        match &self.at {
            BlockedAt::Destination(denied) => *denied == destination.name,
            BlockedAt::Wildcards => has_wildcard(destination),
            BlockedAt::Namespace(own) => *destination.name.namespace() == **own || has_wildcard(destination),
            BlockedAt::Everywhere => true,
        }
    }

    pub(crate) fn denial(&self) -> Denial {
        let resource = &self.resource;
        let detail = format!("{resource} has an error, so nothing is let through that it might decide");
        Denial::new(Reason::BrokenConfiguration, detail)
    }
}

impl NamesCallers for Block {
    fn callers(&self) -> &[CallerPattern] {
        &self.callers
    }
}

impl BlockedHosts {
    pub(crate) fn denial(&self) -> Denial {
        let detail = format!("destination {} has an error, so it is not called", self.destination);
        Denial::new(Reason::BrokenConfiguration, detail)
    }
}
