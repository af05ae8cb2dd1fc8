//! Limits that replicas share, where the settings name a store for them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::dialable;
use crate::core::Shared;
use crate::ledger::{self, Ledger, PostgresServer};
use crate::quota::{DepartedReader, LeaseReclaimer, Quota, Replicas, SliceStore, SliceSync, TotalsReader};
use crate::settings::Settings;

/// What keeps this replica's slices.
#[derive(Debug)]
pub(super) struct SharedLimits {
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

/// The counts of this process, alone or with others.
pub(super) fn quota(settings: &Settings) -> Arc<Quota> {
    match &settings.limits.redis {
        Some(redis) => Quota::shared(Replicas::new(redis.lease.0, redis.wait)),
        None => Quota::new(),
    }
}

impl SharedLimits {
    /// Begins to share, if the settings say so. The data directory is locked.
    pub(super) fn keep(
        shared: &Shared,
        settings: &Settings,
        (ledger, control): (&Ledger, &Handle),
    ) -> anyhow::Result<Option<Self>> {
        let (Some(replicas), Some(redis)) = (shared.quota.replicas(), &settings.limits.redis) else {
            return Ok(None);
        };
        let replica = ledger::replica_id(&settings.data_dir)
            .context("limits.redis: the id of this replica")?
            .to_string();
        let counts = (Arc::clone(&shared.quota), Arc::clone(replicas));
        let dialable = dialable(shared.rules.clone());
        let totals = TotalsReader::new(counts.clone(), redis.clone(), Arc::clone(&dialable), &replica);
        control.spawn(totals.keep());
        let reader = settings.ledger.postgres.as_ref().map(|postgres| {
            let server = PostgresServer::new(postgres.clone(), Arc::clone(&dialable));
            DepartedReader::new(server, &replica, ledger.share())
        });
        if let Some(reader) = &reader {
            let store = SliceStore::new(redis.clone(), Arc::clone(&dialable));
            control.spawn(LeaseReclaimer::new(reader.clone(), counts.clone(), store).keep());
        }
        let keeper = SliceSync::new(counts, redis.clone(), dialable, &replica, settings.limits.lifetime.0);
        let keeper = keeper.recovering(reader);
        let (stop, stopped) = oneshot::channel();
        Ok(Some(Self { stop, keeper: control.spawn(keeper.keep(stopped)) }))
    }

    /// Says a last time what is spent, and gives the rest back, within `patience`. The cores have ended.
    pub(super) fn give_back(self, control: &Runtime, patience: Duration) {
        drop(self.stop);
        // The store hears it when the lease ends, or when the directory is served again.
        let _ = control.block_on(async { tokio::time::timeout(patience, self.keeper).await });
    }
}
