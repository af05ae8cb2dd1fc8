//! How the process is told to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM: whatever runs the process, and load balancers may not know yet.
    ByManager,
    /// SIGINT: a person, who waits for it.
    ByPerson,
}

/// Both of them, as often as they come.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Inside of a runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::ByManager,
            _ = self.interrupt.recv() => Asked::ByPerson,
        }
    }
}

/// The next signal of those that there are.
pub(super) async fn next(signals: &mut Option<Signals>) {
    match signals {
        Some(signals) => {
            signals.next().await;
        }
        None => std::future::pending().await,
    }
}
