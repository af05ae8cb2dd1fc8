//! How much goes through a relay.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of frames that went on.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

impl Traffic {
    pub(super) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    pub(super) fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn all(&self) -> u64 {
        self.up().wrapping_add(self.down())
    }
}
