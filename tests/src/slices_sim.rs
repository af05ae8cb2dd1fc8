//! Replicas that share one budget, by the rules that the gateway has, on a virtual clock: nothing here waits, and a seed says all.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tollgate_policy::limit::Usage;
use tollgate_policy::limit::slices::keeper::{Batch, Keeper, Seen};
use tollgate_policy::limit::slices::{Ask, Asker, Holder, Life, Pool, PoolName, PoolStore, Reply};

mod outcome;

pub use outcome::{Outcome, Setting};

/// The only count.
const COUNT: &str = "budget/all/tokens/day/shared";
/// How long a call is refused at once after the store had nothing for the one before, in milliseconds.
const DRY: u64 = 100;
/// How soon a refused call is tried again, in milliseconds.
const RETRY: u64 = 1_000;
/// How many calls a slice pays for, at least.
const SLICE: u64 = 8;
/// The end of the window, in milliseconds.
const WINDOW: u64 = 86_400_000;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Calls(u64),
    Settles { replica: usize, held: u64, used: u64 },
    GivesUp { replica: usize, caller: u64 },
    Wakes(usize),
    Arrives(usize),
    Answered(usize),
}

/// A batch on its way, and what it was answered with.
struct OnItsWay {
    batch: Batch<u8, Life>,
    asks: Vec<(PoolName, Ask)>,
    reply: Option<Reply>,
}

struct Replica {
    holder: Holder,
    keeper: Keeper<u8, Life>,
    usage: Usage,
    ceiling: u64,
    refill_at: u64,
    lacking: u64,
    lacking_together: u64,
    asked: bool,
    dry_until: u64,
    used_at: u64,
    on_its_way: Option<OnItsWay>,
    /// Callers that wait for a slice, and what each needs.
    waiting: VecDeque<(u64, u64)>,
    /// When it is looked at next.
    wakes_at: u64,
}

struct World {
    setting: Setting,
    random: Random,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    store: PoolStore,
    replicas: Vec<Replica>,
    /// Since when each caller is refused although what it needs is unused.
    starved_since: Vec<Option<u64>>,
    used: u64,
    second: (u64, u64),
    seen: Outcome,
}

/// Lets all of it happen.
pub fn simulate(setting: Setting) -> Outcome {
    let replica = |number: u64| {
        let mut keeper = Keeper::new(1, setting.lease);
        keeper.restored();
        Replica {
            holder: Holder { replica: format!("{number:032x}").into(), process: 1 },
            keeper,
            usage: Usage::default(),
            ceiling: 0,
            refill_at: u64::MAX,
            lacking: 0,
            lacking_together: 0,
            asked: false,
            dry_until: 0,
            used_at: 0,
            on_its_way: None,
            waiting: VecDeque::new(),
            wakes_at: u64::MAX,
        }
    };
    let mut world = World {
        setting,
        random: Random::new(setting.seed),
        now: 1,
        events: BinaryHeap::new(),
        order: 0,
        store: PoolStore::default(),
        replicas: (0..setting.replicas).map(replica).collect(),
        starved_since: vec![None; setting.callers as usize],
        used: 0,
        second: (0, 0),
        seen: Outcome { time: setting.time, ..Outcome::default() },
    };
    for replica in 0..world.replicas.len() {
        let at = 1 + world.random.below(100);
        world.after(at, Event::Wakes(replica));
    }
    // The store has begun, and hears everybody before it grants.
    for caller in 0..setting.callers {
        let at = setting.lease + 1_000 + world.random.below(2 * setting.every);
        world.after(at, Event::Calls(caller));
    }
    let end = setting.lease + 1_000 + setting.time;
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at > end {
            break;
        }
        world.now = at;
        world.happens(event);
    }
    world.seen.left = setting.cap - world.used.min(setting.cap);
    world.seen
}

impl Replica {
    fn spare(&self) -> u64 {
        self.ceiling.saturating_sub(self.usage.spent + self.usage.held)
    }

    /// Notes that a call lacks so much; whether it may wait for it.
    fn lacks(&mut self, need: u64, now: u64) -> bool {
        self.lacking = self.lacking.max(need);
        self.lacking_together += need;
        if !self.asked && now >= self.dry_until {
            self.asked = true;
            self.keeper.asked(0);
        }
        self.asked
    }
}

impl World {
    fn after(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + time, self.order, event)));
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Calls(caller) => self.call(caller),
            Event::Settles { replica, held, used } => {
                let usage = &mut self.replicas[replica].usage;
                (usage.held, usage.spent) = (usage.held - held, usage.spent + used);
                self.used -= held - used;
            }
            Event::GivesUp { replica, caller } => {
                let waiting = &mut self.replicas[replica].waiting;
                let at = waiting.iter().position(|(waits, _)| *waits == caller);
                if let Some((_, need)) = at.and_then(|at| waiting.remove(at)) {
                    self.refuse(caller, need);
                }
            }
            Event::Wakes(replica) => {
                if self.replicas[replica].wakes_at <= self.now {
                    self.replicas[replica].wakes_at = u64::MAX;
                }
                self.look(replica);
            }
            Event::Arrives(replica) => self.arrive(replica),
            Event::Answered(replica) => self.answered(replica),
        }
    }

    fn home(&self, caller: u64) -> usize {
        let Setting { replicas, .. } = self.setting;
        let half = (replicas / 2).max(1);
        let home =
            if caller % 10 < 9 { caller / 10 % half } else { half + caller / 10 % (replicas - half).max(1) };
        (home % replicas) as usize
    }

    fn call(&mut self, caller: u64) {
        let Setting { every, fewer_at, lease, wait, .. } = self.setting;
        if caller.is_multiple_of(4) && self.now > lease + 1_000 + fewer_at {
            return;
        }
        let (least, most) = self.setting.need;
        let need = least + self.random.below(most - least + 1);
        let home = self.home(caller);
        if self.hold(home, need) {
            self.let_through(caller);
            let next = self.random.below(2 * every);
            self.after(next, Event::Calls(caller));
            return;
        }
        if self.replicas[home].lacks(need, self.now) && wait > 0 {
            self.replicas[home].waiting.push_back((caller, need));
            self.after(wait, Event::GivesUp { replica: home, caller });
            self.look(home);
        } else {
            self.refuse(caller, need);
        }
    }

    fn let_through(&mut self, caller: u64) {
        self.seen.calls += 1;
        self.seen.last_call = self.now;
        if let Some(since) = self.starved_since[caller as usize].take() {
            self.seen.starved = self.seen.starved.max(self.now - since);
        }
    }

    fn refuse(&mut self, caller: u64, need: u64) {
        let free = self.setting.cap.saturating_sub(self.used);
        if need <= free {
            self.seen.refused_while_free += 1;
            let at_a_replica = self.replicas.iter().map(Replica::spare).max().unwrap_or(0);
            let shares = self.store.pool(COUNT).map_or(0, total);
            let at_store = self.setting.cap.saturating_sub(shares);
            self.seen.refused_while_a_replica_had_it += u64::from(need <= at_a_replica);
            self.seen.refused_while_one_had_it += u64::from(need <= at_a_replica.max(at_store));
            self.seen.refused_while_slice_free += u64::from(free > SLICE * self.setting.need.1);
            self.seen.most_free = self.seen.most_free.max(free);
            self.starved_since[caller as usize].get_or_insert(self.now);
        } else {
            self.seen.refused += 1;
            self.starved_since[caller as usize] = None;
        }
        self.after(RETRY, Event::Calls(caller));
    }

    /// Holds so much, if it fits, and settles it later at a part of it.
    fn hold(&mut self, at: usize, need: u64) -> bool {
        let (now, replica) = (self.now, &mut self.replicas[at]);
        let used = replica.usage.spent + replica.usage.held;
        if now >= replica.keeper.ends() || used + need > replica.ceiling {
            return false;
        }
        replica.usage.held += need;
        replica.used_at = now;
        let asks = used + need > replica.refill_at && !replica.asked;
        if asks {
            replica.asked = true;
            replica.keeper.asked(0);
        }
        self.used += need;
        self.seen.overspent = self.seen.overspent.max(self.used.saturating_sub(self.setting.cap));
        let spent = need * (20 + self.random.below(81)) / 100;
        let takes = self.setting.takes / 30 + self.random.below(self.setting.takes);
        self.after(takes, Event::Settles { replica: at, held: need, used: spent });
        if asks {
            self.look(at);
        }
        true
    }

    /// What the gateway's keeper of slices does when it wakes.
    fn look(&mut self, at: usize) {
        let (now, setting) = (self.now, self.setting);
        let replica = &mut self.replicas[at];
        if replica.spare() > 0 && now < replica.keeper.ends() {
            self.seen.idle = self.seen.idle.max(now - replica.used_at);
        }
        if replica.on_its_way.is_some() {
            return;
        }
        let usage = replica.usage;
        replica.keeper.sweep(now, |_| Some(usage));
        if let Some(batch) = replica.keeper.batch(now) {
            let lacking = std::mem::take(&mut replica.lacking);
            let lacking_together = std::mem::take(&mut replica.lacking_together);
            let counts_for = WINDOW;
            let resets_in = WINDOW - now % WINDOW;
            let (cap, former) = (setting.cap, 0);
            let seen = Seen { cap, usage, former, lacking, lacking_together, resets_in, counts_for };
            let mut asks = Vec::new();
            for pool in &batch.pools {
                let ask = replica.keeper.ask(pool, Some(seen), now);
                replica.ceiling = ask.keep;
                asks.push((COUNT.into(), ask));
            }
            replica.on_its_way = Some(OnItsWay { batch, asks, reply: None });
            let takes = 1 + self.random.below(self.setting.way);
            self.after(takes, Event::Arrives(at));
        }
        self.wake(at);
    }

    fn wake(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        if replica.on_its_way.is_none() {
            let pause = replica.keeper.pause(self.now).max(1);
            if self.now + pause < replica.wakes_at {
                replica.wakes_at = self.now + pause;
                self.after(pause, Event::Wakes(at));
            }
        }
    }

    fn arrive(&mut self, at: usize) {
        let (now, lease) = (self.now, self.setting.lease);
        let replica = &mut self.replicas[at];
        let Some(sent) = &mut replica.on_its_way else { return };
        let Batch { turn, life, lapses, whole, leaving, .. } = sent.batch;
        let asker =
            Asker { holder: &replica.holder, turn, life, lapses, whole, leaving, reports: false, lease };
        let reply = self.store.batch(1, asker, &sent.asks, now);
        self.seen.batches += 1;
        self.seen.asks += sent.asks.len() as u64;
        self.seen.bytes += bytes(&sent.asks, &reply);
        sent.reply = Some(reply);
        if self.second.0 != now / 1_000 {
            self.second = (now / 1_000, 0);
        }
        self.second.1 += 1;
        self.seen.busiest = self.seen.busiest.max(self.second.1);
        let shares = self.store.pool(COUNT).map_or(0, total);
        self.seen.overspent = self.seen.overspent.max(shares.saturating_sub(self.setting.cap));
        let takes = 1 + self.random.below(self.setting.way);
        self.after(takes, Event::Answered(at));
    }

    fn answered(&mut self, at: usize) {
        let now = self.now;
        let replica = &mut self.replicas[at];
        let Some(OnItsWay { batch, asks, reply: Some(reply) }) = replica.on_its_way.take() else { return };
        let Reply::Taken { standing, grants, wanted } = reply else { unreachable!("nobody overtakes it") };
        replica.keeper.answered(&batch, &standing, now);
        for ((pool, (_, ask)), grant) in batch.pools.iter().zip(&asks).zip(grants) {
            self.seen.slices += u64::from(grant.more > 0);
            let terms = replica.keeper.take(&batch, (pool, ask), grant, now);
            let Some(terms) = terms else { continue };
            replica.ceiling = terms.ceiling;
            replica.refill_at = terms.refill_at.unwrap_or(replica.refill_at);
            replica.asked = false;
            if terms.is_dry {
                replica.dry_until = now + DRY;
            }
        }
        if !wanted.is_empty() {
            replica.keeper.wanted(&0, replica.usage, now);
        }
        let waiting = std::mem::take(&mut replica.waiting);
        for (caller, need) in waiting {
            if self.hold(at, need) {
                self.let_through(caller);
                let next = self.random.below(2 * self.setting.every);
                self.after(next, Event::Calls(caller));
            } else if self.replicas[at].lacks(need, now) {
                self.replicas[at].waiting.push_back((caller, need));
            } else {
                self.refuse(caller, need);
            }
        }
        self.look(at);
    }
}

/// What all replicas have of a count together.
fn total(pool: &Pool) -> u64 {
    pool.shares().values().map(|share| share.ceiling).sum()
}

/// How many bytes the batch and its answer are in the protocol of Redis, about.
fn bytes(asks: &[(PoolName, Ask)], reply: &Reply) -> u64 {
    let number = |number: u64| number.to_string().len() + 6;
    let mut sum = 300;
    for (name, ask) in asks {
        let known: usize = ask.known.keys().map(|holder| holder.to_string().len() + 40).sum();
        let numbers = [ask.cap, ask.keep, ask.spent, ask.need, ask.want, ask.resets_in, ask.counts_for];
        sum += name.len() + 30 + known + numbers.into_iter().map(number).sum::<usize>();
    }
    if let Reply::Taken { grants, wanted, .. } = reply {
        sum += 120 + wanted.iter().map(|name| name.len() + 6).sum::<usize>();
        for grant in grants {
            let others = grant.others.iter();
            let others: usize = others
                .map(|(holder, share)| {
                    let Holder { replica, process } = holder;
                    let numbers = [share.ceiling, share.spent, share.resets_at, share.counts_for, *process];
                    replica.len() + numbers.into_iter().map(|n| n.to_string().len() + 1).sum::<usize>()
                })
                .sum();
            sum += 30 + others;
        }
    }
    sum as u64
}
