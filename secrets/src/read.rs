//! Reading small local files that hold a value: bounded, in one zeroized buffer, off the runtime's own thread.
//!
//! **Invariant:** the buffer is allocated once at its full size, so growing it leaves no copy behind.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::Failure;

/// The most that a file with one value, or a login, may hold.
pub(crate) const VALUE_LIMIT: usize = 64 * 1024;

/// What tells one state of some files from another: inode, size and time of change of each, where it is there.
pub(crate) type FileStamp = Vec<Option<(u64, u64, i64, i64)>>;

/// The state that these files are in. Follows links, and opens nothing.
pub(crate) fn stamp<'a>(files: impl Iterator<Item = &'a PathBuf>) -> FileStamp {
    let state = |file: &PathBuf| {
        let file = std::fs::metadata(file).ok()?;
        Some((file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
    };
    files.map(state).collect()
}

/// Runs blocking file work on the runtime's blocking threads.
pub(crate) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::Internal)?
}

/// The whole of a regular file of at most `limit` bytes.
pub(crate) fn bounded(file: &mut File, limit: usize) -> Result<(Zeroizing<Vec<u8>>, Metadata), Failure> {
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(Failure::File(io::ErrorKind::InvalidInput));
    }
    let too_large = Failure::Malformed("the file is larger than its limit");
    if metadata.len() > limit as u64 {
        return Err(too_large);
    }
    // One more than the limit, so that a file which grew meanwhile is seen to have grown.
    let mut buffer = Zeroizing::new(vec![0; metadata.len() as usize + 1]);
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    if filled > metadata.len() as usize {
        return Err(Failure::Malformed("the file changed while it was read"));
    }
    buffer.truncate(filled);
    Ok((buffer, metadata))
}

/// The text of one line that a login file holds (a token, a role id): surrounding white space trimmed.
pub(super) async fn login_file(path: PathBuf, missing: &'static str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    off_runtime(move || {
        let mut file = File::open(path).map_err(|_| Failure::Login(missing))?;
        let (text, _) = bounded(&mut file, VALUE_LIMIT).map_err(|_| Failure::Login(missing))?;
        let trimmed = text.trim_ascii();
        if trimmed.is_empty() { Err(Failure::Login(missing)) } else { Ok(Zeroizing::new(trimmed.to_vec())) }
    })
    .await
}

pub(super) fn unreadable(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::NotFound,
        kind => Failure::File(kind),
    }
}

/// `path` if it can only lead downwards: relative, and made of plain names.
pub(super) fn downward(path: &str) -> Result<&Path, Failure> {
    let plain = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
    if path.starts_with('/') {
        return Err(Failure::PathRefused("it is absolute; name it relative to the store"));
    }
    if path.chars().any(char::is_control) {
        return Err(Failure::PathRefused("it has a control character"));
    }
    if !path.split('/').all(plain) {
        return Err(Failure::PathRefused("it has an empty, `.` or `..` segment"));
    }
    Ok(Path::new(path))
}
