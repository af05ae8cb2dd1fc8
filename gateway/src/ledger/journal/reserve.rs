//! Disk space put aside for the records of calls that are already under way.
//!
//! **Invariant:** while the space is not put aside nothing new is held, so what it was for is all that uses it up. Before it comes to that,
//! while space is short, refusals are counted in memory instead of being written: they are never what answered calls are refused for.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

/// Stands for a time before the first attempt.
const NEVER: u64 = 1;
/// Bytes put aside: the records of some five thousand calls under way.
const SIZE: u64 = 4 << 20;
/// Space is short with less than this, or than a quarter of a small disk.
const LITTLE: u64 = 64 << 20;

/// One file that is in the way on purpose, shared by all cores of a data directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// Unix milliseconds since when it is given up; 0 while it is there.
    gone_since: AtomicU64,
    short: AtomicBool,
}

impl Reserve {
    /// Not yet put aside; call [`Reserve::restore`].
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join("journal.reserve"),
            gone_since: AtomicU64::new(NEVER),
            short: AtomicBool::new(false),
        }
    }

    /// When it was given up, in Unix milliseconds.
    pub(crate) fn gone_since(&self) -> Option<u64> {
        match self.gone_since.load(Ordering::Acquire) {
            0 => None,
            since => Some(since),
        }
    }

    /// Whether there is little space left, as [`Reserve::look`] found it.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed) || self.gone_since().is_some()
    }

    /// Looks how much space the disk has. Blocks on it; once a second.
    pub(crate) fn look(&self) {
        let directory = self.path.parent().unwrap_or(&self.path);
        // A file system that cannot say it says so when it is full.
        let Ok(disk) = statvfs(directory) else { return };
        let block = disk.fragment_size();
        let total = disk.blocks().saturating_mul(block);
        let left = disk.blocks_available().saturating_mul(block);
        let short = left < LITTLE.min(total / 4);
        if self.short.swap(short, Ordering::Relaxed) != short {
            let (left_mib, path) = (left >> 20, directory.display());
            match short {
                true => {
                    tracing::error!(%path, left_mib, "space is short: refusals are counted and not written");
                }
                false => tracing::info!(%path, left_mib, "there is space for refusals again"),
            }
        }
    }

    /// Gives the space back to the disk.
    pub(crate) fn release(&self) {
        let first = self.gone_since.compare_exchange(0, now(), Ordering::AcqRel, Ordering::Acquire).is_ok();
        let _ = fs::remove_file(&self.path);
        if first {
            tracing::error!(
                "the journal's disk is full: new calls are refused, records of running ones use the reserve"
            );
        }
    }

    /// Puts the space aside again; true if it is there. Blocks on the disk.
    pub(crate) fn restore(&self) -> bool {
        let Some(since) = self.gone_since() else { return true };
        match self.allocate() {
            Ok(()) => {
                self.gone_since.store(0, Ordering::Release);
                if since != NEVER {
                    tracing::info!("the journal's disk has room again");
                }
                true
            }
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                if since == NEVER {
                    self.gone_since.store(now(), Ordering::Release);
                    let path = self.path.display();
                    tracing::error!(%path, %error, "no space can be put aside for running calls: new ones are refused");
                }
                false
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        match posix_fallocate(&file, 0, i64::try_from(SIZE).unwrap_or(i64::MAX)) {
            // The file system knows no such thing; zeros take the space as well.
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => {
                io::copy(&mut io::repeat(0).take(SIZE), &mut file)?;
                file.sync_all()
            }
            done => Ok(done?),
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX).max(NEVER + 1)
}
