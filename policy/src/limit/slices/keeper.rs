//! What a replica tells and asks the store, and when: the rules alone, so that a simulation keeps to the same.
//!
//! A batch is sent when a call has asked, when a count has changed or is to be given back, or when the lease is to be lengthened. While
//! something is unused it is sent soon after the one before: each answer says of which counts others found too little.
//!
//! **Invariant:** one batch is under way at a time. What it says is kept was lowered to that before. All counts are told anew after the store
//! may have lost something, and only then is everything said to be told.

use std::collections::{BTreeMap, VecDeque};

use super::{Ask, Displaced, Granted, Slice, Standing, Tenure};
use crate::limit::Usage;

/// How soon an unused slice hears that another wants it, in milliseconds: two looks fit into the second after which a refused call is
/// tried again.
const LOOK: u64 = 400;
/// The same while another does want one of which something is unused here, or is held and may be given back.
const LOOK_SOON: u64 = 100;
/// After so many milliseconds without use a slice is given back.
const IDLE: u64 = 5_000;
/// Counts in one batch.
const BATCH: usize = 128;
/// The shortest pause between batches that nobody has asked for, in milliseconds.
const SHORTEST_PAUSE: u64 = 20;
/// The longest pause after the store failed, in milliseconds.
const LONGEST_PAUSE: u64 = 1_000;
/// A slice is for so many calls like the last that found too little, at least.
const FIRST_CALLS: u64 = 8;
/// Half a slice lasts so long at least, in milliseconds: the store may answer late.
const LASTS: u64 = 1_000;
/// A first slice is for one in so many parts of an even share of what is free: calls may come faster than the store answers.
const FIRST_PART: u64 = 16;
/// So often a share is told although it has not changed, in milliseconds: the store forgets what nobody has spoken of for twice as long.
const TELL_EVERY: u64 = 86_400_000;

/// The slices of one process. `K` tells counts apart, `L` lives of the store. Times are milliseconds of the replica's own clock.
#[derive(Debug)]
pub struct Keeper<K, L> {
    lease: u64,
    tenure: Tenure<L>,
    entries: BTreeMap<K, Kept>,
    /// What calls have asked for.
    urgent: VecDeque<K>,
    /// What is to be told besides.
    due: VecDeque<K>,
    /// Which telling of everything this is.
    telling: u64,
    /// Counts that were not told in it.
    untold: usize,
    /// Counts of which something is unused, or is held and may be soon.
    spares: usize,
    renew_at: u64,
    sweep_at: u64,
    retry_at: u64,
    pause: u64,
    is_restored: bool,
    is_leaving: bool,
    /// The store is still asking who has what.
    is_rebuilding: bool,
    /// How many replicas there are, this one included.
    live: u64,
}

#[derive(Debug, Default)]
struct Kept {
    slice: Slice,
    told_in: u64,
    told_spent: u64,
    told_at: u64,
    /// How much beyond what is used there should be.
    target: u64,
    /// The least of that.
    least: u64,
    /// The most that a call lacked that was not answered yet.
    lacking: u64,
    /// What all such calls lacked.
    lacking_together: u64,
    /// What others have, as the store said last.
    taken: u64,
    used: u64,
    held: u64,
    used_at: u64,
    granted_at: u64,
    is_asked: bool,
    is_queued: bool,
    has_spare: bool,
}

/// One count as it is, under its lock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The limit's amount.
    pub cap: u64,
    /// What is used in the window.
    pub usage: Usage,
    /// What was used in a window that ended so lately that another's clock may still be in it.
    pub former: u64,
    /// The largest amount that a call lacked since it was looked at last.
    pub lacking: u64,
    /// What all calls lacked since then.
    pub lacking_together: u64,
    /// As in [`Ask::resets_in`].
    pub resets_in: u64,
    /// As in [`Ask::counts_for`].
    pub counts_for: u64,
}

/// A batch that is to be sent.
#[derive(Debug, Clone)]
pub struct Batch<K, L> {
    /// The number of the process.
    pub process: u64,
    /// The number of the ask.
    pub turn: u64,
    /// The life of the store that was answered in last.
    pub life: Option<L>,
    /// As in [`Tenure::lapses`].
    pub lapses: u64,
    /// Whether everything is told with it.
    pub whole: bool,
    /// Whether it is the last one.
    pub leaving: bool,
    /// The counts; none: only the lease is lengthened.
    pub pools: Vec<K>,
    /// When it is sent.
    pub asked: u64,
    telling: u64,
}

/// What may be taken of a count from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceTerms {
    /// What may be spent and held while the lease runs.
    pub ceiling: u64,
    /// What others have spent.
    pub others_spent: u64,
    /// More is to be asked for once this much is used; `None`: as before.
    pub refill_at: Option<u64>,
    /// Whether somebody has asked for more, and there was none.
    pub is_dry: bool,
}

impl<K: Clone + Ord, L: Clone + PartialEq> Keeper<K, L> {
    /// Slices of a process that has none. `lease` is in milliseconds.
    pub fn new(process: u64, lease: u64) -> Self {
        Self {
            lease,
            tenure: Tenure::new(process),
            entries: BTreeMap::new(),
            urgent: VecDeque::new(),
            due: VecDeque::new(),
            telling: 0,
            untold: 0,
            spares: 0,
            renew_at: 0,
            sweep_at: 0,
            retry_at: 0,
            pause: 0,
            is_restored: false,
            is_leaving: false,
            is_rebuilding: false,
            live: 1,
        }
    }

    /// When the lease ends.
    pub fn ends(&self) -> u64 {
        self.tenure.ends()
    }

    /// Whether another process has the directory, or a copy of it: this one spends nothing more.
    pub fn is_superseded(&self) -> bool {
        self.tenure.is_superseded()
    }

    /// Notes that what the ledger says is known: from now on everything can be told.
    pub fn restored(&mut self) {
        if !std::mem::replace(&mut self.is_restored, true) {
            self.renew_at = 0;
        }
    }

    /// Notes that a call lacks something, or will soon.
    pub fn asked(&mut self, pool: K) {
        let telling = self.telling;
        let new = || Kept { told_in: telling, ..Kept::default() };
        let entry = self.entries.entry(pool.clone()).or_insert_with(new);
        if !std::mem::replace(&mut entry.is_asked, true) {
            self.urgent.push_back(pool);
        }
    }

    /// Gives everything back that is not used.
    pub fn leave(&mut self) {
        (self.is_leaving, self.renew_at, self.retry_at) = (true, 0, 0);
        self.queue_all();
    }

    /// Whether everything is given back, or cannot be.
    pub fn has_left(&self) -> bool {
        self.is_leaving && self.renew_at > 0 && self.urgent.is_empty() && self.due.is_empty()
    }

    /// Whether the store has just failed, and is let alone for a while.
    pub fn is_retrying(&self, now: u64) -> bool {
        self.retry_at > now
    }

    /// How long until something is to be done without being asked for.
    pub fn pause(&self, now: u64) -> u64 {
        if self.retry_at > now {
            return self.retry_at - now;
        }
        let has_more = !self.urgent.is_empty() || !self.due.is_empty();
        if has_more && !self.is_superseded() {
            return 0;
        }
        self.renew_at.min(self.sweep_at).saturating_sub(now)
    }

    /// Looks at all counts now and then: which have changed, and which are to be given back. `usage` is what is used of one; `None`: nobody
    /// counts there any more.
    pub fn sweep(&mut self, now: u64, mut usage: impl FnMut(&K) -> Option<Usage>) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now.saturating_add((self.lease / 3).min(IDLE));
        let mut gone = Vec::new();
        for (pool, entry) in &mut self.entries {
            let Some(usage) = usage(pool) else {
                if entry.slice.ceiling() == 0 && !entry.is_asked && !entry.is_queued {
                    gone.push(pool.clone());
                } else if !std::mem::replace(&mut entry.is_queued, true) {
                    self.due.push_back(pool.clone());
                }
                continue;
            };
            entry.look(usage, now);
            entry.target = (entry.target - entry.target / 8).max(entry.least);
            if entry.is_due(usage, now) && !std::mem::replace(&mut entry.is_queued, true) {
                self.due.push_back(pool.clone());
            }
        }
        for pool in gone {
            self.forget(&pool);
        }
    }

    /// The next batch; `None`: nothing is to be sent now.
    pub fn batch(&mut self, now: u64) -> Option<Batch<K, L>> {
        if now < self.retry_at {
            return None;
        }
        let mut pools = Vec::new();
        if !self.is_superseded() {
            while pools.len() < BATCH {
                let Some(pool) = self.urgent.pop_front().or_else(|| self.due.pop_front()) else { break };
                if !pools.contains(&pool) {
                    pools.push(pool);
                }
            }
        }
        if pools.is_empty() && now < self.renew_at {
            return None;
        }
        let mut untold = self.untold;
        for pool in &pools {
            let Some(entry) = self.entries.get_mut(pool) else { continue };
            entry.is_queued = false;
            untold -= usize::from(entry.told_in != self.telling);
        }
        let whole = self.is_restored && self.tenure.life().is_some() && untold == 0;
        Some(Batch {
            process: self.tenure.process(),
            turn: self.tenure.turn(),
            life: self.tenure.life().cloned(),
            lapses: self.tenure.lapses(),
            whole,
            leaving: self.is_leaving && self.urgent.is_empty() && self.due.is_empty(),
            pools,
            asked: now,
            telling: self.telling,
        })
    }

    /// What a batch tells and asks of one count. To be called while nobody can hold any of it, who from then on is held to what is kept.
    /// `None`: nobody counts there any more.
    pub fn ask(&mut self, pool: &K, seen: Option<Seen>, now: u64) -> Ask {
        let (telling, leaving, live) = (self.telling, self.is_leaving, self.live);
        let runs = self.tenure.runs(now);
        let Some(entry) = self.entries.get_mut(pool) else { return Ask::default() };
        let seen = seen.unwrap_or_default();
        let used = entry.look(seen.usage, now);
        entry.lacking = entry.lacking.max(seen.lacking);
        entry.lacking_together = entry.lacking_together.max(seen.lacking_together).max(entry.lacking);
        entry.want(seen.cap, live, now);
        let is_idle = leaving || entry.is_idle(now);
        let spare = match () {
            () if is_idle => 0,
            () if entry.spare(used) > entry.target.saturating_mul(2) => entry.target,
            () => u64::MAX,
        };
        // Others may still be in the window before, where what was spent counts on.
        let least = if runs { used.max(seen.former.min(entry.slice.ceiling())) } else { used };
        let keep = entry.slice.lower(least, spare.saturating_sub(least - used), runs, now).max(used);
        let kept = keep - used;
        let asks = !leaving && (entry.is_asked || entry.lacking > 0);
        let known = if entry.told_in == telling { BTreeMap::new() } else { entry.slice.others().clone() };
        let ask = Ask {
            cap: seen.cap,
            keep,
            spent: seen.usage.spent,
            need: if leaving { 0 } else { entry.lacking.saturating_sub(kept) },
            want: if asks { entry.wants(now).saturating_sub(kept) } else { 0 },
            resets_in: seen.resets_in,
            counts_for: seen.counts_for,
            known,
        };
        self.note_spare(pool, kept > 0 || seen.usage.held > 0);
        ask
    }

    /// Takes what the store has said to a batch as a whole; before what it says of each count.
    pub fn answered(&mut self, batch: &Batch<K, L>, standing: &Standing<L>, now: u64) -> Displaced {
        self.pause = 0;
        (self.is_rebuilding, self.live) = (standing.rebuilding, standing.live.max(1));
        let displaced = self.tenure.take(standing, batch.asked, self.lease);
        match displaced {
            Displaced::Everything => {
                (self.telling, self.untold) = (self.telling + 1, self.entries.len());
                self.queue_all();
            }
            Displaced::Another if !self.is_leaving => self.queue_all(),
            Displaced::Another | Displaced::Nothing => {}
        }
        let third = self.lease / 3;
        let pause = match () {
            () if !standing.heard && self.is_restored => SHORTEST_PAUSE,
            () if self.spares > 0 => LOOK.min(third),
            () => third,
        };
        self.renew_at = now.saturating_add(pause);
        displaced
    }

    /// Takes what the store has said of one count of a batch.
    pub fn take(
        &mut self,
        batch: &Batch<K, L>,
        (pool, ask): (&K, &Ask),
        grant: Granted,
        now: u64,
    ) -> Option<SliceTerms> {
        let rebuilding = self.is_rebuilding;
        let entry = self.entries.get_mut(pool)?;
        if entry.told_in != self.telling && batch.telling == self.telling {
            self.untold -= 1;
        }
        (entry.told_in, entry.told_spent, entry.told_at) = (batch.telling, ask.spent, now);
        let more = grant.more;
        entry.taken = grant.others.values().fold(0, |sum, share| sum.saturating_add(share.ceiling));
        entry.slice.take(grant, rebuilding, now);
        let asked = std::mem::take(&mut entry.is_asked);
        let lacked = std::mem::take(&mut entry.lacking) > 0;
        entry.lacking_together = 0;
        let ceiling = entry.slice.ceiling();
        let spare = ceiling.saturating_sub(entry.used);
        let refill_at = match () {
            () if more > 0 => Some(ceiling - spare / 2),
            () if ask.need > 0 || ask.want > 0 => Some(u64::MAX),
            () => None,
        };
        if more > 0 {
            entry.granted_at = now;
        }
        let is_dry = ask.need > more || ((asked || lacked) && ask.want > 0 && more == 0);
        let terms = SliceTerms { ceiling, others_spent: entry.slice.others_spent(), refill_at, is_dry };
        let may_have_some = spare > 0 || entry.held > 0;
        self.note_spare(pool, may_have_some);
        if may_have_some {
            self.renew_at = self.renew_at.min(now.saturating_add(LOOK.min(self.lease / 3)));
        }
        Some(terms)
    }

    /// Notes that others found too little of a count of which so much is used here.
    pub fn wanted(&mut self, pool: &K, usage: Usage, now: u64) {
        let Some(entry) = self.entries.get_mut(pool) else { return };
        entry.slice.want(now);
        let used = entry.look(usage, now);
        let has_spare = entry.spare(used) > 0;
        if has_spare && !std::mem::replace(&mut entry.is_queued, true) {
            self.due.push_back(pool.clone());
        }
        // What is held is given back too once its call has used less.
        if has_spare || usage.held > 0 {
            self.renew_at = self.renew_at.min(now.saturating_add(LOOK_SOON.min(self.lease / 3)));
        }
    }

    /// Notes that a batch was not answered: nobody knows whether it was taken in.
    pub fn failed(&mut self, batch: Batch<K, L>, now: u64) {
        self.pause = (self.pause * 2).clamp(50, LONGEST_PAUSE);
        self.retry_at = now.saturating_add(self.pause);
        self.again(batch);
    }

    /// Notes that a batch was overtaken, and sends it again with a later number.
    pub fn overtaken(&mut self, batch: Batch<K, L>, latest: u64) {
        self.tenure.overtaken(latest);
        self.again(batch);
    }

    /// Notes that a later process has the directory, or a copy of it. Whether this one goes on, with a later number.
    pub fn superseded(&mut self, batch: Batch<K, L>, latest: u64, now: u64) -> bool {
        let goes_on = self.tenure.superseded(latest);
        self.renew_at = now.saturating_add(if goes_on { 0 } else { self.lease / 3 });
        self.again(batch);
        goes_on
    }

    fn again(&mut self, batch: Batch<K, L>) {
        self.renew_at = if self.is_superseded() { self.renew_at } else { 0 };
        for pool in batch.pools.into_iter().rev() {
            let Some(entry) = self.entries.get_mut(&pool) else { continue };
            if entry.is_asked {
                self.urgent.push_front(pool);
            } else if !std::mem::replace(&mut entry.is_queued, true) {
                self.due.push_front(pool);
            }
        }
    }

    fn queue_all(&mut self) {
        for (pool, entry) in &mut self.entries {
            if !std::mem::replace(&mut entry.is_queued, true) {
                self.due.push_back(pool.clone());
            }
        }
    }

    fn forget(&mut self, pool: &K) {
        self.note_spare(pool, false);
        if let Some(entry) = self.entries.remove(pool) {
            self.untold -= usize::from(entry.told_in != self.telling);
        }
    }

    fn note_spare(&mut self, pool: &K, has_spare: bool) {
        let Some(entry) = self.entries.get_mut(pool) else { return };
        match (std::mem::replace(&mut entry.has_spare, has_spare), has_spare) {
            (false, true) => self.spares += 1,
            (true, false) => self.spares -= 1,
            _ => {}
        }
    }
}

impl Kept {
    /// Notes what is used, and returns it.
    fn look(&mut self, usage: Usage, now: u64) -> u64 {
        let used = usage.spent.saturating_add(usage.held);
        self.held = usage.held;
        if used != self.used || self.is_asked {
            (self.used, self.used_at) = (used, now);
        }
        used
    }

    fn spare(&self, used: u64) -> u64 {
        self.slice.ceiling().saturating_sub(used)
    }

    fn is_idle(&self, now: u64) -> bool {
        !self.is_asked && self.lacking == 0 && now.saturating_sub(self.used_at) >= IDLE
    }

    /// Whether the store is to be told of it although no call has asked.
    fn is_due(&self, usage: Usage, now: u64) -> bool {
        let spare = self.spare(usage.spent.saturating_add(usage.held));
        let is_too_much =
            self.is_idle(now) || self.slice.is_wanted(now) || spare > self.target.saturating_mul(2);
        let is_old = now.saturating_sub(self.told_at) >= TELL_EVERY && self.slice.ceiling() > 0;
        usage.spent != self.told_spent || (spare > 0 && is_too_much) || is_old
    }

    /// How much there should be: a part of what is free, and twice as much where a call asked again soon after a grant. A few calls like the
    /// last that lacked something find room, and so much is left to each other.
    fn want(&mut self, cap: u64, live: u64, now: u64) {
        if self.lacking > 0 {
            self.least = self.lacking.saturating_mul(FIRST_CALLS);
        }
        let share = cap.saturating_sub(self.taken).saturating_sub(self.used) / live;
        if self.is_asked {
            let is_soon = self.granted_at > 0 && now.saturating_sub(self.granted_at) < LASTS;
            let grown = self.target.saturating_mul(if is_soon { 2 } else { 1 });
            self.target = grown.max(share / FIRST_PART);
        }
        self.target = self.target.min(share / 2).max(self.least).min(cap);
    }

    /// How much is to be unused after the store has granted it: while others find too little, no more than calls wait for.
    fn wants(&self, now: u64) -> u64 {
        if self.slice.is_wanted(now) { self.lacking_together } else { self.target.max(self.lacking_together) }
    }
}

#[cfg(test)]
mod tests;
