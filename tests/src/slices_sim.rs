//! Replicas that share one budget, by the rules that the gateway has, on a virtual clock: nothing here waits, and a seed says all.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;

use tollgate_policy::limit::Usage;
use tollgate_policy::limit::slices::keeper::{Batch, Keeper, Seen};
use tollgate_policy::limit::slices::{Ask, Asker, Holder, Life, PoolName, PoolStore, Reply};

/// The only count.
const COUNT: &str = "budget/all/tokens/day/shared";
/// How long a call is refused at once after the store had nothing for the one before, in milliseconds.
const DRY: u64 = 100;
/// How soon a refused call is tried again, in milliseconds.
const RETRY: u64 = 1_000;
/// The end of the window, in milliseconds.
const WINDOW: u64 = 86_400_000;

/// What is simulated. Times are in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// What all that looks random comes from.
    pub seed: u64,
    /// How many replicas there are.
    pub replicas: u64,
    /// How many callers there are. Nine in ten call one of the first half of the replicas.
    pub callers: u64,
    /// The time between two calls of one caller, on average.
    pub every: u64,
    /// The amount.
    pub cap: u64,
    /// The lease of a replica.
    pub lease: u64,
    /// How long a call waits for the store.
    pub wait: u64,
    /// How long it lasts.
    pub time: u64,
    /// From when on a quarter of the callers call no more.
    pub fewer_at: u64,
}

impl Setting {
    /// A hundred replicas, ten thousand callers, ten thousand calls a second, and a budget for some forty seconds of them.
    pub const LARGE: Self = Self {
        seed: 1,
        replicas: 100,
        callers: 10_000,
        every: 1_000,
        cap: 20_000_000,
        lease: 10_000,
        wait: 50,
        time: 60_000,
        fewer_at: 20_000,
    };
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Calls that were let through.
    pub calls: u64,
    /// Calls that were refused although what they needed was unused somewhere.
    pub refused_while_free: u64,
    /// Calls that were refused because it was used.
    pub refused: u64,
    /// By how much more than the amount was ever used, or could have been.
    pub overspent: u64,
    /// Batches at the store.
    pub batches: u64,
    /// Counts that batches told of.
    pub asks: u64,
    /// Slices that were granted.
    pub slices: u64,
    /// Bytes to the store and back, about.
    pub bytes: u64,
    /// The most batches in a second.
    pub busiest: u64,
    /// The longest that a caller was refused again and again although what it needed was unused somewhere.
    pub starved: u64,
    /// The longest that a replica kept a slice of which it used nothing.
    pub idle: u64,
    /// What is unused at the end.
    pub left: u64,
    /// When the last call was let through.
    pub last_call: u64,
    time: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |count: u64| count as f64 * 1_000.0 / self.time as f64;
        writeln!(f, "calls let through          {}", self.calls)?;
        writeln!(f, "refused while money free   {}", self.refused_while_free)?;
        writeln!(f, "refused as it was used     {}", self.refused)?;
        writeln!(f, "overspent                  {}", self.overspent)?;
        writeln!(f, "batches per second         {:.0}, at most {}", per_second(self.batches), self.busiest)?;
        writeln!(f, "counts told per second     {:.0}", per_second(self.asks))?;
        writeln!(f, "refills per second         {:.0}", per_second(self.slices))?;
        writeln!(f, "bytes per second           {:.0}", per_second(self.bytes))?;
        writeln!(f, "longest starved            {} ms", self.starved)?;
        writeln!(f, "longest idle slice         {} ms", self.idle)?;
        write!(f, "unused at the end          {}, last call at {} ms", self.left, self.last_call)
    }
}

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
        let need = 50 + self.random.below(101);
        let home = self.home(caller);
        if self.hold(home, need) {
            self.let_through(caller);
            let next = self.random.below(2 * every);
            self.after(next, Event::Calls(caller));
            return;
        }
        let (now, replica) = (self.now, &mut self.replicas[home]);
        replica.lacking = replica.lacking.max(need);
        if !replica.asked && now >= replica.dry_until {
            replica.asked = true;
            replica.keeper.asked(0);
        }
        if replica.asked && wait > 0 {
            replica.waiting.push_back((caller, need));
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
        if self.used + need <= self.setting.cap {
            self.seen.refused_while_free += 1;
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
        let takes = 50 + self.random.below(1_500);
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
        let spare = replica.ceiling.saturating_sub(replica.usage.spent + replica.usage.held);
        if spare > 0 && now < replica.keeper.ends() {
            self.seen.idle = self.seen.idle.max(now - replica.used_at);
        }
        if replica.on_its_way.is_some() {
            return;
        }
        let usage = replica.usage;
        replica.keeper.sweep(now, |_| Some(usage));
        if let Some(batch) = replica.keeper.batch(now) {
            let lacking = std::mem::take(&mut replica.lacking);
            let counts_for = WINDOW;
            let resets_in = WINDOW - now % WINDOW;
            let seen = Seen { cap: setting.cap, usage, former: 0, lacking, resets_in, counts_for };
            let mut asks = Vec::new();
            for pool in &batch.pools {
                let ask = replica.keeper.ask(pool, Some(seen), now);
                replica.ceiling = ask.keep;
                asks.push((COUNT.into(), ask));
            }
            replica.on_its_way = Some(OnItsWay { batch, asks, reply: None });
            let takes = 1 + self.random.below(2);
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
        let asker = Asker { holder: &replica.holder, turn, life, lapses, whole, leaving, lease };
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
        let shares =
            self.store.pool(COUNT).map_or(0, |pool| pool.shares().values().map(|share| share.ceiling).sum());
        self.seen.overspent = self.seen.overspent.max(shares.saturating_sub(self.setting.cap));
        let takes = 1 + self.random.below(2);
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
            } else if self.replicas[at].asked {
                self.replicas[at].waiting.push_back((caller, need));
            } else {
                self.refuse(caller, need);
            }
        }
        self.look(at);
    }
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
