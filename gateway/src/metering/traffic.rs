//! How much passes on a connection, each way.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that have passed. The record of their account has them, however the connection ends.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From the caller to the destination.
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

impl Traffic {
    /// So many came from the caller, for the destination.
    pub(crate) fn came(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many came from the destination, for the caller.
    pub(crate) fn answered(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    pub(super) fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    pub(crate) fn all(&self) -> u64 {
        self.up().wrapping_add(self.down())
    }
}
