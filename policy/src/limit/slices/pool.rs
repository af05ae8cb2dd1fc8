//! One count at the store: who has how much of it.

use std::collections::BTreeMap;

use super::memory::{Memory, Standing};
use super::words::{Ask, Granted, Holder, ReplicaId, Share, WANTED_FOR};

/// One count at the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pool {
    shares: BTreeMap<Holder, Share>,
    /// Until when who needs less than it has gives it back, in milliseconds.
    wanted_until: u64,
}

/// What a replica's shares come to: those of its processes count once, as the later one has the ledger of the one before.
#[derive(Debug, Default)]
struct Part {
    ceiling: u64,
    spent: u64,
    live: bool,
    /// Whether some of it may be had elsewhere soon.
    spare: bool,
}

impl Part {
    fn take(&mut self, share: &Share, live: bool) {
        let spent = if live { share.spent } else { share.ceiling };
        self.ceiling = self.ceiling.max(share.ceiling);
        self.spent = self.spent.max(spent);
        self.live |= live;
        self.spare |= live && share.ceiling > share.spent;
    }
}

impl Pool {
    /// Takes down what a process keeps, and grants it more where there is some.
    ///
    /// A grant leaves at least as much as it takes to each replica that is there, so slices shrink towards the end. It is at least what one
    /// call needs, if that is left. While another found nothing, who needs nothing gets nothing. While the share of a process before counts,
    /// it is nothing: that one may still spend it.
    pub fn sync(
        &mut self,
        memory: &Memory,
        holder: &Holder,
        ask: &Ask,
        standing: &Standing,
        now: u64,
    ) -> Granted {
        for (other, share) in ask.known.iter().filter(|(other, _)| *other != holder) {
            self.shares.entry(other.clone()).or_insert(Share { told_at: 0, ..*share });
        }
        self.shares.retain(|other, share| other != holder && memory.counts(other, share, now));
        let (preceded, parts) = self.parts(memory, holder, now);
        let (mut taken, mut others_spent, mut sharers, mut spare) = (0_u64, 0_u64, 1_u64, false);
        for part in &parts {
            taken = taken.saturating_add(part.ceiling);
            others_spent = others_spent.saturating_add(part.spent);
            sharers += u64::from(part.live);
            spare |= part.spare;
        }
        let free = ask.cap.saturating_sub(taken).saturating_sub(ask.keep);
        let granting = standing.grants() && !preceded;
        if granting && ask.need > free && spare {
            self.wanted_until = now.saturating_add(WANTED_FOR);
        }
        let wanted = self.is_wanted(now);
        let more = match () {
            () if !granting || ask.need > free => 0,
            () if wanted && ask.need == 0 => 0,
            () => ask.need.max(ask.want.min(free / (2 * sharers))),
        };
        let others = self.shares.clone();
        let ceiling = ask.keep.saturating_add(more);
        if ceiling > 0 {
            let resets_at = if ask.resets_in > 0 { now.saturating_add(ask.resets_in) } else { 0 };
            let counts_for = ask.counts_for;
            let share = Share { ceiling, spent: ask.spent, resets_at, counts_for, told_at: now };
            self.shares.insert(holder.clone(), share);
        }
        Granted { more, wanted, preceded, others_spent, others }
    }

    /// The shares that are counted.
    pub fn shares(&self) -> &BTreeMap<Holder, Share> {
        &self.shares
    }

    /// Whether somebody found nothing lately.
    pub fn is_wanted(&self, now: u64) -> bool {
        self.wanted_until > now
    }

    /// Whether a process before this one has some, and what each other replica has, those that went on beside a copy each by itself.
    fn parts(&self, memory: &Memory, holder: &Holder, now: u64) -> (bool, Vec<Part>) {
        let mut of_replicas: BTreeMap<&ReplicaId, Part> = BTreeMap::new();
        let (mut preceded, mut parts) = (false, Vec::new());
        for (other, share) in &self.shares {
            let live = memory.is_live(other, now);
            if memory.is_split(other) {
                let mut part = Part::default();
                part.take(share, live);
                parts.push(part);
            } else if other.replica == holder.replica {
                preceded = true;
            } else {
                of_replicas.entry(&other.replica).or_default().take(share, live);
            }
        }
        parts.extend(of_replicas.into_values());
        (preceded, parts)
    }
}
