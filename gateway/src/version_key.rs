//! The key of the data directory under which contents of secrets are named, so that one is named alike before and after a restart.
//!
//! **Invariant:** the file is there whole or not at all, and only its owner may read it. Who has it and a name can try guesses of the
//! value; who has not it can do nothing with a name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use tollgate_secrets::VersionKey;
use zeroize::Zeroizing;

use crate::files::write_private;

type Bytes = Zeroizing<[u8; VersionKey::LENGTH]>;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}", path = .path.display())]
pub(crate) struct KeyError {
    path: PathBuf,
    error: io::Error,
}

/// The key of this directory, which is made with it where it is not there.
///
/// # Errors
/// Where it cannot be read or made, or is none.
pub(crate) fn of(data_dir: &Path) -> Result<VersionKey, KeyError> {
    let path = file(data_dir);
    let failed = |error| KeyError { path: path.clone(), error };
    if let Some(bytes) = read(&path).map_err(failed)? {
        return Ok(VersionKey::of(&bytes));
    }
    make(data_dir, &path).map_err(failed)?;
    let gone = || failed(io::ErrorKind::NotFound.into());
    read(&path).map_err(failed)?.map(|bytes| VersionKey::of(&bytes)).ok_or_else(gone)
}

/// The key of this directory, if there is one that this user may read.
pub(crate) fn known(data_dir: &Path) -> Option<VersionKey> {
    read(&file(data_dir)).ok().flatten().map(|bytes| VersionKey::of(&bytes))
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("version.key")
}

fn read(path: &Path) -> io::Result<Option<Bytes>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "others may read the key that versions of secrets are named with; mode 0600 would be right");
    }
    // One more than it has, so that a longer file is seen to be one.
    let mut bytes = Zeroizing::new([0; VersionKey::LENGTH + 1]);
    let mut filled = 0;
    let mut limited = file.take(bytes.len() as u64);
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match limited.read(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    match bytes.first_chunk() {
        Some(key) if filled == VersionKey::LENGTH => Ok(Some(Zeroizing::new(*key))),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no key of 32 bytes; without the file another is made, and all versions get other names",
        )),
    }
}

/// Made beside and put into its place, unless another process did meanwhile.
fn make(data_dir: &Path, path: &Path) -> io::Result<()> {
    let mut bytes: Bytes = Zeroizing::new([0; VersionKey::LENGTH]);
    rand::fill(&mut *bytes).map_err(|_| io::Error::other("no randomness"))?;
    fs::create_dir_all(data_dir)?;
    let beside = data_dir.join(format!("version.key.{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    write_private(&beside, &*bytes)?;
    let placed = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match placed {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_key_that_its_owner_alone_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        assert!(known(&data).is_none());
        of(&data).unwrap();
        let first = fs::read(file(&data)).unwrap();
        assert_eq!(fs::metadata(file(&data)).unwrap().permissions().mode() & 0o777, 0o600);
        of(&data).unwrap();
        assert_eq!(fs::read(file(&data)).unwrap(), first, "not made anew");
        assert!(known(&data).is_some());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing is left beside it");
        for foreign in [&first[..31], &[0; 33], &[]] {
            fs::write(file(&data), foreign).unwrap();
            assert!(of(&data).unwrap_err().to_string().contains("no key of 32 bytes"));
            assert!(known(&data).is_none());
        }
    }
}
