//! What is simulated, and what was seen of it.

use std::fmt;

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
    /// The least and the most that a call holds.
    pub need: (u64, u64),
    /// How long a call takes at most, beside a short while.
    pub takes: u64,
    /// How long a message to the store or back is on its way at most.
    pub way: u64,
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
        wait: 250,
        time: 60_000,
        fewer_at: 20_000,
        need: (50, 150),
        takes: 1_500,
        way: 2,
    };

    /// Three replicas of a large budget on a machine that is busy, so that the store answers late. All callers begin at once, and call again
    /// as soon as they are answered.
    pub const BUSY: Self = Self {
        seed: 1,
        replicas: 3,
        callers: 30,
        every: 10,
        cap: 45_000_000,
        lease: 2_000,
        wait: 250,
        time: 60_000,
        fewer_at: 60_000,
        need: (4_300, 4_400),
        takes: 20,
        way: 100,
    };
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Calls that were let through.
    pub calls: u64,
    /// Calls that were refused although what they needed was unused, be it in crumbs.
    pub refused_while_free: u64,
    /// Those of them for which the store or one replica had enough unused.
    pub refused_while_one_had_it: u64,
    /// Those of them for which one replica had.
    pub refused_while_a_replica_had_it: u64,
    /// Those of them while more than one slice was unused.
    pub refused_while_slice_free: u64,
    /// The most that was unused when a call was refused.
    pub most_free: u64,
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
    pub(super) time: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |count: u64| count as f64 * 1_000.0 / self.time as f64;
        writeln!(f, "calls let through          {}", self.calls)?;
        writeln!(f, "refused while money free   {}", self.refused_while_free)?;
        writeln!(f, "  one place had enough     {}", self.refused_while_one_had_it)?;
        writeln!(f, "  one replica had           {}", self.refused_while_a_replica_had_it)?;
        writeln!(
            f,
            "  more than a slice free   {}, at most {}",
            self.refused_while_slice_free, self.most_free
        )?;
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
