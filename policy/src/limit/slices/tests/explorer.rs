//! Every order of a few steps of two replicas and a store: holds, settlements, asks, answers that are lost, asks that come late, crashes,
//! restarts before and after what the ledger says is known, the end of leases and windows, a store that loses its memory or what was
//! written last, two stores at once, and a process on a copy of a directory.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

mod found;

const TICK: u64 = 1_000;
const RULES: Rules = Rules { cap: 4, want: 2, lease: 2 * TICK, window: 5 * TICK };
const CALL: u64 = 2;

/// Which promise is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Broken {
    Nothing,
    /// All is said to be told before the ledger is known.
    Whole,
    /// An answer is taken that no copy of the store has acknowledged.
    Acknowledgement,
    /// The original of a copy is silent from before the store could hear that it goes on.
    Silence,
    /// What a replica that has ended did not use is given back although its ledger is not told whole.
    Estate,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    server: Server,
    /// What a copy of the store has of it.
    copy: Server,
    /// A second store that the second replica asks, while the first is asked by the other.
    promoted: Option<Server>,
    /// The last copy, without which an answer is not taken, follows the second store.
    follows_promoted: bool,
    nodes: Vec<Node>,
    alive: Vec<bool>,
    /// What the ledger of each says, until it is read.
    ledgers: Vec<u64>,
    /// An ask on its way, which its sender has given up.
    late: Vec<Option<Sent>>,
    /// What it has is known to nobody, since the store lost its memory.
    unknown: Vec<bool>,
    /// It has not yet told what it knew of the other before the store lost its memory.
    untold: Vec<bool>,
    /// What the copy and its original have both counted.
    common: u64,
    /// The copy was heard, and the original has not learned of it.
    unsplit: bool,
    now: u64,
    process: u64,
    losses: u8,
    broken: Broken,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Hold(usize),
    Settle(usize),
    Sync(usize, u64),
    Renew(usize),
    ReplyLost(usize),
    Linger(usize),
    Arrive(usize),
    Crash(usize),
    Restart(usize),
    Restore(usize),
    Tick,
    Copy,
    FailOver,
    LoseAll,
    /// The copy is made a store of its own, which the second replica asks.
    Part,
    /// The last copy of the first store goes over to the second.
    Follow,
    /// The first replica asks the second store too.
    Heal,
    /// Both ask the first store again, which knows nothing of the second.
    FailBack,
    /// A process begins on a copy of the first replica's directory.
    Duplicate,
    /// The store is told what the ledger has of a replica, which may be there.
    Recall(usize),
    /// All that a dead replica had used is in the ledger, and the rest is given back.
    Close(usize),
}

impl World {
    fn new() -> Self {
        Self::begun(TICK, Broken::Nothing)
    }

    fn begun(begin: u64, broken: Broken) -> Self {
        let (server, nodes, now) = settled_from(begin, RULES, 2);
        Self {
            copy: server.clone(),
            server,
            promoted: None,
            follows_promoted: false,
            nodes,
            alive: vec![true; 2],
            ledgers: vec![0; 2],
            late: vec![None, None],
            unknown: vec![false; 2],
            untold: vec![false; 2],
            common: 0,
            unsplit: false,
            now,
            process: 1,
            losses: 0,
            broken,
        }
    }

    fn after_all(self, steps: &[Step]) -> Self {
        steps.iter().fold(self, |world, step| world.after(*step).unwrap_or(world))
    }

    /// `None`: the step is not possible here, or beyond what is promised.
    fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        let now = next.now;
        if let Step::Hold(n) | Step::Settle(n) | Step::Sync(n, _) | Step::Renew(n) = step {
            (next.alive.get(n) == Some(&true)).then_some(())?;
        }
        match step {
            Step::Hold(n) => next.nodes[n].hold(CALL, now).then_some(())?,
            Step::Settle(n) => {
                (next.nodes[n].held > 0).then_some(())?;
                next.nodes[n].held -= CALL;
                next.nodes[n].spent += CALL / 2;
            }
            Step::Sync(n, spare) => {
                let sent = next.ask(n, spare)?;
                next.execute(n, &sent, true);
            }
            Step::Renew(n) => {
                let sent = next.nodes[n].renew(RULES.lease);
                next.execute(n, &sent, true);
            }
            Step::ReplyLost(n) => {
                let sent = next.ask(n, 0)?;
                next.execute(n, &sent, false);
            }
            Step::Linger(n) => {
                next.late[n].is_none().then_some(())?;
                next.late[n] = Some(next.ask(n, 0)?);
            }
            Step::Arrive(n) => {
                let sent = next.late[n].take()?;
                next.execute(n, &sent, false);
            }
            Step::Crash(n) => {
                next.alive[n].then_some(())?;
                next.alive[n] = false;
                next.silent(n)?;
            }
            Step::Restart(n) => {
                (!next.alive[n]).then_some(())?;
                next.process += 1;
                let after = next.nodes[n].successor(next.process);
                next.ledgers[n] += after.spent;
                next.nodes[n] = Node { spent: 0, restored: false, ..after };
                next.alive[n] = true;
            }
            Step::Restore(n) => {
                (next.alive[n] && !next.nodes[n].restored).then_some(())?;
                next.nodes[n].spent = std::mem::take(&mut next.ledgers[n]);
                next.nodes[n].restored = true;
            }
            Step::Tick => next.tick()?,
            Step::Recall(n) | Step::Close(n) => next.speak(n, matches!(step, Step::Close(_)))?,
            _ => next.elsewhere(self, step)?,
        }
        (next != *self).then_some(next)
    }

    /// What becomes of the store, or of a directory.
    fn elsewhere(&mut self, before: &Self, step: Step) -> Option<()> {
        match step {
            Step::Copy => self.copy = self.server.clone(),
            Step::FailOver => self.lose(before.copy.store.clone())?,
            Step::LoseAll => self.lose(PoolStore::default())?,
            Step::Part => {
                (self.promoted.is_none() && self.losses == 0).then_some(())?;
                let server = std::mem::take(&mut self.server);
                self.server = server.clone();
                self.lose(before.copy.store.clone())?;
                self.promoted = Some(std::mem::replace(&mut self.server, server));
            }
            Step::Follow => {
                (self.promoted.is_some() && !self.follows_promoted).then_some(())?;
                self.follows_promoted = true;
            }
            Step::Heal => self.server = self.promoted.take()?,
            Step::FailBack => {
                let promoted = self.promoted.take()?;
                let kept = std::mem::replace(&mut self.server, promoted);
                self.losses = 0;
                // What was said there is lost, and everything here is as old as the parting.
                self.lose(kept.store.clone())?;
                self.server = kept;
                self.follows_promoted = false;
            }
            Step::Duplicate => {
                (self.nodes.len() == 2 && self.alive[0]).then_some(())?;
                self.process += 1;
                self.nodes.push(before.nodes[0].successor(self.process));
                self.common = before.nodes[0].used();
                self.alive.push(true);
                self.ledgers.push(0);
                self.unknown.push(false);
                self.untold.push(false);
            }
            _ => unreachable!("it is a step of a replica"),
        }
        Some(())
    }

    fn ask(&mut self, n: usize, spare: u64) -> Option<Sent> {
        self.alive[n].then_some(())?;
        let (now, broken) = (self.now, self.broken);
        let node = &mut self.nodes[n];
        let room = node.ceiling(now).unwrap_or(0).saturating_sub(node.used());
        let need = if room < CALL { CALL } else { 0 };
        let sent = node.ask(RULES, need, spare, now);
        let whole = sent.whole || broken == Broken::Whole;
        Some(Sent { whole, ..sent })
    }

    /// The store takes it in; whoever asked takes the answer, if it comes and is acknowledged.
    fn execute(&mut self, n: usize, sent: &Sent, comes: bool) {
        let asks_promoted = n == 1 && self.promoted.is_some();
        let server =
            if asks_promoted { self.promoted.as_mut().unwrap_or(&mut self.server) } else { &mut self.server };
        let reply = server.batch(sent, self.now);
        let is_parted = self.promoted.is_some();
        let acknowledged = !is_parted || asks_promoted == self.follows_promoted;
        let taken = matches!(reply, Reply::Taken { .. });
        let node = &mut self.nodes[n];
        if taken && sent.ask.is_some() && (!is_parted || asks_promoted) {
            self.unknown[n] = false;
            self.untold[n] &=
                sent.ask.as_ref().is_some_and(|ask| ask.known.is_empty()) && !node.slice.others().is_empty();
        }
        let superseded = matches!(reply, Reply::Refused(Entry::Superseded { .. }));
        if n == 2 && taken && !self.nodes[0].tenure.is_superseded() {
            self.unsplit = true;
        }
        if comes && (acknowledged || self.broken == Broken::Acknowledgement) {
            self.nodes[n].take(sent, reply, self.now);
        }
        if n == 0 && superseded {
            self.unsplit = false;
        }
    }

    /// Somebody tells the store what the ledger has of a replica.
    fn speak(&mut self, n: usize, is_last: bool) -> Option<()> {
        (self.promoted.is_none() && (!is_last || !self.alive[n])).then_some(())?;
        self.process += u64::from(is_last);
        let node = &self.nodes[n];
        // What is held is in no database before the replica is back or its directory is taken in.
        let held = if is_last && self.broken != Broken::Estate { node.held } else { 0 };
        let voice = node.successor(if is_last { self.process } else { 0 });
        let voice = Node { spent: node.spent + held + self.ledgers[n], ..voice };
        self.server.hear(voice, false, RULES, self.now);
        Some(())
    }

    fn tick(&mut self) -> Option<()> {
        let before = self.now;
        self.now += TICK;
        if self.now.is_multiple_of(RULES.window) {
            self.nodes.iter_mut().for_each(|node| (node.spent, node.held) = (0, 0));
            self.ledgers.iter_mut().for_each(|spent| *spent = 0);
            self.common = 0;
        }
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            if node.tenure.runs(before) && !node.tenure.runs(self.now) {
                self.silent(n)?;
            }
        }
        Some(())
    }

    /// Nothing is heard of a replica any more. Where the store has just lost its memory, and nobody else could tell, nobody can know. Nor
    /// can anybody where it goes before it learns that somebody has a copy of its directory.
    fn silent(&self, n: usize) -> Option<()> {
        let others_tell = self.alive.iter().enumerate().any(|(other, alive)| other != n && *alive);
        let nobody_tells = self.untold[n] && !others_tell;
        let is_lost = self.unknown[n] || nobody_tells || n == 0 && self.unsplit;
        (!is_lost || self.broken == Broken::Silence).then_some(())
    }

    fn lose(&mut self, left: PoolStore) -> Option<()> {
        (self.losses == 0 && self.nodes.len() == 2).then_some(())?;
        self.losses += 1;
        self.server = Server { run: self.server.run + 1, store: left };
        self.late = vec![None, None];
        for n in [0, 1] {
            let other = 1 - n;
            let node = &self.nodes[n];
            let most = node.most(self.now).max(self.ledgers[n]);
            // What a process before had is counted too.
            let of_replica = |holder: &Holder| holder.replica == node.holder.replica;
            let in_store = self.server.store.pool(&pool()).into_iter().flat_map(Pool::shares);
            let left =
                in_store.filter(|(holder, _)| of_replica(holder)).map(|(_, share)| share.ceiling).max();
            let known = self.nodes[other].slice.others().iter();
            let seen = known.filter(|(holder, _)| of_replica(holder)).map(|(_, share)| share.ceiling).max();
            let seen = if self.alive[other] { seen } else { None };
            self.unknown[n] = most > left.max(seen).unwrap_or(0);
            self.untold[n] = self.alive[n];
        }
        // What a dead one may have spent is told by nobody.
        let tells = |n: usize| self.alive[n] && self.nodes[n].restored;
        [0, 1].into_iter().all(|n| tells(n) || !self.unknown[n]).then_some(())
    }

    fn most(&self) -> u64 {
        let of_node = |n: usize| {
            let node = &self.nodes[n];
            let most = if self.alive[n] { node.most(self.now) } else { node.used() };
            most + self.ledgers[n]
        };
        let sum: u64 = (0..self.nodes.len()).map(of_node).sum();
        sum - self.common
    }

    fn check(&self, path: &[Step]) {
        assert!(self.most() <= RULES.cap, "{} after {path:?}: {self:#?}", self.most());
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Looks at every world that `depth` of these steps lead to, each once; how many there are.
fn explore(begin: World, steps: &[Step], depth: usize) -> usize {
    let mut seen = HashSet::from([fingerprint(&begin)]);
    let mut front = vec![(begin, Vec::new())];
    for _ in 0..depth {
        let mut next = Vec::new();
        for (world, path) in &front {
            for step in steps {
                let Some(after) = world.after(*step) else { continue };
                if !seen.insert(fingerprint(&after)) {
                    continue;
                }
                let mut path = path.clone();
                path.push(*step);
                after.check(&path);
                next.push((after, path));
            }
        }
        front = next;
    }
    seen.len()
}
