//! Files that only their owner may read, and a directory that only one process may use.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

/// How long a command, such as a report, may keep a data directory from being taken over.
const PATIENCE: Duration = Duration::from_secs(5);
/// For so long nobody is told that it is waited for.
const A_MOMENT: Duration = Duration::from_millis(500);

/// Creates `file` with mode 0600 and these bytes; one that exists is an error.
pub(crate) fn write_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(bytes)?;
    out.sync_all()
}

/// A data directory that is this process's own; given back on drop, or by the system however the process ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: Flock<File>,
}

/// Why a directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("dataDir {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("dataDir {0} is in use by process {1}")]
    Taken(PathBuf, String),
}

impl DirectoryLock {
    /// Makes the directory if need be and locks it.
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let failed = |error| LockError::Io(directory.into(), error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let Ok(mut file) = Flock::lock(options.open(&path).map_err(failed)?, FlockArg::LockExclusiveNonblock)
        else {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            return Err(LockError::Taken(directory.into(), pid.trim().into()));
        };
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Whether a process has it. Makes nothing.
    pub(crate) fn is_taken(directory: &Path) -> bool {
        let lock = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
        File::open(directory.join("lock")).is_ok_and(|file| lock(file).is_err())
    }

    /// [`DirectoryLock::take`], waiting for a command that has it for a moment. `told` hears of one that has it for longer.
    pub(crate) fn wait(directory: &Path, told: impl Fn(&LockError)) -> Result<Self, LockError> {
        Self::wait_for(PATIENCE, directory, told)
    }

    fn wait_for(patience: Duration, directory: &Path, told: impl Fn(&LockError)) -> Result<Self, LockError> {
        let (begun, mut is_told) = (Instant::now(), false);
        loop {
            match Self::take(directory) {
                Err(taken @ LockError::Taken(..)) if begun.elapsed() < patience => {
                    if !is_told && begun.elapsed() >= A_MOMENT {
                        is_told = true;
                        told(&taken);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_waits_for_a_directory_hears_once_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DirectoryLock::take(dir.path()).unwrap();
        let told = Cell::new(0);
        let taken = DirectoryLock::wait_for(A_MOMENT * 2, dir.path(), |taken| {
            assert!(matches!(taken, LockError::Taken(..)), "{taken}");
            told.set(told.get() + 1);
        });
        assert!(matches!(taken, Err(LockError::Taken(..))));
        assert_eq!(told.get(), 1);
    }

    #[test]
    fn a_second_user_of_a_directory_is_told_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let second = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        assert!(DirectoryLock::is_taken(dir.path()));
        drop(first);
        assert!(!DirectoryLock::is_taken(dir.path()));
        DirectoryLock::take(dir.path()).unwrap();
    }
}
