//! Long work over many resources that lets other threads have the core.
//!
//! **Invariant:** what is decided does not depend on it.

use std::thread;

/// So many resources take a few hundred microseconds. A thread that is not stopped in between keeps its core for milliseconds where the system
/// looks for others at its ticks alone, and calls wait for so long. With fewer, a policy would take seconds longer to come into force
/// where calls leave no time.
const RUN: usize = 16;

/// The same items. After every sixteenth other threads have their turn.
pub fn giving_way<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.into_iter().enumerate().map(|(index, item)| {
        if index % RUN == RUN - 1 {
            thread::yield_now();
        }
        item
    })
}
