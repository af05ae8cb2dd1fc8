//! From serving to stopped, in order: readiness fails, what comes is still served, then nothing new, then the rest is cut.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Not ready any more, but still accepting: load balancers have not noticed yet.
    Leaving,
    /// Listeners are closed; connections finish what they have.
    Closing,
    /// What is still open is cut and settled; who has last words says them.
    Cutting,
    /// Connections go too.
    Cut,
}

/// For last words, before the connection that they leave on goes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The one who says so.
#[derive(Debug)]
pub(crate) struct Drain {
    phase: watch::Sender<Phase>,
    /// For every call to ask.
    is_leaving: AtomicBool,
    /// Has a receiver in everything that a drain waits for.
    held: watch::Sender<()>,
}

impl Drain {
    pub(crate) fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            is_leaving: AtomicBool::new(false),
            held: watch::Sender::new(()),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether connections are better made elsewhere from now on.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// For something that a drain has to wait for.
    pub(crate) fn watch(&self) -> Drained {
        Drained { phase: self.phase.subscribe(), _held: self.held.subscribe() }
    }

    /// For something that goes on to the end.
    pub(crate) fn observe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Walks through the phases and returns when everything that held a [`Drained`] is gone or was cut. What is under way is cut at once
    /// when `hurry` is ready; returns whether that was so.
    pub(crate) async fn run(
        &self,
        delay: Duration,
        timeout: Duration,
        hurry: impl Future<Output = ()>,
    ) -> bool {
        self.is_leaving.store(true, Ordering::Relaxed);
        let orderly = async {
            self.phase.send_replace(Phase::Leaving);
            tokio::time::sleep(delay).await;
            self.phase.send_replace(Phase::Closing);
            tokio::time::timeout(timeout, self.held.closed()).await.is_ok()
        };
        let (done, hurried) = tokio::select! {
            done = orderly => (done, false),
            () = hurry => (false, true),
        };
        if !done {
            self.phase.send_replace(Phase::Cutting);
            let _ = tokio::time::timeout(LAST_WORDS, self.held.closed()).await;
            self.phase.send_replace(Phase::Cut);
            // What was cut settles from its destructors; give those a moment.
            let _ = tokio::time::timeout(Duration::from_secs(5), self.held.closed()).await;
        }
        hurried
    }
}

/// Held by everything that a drain waits for.
#[derive(Clone, Debug)]
pub(crate) struct Drained {
    phase: watch::Receiver<Phase>,
    _held: watch::Receiver<()>,
}

impl Drained {
    /// Ready once the process is in `phase` or beyond.
    pub(crate) async fn reached(&mut self, phase: Phase) {
        // The sender outlives every receiver; were it gone, the process is ending.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_in_time_is_cut() {
        let drain = Drain::new();
        let mut quick = drain.watch();
        let mut slow = drain.watch();
        let quick = tokio::spawn(async move { quick.reached(Phase::Closing).await });
        let slow = tokio::spawn(async move {
            slow.reached(Phase::Cutting).await;
            tokio::time::Instant::now()
        });
        let begun = tokio::time::Instant::now();
        let hurry = std::future::pending();
        assert!(!drain.run(Duration::from_secs(5), Duration::from_secs(300), hurry).await);
        quick.await.unwrap();
        assert_eq!((slow.await.unwrap() - begun).as_secs(), 305);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_in_a_hurry_waits_for_nothing_that_is_under_way() {
        let drain = Drain::new();
        let mut slow = drain.watch();
        let slow = tokio::spawn(async move { slow.reached(Phase::Cutting).await });
        let begun = tokio::time::Instant::now();
        let hurry = tokio::time::sleep(Duration::from_secs(1));
        assert!(drain.run(Duration::from_secs(5), Duration::from_secs(300), hurry).await);
        slow.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 1);
    }
}
