//! Which replica a ledger is of: an id that its data directory keeps, so that what several of them write to one store, or lease of
//! one limit, stays apart.
//!
//! **Invariant:** the id goes with the journal: one that is lost takes its id with it. Two that run at once have not the same, unless one is
//! a copy of the other.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::LedgerError;
use super::record::RecordId;

/// Where Linux says what this machine, or this pod, is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("replica")
}

/// The id of a data directory; `None` where nothing was ever written to a store of several.
pub(crate) fn id(data_dir: &Path) -> Result<Option<RecordId>, LedgerError> {
    let path = path(data_dir);
    let failed = |source| LedgerError::file("reading", &path, source);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(failed)?,
    };
    let id =
        text.trim().parse().map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(Some(id))
}

/// The same, made if there is none.
pub(crate) fn id_or_new(data_dir: &Path) -> Result<RecordId, LedgerError> {
    if let Some(id) = id(data_dir)? {
        return Ok(id);
    }
    let (path, new) = (path(data_dir), RecordId::new());
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
        writeln!(file, "{new}")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&path).map_err(|error| error.error)
    };
    match write() {
        Ok(_) => Ok(new),
        // What shares limits and what shares the ledger both ask for it, each on a thread of its own.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(id(data_dir)?.unwrap_or(new)),
        Err(source) => Err(LedgerError::file("creating", &path, source)),
    }
}

/// What people call it: as the settings say, else what the machine is called.
pub(crate) fn name(set: Option<&str>) -> String {
    let host = || fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_owned();
    set.map_or_else(host, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_keeps_its_id_and_another_one_has_another() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(id(one.path()).unwrap(), None);
        let made = id_or_new(one.path()).unwrap();
        assert_eq!((id(one.path()).unwrap(), id_or_new(one.path()).unwrap()), (Some(made), made));
        assert_ne!(id_or_new(other.path()).unwrap(), made);
        fs::write(path(one.path()), "nonsense").unwrap();
        assert!(id_or_new(one.path()).is_err(), "what is damaged is not replaced");
    }

    #[test]
    fn who_asks_at_the_same_moment_is_told_the_same() {
        for _ in 0..50 {
            let directory = tempfile::tempdir().unwrap();
            let barrier = std::sync::Barrier::new(4);
            let ids: Vec<_> = std::thread::scope(|scope| {
                let asking = || {
                    barrier.wait();
                    id_or_new(directory.path()).unwrap()
                };
                let asked: Vec<_> = (0..4).map(|_| scope.spawn(asking)).collect();
                asked.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let kept = id(directory.path()).unwrap().unwrap();
            assert!(ids.iter().all(|id| *id == kept), "{ids:?}");
        }
    }

    #[test]
    fn a_name_that_is_set_stands_before_that_of_the_machine() {
        assert_eq!(name(Some("blue")), "blue");
        assert_ne!(name(None), "");
    }
}
