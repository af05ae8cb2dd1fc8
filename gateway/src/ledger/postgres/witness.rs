//! What the database says of a journal that is being checked: it has seen all of it, and is on no disk of the replica's.

use std::path::Path;

use super::read::SharedReader;
use super::session::PostgresServer;
use crate::ledger::verify::Verification;
use crate::ledger::{LedgerError, chain, replica, segment};

/// Adds to a check of the journal in `data_dir` what the database knows: segments that are shorter than what it took in, and which other
/// replicas were not checked. A database that cannot be asked is a note.
pub fn witness(server: &PostgresServer, data_dir: &Path, result: &mut Verification) {
    if let Err(error) = ask(server, data_dir, result) {
        result.notes.push(format!("the database of several replicas was not asked: {}", chain(&error)));
    }
}

fn ask(server: &PostgresServer, data_dir: &Path, result: &mut Verification) -> Result<(), LedgerError> {
    let own = replica::id(data_dir)?;
    let mut reader = SharedReader::open(server)?;
    let mut others: Vec<String> =
        reader.replicas()?.into_iter().filter(|it| Some(it.id) != own).map(|it| it.name).collect();
    others.dedup();
    if !others.is_empty() {
        let names = others.join(", ");
        result.notes.push(format!(
            "these replicas have journals of their own, to be checked where they are: {names}"
        ));
    }
    let Some(own) = own else { return Ok(()) };
    for (name, (bytes, entries)) in reader.known(own)? {
        if let Some((length, _)) = segment::written(data_dir, &name)?
            && length < bytes
        {
            let what = format!(
                "the database of several replicas took in {entries} entries of it, up to byte {bytes}, and it has {length} bytes now"
            );
            result.find(format!("journal/{name}"), None, what);
        }
    }
    Ok(())
}
