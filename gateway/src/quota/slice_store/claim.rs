//! Which replica tells people of something, and whether that was done: beside the slices, in the same store.

use std::time::Duration;

use redis::Script;

use super::{SliceStore, SliceStoreError};

/// Whose it is to tell something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It was told.
    Told,
    /// Another replica is about to.
    Held,
    /// The asker's, under this id. Whoever takes over from a replica that is gone has the same.
    Yours(String),
}

/// What is asked of the store.
#[derive(Debug, Clone, Copy)]
pub(in crate::quota) struct ClaimAsk<'a> {
    /// What is to be told.
    pub(in crate::quota) name: &'a str,
    /// Who asks.
    pub(in crate::quota) holder: &'a str,
    /// Its id, if it has none yet.
    pub(in crate::quota) id: &'a str,
    /// For how long it is the asker's alone.
    pub(in crate::quota) lease: Duration,
    /// For how long it is remembered.
    pub(in crate::quota) life: Duration,
    /// The asker has told it.
    pub(in crate::quota) is_told: bool,
}

impl SliceStore {
    /// Claims what is to be told, or notes that it was.
    ///
    /// # Errors
    /// As [`SliceStore::sync`].
    pub(in crate::quota) async fn claim(&mut self, ask: ClaimAsk<'_>) -> Result<Claimed, SliceStoreError> {
        let mut connection = self.connected().await?;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(1 << 48);
        let script = Script::new(include_str!("claim.lua"));
        let mut call = script.key(self.own_key(&format!("told:{}", ask.name)));
        call.arg(ask.holder)
            .arg(ask.id)
            .arg(millis(ask.lease))
            .arg(millis(ask.life))
            .arg(u8::from(ask.is_told));
        let (word, id): (String, String) = call.invoke_async(&mut connection).await?;
        self.connection = Some(connection);
        match word.as_str() {
            "told" => Ok(Claimed::Told),
            "held" => Ok(Claimed::Held),
            "yours" => Ok(Claimed::Yours(id)),
            _ => Err(SliceStoreError::Answer),
        }
    }
}
