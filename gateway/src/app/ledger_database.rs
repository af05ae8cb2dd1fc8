//! The ledger's way into the database of several replicas.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ledger::{Ledger, PostgresIngest, PostgresServer, replica_name};
use crate::settings::Settings;

/// Begins to take the ledger into the database of several replicas, where the settings name one.
pub(super) fn follow(
    settings: &Settings,
    ledger: &Arc<Ledger>,
    dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
) -> anyhow::Result<Option<PostgresIngest>> {
    let Some(postgres) = &settings.ledger.postgres else { return Ok(None) };
    let server = PostgresServer::new(postgres.clone(), dialable);
    let name = replica_name(settings.ledger.replica.as_deref());
    let (progress, known) = (ledger.share(), Arc::clone(ledger));
    let data_dir = settings.data_dir.clone();
    Ok(Some(PostgresIngest::start(server, data_dir, (name, progress), move || known.durable())?))
}
