//! A replica's own side of its share.

use std::collections::BTreeMap;

use super::{Granted, ReplicaId, Share};
use crate::limit::Usage;

/// What a replica has of one count, and what it knows of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Slice {
    ceiling: u64,
    /// When the lease ends, in milliseconds of the replica's own clock, counted from before it asked.
    ends: u64,
    /// Whether another found nothing lately.
    wanted: bool,
    rebuilding: bool,
    others: BTreeMap<ReplicaId, Share>,
    others_spent: u64,
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
    /// What it would like to have.
    pub want: u64,
    /// How long it may spend after the ask, in milliseconds.
    pub lease: u64,
    /// How long what is held at the lease's end counts after that, in milliseconds.
    pub counts_for: u64,
    /// The others' shares as it knew them, where the store has lost its own knowledge.
    pub known: BTreeMap<ReplicaId, Share>,
}

impl Slice {
    /// What may be spent and held at this time of the replica's own clock; `None`: the lease has ended.
    pub fn ceiling(&self, now: u64) -> Option<u64> {
        (now < self.ends).then_some(self.ceiling)
    }

    /// What others have spent, as the store knew when it was asked last.
    pub fn others_spent(&self) -> u64 {
        self.others_spent
    }

    /// How many shares of others there are.
    pub fn others(&self) -> usize {
        self.others.len()
    }

    /// Gives back all but what is used and `spare` of it, or all but that where another needs it or the lease has ended. To be called while
    /// nobody can hold anything: what is kept is told to the store.
    #[must_use]
    pub fn lower(&mut self, usage: Usage, spare: u64, now: u64) -> u64 {
        let used = usage.spent.saturating_add(usage.held);
        let keep = match self.ceiling(now) {
            Some(ceiling) if !self.wanted => ceiling.min(used.saturating_add(spare)),
            _ => used,
        };
        // More than a share can be used where a call used more than it held.
        self.ceiling = keep.max(used);
        self.ceiling
    }

    /// Keeps all of it, or what is used where the lease has ended. To be called as [`Self::lower`] is.
    #[must_use]
    pub fn keep(&mut self, usage: Usage, now: u64) -> u64 {
        let used = usage.spent.saturating_add(usage.held);
        self.ceiling = self.ceiling(now).unwrap_or(used).max(used);
        self.ceiling
    }

    /// The others' shares to tell a store that has lost its memory, or may have while this replica was cut off.
    pub fn known(&self, now: u64) -> BTreeMap<ReplicaId, Share> {
        if self.rebuilding || now >= self.ends { self.others.clone() } else { BTreeMap::new() }
    }

    /// Takes what the store has granted to an ask that was sent at `asked` of the replica's own clock.
    pub fn take(&mut self, grant: Granted, asked: u64, lease: u64) {
        self.ceiling = self.ceiling.saturating_add(grant.more);
        self.ends = self.ends.max(asked.saturating_add(lease));
        self.wanted = grant.wanted;
        self.others_spent = grant.others_spent;
        if grant.rebuilding {
            // What was known before is told with the next ask; what the store knows now is a part of it.
            for (other, share) in grant.others {
                self.others.insert(other, share);
            }
        } else {
            self.others = grant.others;
        }
        self.rebuilding = grant.rebuilding;
    }
}
