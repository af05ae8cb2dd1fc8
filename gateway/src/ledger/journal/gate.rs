//! What a connection to a provider waits for before it sends.
//!
//! **Invariant:** nothing of a request leaves before the journal has its hold in the file. The request is handed to its connection at once;
//! the connection's own task, which runs after all that is ready now, sees to the writing. So the holds of one turn of the loop share a
//! write, and the caller's task is not woken for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::{Journal, Position};

/// The entry that an HTTP/1 connection waits for. One request at a time is on it.
#[derive(Debug)]
pub(crate) struct Gate {
    journal: Arc<Journal>,
    until: Mutex<Option<Position>>,
}

impl Gate {
    pub(crate) fn new(journal: &Arc<Journal>) -> Self {
        Self { journal: Arc::clone(journal), until: Mutex::default() }
    }

    /// What is handed over next leaves only when the journal has this entry.
    pub(crate) fn close(&self, until: Option<Position>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether what was handed over may leave.
    fn opens(&self) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(position) = *until else { return true };
        let written = self.journal.write_through(position).is_ok();
        if written {
            *until = None;
        }
        written
    }
}

/// A connection behind its gate. It ends where the journal cannot be written.
pub(crate) struct Gated<C> {
    pub(crate) connection: C,
    pub(crate) gate: Arc<Gate>,
}

impl<C: Future + Unpin> Future for Gated<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.gate.opens() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.connection).poll(cx).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entries, hold, journal};
    use super::*;
    use crate::ledger::samples;

    /// Notes at each poll how many entries are on the disk.
    struct Probe<'a, F>(&'a mut Vec<usize>, F);

    impl<F: Fn() -> usize + Unpin> Future for Probe<'_, F> {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            let entries = (self.1)();
            self.0.push(entries);
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_connection_goes_on_only_behind_the_entry_that_it_waits_for() {
        let directory = samples::directory();
        let (journal, disk) = journal(directory.path());
        let entries = || entries(&disk).len();
        let gate = Arc::new(Gate::new(&journal));
        let mut polls = Vec::new();
        let mut gated = Gated { connection: Probe(&mut polls, entries), gate: Arc::clone(&gate) };
        let mut poll = |cx: &mut Context<'_>| Pin::new(&mut gated).poll(cx);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(poll(&mut cx).is_pending(), "nothing to wait for");
        let first = journal.hold(&hold()).unwrap();
        assert!(poll(&mut cx).is_pending(), "an entry of another connection");
        gate.close(Some(first));
        assert!(poll(&mut cx).is_pending());
        disk.0.lock().unwrap().broken = true;
        let second = journal.hold(&hold()).unwrap();
        assert!(poll(&mut cx).is_pending(), "its own entry was written");
        gate.close(Some(second));
        assert!(poll(&mut cx).is_ready(), "the connection ends unpolled");
        assert_eq!(polls, [1, 1, 2, 2]);
    }
}
