//! Long work over many resources that lets other threads have the core.
//!
//! **Invariant:** what is decided does not depend on it.

use std::thread;

/// So many resources of ordinary size take up to a millisecond. A thread that is not stopped in between keeps its core for several where the
/// system looks for others at its ticks alone, and calls wait for so long. With smaller runs a policy would come into force seconds
/// later where calls leave no time.
const RUN: usize = 64;

/// The same items. After each run of them other threads have their turn.
pub fn giving_way<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.into_iter().enumerate().map(|(index, item)| {
        if index % RUN == RUN - 1 {
            thread::yield_now();
        }
        item
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_comes_in_its_order() {
        let items: Vec<usize> = (0..RUN * 3 + 1).collect();
        assert_eq!(giving_way(&items).copied().collect::<Vec<_>>(), items);
    }
}
