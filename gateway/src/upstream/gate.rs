//! What a connection to a provider waits for before it sends.
//!
//! **Invariant:** nothing of a request leaves before the journal has its hold in the file. The request is handed to its connection at once;
//! the connection's own task, which runs after all that is ready now, sees to the writing. So the holds of one turn of the loop share a
//! write, and the caller's task is not woken for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::ledger::{Journal, Position};

/// The line that an HTTP/1 connection waits for. One request at a time is on it.
#[derive(Debug)]
pub(super) struct Gate {
    journal: Arc<Journal>,
    until: Mutex<Option<Position>>,
}

impl Gate {
    pub(super) fn new(journal: &Arc<Journal>) -> Self {
        Self { journal: Arc::clone(journal), until: Mutex::default() }
    }

    /// What is handed over next leaves only when the journal has this line.
    pub(super) fn close(&self, until: Option<Position>) {
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
pub(super) struct Gated<C> {
    pub(super) connection: C,
    pub(super) gate: Arc<Gate>,
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
