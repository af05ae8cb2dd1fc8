//! Shares of one count, in every order of a few steps, and in many random orders of many.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::limit::Usage;

mod explorer;

/// A replica beside what it has really used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Node {
    slice: Slice,
    spent: u64,
    held: u64,
    turn: u64,
}

/// The store beside the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Store {
    memory: Memory,
    pool: Pool,
    run: u64,
}

fn id(number: usize) -> ReplicaId {
    Arc::from(number.to_string())
}

impl Node {
    fn used(&self) -> u64 {
        self.spent + self.held
    }

    /// What it can come to without hearing from the store.
    fn most(&self, now: u64) -> u64 {
        self.slice.ceiling(now).unwrap_or(0).max(self.used())
    }

    fn hold(&mut self, amount: u64, now: u64) -> bool {
        let fits = self.slice.ceiling(now).is_some_and(|ceiling| self.used() + amount <= ceiling);
        self.held += if fits { amount } else { 0 };
        fits
    }

    fn ask(&mut self, rules: Rules, need: u64, spare: u64, now: u64) -> (u64, Ask) {
        self.turn += 1;
        let known = self.slice.known(now);
        let keep = self.slice.lower(Usage { spent: self.spent, held: self.held }, spare, now);
        let Rules { cap, want, lease, window } = rules;
        let counts_for = window - (now + lease) % window;
        (self.turn, Ask { cap, keep, spent: self.spent, need, want, lease, counts_for, known })
    }
}

impl Store {
    fn sync(&mut self, replica: usize, (turn, ask): &(u64, Ask), now: u64) -> Result<Granted, u64> {
        let asker = Asker { replica: &id(replica), turn: *turn, whole: true, lease: ask.lease };
        match self.memory.enter(self.run, asker, now) {
            Entry::Overtaken { latest } => Err(latest),
            entry => Ok(self.pool.sync(&self.memory, &id(replica), ask, entry == Entry::Granting, now)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    cap: u64,
    want: u64,
    lease: u64,
    window: u64,
}

fn settled(rules: Rules, nodes: usize) -> (Store, Vec<Node>, u64) {
    let (mut store, mut nodes) = (Store { run: 1, ..Store::default() }, vec![Node::default(); nodes]);
    for (replica, node) in nodes.iter_mut().enumerate() {
        let asked = node.ask(Rules { want: 0, ..rules }, 0, 0, 1);
        let grant = store.sync(replica, &asked, 1).unwrap();
        assert!(grant.rebuilding, "a store that has just begun asks first");
        node.slice.take(grant, 1, rules.lease);
    }
    (store, nodes, 1 + rules.lease)
}

fn round(store: &mut Store, node: &mut Node, replica: usize, rules: Rules, need: u64, now: u64) -> u64 {
    let asked = node.ask(rules, need, rules.want, now);
    let grant = store.sync(replica, &asked, now).unwrap();
    let more = grant.more;
    node.slice.take(grant, now, rules.lease);
    more
}

const RULES: Rules = Rules { cap: 1_000, want: 1_000, lease: 10_000, window: 1_000_000 };

#[test]
fn slices_shrink_towards_the_end_and_one_call_finds_what_it_needs() {
    let (mut store, mut nodes, now) = settled(RULES, 2);
    let mut slices = Vec::new();
    for turn in 0..20 {
        let replica = turn % 2;
        slices.push(round(&mut store, &mut nodes[replica], replica, RULES, 0, now));
        while nodes[replica].hold(1, now) {}
    }
    assert_eq!(
        &slices[..5],
        [500, 125, 93, 70, 53],
        "half of all for one, a quarter of the rest for each of two"
    );
    assert!(slices.windows(2).all(|pair| pair[0] >= pair[1]), "{slices:?}");
    let left = RULES.cap - nodes[0].used() - nodes[1].used();
    assert_eq!(round(&mut store, &mut nodes[0], 0, RULES, left, now), left, "all that is left for one call");
    assert_eq!(round(&mut store, &mut nodes[1], 1, RULES, 1, now), 0);
}

#[test]
fn what_one_does_not_use_is_another_ones_as_soon_as_it_is_wanted() {
    let (mut store, mut nodes, now) = settled(RULES, 2);
    round(&mut store, &mut nodes[0], 0, RULES, 900, now);
    assert!(nodes[0].hold(300, now));
    assert_eq!(round(&mut store, &mut nodes[1], 1, RULES, 200, now), 0, "a hundred are left");
    // The first round tells it, the second gives it back.
    round(&mut store, &mut nodes[0], 0, RULES, 0, now);
    round(&mut store, &mut nodes[0], 0, RULES, 0, now);
    assert_eq!(round(&mut store, &mut nodes[1], 1, RULES, 200, now), 200);
}

#[test]
fn a_share_whose_lease_ended_counts_until_its_window_is_over_or_its_replica_is_back() {
    let (mut store, mut nodes, now) = settled(RULES, 2);
    round(&mut store, &mut nodes[0], 0, RULES, 900, now);
    assert!(nodes[0].hold(300, now));
    let later = now + 3 * RULES.lease;
    assert_eq!(nodes[0].slice.ceiling(later), None, "it spends no more");
    assert_eq!(round(&mut store, &mut nodes[1], 1, RULES, 200, later), 0);
    assert_eq!(nodes[1].slice.others_spent(), 900, "all of it may have been spent");
    // It comes back with its ledger, and without what it knew.
    nodes[0] = Node { spent: 300, turn: 5_000, ..Node::default() };
    round(&mut store, &mut nodes[0], 0, Rules { want: 0, ..RULES }, 0, later);
    assert_eq!(round(&mut store, &mut nodes[1], 1, RULES, 200, later), 200);
    let over = RULES.window + 1;
    assert_eq!(store.pool.shares().len(), 2);
    nodes[1] = Node { turn: nodes[1].turn, ..Node::default() };
    round(&mut store, &mut nodes[1], 1, RULES, 1, over);
    assert_eq!(store.pool.shares().len(), 1, "what was held in the window before counts no more");
}

#[test]
fn an_ask_that_was_overtaken_changes_nothing() {
    let (mut store, mut nodes, now) = settled(RULES, 1);
    let late = nodes[0].ask(RULES, 10, 0, now);
    round(&mut store, &mut nodes[0], 0, RULES, 400, now);
    let before = store.clone();
    assert_eq!(store.sync(0, &late, now), Err(late.0 + 1));
    assert_eq!(store, before);
}

#[test]
fn a_store_that_lost_its_memory_hears_everybody_before_it_grants() {
    let (mut store, mut nodes, now) = settled(RULES, 3);
    round(&mut store, &mut nodes[0], 0, RULES, 400, now);
    round(&mut store, &mut nodes[1], 1, RULES, 300, now);
    assert!(nodes[0].hold(400, now));
    round(&mut store, &mut nodes[2], 2, Rules { want: 0, ..RULES }, 0, now);
    // The first is gone, and only the third still knows of it.
    let mut store = Store { run: store.run + 1, ..Store::default() };
    let lost = now + 1;
    for _ in 0..2 {
        assert_eq!(round(&mut store, &mut nodes[1], 1, RULES, 100, lost), 0);
        assert_eq!(round(&mut store, &mut nodes[2], 2, RULES, 300, lost), 0);
    }
    let again = lost + RULES.lease;
    assert_eq!(round(&mut store, &mut nodes[2], 2, RULES, 201, again), 0, "500 and 300 are others'");
    assert_eq!(round(&mut store, &mut nodes[2], 2, RULES, 200, again), 200);
}

#[test]
fn a_smaller_amount_grants_nothing_until_it_is_passed_no_more() {
    let (mut store, mut nodes, now) = settled(RULES, 2);
    round(&mut store, &mut nodes[0], 0, RULES, 600, now);
    assert!(nodes[0].hold(500, now));
    let less = Rules { cap: 500, ..RULES };
    assert_eq!(round(&mut store, &mut nodes[1], 1, less, 1, now), 0);
    let more = Rules { cap: 2_000, ..RULES };
    assert_eq!(round(&mut store, &mut nodes[1], 1, more, 1_000, now), 1_000);
}

#[derive(Debug, Clone)]
enum Step {
    Hold(usize, u64),
    Settle(usize, u64),
    Sync(usize, u64),
    ReplyLost(usize),
    Wait(u64),
    Crash(usize),
}

fn steps(nodes: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..nodes, 1_u64..60).prop_map(|(node, amount)| Step::Hold(node, amount)),
        4 => (0..nodes, 0_u64..=100).prop_map(|(node, percent)| Step::Settle(node, percent)),
        4 => (0..nodes, 0_u64..60).prop_map(|(node, need)| Step::Sync(node, need)),
        1 => (0..nodes).prop_map(Step::ReplyLost),
        1 => prop_oneof![1_u64..2_000, 5_000_u64..30_000].prop_map(Step::Wait),
        1 => (0..nodes).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn many_replicas_never_come_to_more_than_the_amount(nodes in 2_usize..12, steps in steps(12)) {
        let rules = Rules { cap: 500, want: 80, ..RULES };
        let (mut store, mut nodes, mut now) = settled(rules, nodes);
        let count = nodes.len();
        for step in steps {
            match step {
                Step::Hold(node, amount) => drop(nodes[node % count].hold(amount, now)),
                Step::Settle(node, percent) => {
                    let node = &mut nodes[node % count];
                    node.spent += node.held * percent / 100;
                    node.held = 0;
                }
                Step::Sync(node, need) => drop(round(&mut store, &mut nodes[node % count], node % count, rules, need, now)),
                Step::ReplyLost(node) => {
                    let asked = nodes[node % count].ask(rules, 20, 0, now);
                    store.sync(node % count, &asked, now).unwrap();
                }
                Step::Wait(time) => {
                    let before = now;
                    now += time;
                    if before / rules.window != now / rules.window {
                        nodes.iter_mut().for_each(|node| (node.spent, node.held) = (0, 0));
                    }
                }
                // What was held is presumed to have been spent.
                Step::Crash(node) => {
                    let node = &mut nodes[node % count];
                    *node = Node { spent: node.used(), turn: node.turn, ..Node::default() };
                }
            }
            let most: u64 = nodes.iter().map(|node| node.most(now)).sum();
            prop_assert!(most <= rules.cap, "{most} at {now}");
        }
    }

    /// The bound on refusals: who is refused gets it as soon as each other one has asked twice, unless it is used.
    #[test]
    fn nobody_is_refused_for_longer_than_two_rounds_while_what_it_needs_is_unused(
        holds in prop::collection::vec((0_u64..200, 0_u64..200), 2..12), need in 1_u64..400,
    ) {
        let rules = Rules { cap: 1_000, want: 300, ..RULES };
        let (mut store, mut nodes, now) = settled(rules, holds.len());
        for (replica, (leased, held)) in holds.into_iter().enumerate() {
            round(&mut store, &mut nodes[replica], replica, rules, leased, now);
            nodes[replica].hold(held, now);
        }
        let used = |nodes: &[Node]| nodes.iter().map(Node::used).sum::<u64>();
        if round(&mut store, &mut nodes[0], 0, rules, need, now) < need {
            for _ in 0..2 {
                for (replica, node) in nodes.iter_mut().enumerate().skip(1) {
                    round(&mut store, node, replica, rules, 0, now);
                }
            }
            let fits = used(&nodes) + need <= rules.cap;
            prop_assert_eq!(round(&mut store, &mut nodes[0], 0, rules, need, now) == need, fits);
        }
    }
}
