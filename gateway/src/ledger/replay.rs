//! Taking in again what a journal has: a database that was lost, or what a replica that is gone left behind.

use std::path::Path;

use super::LedgerError;
use super::offline::catch_up;
use super::postgres::{self, PostgresServer};
use super::sqlite::StoreReader;

/// Takes the whole journal of a data directory into the database of several replicas, whatever that has of it. How many records were new.
/// `name` is what the replica is called if the database does not know it.
pub fn replay(server: &PostgresServer, data_dir: &Path, name: Option<&str>) -> Result<usize, LedgerError> {
    catch_up(data_dir)?;
    let known = StoreReader::open(data_dir)?.known()?;
    postgres::replay(server, data_dir, name, &known)
}
