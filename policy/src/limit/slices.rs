//! How many replicas hold one count together: each has a share of its amount, and spends that in memory.
//!
//! The store adds the shares up. A replica asks it for a slice more, gives back what it does not need, and says what is spent. A share
//! has no window of its own: each replica's own [`Counter`](super::Counter) keeps `spent + held` under it in whichever window is now.
//!
//! **Invariant:** the shares of all replicas, those that ended included, are never more than the amount while it stays what it is. A
//! replica lowers its share before it says so, and raises it after it was told so. A share whose lease ended stays counted whole until
//! what was held of it has left the window, or its replica is back and says how much that was.
//!
//! A store that has lost something grants nothing for the length of a lease after it was first heard: by then each replica has said what it
//! has, or has stopped to spend. The others' shares that it saw last stand for one that says nothing any more.
//!
//! Lacks on purpose: a clock, and a store. `gateway/src/quota/slice_store/sync.lua` does the same inside Redis.

pub mod keeper;
mod memory;
mod pool;
mod slice;
mod store;
mod tenure;
#[cfg(test)]
mod tests;
mod words;

pub use memory::{Asker, Entry, Life, Memory, Standing};
pub use pool::Pool;
pub use slice::Slice;
pub use store::{PoolStore, Reply};
pub use tenure::{Displaced, Tenure};
pub use words::{Ask, Granted, Holder, PoolName, ReplicaId, Share, WANTED_FOR};
