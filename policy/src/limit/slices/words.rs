//! What replicas and the store say to each other of one count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Who counts: one data directory, whichever process has it.
pub type ReplicaId = Arc<str>;

/// What a count is called at the store.
pub type PoolName = Arc<str>;

/// How long an ask that found nothing makes the others give back what they do not use, in milliseconds.
pub const WANTED_FOR: u64 = 1_000;

/// Who has a share: one process on a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The directory.
    pub replica: ReplicaId,
    /// The process. A later one has a larger number.
    pub process: u64,
}

/// The share of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Share {
    /// What it may have spent and hold, at most.
    pub ceiling: u64,
    /// What it said was spent of that.
    pub spent: u64,
    /// When the calendar window ends that it counts in, in milliseconds of the store's clock; 0 where the window rolls.
    pub resets_at: u64,
    /// How long what is held at the lease's end counts after that, where the lease ends later, in milliseconds.
    pub counts_for: u64,
    /// When it was told, in milliseconds of the store's clock. 0: another replica says so, which saw it before.
    pub told_at: u64,
}

/// What a replica tells and asks the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The limit's amount.
    pub cap: u64,
    /// What the replica may still have spent and hold: it has lowered its share to this already.
    pub keep: u64,
    /// What it has spent in the window.
    pub spent: u64,
    /// What a call needs that waits for it; 0: none does.
    pub need: u64,
    /// What it would like to have more.
    pub want: u64,
    /// How long until the calendar window ends, in milliseconds; 0 where it rolls.
    pub resets_in: u64,
    /// How long at most what is held when the lease ends counts after that, where the lease ends after the window, in milliseconds.
    pub counts_for: u64,
    /// The others' shares as it knew them, where the store may have lost its own knowledge.
    pub known: BTreeMap<Holder, Share>,
}

/// What the store answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Granted {
    /// What is added to the share that the ask has kept.
    pub more: u64,
    /// Whether somebody found nothing lately.
    pub wanted: bool,
    /// Whether a process before this one may still spend its share: until then this one spends nothing.
    pub preceded: bool,
    /// What others have spent, or may have spent before their leases ended.
    pub others_spent: u64,
    /// The shares of all others.
    pub others: BTreeMap<Holder, Share>,
}

impl Share {
    /// When what was held at the end of its lease has left the window.
    pub fn drops_at(&self, lease_end: u64) -> u64 {
        if lease_end <= self.resets_at { self.resets_at } else { lease_end.saturating_add(self.counts_for) }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.replica, self.process)
    }
}
