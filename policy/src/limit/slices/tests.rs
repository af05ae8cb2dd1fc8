//! Shares of one count, in every order of a few steps, and in many random orders of many.

use std::sync::Arc;

use super::*;

mod explorer;
mod random;

/// A process of a replica, with its one count, beside what it has really used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    holder: Holder,
    tenure: Tenure<Life>,
    slice: Slice,
    /// It has told its count in this life of the store.
    told: bool,
    /// It knows what its ledger says.
    restored: bool,
    /// What it has spent, as its ledger says.
    spent: u64,
    held: u64,
}

/// The store, and which process of the server it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Server {
    store: PoolStore,
    run: u64,
}

/// A batch on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sent {
    holder: Holder,
    turn: u64,
    life: Option<Life>,
    lapses: u64,
    whole: bool,
    leaving: bool,
    reports: bool,
    ask: Option<Ask>,
    lease: u64,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    cap: u64,
    want: u64,
    lease: u64,
    window: u64,
}

fn pool() -> PoolName {
    "count".into()
}

impl Node {
    fn new(replica: usize, process: u64) -> Self {
        let holder = Holder { replica: Arc::from(replica.to_string()), process };
        let (tenure, slice) = (Tenure::new(process), Slice::default());
        Self { holder, tenure, slice, told: false, restored: true, spent: 0, held: 0 }
    }

    /// The process after this one, which knows no more than the ledger.
    fn successor(&self, process: u64) -> Self {
        let holder = Holder { process, ..self.holder.clone() };
        Self { holder, spent: self.used(), ..Self::new(0, process) }
    }

    fn used(&self) -> u64 {
        self.spent + self.held
    }

    fn ceiling(&self, now: u64) -> Option<u64> {
        self.tenure.runs(now).then_some(self.slice.ceiling())
    }

    /// What it can come to without hearing from the store.
    fn most(&self, now: u64) -> u64 {
        self.ceiling(now).unwrap_or(0).max(self.used())
    }

    fn hold(&mut self, amount: u64, now: u64) -> bool {
        let fits = self.ceiling(now).is_some_and(|ceiling| self.used() + amount <= ceiling);
        self.held += if fits { amount } else { 0 };
        fits
    }

    fn ask(&mut self, rules: Rules, need: u64, spare: u64, now: u64) -> Sent {
        let Rules { cap, want, lease, window } = rules;
        let known = if self.told { Default::default() } else { self.slice.others().clone() };
        let keep = self.slice.lower(self.used(), spare, self.tenure.runs(now), now);
        let resets_in = window - now % window;
        let ask = Ask { cap, keep, spent: self.spent, need, want, resets_in, counts_for: window, known };
        let whole = self.restored && self.tenure.life().is_some();
        self.send(Some(ask).filter(|_| self.restored), whole, lease)
    }

    /// An empty batch: the lease goes on.
    fn renew(&mut self, lease: u64) -> Sent {
        let whole = self.restored && self.told;
        self.send(None, whole, lease)
    }

    fn send(&mut self, ask: Option<Ask>, whole: bool, lease: u64) -> Sent {
        let (turn, life, lapses) = (self.tenure.turn(), self.tenure.life().copied(), self.tenure.lapses());
        Sent {
            holder: self.holder.clone(),
            turn,
            life,
            lapses,
            whole,
            leaving: false,
            reports: false,
            ask,
            lease,
        }
    }

    fn take(&mut self, sent: &Sent, reply: Reply, now: u64) -> u64 {
        match reply {
            Reply::Refused(Entry::Superseded { latest }) => {
                self.tenure.superseded(latest);
                self.holder.process = self.tenure.process();
            }
            Reply::Refused(Entry::Overtaken { latest }) => self.tenure.overtaken(latest),
            Reply::Refused(Entry::Taken(_)) => unreachable!("it is not refused"),
            Reply::Taken { standing, mut grants, wanted } => {
                if !wanted.is_empty() {
                    self.slice.want(now);
                }
                match self.tenure.take(&standing, now, sent.lease) {
                    Displaced::Everything => self.told = false,
                    _ => self.told |= sent.ask.is_some(),
                }
                let grant = grants.pop();
                let more = grant.as_ref().map_or(0, |grant| grant.more);
                grant.into_iter().for_each(|grant| self.slice.take(grant, standing.rebuilding, now));
                return more;
            }
        }
        0
    }
}

impl Server {
    fn batch(&mut self, sent: &Sent, now: u64) -> Reply {
        let Sent { holder, turn, life, lapses, whole, leaving, reports, ask, lease } = sent;
        let (turn, life, lapses, lease) = (*turn, *life, *lapses, *lease);
        let (whole, leaving, reports) = (*whole, *leaving, *reports);
        let asks: Vec<_> = ask.iter().map(|ask| (pool(), ask.clone())).collect();
        let asker = Asker { holder, turn, life, lapses, whole, leaving, reports, lease };
        self.store.batch(self.run, asker, &asks, now)
    }

    /// What a ledger says, told as a process would that ends at once. One that does not go on is silent where the store knows a later one.
    fn hear(&mut self, mut voice: Node, goes_on: bool, rules: Rules, now: u64) {
        let rules = Rules { want: 0, ..rules };
        for _ in 0..4 {
            let sent = Sent { leaving: true, reports: true, ..voice.ask(rules, 0, 0, now) };
            let reply = self.batch(&sent, now);
            if !goes_on && matches!(reply, Reply::Refused(Entry::Superseded { .. })) {
                return;
            }
            voice.take(&sent, reply, now);
        }
    }

    fn shares(&self) -> usize {
        self.store.pool(&pool()).map_or(0, |pool| pool.shares().len())
    }
}

fn settled(rules: Rules, nodes: usize) -> (Server, Vec<Node>, u64) {
    settled_from(1, rules, nodes)
}

fn settled_from(begin: u64, rules: Rules, nodes: usize) -> (Server, Vec<Node>, u64) {
    let mut server = Server { run: 1, ..Server::default() };
    let mut nodes: Vec<Node> = (0..nodes).map(|replica| Node::new(replica, 1)).collect();
    for _ in 0..2 {
        for node in &mut nodes {
            assert_eq!(round(&mut server, node, Rules { want: 0, ..rules }, 0, begin), 0);
        }
    }
    let now = begin + rules.lease;
    for _ in 0..2 {
        for node in &mut nodes {
            assert_eq!(round(&mut server, node, Rules { want: 0, ..rules }, 0, now), 0);
        }
    }
    (server, nodes, now)
}

fn round(server: &mut Server, node: &mut Node, rules: Rules, need: u64, now: u64) -> u64 {
    let sent = node.ask(rules, need, rules.want, now);
    let reply = server.batch(&sent, now);
    node.take(&sent, reply, now)
}

const RULES: Rules = Rules { cap: 1_000, want: 1_000, lease: 10_000, window: 1_000_000 };

#[test]
fn slices_shrink_towards_the_end_and_one_call_finds_what_it_needs() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    let mut slices = Vec::new();
    for turn in 0..20 {
        let node = &mut nodes[turn % 2];
        slices.push(round(&mut server, node, RULES, 0, now));
        while node.hold(1, now) {}
    }
    assert_eq!(
        &slices[..5],
        [500, 125, 93, 70, 53],
        "half of all for one, a quarter of the rest for each of two"
    );
    assert!(slices.windows(2).all(|pair| pair[0] >= pair[1]), "{slices:?}");
    let left = RULES.cap - nodes[0].used() - nodes[1].used();
    assert_eq!(round(&mut server, &mut nodes[0], RULES, left, now), left, "all that is left for one call");
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 1, now), 0);
}

#[test]
fn what_one_does_not_use_is_another_ones_as_soon_as_it_is_wanted() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    round(&mut server, &mut nodes[0], RULES, 900, now);
    assert!(nodes[0].hold(300, now));
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 200, now), 0, "a hundred are left");
    // An empty batch tells it, the next one gives it back.
    let sent = nodes[0].renew(RULES.lease);
    let reply = server.batch(&sent, now);
    nodes[0].take(&sent, reply, now);
    round(&mut server, &mut nodes[0], RULES, 0, now);
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 200, now), 200);
}

#[test]
fn nobody_is_asked_for_what_is_spent() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    round(&mut server, &mut nodes[0], RULES, 900, now);
    nodes[0].spent = 900;
    round(&mut server, &mut nodes[0], RULES, 0, now);
    let left = RULES.cap - nodes[0].slice.ceiling();
    nodes[0].spent += nodes[0].slice.ceiling() - 900;
    round(&mut server, &mut nodes[0], Rules { want: 0, ..RULES }, 0, now);
    let sent = nodes[1].ask(RULES, left + 1, 0, now);
    let Reply::Taken { wanted, .. } = server.batch(&sent, now) else { panic!("it is taken") };
    assert!(wanted.is_empty(), "nobody could give anything back");
}

#[test]
fn a_lease_is_lengthened_without_a_word_of_the_shares() {
    let (mut server, mut nodes, mut now) = settled(RULES, 2);
    round(&mut server, &mut nodes[0], RULES, 900, now);
    for _ in 0..20 {
        now += RULES.lease / 2;
        let sent = nodes[0].renew(RULES.lease);
        let reply = server.batch(&sent, now);
        nodes[0].take(&sent, reply, now);
        assert_eq!(nodes[0].ceiling(now), Some(nodes[0].slice.ceiling()));
    }
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 200, now), 0, "its share counts on");
}

#[test]
fn a_share_whose_lease_ended_counts_until_its_window_is_over_or_its_replica_is_back() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    round(&mut server, &mut nodes[0], RULES, 900, now);
    assert!(nodes[0].hold(300, now));
    let later = now + 3 * RULES.lease;
    assert_eq!(nodes[0].ceiling(later), None, "it spends no more");
    for _ in 0..2 {
        assert_eq!(round(&mut server, &mut nodes[1], RULES, 200, later), 0);
    }
    assert_eq!(nodes[1].slice.others_spent(), nodes[0].slice.ceiling(), "all of it may have been spent");
    // It comes back with its ledger, and without what it knew.
    nodes[0] = nodes[0].successor(2);
    for _ in 0..2 {
        round(&mut server, &mut nodes[0], Rules { want: 0, ..RULES }, 0, later);
    }
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 200, later), 200);
    let over = RULES.window + 1;
    assert_eq!(server.shares(), 2);
    nodes[1] = nodes[1].successor(2);
    (nodes[1].spent, nodes[1].held) = (0, 0);
    round(&mut server, &mut nodes[1], RULES, 1, over);
    round(&mut server, &mut nodes[1], RULES, 1, over);
    assert_eq!(server.shares(), 1, "what was held in the window before counts no more");
}

#[test]
fn what_a_replica_that_has_ended_did_not_spend_is_given_back_by_its_ledger() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    round(&mut server, &mut nodes[0], RULES, 900, now);
    nodes[0].spent = 300;
    let later = now + RULES.lease;
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 700, later), 0, "all of it may have been spent");
    server.hear(nodes[0].successor(2), false, RULES, later);
    for _ in 0..2 {
        round(&mut server, &mut nodes[1], Rules { want: 0, ..RULES }, 0, later);
    }
    assert_eq!(nodes[1].slice.others_spent(), 300);
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 701, later), 0);
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 700, later), 700);
    // It comes back: what it says itself stands.
    let mut back = nodes[0].successor(3);
    for _ in 0..2 {
        assert_eq!(round(&mut server, &mut back, RULES, 1, later), 0);
    }
    assert_eq!(server.shares(), 2);
}

#[test]
fn a_store_that_lost_its_memory_learns_by_the_ledger_of_whom_nobody_knows() {
    let (_, nodes, now) = settled(RULES, 3);
    let gone = Node { spent: 400, ..nodes[0].successor(0) };
    let mut server = Server { run: 2, ..Server::default() };
    let mut new = Node::new(7, 1);
    server.hear(gone, false, RULES, now);
    let mut alive = Node { spent: 100, ..nodes[1].clone() };
    for _ in 0..2 {
        round(&mut server, &mut alive, RULES, 1, now);
    }
    // It speaks for itself, whatever its ledger says of it.
    server.hear(Node { spent: 900, ..nodes[1].successor(0) }, false, RULES, now);
    for _ in 0..2 {
        assert_eq!(round(&mut server, &mut new, RULES, 1, now), 0);
        round(&mut server, &mut alive, Rules { want: 0, ..RULES }, 0, now);
    }
    let later = now + RULES.lease;
    for _ in 0..2 {
        round(&mut server, &mut new, Rules { want: 0, ..RULES }, 0, later);
    }
    let has = alive.slice.ceiling().max(100);
    assert_eq!(round(&mut server, &mut new, RULES, 600 - has + 1, later), 0);
    assert_eq!(round(&mut server, &mut new, RULES, 600 - has, later), 600 - has);
}

#[test]
fn a_process_after_a_crash_waits_for_the_lease_of_the_one_before_and_its_share_counts_once() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    round(&mut server, &mut nodes[0], RULES, 400, now);
    let ceiling = nodes[0].slice.ceiling();
    assert!(nodes[0].hold(300, now));
    let mut after = nodes[0].successor(2);
    for _ in 0..2 {
        assert_eq!(round(&mut server, &mut after, RULES, 100, now), 0, "the one before may still run");
    }
    round(&mut server, &mut nodes[1], Rules { want: 0, ..RULES }, 0, now);
    assert_eq!(nodes[1].slice.others().len(), 2);
    assert_eq!(round(&mut server, &mut nodes[1], RULES, RULES.cap - ceiling, now), RULES.cap - ceiling);
    let rules = Rules { want: 0, ..RULES };
    assert_eq!(
        round(&mut server, &mut after, rules, 10, now + RULES.lease),
        0,
        "its own lease has ended too"
    );
    assert_eq!(round(&mut server, &mut after, rules, 10, now + RULES.lease), 10.min(ceiling - 300));
}

#[test]
fn of_two_processes_with_one_directory_the_later_one_goes_on() {
    let (mut server, mut nodes, now) = settled(RULES, 1);
    round(&mut server, &mut nodes[0], RULES, 400, now);
    assert!(nodes[0].hold(100, now));
    let mut copy = nodes[0].successor(2);
    round(&mut server, &mut copy, RULES, 0, now);
    round(&mut server, &mut copy, RULES, 0, now);
    // The original spends on until it hears of it.
    assert!(nodes[0].hold(300, now));
    round(&mut server, &mut nodes[0], RULES, 0, now);
    assert!(nodes[0].tenure.is_superseded() && !nodes[0].hold(1, now));
    let ceiling = nodes[0].slice.ceiling();
    let later = now + RULES.lease;
    round(&mut server, &mut copy, RULES, 0, later);
    round(&mut server, &mut copy, RULES, 0, later);
    let granted = copy.slice.ceiling() - copy.used();
    assert!(granted > 0 && ceiling + granted <= RULES.cap, "{granted} beside {ceiling}");
    // A clock that is behind keeps nobody from starting.
    let mut behind = copy.successor(1);
    round(&mut server, &mut behind, RULES, 0, later);
    assert_eq!((behind.tenure.process(), behind.tenure.is_superseded()), (3, false));
}

#[test]
fn an_ask_that_was_overtaken_changes_nothing() {
    let (mut server, mut nodes, now) = settled(RULES, 1);
    let late = nodes[0].ask(RULES, 10, 0, now);
    round(&mut server, &mut nodes[0], RULES, 400, now);
    let before = server.clone();
    assert_eq!(server.batch(&late, now), Reply::Refused(Entry::Overtaken { latest: late.turn + 1 }));
    assert_eq!(server, before);
}

#[test]
fn a_store_that_lost_its_memory_hears_everybody_before_it_grants() {
    let (mut server, mut nodes, now) = settled(RULES, 3);
    round(&mut server, &mut nodes[0], RULES, 400, now);
    let has = nodes[0].slice.ceiling();
    round(&mut server, &mut nodes[1], RULES, 300, now);
    let has = has + nodes[1].slice.ceiling();
    round(&mut server, &mut nodes[2], Rules { want: 0, ..RULES }, 0, now);
    // The first is gone, and only the third still knows of it.
    let mut server = Server { run: server.run + 1, ..Server::default() };
    let lost = now + 1;
    for _ in 0..2 {
        assert_eq!(round(&mut server, &mut nodes[1], RULES, 100, lost), 0);
        assert_eq!(round(&mut server, &mut nodes[2], RULES, 300, lost), 0);
    }
    let again = lost + RULES.lease;
    assert_eq!(
        round(&mut server, &mut nodes[2], RULES, RULES.cap - has + 1, again),
        0,
        "the rest is others'"
    );
    assert_eq!(round(&mut server, &mut nodes[2], RULES, RULES.cap - has, again), RULES.cap - has);
}

#[test]
fn a_server_that_is_asked_again_after_another_one_begins_anew() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    let mut other = Server { run: 2, store: server.store.clone() };
    round(&mut other, &mut nodes[0], RULES, 0, now);
    round(&mut other, &mut nodes[0], RULES, 0, now);
    round(&mut other, &mut nodes[0], RULES, 0, now + RULES.lease / 2);
    let granted = now + RULES.lease;
    assert!(round(&mut other, &mut nodes[0], RULES, 600, granted) >= 600);
    assert_eq!(round(&mut server, &mut nodes[0], RULES, 0, granted), 0);
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 600, granted), 0, "it has not heard of the grant");
    round(&mut server, &mut nodes[0], RULES, 0, granted);
    assert_eq!(round(&mut server, &mut nodes[1], RULES, 600, granted + RULES.lease), 0);
}

#[test]
fn a_smaller_amount_grants_nothing_until_it_is_passed_no_more() {
    let (mut server, mut nodes, now) = settled(RULES, 2);
    round(&mut server, &mut nodes[0], RULES, 600, now);
    assert!(nodes[0].hold(500, now));
    let less = Rules { cap: 500, ..RULES };
    assert_eq!(round(&mut server, &mut nodes[1], less, 1, now), 0);
    let more = Rules { cap: 2_000, ..RULES };
    assert_eq!(round(&mut server, &mut nodes[1], more, 1_000, now), 1_000);
}
