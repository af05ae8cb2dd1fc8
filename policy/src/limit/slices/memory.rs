//! What the store knows of itself and of who asks.
//!
//! The lease is a process's, and all its shares have it. It is lengthened only for a process that has told all it has in this life of the
//! store, so that no share is spent of which the store knows nothing.

use std::collections::BTreeMap;

use super::words::{Holder, ReplicaId, Share};

/// How many earlier lives a store remembers.
const PAST: usize = 8;

/// Which life of the store: it ends when something may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life {
    /// The process of the server.
    pub run: u64,
    /// When it began, in milliseconds of the store's clock.
    pub begun: u64,
}

/// What the store knows of itself, and of who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    life: Option<Life>,
    /// Lives that this one goes on from, the latest last.
    past: Vec<Life>,
    /// When an ask first showed that somebody had taken an answer of this life.
    since: Option<u64>,
    lease: u64,
    processes: BTreeMap<Holder, Process>,
    /// How many leases have ended.
    ended: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Process {
    turn: u64,
    lease_end: u64,
    /// How often it asked after its lease had ended: what it had may have been given to others.
    lapses: u64,
    /// It has told in this life all that it has.
    heard: bool,
    /// It asked after a later process of its directory had begun: that one has a copy.
    is_split: bool,
    is_ended: bool,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The process.
    pub holder: &'a Holder,
    /// The number of its ask, which only grows.
    pub turn: u64,
    /// The life of the store in which it was answered last.
    pub life: Option<Life>,
    /// As that answer said.
    pub lapses: u64,
    /// Whether it has now said of every count what it has, since that answer.
    pub whole: bool,
    /// Whether it spends nothing more.
    pub leaving: bool,
    /// Whether somebody else reports what this process has, which spends nothing.
    pub reports: bool,
    /// How long it may spend after the ask, in milliseconds.
    pub lease: u64,
}

/// How an ask is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Not at all: a later process has the directory, or a copy of it.
    Superseded {
        /// That process.
        latest: u64,
    },
    /// Not at all: it was overtaken by a later one of the same process, and nothing of it is taken.
    Overtaken {
        /// The number of that one.
        latest: u64,
    },
    /// Shares are taken down.
    Taken(Standing),
}

/// How it stands with the store, and with who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<L = Life> {
    /// The life of the store.
    pub life: L,
    /// How often the lease had ended before an ask. Everything is to be told again when it changes.
    pub lapses: u64,
    /// Whether the store is still asking who has what.
    pub rebuilding: bool,
    /// Whether the lease is lengthened: everything was told in this life.
    pub heard: bool,
    /// The processes whose lease runs, this one included; at least 1.
    pub live: u64,
    /// How many leases have ended. What was known of shares is to be asked again when it changes.
    pub ended: u64,
}

impl<L> Standing<L> {
    /// Whether slices are granted.
    pub fn grants(&self) -> bool {
        self.heard && !self.rebuilding
    }
}

impl Memory {
    /// Takes an ask in. `run` is the process of the server: another one may have lost what came last, or everything.
    pub fn enter(&mut self, run: u64, asker: Asker<'_>, now: u64) -> Entry {
        let life = self.live_as(run, asker.life, now);
        self.lease = asker.lease;
        if asker.life == Some(life) {
            self.since.get_or_insert(now);
        }
        let latest = self.latest(&asker.holder.replica).unwrap_or(0);
        if asker.holder.process < latest {
            if !asker.reports {
                self.processes.entry(asker.holder.clone()).or_default().is_split = true;
            }
            return Entry::Superseded { latest };
        }
        let turn = self.processes.get(asker.holder).map_or(0, |process| process.turn);
        if asker.turn <= turn {
            return Entry::Overtaken { latest: turn };
        }
        let process = self.processes.entry(asker.holder.clone()).or_default();
        process.turn = asker.turn;
        if process.heard && process.lease_end <= now {
            process.lapses += 1;
        }
        let named = (asker.life, asker.lapses) == (Some(life), process.lapses);
        process.heard = named && asker.whole;
        if process.heard {
            let is_over = asker.leaving || asker.reports;
            process.lease_end =
                if is_over { now } else { process.lease_end.max(now.saturating_add(asker.lease)) };
            // Who only reports had no lease that could end.
            process.is_ended = asker.reports;
        }
        let (heard, lapses) = (process.heard, process.lapses);
        let mut live = 1;
        for (holder, process) in &mut self.processes {
            if process.lease_end > now {
                live += u64::from(holder != asker.holder);
            } else if process.lease_end > 0 && !process.is_ended {
                process.is_ended = true;
                self.ended += 1;
            }
        }
        let rebuilding = self.since.is_none_or(|since| now < since.saturating_add(asker.lease));
        Entry::Taken(Standing { life, lapses, rebuilding, heard, live, ended: self.ended })
    }

    /// A life begins with another process of the server, and where somebody was answered in a life that this memory does not go on from:
    /// another server was asked meanwhile, which may have granted.
    fn live_as(&mut self, run: u64, named: Option<Life>, now: u64) -> Life {
        let is_known = named.is_none_or(|named| self.life == Some(named) || self.past.contains(&named));
        match self.life {
            Some(life) if life.run == run && is_known => life,
            before => {
                self.past.extend(before);
                if !is_known {
                    self.past.extend(named);
                }
                self.past.drain(..self.past.len().saturating_sub(PAST));
                let life = Life { run, begun: now };
                (self.life, self.since) = (Some(life), None);
                self.processes.values_mut().for_each(|process| process.heard = false);
                life
            }
        }
    }

    fn begun(&self) -> u64 {
        self.life.map_or(0, |life| life.begun)
    }

    /// Whether a share still counts.
    pub(super) fn counts(&self, holder: &Holder, share: &Share, now: u64) -> bool {
        // What was told later than that counts from then.
        let end = self.end(holder).max(share.told_at);
        // Who was heard has said what it has, so what is older or said by others is void.
        let is_said = !self.is_heard(holder) || share.told_at >= self.begun();
        let is_over = end <= now && (self.is_succeeded(holder) || share.drops_at(end) <= now);
        is_said && !is_over
    }

    /// Whether it may still spend.
    pub(super) fn is_live(&self, holder: &Holder, now: u64) -> bool {
        self.end(holder) > now
    }

    /// Whether it went on beside a later process of a copy: its share is one more.
    pub(super) fn is_split(&self, holder: &Holder) -> bool {
        self.processes.get(holder).is_some_and(|process| process.is_split)
    }

    fn is_heard(&self, holder: &Holder) -> bool {
        self.processes.get(holder).is_some_and(|process| process.heard)
    }

    /// When it stops to spend. Of who was not heard in this life nobody knows whether it had asked since.
    fn end(&self, holder: &Holder) -> u64 {
        let process = self.processes.get(holder);
        let known = process.map_or(0, |process| process.lease_end);
        if process.is_some_and(|process| process.heard) {
            return known;
        }
        self.since.map_or(u64::MAX, |since| known.max(since.saturating_add(self.lease)))
    }

    /// Whether a later process of the same directory has said all that this one did.
    fn is_succeeded(&self, holder: &Holder) -> bool {
        let latest = self.latest(&holder.replica).unwrap_or(0);
        let successor = Holder { process: latest, ..holder.clone() };
        latest > holder.process && self.is_heard(&successor) && !self.is_split(holder)
    }

    fn latest(&self, replica: &ReplicaId) -> Option<u64> {
        let holder = |process| Holder { replica: replica.clone(), process };
        let all = self.processes.range(holder(0)..=holder(u64::MAX));
        all.map(|(holder, _)| holder.process).next_back()
    }
}
