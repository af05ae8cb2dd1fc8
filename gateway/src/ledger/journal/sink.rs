//! Where the bytes of a segment go: a file, or in tests a disk that fails on demand.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

/// An append-only file.
#[derive(Debug, Clone)]
pub(super) enum Sink {
    File(Arc<File>),
    #[cfg(test)]
    Fake(Arc<fake::Disk>),
}

impl Sink {
    /// Everything, in one write(2) unless the system takes less.
    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => (&**file).write_all(bytes),
            #[cfg(test)]
            Self::Fake(disk) => disk.write_all(bytes),
        }
    }

    /// Cuts off what a failed write left behind.
    pub(super) fn truncate(&self, length: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_len(length),
            #[cfg(test)]
            Self::Fake(disk) => disk.truncate(length),
        }
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_data(),
            #[cfg(test)]
            Self::Fake(disk) => disk.sync(),
        }
    }
}

#[cfg(test)]
pub(super) mod fake {
    use std::io;
    use std::path::PathBuf;
    use std::sync::Mutex;

    /// Counts writes, holds at most `room` bytes, and fails as told.
    #[derive(Debug, Default)]
    pub(crate) struct Disk(pub(crate) Mutex<DiskState>);

    #[derive(Debug, Default)]
    pub(crate) struct DiskState {
        pub(crate) bytes: Vec<u8>,
        pub(crate) writes: usize,
        pub(crate) syncs: usize,
        pub(crate) room: Option<usize>,
        /// A file that takes 4 MiB of the room as long as it is there.
        pub(crate) reserve: Option<PathBuf>,
        pub(crate) broken: bool,
        pub(crate) sync_fails: bool,
    }

    impl Disk {
        pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            state.writes += 1;
            if state.broken {
                let half = bytes.len() / 2;
                state.bytes.extend_from_slice(&bytes[..half]);
                return Err(io::Error::other("input/output error"));
            }
            let freed = state.reserve.as_ref().is_some_and(|reserve| !reserve.exists());
            let room = state.room.map_or(usize::MAX, |room| room + if freed { 4 << 20 } else { 0 });
            let room = room.saturating_sub(state.bytes.len());
            let fits = bytes.len().min(room);
            state.bytes.extend_from_slice(&bytes[..fits]);
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        pub(crate) fn truncate(&self, length: u64) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            if state.broken {
                return Err(io::Error::other("input/output error"));
            }
            state.bytes.truncate(usize::try_from(length).unwrap());
            Ok(())
        }

        pub(crate) fn sync(&self) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            state.syncs += 1;
            if state.sync_fails { Err(io::Error::other("input/output error")) } else { Ok(()) }
        }
    }
}
