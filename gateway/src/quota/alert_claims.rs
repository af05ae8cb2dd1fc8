//! Claims of what is to be told, over all replicas: each thing is told by one of them, and by another if that one is gone before it has.

use std::time::Duration;

use tokio::sync::Mutex;

use super::slice_store::{ClaimAsk, Claimed, Dialable, SliceStore};
use crate::settings::RedisSettings;

/// How long a claim lasts that nobody renews.
pub(crate) const CLAIM: Duration = Duration::from_secs(15);

/// The claims of this replica.
pub(crate) struct AlertClaims {
    store: Mutex<SliceStore>,
    replica: String,
}

impl AlertClaims {
    pub(crate) fn new(settings: RedisSettings, dialable: Dialable, replica: &str) -> Self {
        Self { store: Mutex::new(SliceStore::new(settings, dialable)), replica: replica.to_owned() }
    }

    /// Claims it, or renews the claim; `id` is what it is called if it has no id yet.
    ///
    /// # Errors
    /// What the store or the way to it said. Nobody knows then whose it is.
    pub(crate) async fn claim(&self, name: &str, id: &str, life: Duration) -> Result<Claimed, String> {
        self.ask(name, id, life, false).await
    }

    /// Notes that it was told.
    ///
    /// # Errors
    /// As [`AlertClaims::claim`].
    pub(crate) async fn told(&self, name: &str, id: &str, life: Duration) -> Result<(), String> {
        self.ask(name, id, life, true).await.map(drop)
    }

    async fn ask(&self, name: &str, id: &str, life: Duration, is_told: bool) -> Result<Claimed, String> {
        let ask = ClaimAsk { name, holder: &self.replica, id, lease: CLAIM, life, is_told };
        self.store.lock().await.claim(ask).await.map_err(|error| error.to_string())
    }
}
