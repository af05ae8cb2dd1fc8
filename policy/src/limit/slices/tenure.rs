//! How a process stands with the store: its number, its lease, and whether it has told everything.

use super::memory::Standing;

/// What one process knows of its standing. `L` tells lives of the store apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenure<L> {
    process: u64,
    turn: u64,
    life: Option<L>,
    lapses: u64,
    /// When the lease ends, in milliseconds of the replica's own clock, counted from before it asked.
    ends: u64,
    ended_leases: u64,
    is_taken: bool,
    is_superseded: bool,
}

/// What an answer changes in what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaced {
    /// Nothing.
    Nothing,
    /// The lease of another has ended: what it had may be lost with the store, unless somebody knows it.
    Another,
    /// The store may have lost everything: it is to be told again.
    Everything,
}

impl<L: Clone + PartialEq> Tenure<L> {
    /// A process that has said nothing yet. A later one on the same directory has a larger number.
    pub fn new(process: u64) -> Self {
        let (life, is_taken, is_superseded) = (None, false, false);
        Self { process, turn: 0, life, lapses: 0, ends: 0, ended_leases: 0, is_taken, is_superseded }
    }

    /// The number of the process.
    pub fn process(&self) -> u64 {
        self.process
    }

    /// The life of the store that it was answered in last.
    pub fn life(&self) -> Option<&L> {
        self.life.as_ref()
    }

    /// How often the store has found that the lease had ended.
    pub fn lapses(&self) -> u64 {
        self.lapses
    }

    /// When the lease ends.
    pub fn ends(&self) -> u64 {
        self.ends
    }

    /// Whether the lease runs.
    pub fn runs(&self, now: u64) -> bool {
        now < self.ends
    }

    /// Whether another process has the directory, or a copy of it: this one spends nothing more.
    pub fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    /// The number of the next ask.
    pub fn turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Takes an answer to an ask that was sent at `asked` of the replica's own clock.
    pub fn take(&mut self, standing: &Standing<L>, asked: u64, lease: u64) -> Displaced {
        self.is_taken = true;
        if standing.heard && !self.is_superseded {
            self.ends = self.ends.max(asked.saturating_add(lease));
        }
        let ended = std::mem::replace(&mut self.ended_leases, standing.ended) != standing.ended;
        let lapsed = std::mem::replace(&mut self.lapses, standing.lapses) != standing.lapses;
        if lapsed || self.life.as_ref() != Some(&standing.life) {
            self.life = Some(standing.life.clone());
            return Displaced::Everything;
        }
        if ended { Displaced::Another } else { Displaced::Nothing }
    }

    /// Goes on from a later number.
    pub fn overtaken(&mut self, latest: u64) {
        self.turn = self.turn.max(latest);
    }

    /// Stops to spend for good; or, where nothing was ever taken of it, whether it goes on with a later number: its clock is behind that of
    /// the process before.
    pub fn superseded(&mut self, latest: u64) -> bool {
        if self.is_taken {
            (self.is_superseded, self.ends) = (true, 0);
        } else {
            self.process = latest.saturating_add(1);
        }
        !self.is_taken
    }
}
