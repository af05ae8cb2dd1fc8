//! Saying that a replica is gone for good, with its volume.

use tokio_postgres::Client;

use super::read::{ReplicaState, SharedReader};
use super::session::{DatabaseSession, PostgresServer, failed};
use crate::ledger::LedgerError;

/// Notes who says that a replica is gone for good and will bring no journal. `which` is its name or its id.
///
/// Fails where that names none or several, or one that was not left behind.
pub fn forget(server: &PostgresServer, which: &str, by: &str) -> Result<ReplicaState, LedgerError> {
    let replicas = SharedReader::open(server)?.replicas()?;
    let replica = chosen(replicas, which).map_err(|what| failed("database", what))?;
    let id = replica.id.to_string();
    let mut session = DatabaseSession::open(server)?;
    session.run(async |client: &mut Client| {
        // What it was known to have is given back anew, whatever process that was.
        let note = "UPDATE tollgate.replicas SET forgotten_at = now(), forgotten_by = $2,
                    process = greatest(process, settled + 1)
                    WHERE uuid = $1::text::uuid AND last_seen < now() - interval '1 minute'";
        // It may have come back since it was looked at.
        match client.execute(note, &[&id, &by]).await? {
            0 => Err(failed("database", "the replica is there again")),
            _ => Ok(()),
        }
    })?;
    Ok(replica)
}

fn chosen(replicas: Vec<ReplicaState>, which: &str) -> Result<ReplicaState, String> {
    let named: Vec<_> = replicas
        .into_iter()
        .filter(|replica| replica.name == which || replica.id.to_string() == which)
        .collect();
    // A name is used again by the pod that comes after.
    let left: Vec<_> = named.iter().filter(|replica| replica.is_left_behind()).collect();
    match (left.as_slice(), named.first()) {
        ([replica], _) => Ok((*replica).clone()),
        ([_, ..], _) => {
            Err(format!("several replicas with the name {which} were left behind: give the id of one"))
        }
        ([], Some(replica)) => {
            Err(format!("the replica {which} was not left behind: it is {}", replica.word()))
        }
        ([], None) => Err(format!("no replica has the name or the id {which}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RecordId;

    fn replica(name: &str, silent: i64) -> ReplicaState {
        let at = "2026-11-01T10:00:00Z".parse().unwrap();
        let (id, name) = (RecordId::new(), name.to_owned());
        let (waiting, ended, is_forgotten) = (0, false, false);
        ReplicaState { id, name, first_seen: at, last_seen: at, silent, waiting, ended, is_forgotten }
    }

    #[test]
    fn only_one_that_was_left_behind_is_forgotten() {
        let all = [replica("a", 5), replica("a", 900), replica("b", 5), replica("c", 900), replica("c", 900)];
        let chosen = |which: &str| chosen(all.to_vec(), which).map(|replica| replica.id);
        assert_eq!(chosen("a"), Ok(all[1].id), "the one of that name which is gone");
        assert_eq!(chosen(&all[3].id.to_string()), Ok(all[3].id));
        for (which, says) in [("b", "it is there"), ("c", "several"), ("d", "no replica")] {
            assert!(chosen(which).is_err_and(|error| error.contains(says)), "{which}");
        }
    }
}
