//! Plain files below one directory: mounted Kubernetes secrets, files that a vault agent writes.
//!
//! **Invariant:** what is read lies below the root after every symbolic link was followed, and is a regular file. The
//! `..data` links of mounted volumes stay inside and work.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tollgate_policy::policy::SecretRef;
use tracing::warn;
use zeroize::Zeroizing;

use super::{Fetched, field};
use crate::error::Failure;
use crate::read::{VALUE_LIMIT, bounded, downward, off_runtime, unreadable};
use crate::reference::Reference;
use crate::secret::{Secret, VersionKey};

pub(super) struct FileStore {
    root: PathBuf,
    /// Paths that were warned about already.
    exposed: Arc<Mutex<HashSet<String>>>,
}

impl FileStore {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, exposed: Arc::default() }
    }

    /// Where the file of this path is, if it can be one.
    pub(super) fn place(&self, path: &str) -> Option<PathBuf> {
        downward(path).ok().map(|path| self.root.join(path))
    }

    /// The whole file without one trailing newline, or the named member of the JSON object that it holds.
    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        if reference.secret.version.is_some() {
            return Err(Failure::Misconfigured("files have no versions to pin"));
        }
        let (root, exposed) = (self.root.clone(), Arc::clone(&self.exposed));
        let (path, fields) = (reference.secret.path.clone(), reference.secret.fields.clone());
        off_runtime(move || {
            let (text, world_readable) = read_below(&root, &path)?;
            note_exposure(&exposed, &path, world_readable);
            let value = field::of(without_newline(&text), &fields)?;
            Ok(Fetched { value, version: None, lease: None, expires: None })
        })
        .await
    }
}

/// What `from` names below the directory of a file store, read now and kept nowhere. It blocks.
///
/// # Errors
/// The file cannot be read, leads out of the directory, or lacks a field.
pub fn read_file_secret(root: &Path, from: &SecretRef) -> Result<Secret, Failure> {
    let (text, _) = read_below(root, &from.path)?;
    let value = field::of(without_newline(&text), &from.fields)?;
    Secret::new(from.to_string().into(), value, None, &VersionKey::random())
}

fn read_below(root: &Path, path: &str) -> Result<(Zeroizing<Vec<u8>>, bool), Failure> {
    let root = fs::canonicalize(root).map_err(|error| Failure::File(error.kind()))?;
    let path = root.join(downward(path)?);
    // Before opening: a named pipe would block.
    if !fs::metadata(&path).map_err(|error| unreadable(&error))?.is_file() {
        return Err(Failure::PathRefused("it is not a regular file"));
    }
    let mut file = File::open(&path).map_err(|error| unreadable(&error))?;
    let opened = file.metadata().map_err(|error| unreadable(&error))?;
    // After opening, and compared with what was opened: a link that is swapped in between is seen.
    let real = fs::canonicalize(&path).map_err(|error| unreadable(&error))?;
    let named = fs::symlink_metadata(&real).map_err(|error| unreadable(&error))?;
    if !opened.is_file()
        || !real.starts_with(&root)
        || (named.dev(), named.ino()) != (opened.dev(), opened.ino())
    {
        return Err(Failure::PathRefused("it leads out of the store's directory"));
    }
    let (text, metadata) = bounded(&mut file, VALUE_LIMIT)?;
    Ok((text, metadata.permissions().mode() & 0o004 != 0))
}

fn note_exposure(exposed: &Mutex<HashSet<String>>, path: &str, world_readable: bool) {
    let mut exposed = exposed.lock().unwrap_or_else(PoisonError::into_inner);
    if !world_readable {
        exposed.remove(path);
    } else if exposed.insert(path.to_owned()) {
        warn!(
            path,
            "secret file is readable by every user of this machine; mode 0400 or 0440 would be right"
        );
    }
}

fn without_newline(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text));
    Zeroizing::new(text.to_vec())
}

#[cfg(test)]
mod tests;
