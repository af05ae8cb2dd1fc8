//! The whole store: what [`Memory`] and the [`Pool`]s do with one batch of asks.

use std::collections::BTreeMap;

use super::memory::{Asker, Entry, Memory, Standing};
use super::pool::Pool;
use super::words::{Ask, Granted, PoolName};

/// Everything that the store keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PoolStore {
    memory: Memory,
    pools: BTreeMap<PoolName, Pool>,
}

/// What one batch is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing of it is taken.
    Refused(Entry),
    /// It is taken in.
    Taken {
        /// How it stands.
        standing: Standing,
        /// One for each ask, in their order.
        grants: Vec<Granted>,
        /// Counts of which somebody lately found too little.
        wanted: Vec<PoolName>,
    },
}

impl PoolStore {
    /// Takes one batch in. `run` is the process of the server.
    pub fn batch(&mut self, run: u64, asker: Asker<'_>, asks: &[(PoolName, Ask)], now: u64) -> Reply {
        let standing = match self.memory.enter(run, asker, now) {
            Entry::Taken(standing) => standing,
            entry => return Reply::Refused(entry),
        };
        let mut grants = Vec::new();
        for (name, ask) in asks {
            let pool = self.pools.entry(name.clone()).or_default();
            grants.push(pool.sync(&self.memory, asker.holder, ask, &standing, now));
        }
        let wanted = self.pools.iter().filter(|(_, pool)| pool.is_wanted(now));
        let wanted = wanted.map(|(name, _)| name.clone()).collect();
        Reply::Taken { standing, grants, wanted }
    }

    /// One count, if anybody ever had a share of it.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }
}
