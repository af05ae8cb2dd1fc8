//! What waits to be exported.
//!
//! **Invariant:** whoever puts something in never waits, and a queue that is full drops what comes and counts it. What it holds is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{self, Receiver, Sender};

/// What is exported, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signal {
    /// Spans.
    Traces,
    /// Points.
    Metrics,
    /// Lines, those of the access log among them.
    Logs,
}

impl Signal {
    const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// The word in metrics and in the paths of OTLP over HTTP.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// What became of the items of one signal.
#[derive(Debug, Default)]
pub(super) struct SignalCounts {
    pub(super) sent: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl SignalCounts {
    /// How many had which end.
    fn all(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("sent", of(&self.sent)), ("queue_full", of(&self.full)), ("failed", of(&self.failed))]
    }

    pub(super) fn add(count: &AtomicU64, items: usize) {
        count.fetch_add(items as u64, Ordering::Relaxed);
    }
}

/// What became of the items of each signal; empty where nothing is exported.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExportCounts(Option<[Arc<SignalCounts>; 3]>);

impl ExportCounts {
    pub(super) fn new() -> Self {
        Self(Some(std::array::from_fn(|_| Arc::default())))
    }

    pub(super) fn of(&self, signal: Signal) -> Arc<SignalCounts> {
        self.0.as_ref().map_or_else(Arc::default, |all| Arc::clone(&all[signal as usize]))
    }

    /// Signal, result, and how many.
    pub(crate) fn totals(&self) -> Vec<(&'static str, &'static str, u64)> {
        let of = |signal: Signal| self.of(signal).all().map(|(result, n)| (signal.as_str(), result, n));
        if self.0.is_some() { Signal::ALL.into_iter().flat_map(of).collect() } else { Vec::new() }
    }
}

/// The end of a queue that things are put in at.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    sender: Sender<T>,
    counts: Arc<SignalCounts>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), counts: Arc::clone(&self.counts) }
    }
}

impl<T> Queue<T> {
    pub(super) fn new(room: usize, counts: Arc<SignalCounts>) -> (Self, Receiver<T>) {
        let (sender, receiver) = mpsc::channel(room);
        (Self { sender, counts }, receiver)
    }

    /// Puts in what `make` makes; where there is no room it is not made.
    pub(crate) fn put(&self, make: impl FnOnce() -> T) {
        match self.sender.try_reserve() {
            Ok(room) => room.send(make()),
            Err(_) => SignalCounts::add(&self.counts.full, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_what_comes_and_counts_it() {
        let counts: Arc<SignalCounts> = Arc::default();
        let (queue, mut receiver) = Queue::new(2, Arc::clone(&counts));
        (0..5).for_each(|n| queue.put(|| n));
        assert_eq!(counts.all(), [("sent", 0), ("queue_full", 3), ("failed", 0)]);
        assert_eq!((receiver.try_recv().unwrap(), receiver.try_recv().unwrap()), (0, 1), "the first stay");
        drop(receiver);
        queue.put(|| panic!("nothing is made for nobody"));
    }
}
