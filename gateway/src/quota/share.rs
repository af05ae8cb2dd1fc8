//! How much of one count a caller may hold at once while others want some of it too.
//!
//! A lone caller may hold all. Once another has held or asked for some within [`RECENT`], nobody's holds may be more than what is left
//! free beside them; those of a namespace twice, those of a trust domain four times as much. So whoever comes finds some. A caller that
//! holds nothing gets one call of moderate size whatever the others have, so a budget can be used to its end.
//!
//! **Invariant:** what is held here is what the count holds for the same caller.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tollgate_policy::map::Map;

use super::key::Keys;

/// Milliseconds for which a caller that is done still counts as one of those who want some.
const RECENT: i64 = 60_000;
/// What one that holds nothing may hold of the whole amount by one call: one in this many.
const MODERATE: u64 = 2;
/// How many times of what is left free a caller, a namespace and a trust domain may hold.
const TIMES: [u64; 3] = [1, 2, 4];
/// Holders that are remembered, at least, before those that hold nothing are dropped.
const REMEMBERED: usize = 1024;

/// Who holds how much of one count, by hashes: two with the same one would have one share between them.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<ShareState>);

#[derive(Debug, Default)]
struct ShareState {
    /// By caller, by namespace, by trust domain.
    holders: [Holders; 3],
    last: [Last; 3],
}

/// What each of one level holds.
#[derive(Debug, Default)]
struct Holders {
    held: Map<u64, Arc<AtomicU64>>,
    /// How many held something when it was looked last.
    live: usize,
}

/// The two that were seen last at one level.
#[derive(Debug, Default)]
struct Last {
    latest: Option<(u64, i64)>,
    other: Option<(u64, i64)>,
}

/// What one call holds for its caller, its namespace and its trust domain; given back on drop.
#[derive(Debug)]
pub(super) struct HeldShare {
    holders: [Arc<AtomicU64>; 3],
    amount: u64,
}

/// The state of the count before the call is taken in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// The limit's amount.
    pub(super) cap: u64,
    /// What is neither spent nor held.
    pub(super) free: u64,
}

impl Shares {
    /// Notes that this caller wants some and got none.
    pub(super) fn want(&self, keys: &Keys<'_>, now: Timestamp) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (level, key) in keys.hashes().into_iter().enumerate() {
            state.see(level, key, now.as_millisecond());
        }
    }

    /// Takes `amount` for this caller; `None` where that is more than its share.
    pub(super) fn take(&self, keys: &Keys<'_>, amount: u64, room: Room, now: Timestamp) -> Option<HeldShare> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.as_millisecond();
        let levels = keys.hashes();
        let others = [0, 1, 2].map(|level| state.see(level, levels[level], now));
        let holders = [0, 1, 2].map(|level| state.holder(level, levels[level]));
        let held = |level: usize| holders[level].load(Ordering::Relaxed);
        let free = room.free.saturating_sub(amount);
        let moderate = amount <= (room.cap / MODERATE).max(1);
        let within = |level: usize| {
            let held = held(level);
            (held == 0 && moderate) || held.saturating_add(amount) <= free.saturating_mul(TIMES[level])
        };
        if (0..3).any(|level| others[level] && !within(level)) {
            return None;
        }
        for holder in &holders {
            holder.fetch_add(amount, Ordering::Relaxed);
        }
        Some(HeldShare { holders, amount })
    }
}

impl ShareState {
    /// Notes that this one wants some, and says whether another does too.
    fn see(&mut self, level: usize, key: u64, now: i64) -> bool {
        let Last { latest, other } = &mut self.last[level];
        match latest {
            Some((known, at)) if *known == key => *at = now,
            _ => *other = latest.replace((key, now)),
        }
        other.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) < RECENT)
    }

    fn holder(&mut self, level: usize, key: u64) -> Arc<AtomicU64> {
        let Holders { held, live } = &mut self.holders[level];
        if let Some(holder) = held.get(&key) {
            return Arc::clone(holder);
        }
        // Twice as many as live: what a look costs is spread over as many that came new.
        if held.len() >= REMEMBERED.max(live.saturating_mul(2)) {
            held.retain(|_, holder| Arc::strong_count(holder) > 1);
            *live = held.len();
        }
        Arc::clone(held.entry(key).or_default())
    }
}

impl Drop for HeldShare {
    fn drop(&mut self) {
        for holder in &self.holders {
            holder.fetch_sub(self.amount, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_policy::caller::Identity;

    use super::*;

    /// A count of 1,000 and who holds some of it.
    struct Bench {
        shares: Shares,
        held: Vec<(HeldShare, u64)>,
        now: i64,
    }

    impl Bench {
        fn new() -> Self {
            Self { shares: Shares::default(), held: Vec::new(), now: 1_000_000 }
        }

        fn free(&self) -> u64 {
            1_000 - self.held.iter().map(|(_, amount)| amount).sum::<u64>()
        }

        fn take(&mut self, caller: &str, amount: u64) -> bool {
            let id: Identity = format!("spiffe://{caller}").parse().unwrap();
            let free = self.free();
            if free < amount {
                return false;
            }
            let now = Timestamp::from_millisecond(self.now).unwrap();
            let share = self.shares.take(&Keys::of(&id), amount, Room { cap: 1_000, free }, now);
            let taken = share.is_some();
            self.held.extend(share.map(|share| (share, amount)));
            taken
        }

        fn fill(&mut self, caller: &str) -> u64 {
            (0..).take_while(|_| self.take(caller, 10)).count() as u64 * 10
        }
    }

    #[test]
    fn a_lone_caller_may_hold_all_and_others_bound_it_for_a_while() {
        let mut bench = Bench::new();
        assert_eq!(bench.fill("a/ns/x/sa/one"), 1_000);
        bench.held.clear();
        assert!(bench.take("a/ns/x/sa/two", 10));
        bench.held.clear();
        assert_eq!(bench.fill("a/ns/x/sa/one"), 500, "the other half is for the other");
        assert_eq!(bench.fill("a/ns/x/sa/two"), 250);
        bench.held.clear();
        assert!(!bench.take("a/ns/x/sa/one", 900), "nor by one large call");
        bench.now += RECENT;
        bench.take("a/ns/x/sa/one", 10);
        bench.now += RECENT;
        bench.held.clear();
        assert_eq!(bench.fill("a/ns/x/sa/one"), 1_000, "the others have been quiet");
    }

    #[test]
    fn many_identities_of_a_namespace_leave_some_for_another() {
        let mut bench = Bench::new();
        assert!(bench.take("a/ns/victim/sa/x", 10));
        bench.held.clear();
        for n in 0..9 {
            bench.fill(&format!("a/ns/greedy/sa/{n}"));
        }
        assert!(bench.free() >= 300, "{}", bench.free());
        assert!(bench.take("a/ns/victim/sa/x", 100));
    }

    #[test]
    fn those_that_hold_nothing_are_forgotten_and_looked_for_ever_less_often() {
        let mut bench = Bench::new();
        for n in 0..REMEMBERED * 3 {
            bench.take(&format!("a/ns/x/sa/{n}"), 0);
        }
        let held = |bench: &Bench| bench.shares.0.lock().unwrap().holders[0].held.len();
        assert_eq!(held(&bench), REMEMBERED * 3, "all of them live");
        bench.held.clear();
        for n in 0..REMEMBERED * 3 {
            bench.take(&format!("a/ns/y/sa/{n}"), 0);
            bench.held.clear();
        }
        assert!(held(&bench) <= REMEMBERED * 2, "{}", held(&bench));
    }

    #[test]
    fn what_is_left_at_the_end_goes_to_whoever_holds_nothing() {
        let mut bench = Bench::new();
        assert!(bench.take("a/ns/x/sa/one", 10) && bench.take("a/ns/x/sa/two", 10));
        let (share, _) = bench.held.remove(0);
        drop(share);
        bench.held.push((HeldShare { holders: Default::default(), amount: 0 }, 900));
        assert!(bench.take("a/ns/x/sa/one", 90), "all that is left");
    }
}
