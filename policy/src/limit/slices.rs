//! How many replicas hold one count together: each has a share of its amount, and spends that in memory.
//!
//! The store adds the shares up. A replica asks it for a slice more, gives back what it does not need, and says what is spent. A share
//! has no window of its own: each replica's own [`Counter`](super::Counter) keeps `spent + held` under it in whichever window is now.
//!
//! **Invariant:** the shares of all replicas, those that ended included, are never more than the amount while it stays what it is. A
//! replica lowers its share before it says so, and raises it after it was told so. A share whose lease ended stays counted whole until
//! what was held of it has left the window, or its replica is back and says how much that was.
//!
//! A store that has lost something grants nothing for the length of a lease: by then each replica has said what it has, or has stopped
//! to spend. The others' shares that it saw last stand for one that says nothing any more.
//!
//! Lacks on purpose: a clock, and a store. `gateway/src/quota/slice_store/sync.lua` does the same inside Redis.

use std::collections::{BTreeMap, BTreeSet};

mod slice;
#[cfg(test)]
mod tests;

pub use slice::{Ask, Slice};

/// Who has a share: one data directory, whichever process has it.
pub type ReplicaId = std::sync::Arc<str>;

/// How long an ask that found nothing makes the others give back what they do not use, in milliseconds.
pub const WANTED_FOR: u64 = 1_000;

/// What the store knows of itself, and of who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// Which life of the store this is the memory of.
    run: u64,
    /// When that began for us, in milliseconds.
    since: u64,
    /// The number of each replica's latest ask.
    turns: BTreeMap<ReplicaId, u64>,
    /// Who has said in this life all that it has.
    heard: BTreeSet<ReplicaId>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The replica.
    pub replica: &'a ReplicaId,
    /// The number of its ask, which only grows.
    pub turn: u64,
    /// Whether it has now said of every count what it has.
    pub whole: bool,
    /// How long it may spend after the ask, in milliseconds.
    pub lease: u64,
}

/// How an ask is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Not at all: it was overtaken by a later one of the same replica, and nothing of it is taken.
    Overtaken {
        /// The number of that one.
        latest: u64,
    },
    /// Shares are taken down, and nothing is granted yet.
    Rebuilding,
    /// Shares are taken down and granted.
    Granting,
}

/// One count at the store: who has how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pool {
    shares: BTreeMap<ReplicaId, Share>,
    /// Until when who needs less than it has gives it back, in milliseconds.
    wanted_until: u64,
}

/// The share of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Share {
    /// What it may have spent and hold, at most.
    pub ceiling: u64,
    /// What it said was spent of that.
    pub spent: u64,
    /// When it stops to spend unless it has asked again, in milliseconds of the store's clock. 0: another replica says so, which saw it
    /// before the store lost its memory.
    pub lease_end: u64,
    /// When what was held at the lease's end has left the window.
    pub drops_at: u64,
}

/// What the store answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Granted {
    /// What is added to the share that the ask has kept.
    pub more: u64,
    /// Whether somebody found nothing lately.
    pub wanted: bool,
    /// Whether the store is still asking who has what, and wants to hear what was known of others.
    pub rebuilding: bool,
    /// The replicas whose lease of this count runs, this one included; at least 1.
    pub live: u64,
    /// What others have spent, or may have spent before their leases ended.
    pub others_spent: u64,
    /// The shares of all others.
    pub others: BTreeMap<ReplicaId, Share>,
}

impl Memory {
    /// Takes an ask in. `run` is the life of the store: another one may have lost what came last, or everything.
    pub fn enter(&mut self, run: u64, asker: Asker<'_>, now: u64) -> Entry {
        let Asker { replica, turn, whole, lease } = asker;
        if self.run != run {
            (self.run, self.since) = (run, now);
            self.heard.clear();
        }
        let latest = self.turns.entry(replica.clone()).or_default();
        if turn <= *latest {
            return Entry::Overtaken { latest: *latest };
        }
        *latest = turn;
        if whole {
            self.heard.insert(replica.clone());
        }
        if now < self.since.saturating_add(lease) { Entry::Rebuilding } else { Entry::Granting }
    }
}

impl Pool {
    /// Takes down what a replica keeps, and grants it more where there is some.
    ///
    /// A grant leaves at least as much as it takes to each replica that is there, so slices shrink towards the end. It is at least what one
    /// call needs, if that is left, and no more than that while another found nothing.
    pub fn sync(
        &mut self,
        memory: &Memory,
        replica: &ReplicaId,
        ask: &Ask,
        granting: bool,
        now: u64,
    ) -> Granted {
        for (other, share) in &ask.known {
            let told = Share { lease_end: 0, ..*share };
            self.shares.entry(other.clone()).or_insert(told);
        }
        // Who was heard has said what it has, so what others say of it is old.
        let counts = |other: &ReplicaId, share: &Share| share.lease_end > 0 || !memory.heard.contains(other);
        self.shares.retain(|other, share| share.drops_at > now && counts(other, share) && other != replica);
        let (mut taken, mut others_spent, mut live) = (0_u64, 0_u64, 1_u64);
        for share in self.shares.values() {
            let is_live = share.lease_end > now;
            taken = taken.saturating_add(share.ceiling);
            others_spent = others_spent.saturating_add(if is_live { share.spent } else { share.ceiling });
            live += u64::from(is_live);
        }
        let free = ask.cap.saturating_sub(taken).saturating_sub(ask.keep);
        if granting && ask.need > free {
            self.wanted_until = now.saturating_add(WANTED_FOR);
        }
        let wanted = self.wanted_until > now;
        let more = match (granting && ask.need <= free, wanted) {
            (true, true) => ask.need,
            (true, false) => ask.need.max(ask.want.min(free / (2 * live))),
            (false, _) => 0,
        };
        let others = self.shares.clone();
        let ceiling = ask.keep.saturating_add(more);
        if ceiling > 0 {
            let lease_end = now.saturating_add(ask.lease);
            let drops_at = lease_end.saturating_add(ask.counts_for);
            let share = Share { ceiling, spent: ask.spent, lease_end, drops_at };
            self.shares.insert(replica.clone(), share);
        }
        Granted { more, wanted, rebuilding: !granting, live, others_spent, others }
    }

    /// The shares that are counted.
    pub fn shares(&self) -> &BTreeMap<ReplicaId, Share> {
        &self.shares
    }
}
