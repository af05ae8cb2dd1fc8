//! What a keeper sends, against the store's own arithmetic.

use super::*;
use crate::limit::slices::{Asker, Holder, Life, PoolStore, Reply};

const LEASE: u64 = 9_000;
const CAP: u64 = 1_000;

/// A keeper of counts by number, whose usage the test sets.
struct World {
    store: PoolStore,
    keeper: Keeper<u64, Life>,
    usages: BTreeMap<u64, Usage>,
    former: u64,
    replica: &'static str,
    /// How many counts each batch told of.
    sent: Vec<usize>,
}

impl World {
    fn new(replica: &'static str) -> Self {
        let mut keeper = Keeper::new(1, LEASE);
        keeper.restored();
        let (store, usages) = (PoolStore::default(), BTreeMap::new());
        Self { store, keeper, usages, former: 0, replica, sent: Vec::new() }
    }

    /// One whose store grants.
    fn granting() -> (Self, u64) {
        let mut world = Self::new("a");
        world.until(1, LEASE + 1_000);
        world.sent.clear();
        (world, LEASE + 1_000)
    }

    fn seen(&self, pool: u64, lacking: u64) -> Option<Seen> {
        let usage = self.usages.get(&pool).copied()?;
        Some(Seen {
            cap: CAP,
            usage,
            former: self.former,
            lacking,
            lacking_together: lacking,
            resets_in: 0,
            counts_for: 60_000,
        })
    }

    /// Sends what is to be sent now.
    fn look(&mut self, lacking: u64, now: u64) {
        self.keeper.sweep(now, |pool| self.usages.get(pool).copied());
        let Some(batch) = self.keeper.batch(now) else { return };
        self.sent.push(batch.pools.len());
        let asks: Vec<_> = batch
            .pools
            .iter()
            .map(|pool| (pool.to_string().into(), self.keeper.ask(pool, self.seen(*pool, lacking), now)))
            .collect();
        let holder = Holder { replica: self.replica.into(), process: batch.process };
        let Batch { turn, life, lapses, whole, leaving, .. } = batch;
        let asker =
            Asker { holder: &holder, turn, life, lapses, whole, leaving, reports: false, lease: LEASE };
        let reply = self.store.batch(1, asker, &asks, now);
        let Reply::Taken { standing, grants, wanted } = reply else { panic!("{reply:?}") };
        self.keeper.answered(&batch, &standing, now);
        for ((pool, (_, ask)), grant) in batch.pools.iter().zip(&asks).zip(grants) {
            self.keeper.take(&batch, (pool, ask), grant, now);
        }
        for name in wanted {
            let pool = name.parse().expect("a number");
            let usage = self.usages.get(&pool).copied().unwrap_or_default();
            self.keeper.wanted(&pool, usage, now);
        }
    }

    /// Lets time pass, and sends what is to be sent.
    fn until(&mut self, mut now: u64, end: u64) {
        while now < end {
            self.look(0, now);
            now += self.keeper.pause(now).max(1);
        }
    }

    fn ceiling(&self, pool: u64) -> u64 {
        self.keeper.entries.get(&pool).map_or(0, |entry| entry.slice.ceiling())
    }

    fn spend(&mut self, pool: u64, spent: u64) {
        self.usages.insert(pool, Usage { spent, held: 0 });
    }
}

#[test]
fn what_is_not_used_goes_back_and_nothing_is_asked_for_again() {
    let (mut world, now) = World::granting();
    world.spend(1, 10);
    world.keeper.asked(1);
    world.look(20, now);
    assert!(world.ceiling(1) >= 30, "{}", world.ceiling(1));
    world.until(now, now + IDLE + LEASE);
    assert_eq!(world.ceiling(1), 10, "it has what it used");
    assert_eq!(world.store.pool("1").unwrap().shares().values().next().unwrap().ceiling, 10);
    world.sent.clear();
    world.until(now + 2 * LEASE, now + 12 * LEASE);
    assert!(world.sent.len() <= 32 && world.sent.iter().all(|pools| *pools == 0), "{:?}", world.sent);
    assert_eq!(world.ceiling(1), 10);
}

#[test]
fn a_lease_goes_on_by_empty_batches_and_changes_alone_are_told() {
    let (mut world, now) = World::granting();
    for pool in 0..300 {
        world.spend(pool, 10);
        world.keeper.asked(pool);
    }
    world.until(now, now + 2 * LEASE);
    world.sent.clear();
    world.spend(7, 11);
    world.until(now + 2 * LEASE, now + 4 * LEASE);
    assert_eq!(world.sent.iter().sum::<usize>(), 1, "{:?}", world.sent);
    assert!(world.keeper.tenure.runs(now + 4 * LEASE));
}

#[test]
fn calls_come_before_all_else() {
    let (mut world, now) = World::granting();
    for pool in 0..500 {
        world.spend(pool, 10);
        world.keeper.asked(pool);
    }
    world.until(now, now + 2 * LEASE);
    world.keeper.queue_all();
    world.look(0, now + 2 * LEASE);
    world.keeper.asked(499);
    let batch = world.keeper.batch(now + 2 * LEASE).expect("more is due");
    assert_eq!((batch.pools[0], batch.pools.len()), (499, BATCH));
}

#[test]
fn nothing_is_whole_before_the_ledger_is_known_nor_before_all_is_told() {
    let mut keeper: Keeper<u64, Life> = Keeper::new(1, LEASE);
    let life = Life { run: 1, begun: 1 };
    let standing = Standing { life, lapses: 0, rebuilding: true, heard: false, live: 1, ended: 0 };
    let first = keeper.batch(1).expect("a first one");
    assert!(!first.whole);
    keeper.answered(&first, &standing, 1);
    let second = keeper.batch(LEASE).expect("the lease");
    assert!(!second.whole, "the ledger is not known");
    keeper.answered(&second, &standing, LEASE);
    keeper.restored();
    let third = keeper.batch(LEASE).expect("at once");
    assert!(third.whole);
    // Another life: two batches are needed, and the last one says that it is all.
    (0..200).for_each(|pool| keeper.asked(pool));
    while let Some(batch) = keeper.batch(LEASE) {
        keeper.answered(&batch, &standing, LEASE);
        for pool in &batch.pools {
            let ask = keeper.ask(pool, Some(Seen::default()), LEASE);
            keeper.take(&batch, (pool, &ask), Granted::default(), LEASE);
        }
    }
    let batch = keeper.batch(2 * LEASE).expect("the lease");
    let other = Standing { life: Life { run: 2, begun: 9 }, ..standing };
    assert_eq!(keeper.answered(&batch, &other, 2 * LEASE), Displaced::Everything);
    let told: Vec<_> = (0..2)
        .map(|_| {
            let batch = keeper.batch(2 * LEASE).expect("all is due");
            keeper.answered(&batch, &other, 2 * LEASE);
            for pool in &batch.pools {
                let ask = keeper.ask(pool, Some(Seen::default()), 2 * LEASE);
                keeper.take(&batch, (pool, &ask), Granted::default(), 2 * LEASE);
            }
            (batch.pools.len(), batch.whole)
        })
        .collect();
    assert_eq!(told, [(BATCH, false), (200 - BATCH, true)]);
}

#[test]
fn more_is_wanted_only_where_calls_ask_again_soon() {
    let (mut world, now) = World::granting();
    world.spend(1, 0);
    world.keeper.asked(1);
    world.look(2, now);
    let first = CAP / FIRST_PART;
    assert_eq!(world.keeper.entries[&1].target, first);
    world.keeper.asked(1);
    world.look(0, now + 100);
    assert_eq!(world.keeper.entries[&1].target, 2 * first);
    // What is told without a call grows by nothing.
    for turn in 1..20 {
        world.spend(1, turn);
        world.keeper.wanted(&1, world.usages[&1], now + 100);
        world.look(0, now + 100 + turn);
    }
    assert!(world.keeper.entries[&1].target <= 2 * first);
}

#[test]
fn a_first_slice_is_a_part_of_what_is_free_and_near_the_end_for_a_few_calls() {
    let (mut world, now) = World::granting();
    for (spent, slice) in
        [(0, CAP / FIRST_PART), (520, 480 / FIRST_PART), (800, 200 / FIRST_PART), (990, FIRST_CALLS)]
    {
        let mut entry = Kept { lacking: 1, used: spent, is_asked: true, ..Kept::default() };
        entry.want(CAP, 1, now);
        assert_eq!(entry.target, slice, "{spent} are spent");
        let mut of_many = Kept { lacking: 1, taken: spent, is_asked: true, ..Kept::default() };
        of_many.want(CAP, 10, now);
        assert_eq!(of_many.target, FIRST_CALLS.max(slice / 10), "{spent} are with others");
    }
    world.spend(1, 0);
    world.keeper.asked(1);
    world.look(1, now);
    assert_eq!(world.ceiling(1), CAP / FIRST_PART);
}

#[test]
fn while_others_want_some_no_more_is_asked_for_than_calls_wait_for() {
    let (mut world, now) = World::granting();
    world.spend(1, 0);
    world.keeper.asked(1);
    world.look(1, now);
    world.keeper.wanted(&1, Usage::default(), now);
    world.keeper.asked(1);
    let batch = world.keeper.batch(now).expect("it is asked");
    let seen = Seen { cap: CAP, lacking: 2, lacking_together: 5, ..Seen::default() };
    let ask = world.keeper.ask(&1, Some(seen), now);
    assert_eq!((batch.pools.len(), ask.keep, ask.need, ask.want), (1, 0, 2, 5));
}

#[test]
fn what_another_wants_is_looked_for_again_soon_also_where_it_is_only_held() {
    let (mut world, now) = World::granting();
    let usage = Usage { spent: 0, held: 10 };
    world.usages.insert(1, usage);
    world.keeper.asked(1);
    world.look(0, now);
    world.keeper.wanted(&1, usage, now);
    world.look(0, now);
    assert_eq!(world.ceiling(1), 10);
    world.keeper.wanted(&1, usage, now);
    assert_eq!(world.keeper.pause(now), LOOK_SOON);
}

#[test]
fn at_the_beginning_of_a_window_what_was_used_before_is_kept_and_no_more() {
    let (mut world, now) = World::granting();
    world.spend(1, 300);
    world.keeper.asked(1);
    world.look(50, now);
    assert!(world.ceiling(1) > 350);
    (world.former, world.sent) = (300, Vec::new());
    world.spend(1, 0);
    world.keeper.wanted(&1, world.usages[&1], now + 1);
    world.look(0, now + 1);
    assert_eq!(world.ceiling(1), 300);
    // It is told once a look, however much another wants it.
    world.until(now + 1, now + 1_000);
    assert!(world.sent.len() < 10, "{:?}", world.sent);
    world.former = 0;
    world.until(now + 1_000, now + LEASE + IDLE);
    assert_eq!(world.ceiling(1), 0);
}

#[test]
fn a_call_that_was_not_answered_is_asked_for_again_with_what_it_needs() {
    let (mut world, now) = World::granting();
    world.spend(1, 0);
    world.keeper.asked(1);
    let batch = world.keeper.batch(now).expect("it is asked");
    assert_eq!(world.keeper.ask(&1, world.seen(1, 40), now).need, 40);
    world.keeper.overtaken(batch, 100);
    let batch = world.keeper.batch(now).expect("again");
    assert_eq!((batch.turn, &batch.pools[..]), (101, &[1][..]));
    assert_eq!(world.keeper.ask(&1, world.seen(1, 0), now).need, 40);
    world.keeper.failed(batch, now);
    assert!(world.keeper.batch(now).is_none() && world.keeper.pause(now) == 50);
}

#[test]
fn who_leaves_gives_all_back_that_is_not_used() {
    let (mut world, now) = World::granting();
    world.spend(1, 10);
    world.keeper.asked(1);
    world.look(20, now);
    world.keeper.leave();
    while !world.keeper.has_left() {
        world.look(0, now + 1);
    }
    assert_eq!(world.store.pool("1").unwrap().shares().values().next().unwrap().ceiling, 10);
}
