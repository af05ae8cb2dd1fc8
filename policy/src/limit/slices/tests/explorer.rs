//! Every order of a few steps of two replicas and a store: holds, settlements, asks, answers that are lost, asks that come late, crashes,
//! restarts, the end of leases and windows, a store that loses its memory or what was written last.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

const TICK: u64 = 1_000;
const RULES: Rules = Rules { cap: 4, want: 2, lease: 2 * TICK, window: 5 * TICK };
const CALL: u64 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    store: Store,
    /// What a replica of the store has of it.
    copy: Store,
    nodes: [Node; 2],
    alive: [bool; 2],
    /// An ask on its way, which its sender has given up.
    late: [Option<(u64, Ask)>; 2],
    /// What it has is known to nobody, since the store lost its memory.
    unknown: [bool; 2],
    /// It has not yet told what it knew of the other before the store lost its memory.
    untold: [bool; 2],
    now: u64,
    losses: u8,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Hold(usize),
    Settle(usize),
    Sync(usize, u64),
    ReplyLost(usize),
    Linger(usize),
    Arrive(usize),
    Crash(usize),
    Restart(usize),
    Tick,
    Copy,
    FailOver,
    LoseAll,
}

const STEPS: [Step; 22] = [
    Step::Hold(0),
    Step::Hold(1),
    Step::Settle(0),
    Step::Settle(1),
    Step::Sync(0, 0),
    Step::Sync(1, 0),
    Step::Sync(0, CALL),
    Step::Sync(1, CALL),
    Step::ReplyLost(0),
    Step::ReplyLost(1),
    Step::Linger(0),
    Step::Linger(1),
    Step::Arrive(0),
    Step::Arrive(1),
    Step::Crash(0),
    Step::Crash(1),
    Step::Restart(0),
    Step::Restart(1),
    Step::Tick,
    Step::Copy,
    Step::FailOver,
    Step::LoseAll,
];

impl World {
    fn new() -> Self {
        let (store, nodes, now) = settled(RULES, 2);
        Self {
            copy: store.clone(),
            store,
            nodes: [nodes[0].clone(), nodes[1].clone()],
            alive: [true; 2],
            late: [None, None],
            unknown: [false; 2],
            untold: [false; 2],
            now: now.next_multiple_of(TICK),
            losses: 0,
        }
    }

    /// `None`: the step is not possible here, or beyond what is promised.
    fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        let now = next.now;
        match step {
            Step::Hold(n) => (next.alive[n] && next.nodes[n].hold(CALL, now)).then_some(())?,
            Step::Settle(n) => {
                (next.alive[n] && next.nodes[n].held > 0).then_some(())?;
                next.nodes[n].held -= CALL;
                next.nodes[n].spent += CALL / 2;
            }
            Step::Sync(n, spare) => {
                let asked = next.ask(n, spare)?;
                match next.execute(n, &asked) {
                    Ok(grant) => next.nodes[n].slice.take(grant, now, RULES.lease),
                    Err(latest) => next.nodes[n].turn = latest,
                }
            }
            Step::ReplyLost(n) => {
                let asked = next.ask(n, 0)?;
                drop(next.execute(n, &asked));
            }
            Step::Linger(n) => {
                next.late[n].is_none().then_some(())?;
                next.late[n] = Some(next.ask(n, 0)?);
            }
            Step::Arrive(n) => {
                let asked = next.late[n].take()?;
                drop(next.execute(n, &asked));
            }
            Step::Crash(n) => {
                next.alive[n].then_some(())?;
                next.alive[n] = false;
                next.silent(n)?;
            }
            Step::Restart(n) => {
                (!next.alive[n]).then_some(())?;
                next.alive[n] = true;
                let node = &mut next.nodes[n];
                *node = Node { spent: node.used(), turn: node.turn, ..Node::default() };
            }
            Step::Tick => {
                next.now += TICK;
                if next.now.is_multiple_of(RULES.window) {
                    next.nodes.iter_mut().for_each(|node| (node.spent, node.held) = (0, 0));
                }
                for n in [0, 1] {
                    if self.nodes[n].slice.ceiling(now).is_some()
                        && self.nodes[n].slice.ceiling(next.now).is_none()
                    {
                        next.silent(n)?;
                    }
                }
            }
            Step::Copy => next.copy = next.store.clone(),
            Step::FailOver => {
                let copy = next.copy.clone();
                next.lose(copy)?;
            }
            Step::LoseAll => next.lose(Store::default())?,
        }
        (next != *self).then_some(next)
    }

    fn ask(&mut self, n: usize, spare: u64) -> Option<(u64, Ask)> {
        self.alive[n].then_some(())?;
        let node = &mut self.nodes[n];
        let room = node.slice.ceiling(self.now).unwrap_or(0).saturating_sub(node.used());
        let need = if room < CALL { CALL } else { 0 };
        Some(node.ask(RULES, need, spare, self.now))
    }

    fn execute(&mut self, n: usize, asked: &(u64, Ask)) -> Result<Granted, u64> {
        let grant = self.store.sync(n, asked, self.now);
        if grant.is_ok() {
            self.unknown[n] = false;
            self.untold[n] &= asked.1.known.is_empty() && self.nodes[n].slice.others() > 0;
        }
        grant
    }

    /// Nothing is heard of a replica any more. Where the store has just lost its memory, and nobody else could tell, nobody can know.
    fn silent(&self, n: usize) -> Option<()> {
        let other = 1 - n;
        let nobody_tells = self.untold[n] && !self.alive[other];
        (!self.unknown[n] && !nobody_tells).then_some(())
    }

    fn lose(&mut self, left: Store) -> Option<()> {
        (self.losses == 0).then_some(())?;
        self.losses += 1;
        self.store = Store { run: self.store.run + 1, ..left };
        self.late = [None, None];
        for n in [0, 1] {
            let other = 1 - n;
            let most = self.nodes[n].most(self.now);
            let left = self.store.pool.shares().get(&id(n)).map_or(0, |share| share.ceiling);
            let seen = self.nodes[other].slice.known(u64::MAX).get(&id(n)).map_or(0, |share| share.ceiling);
            let seen = if self.alive[other] { seen } else { 0 };
            self.unknown[n] = most > left.max(seen);
            self.untold[n] = self.alive[n];
        }
        // What a dead one may have spent is told by nobody.
        [0, 1].iter().all(|n| self.alive[*n] || !self.unknown[*n]).then_some(())
    }

    fn check(&self, path: &[Step]) {
        let most: u64 = self
            .nodes
            .iter()
            .zip(self.alive)
            .map(|(node, alive)| if alive { node.most(self.now) } else { node.used() })
            .sum();
        assert!(most <= RULES.cap, "{most} after {path:?}: {self:#?}");
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Looks at every world that `depth` steps lead to, each once; how many there are.
fn explore(begin: World, depth: usize) -> usize {
    let mut seen = HashSet::from([fingerprint(&begin)]);
    let mut front = vec![(begin, Vec::new())];
    for _ in 0..depth {
        let mut next = Vec::new();
        for (world, path) in &front {
            for step in STEPS {
                let Some(after) = world.after(step) else { continue };
                if !seen.insert(fingerprint(&after)) {
                    continue;
                }
                let mut path = path.clone();
                path.push(step);
                after.check(&path);
                next.push((after, path));
            }
        }
        front = next;
    }
    seen.len()
}

#[test]
fn no_order_of_steps_spends_more_than_there_is() {
    let worlds = explore(World::new(), 6);
    assert!(worlds > 10_000, "{worlds} worlds");
}

#[test]
fn nor_does_one_from_where_things_have_begun_to_go_wrong() {
    let begun = [Step::Sync(0, 0), Step::Hold(0), Step::Sync(1, 0), Step::Sync(0, 0)];
    for wrong in [
        &[Step::LoseAll][..],
        &[Step::Copy, Step::Sync(0, CALL), Step::FailOver],
        &[Step::Crash(0), Step::Tick, Step::Tick],
        &[Step::Linger(0), Step::ReplyLost(0)],
        &[Step::Tick, Step::Tick, Step::LoseAll],
        &[Step::LoseAll, Step::Sync(1, 0), Step::Tick],
        &[Step::LoseAll, Step::Sync(0, 0), Step::Sync(1, 0), Step::Tick, Step::Tick],
    ] {
        let steps = begun.iter().chain(wrong);
        let world = steps.fold(World::new(), |world, step| world.after(*step).unwrap_or(world));
        let worlds = explore(world, 5);
        assert!(worlds > 1_000, "{worlds} worlds after {wrong:?}");
    }
}

#[test]
fn what_is_not_promised_is_reached_by_breaking_a_rule() {
    // A store that grants before it has heard everybody: what the search looks for is then there.
    let mut world = World::new();
    for step in [Step::Sync(0, 0), Step::Hold(0), Step::LoseAll] {
        world = world.after(step).expect("it is possible");
    }
    let asked = world.ask(1, 0).expect("it asks");
    let granted = world.store.pool.sync(
        &world.store.memory,
        &id(1),
        &Ask { need: RULES.cap, ..asked.1 },
        true,
        world.now,
    );
    world.nodes[1].slice.take(granted, world.now, RULES.lease);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check(&[])));
    assert!(caught.is_err());
}
