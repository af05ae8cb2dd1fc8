//! Redis or Valkey, where replicas share counts.
//!
//! Everything is one script, so that each batch of asks is taken in as a whole. Its arithmetic is that of
//! [`tollgate_policy::limit::slices`]. All keys have one hash tag, so a cluster keeps them on one node.
//!
//! **Invariant:** the password is read from its file for each connection, and is in no error. What too few copies have acknowledged of slices
//! is as if it had not been answered.

mod answer;
mod claim;
mod connect;
mod totals;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script};
use tollgate_policy::limit::slices::keeper::Batch;
use tollgate_policy::limit::slices::{Ask, Granted, ReplicaId, Standing};

pub(super) use self::claim::ClaimAsk;
pub(crate) use self::claim::Claimed;
use super::lease::PoolId;
use crate::settings::RedisSettings;

/// How long the server may take to answer, or to be connected to.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long its copies may take to acknowledge what it was told.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(200);
/// The largest number that the script counts with exactly.
const MOST: u64 = (1 << 53) - 1;

/// A life of the store.
pub(super) type StoreLife = Arc<str>;

/// Which addresses may be dialled.
pub(crate) type Dialable = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The server, and a connection while there is one.
pub(crate) struct SliceStore {
    settings: RedisSettings,
    dialable: Dialable,
    script: Script,
    connection: Option<MultiplexedConnection>,
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SliceStoreError {
    /// A file that the settings name.
    #[error("limits.redis.{0}: {1}")]
    File(&'static str, std::io::Error),
    /// The server, or the way to it.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Another server may be made the primary and know nothing of it.
    #[error("{0} of its copies have acknowledged it, `limits.redis.acknowledgedBy` says {1}")]
    Unacknowledged(u32, u32),
    /// The primary is another one by now.
    #[error("{0} says that it is no primary")]
    NoPrimary(String),
    /// Nodes of the cluster name each other.
    #[error("its nodes do not agree whose its keys are: the last one has named {0}")]
    Moved(String),
    /// No sentinel knows the primary.
    #[error("no sentinel knows a primary `{0}`")]
    Unknown(String),
    /// It may forget counts when its memory is full.
    #[error("its `maxmemory-policy` is `{0}`: it would forget what was spent; set it to `noeviction`")]
    Evicts(String),
    /// The script has answered something else than it does.
    #[error("it has not answered as the script does")]
    Answer,
}

/// What one batch was answered with.
#[derive(Debug)]
pub(super) enum Synced {
    /// A later process has the directory, or a copy of it.
    Superseded {
        /// Its number.
        latest: u64,
    },
    /// A later ask of this process was taken in already.
    Overtaken {
        /// Its number.
        latest: u64,
    },
    Granted {
        standing: Standing<StoreLife>,
        /// Counts of which somebody found too little.
        wanted: Vec<PoolId>,
        /// One for each ask, in their order.
        grants: Vec<Granted>,
    },
}

/// Who asks, and for which time.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskTurn<'a> {
    pub(super) replica: &'a ReplicaId,
    /// The number of the process.
    pub(super) process: u64,
    /// The number of the ask.
    pub(super) number: u64,
    /// In milliseconds.
    pub(super) lease: u64,
    /// The life of the store that was answered in last.
    pub(super) life: Option<&'a str>,
    /// How often the lease had ended by then.
    pub(super) lapses: u64,
    /// Whether all counts of this process have now been told of.
    pub(super) whole: bool,
    /// Whether it is the last ask.
    pub(super) leaving: bool,
    /// Whether somebody else reports what this process has, which spends nothing.
    pub(super) reports: bool,
}

impl<'a> AskTurn<'a> {
    /// That of a batch of this replica.
    pub(super) fn of<K>(replica: &'a ReplicaId, lease: u64, batch: &'a Batch<K, StoreLife>) -> Self {
        Self {
            replica,
            process: batch.process,
            number: batch.turn,
            lease,
            life: batch.life.as_deref(),
            lapses: batch.lapses,
            whole: batch.whole,
            leaving: batch.leaving,
            reports: false,
        }
    }
}

impl SliceStore {
    pub(crate) fn new(settings: RedisSettings, dialable: Dialable) -> Self {
        Self {
            settings,
            dialable,
            script: Script::new(include_str!("slice_store/sync.lua")),
            connection: None,
        }
    }

    /// The connection, which is to be put back unless something failed.
    async fn connected(&mut self) -> Result<MultiplexedConnection, SliceStoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => connect::connect(&self.settings, &self.dialable).await,
        }
    }

    /// Sends one batch. After an error nobody knows whether it was taken in.
    pub(super) async fn sync(
        &mut self,
        turn: AskTurn<'_>,
        asks: &[(PoolId, Ask)],
    ) -> Result<Synced, SliceStoreError> {
        let mut connection = self.connected().await?;
        let mut call = self.script.key(self.settings.memory_key());
        call.key(self.own_key("leases")).key(self.own_key("wanted"));
        for (pool, _) in asks {
            call.key(self.pool_key(pool));
        }
        call.arg(&**turn.replica).arg(turn.process).arg(turn.number).arg(turn.lease);
        call.arg(turn.life.unwrap_or("-")).arg(turn.lapses);
        call.arg(u8::from(turn.whole)).arg(u8::from(turn.leaving)).arg(u8::from(turn.reports));
        for (_, ask) in asks {
            call.arg(ask.cap.min(MOST)).arg(ask.keep.min(MOST)).arg(ask.spent.min(MOST));
            call.arg(ask.need.min(MOST)).arg(ask.want.min(MOST));
            call.arg(ask.resets_in).arg(ask.counts_for).arg(answer::told(&ask.known));
        }
        let answer: Vec<String> = call.invoke_async(&mut connection).await?;
        self.acknowledged(&mut connection).await?;
        self.connection = Some(connection);
        answer::read(&answer, asks.len()).ok_or(SliceStoreError::Answer)
    }

    fn own_key(&self, name: &str) -> String {
        format!("{}:{name}", self.settings.memory_key())
    }

    fn pool_key(&self, pool: &PoolId) -> String {
        self.own_key(&format!("{}:{}", pool.limit, pool.key))
    }

    /// Waits until as many copies have what was said before as the settings ask for.
    async fn acknowledged(&self, connection: &mut MultiplexedConnection) -> Result<(), SliceStoreError> {
        let least = self.settings.copies();
        if least == 0 {
            return Ok(());
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(least).arg(ACKNOWLEDGEMENT.as_millis() as u64);
        let copies: u32 = wait.query_async(connection).await?;
        if copies < least { Err(SliceStoreError::Unacknowledged(copies, least)) } else { Ok(()) }
    }
}
