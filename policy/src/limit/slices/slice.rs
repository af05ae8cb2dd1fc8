//! A replica's own side of its share.

use std::collections::BTreeMap;

use super::words::{Granted, Holder, Share, WANTED_FOR};

/// What a replica has of one count, and what it knows of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Slice {
    ceiling: u64,
    /// Until when another wants what is not used, in milliseconds of the replica's own clock.
    wanted_until: u64,
    others: BTreeMap<Holder, Share>,
    others_spent: u64,
}

impl Slice {
    /// What may be spent and held while the lease runs.
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// What others have spent, as the store knew when it was asked last.
    pub fn others_spent(&self) -> u64 {
        self.others_spent
    }

    /// The others' shares, to be told to a store that may not know them.
    pub fn others(&self) -> &BTreeMap<Holder, Share> {
        &self.others
    }

    /// Gives back all but `used` and `spare` of it, or all but `used` where another needs it or the lease does not run. To be called while
    /// nobody can hold anything: what is kept is told to the store.
    #[must_use]
    pub fn lower(&mut self, used: u64, spare: u64, runs: bool, now: u64) -> u64 {
        let keep = match runs {
            true if self.is_wanted(now) => used,
            true => self.ceiling.min(used.saturating_add(spare)),
            false => used,
        };
        // More than a share can be used where a call used more than it held.
        self.ceiling = keep.max(used);
        self.ceiling
    }

    /// Notes that another wants what is not used.
    pub fn want(&mut self, now: u64) {
        self.wanted_until = now.saturating_add(WANTED_FOR);
    }

    /// Whether another wants what is not used.
    pub fn is_wanted(&self, now: u64) -> bool {
        self.wanted_until > now
    }

    /// Takes what the store has granted. While it is `rebuilding` it knows a part of what was known.
    pub fn take(&mut self, grant: Granted, rebuilding: bool, now: u64) {
        self.ceiling = if grant.preceded { 0 } else { self.ceiling.saturating_add(grant.more) };
        self.wanted_until = if grant.wanted { now.saturating_add(WANTED_FOR) } else { 0 };
        self.others_spent = grant.others_spent;
        if rebuilding {
            self.others.extend(grant.others);
        } else {
            self.others = grant.others;
        }
    }
}
