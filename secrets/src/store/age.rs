//! One file encrypted with age to an X25519 identity: for small installs and the demo. The plaintext is
//! `{"path": {"field": "value"}}`.
//!
//! **Invariant:** the plaintext is never on disk. The file is replaced as a whole (temporary file, fsync, rename) under
//! a lock on its directory, so that a crash leaves the old or the new one and no writer loses another's change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{Fetched, field};
use crate::error::Failure;
use crate::read::{VALUE_LIMIT, bounded, downward, off_runtime};
use crate::reference::Reference;

/// The most that the encrypted file may hold.
const FILE_LIMIT: usize = 16 * 1024 * 1024;

/// Where the encrypted file and the key to it are.
#[derive(Clone)]
pub(crate) struct AgeLocation {
    pub(crate) file: PathBuf,
    pub(crate) identity: PathBuf,
}

pub(super) struct AgeStore {
    location: AgeLocation,
}

impl AgeStore {
    pub(super) const fn new(location: AgeLocation) -> Self {
        Self { location }
    }

    /// What a secret is read from.
    pub(super) fn files(&self) -> [PathBuf; 2] {
        [self.location.file.clone(), self.location.identity.clone()]
    }

    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        if reference.secret.version.is_some() {
            return Err(Failure::Misconfigured("an encrypted file has no versions to pin"));
        }
        downward(&reference.secret.path)?;
        let location = self.location.clone();
        let (path, fields) = (reference.secret.path.clone(), reference.secret.fields.clone());
        off_runtime(move || {
            let identities = identities(&location.identity)?;
            let plaintext = decrypt(&location.file, &identities)?;
            let secrets: BTreeMap<String, &RawValue> =
                serde_json::from_slice(&plaintext).map_err(|_| Failure::Decrypt)?;
            let secret = secrets.get(&path).ok_or(Failure::NotFound)?;
            let value = field::pick(secret.get().as_bytes(), &fields)?;
            Ok(Fetched { value, version: None, lease: None, expires: None })
        })
        .await
    }
}

/// The encrypted file as `tollgate secret` edits it.
pub struct AgeFile {
    location: AgeLocation,
}

/// Why the encrypted file could not be read or written. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum AgeFileError {
    /// It could not be opened, or does not hold what it should.
    #[error("{path}: {failure}", path = .path.display())]
    Unusable {
        /// The file that is at fault: the encrypted one or the identity.
        path: PathBuf,
        /// What is wrong with it.
        failure: Failure,
    },
    /// It is not there.
    #[error("{path}: no such file; `tollgate secret {maker}` makes one", path = .path.display())]
    Missing {
        /// The file that is missing: the encrypted one or the identity.
        path: PathBuf,
        /// The command that makes it.
        maker: &'static str,
    },
    /// A new file could not be put in its place.
    #[error("cannot write {path}: {error}", path = .path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A path that no reference could name.
    #[error("`{path}`: {failure}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        failure: Failure,
    },
    /// There is no such path, or no such field under it.
    #[error("no such secret")]
    Absent,
}

type Contents = BTreeMap<String, BTreeMap<String, AgeValue>>;

impl AgeFile {
    /// Names the encrypted file and the identity that opens it. Touches neither.
    pub fn new(file: impl Into<PathBuf>, identity: impl Into<PathBuf>) -> Self {
        Self { location: AgeLocation { file: file.into(), identity: identity.into() } }
    }

    /// Makes a new identity file, mode 0600, and returns its public key (`age1…`), with which the standard `age` tool
    /// encrypts to it.
    ///
    /// # Errors
    /// Where the file exists already, or cannot be written.
    pub fn create_identity(path: &Path) -> Result<String, AgeFileError> {
        let failed = |error| AgeFileError::Write { path: path.to_owned(), error };
        let identity = Identity::generate();
        let public = identity.to_public().to_string();
        let secret = identity.to_string();
        let text = Zeroizing::new(format!("# public key: {public}\n{}\n", secret.expose_secret()));
        let directory = directory_of(path);
        let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        temporary.write_all(text.as_bytes()).map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        temporary.persist_noclobber(path).map_err(|error| failed(error.error))?;
        sync_directory(directory).map_err(failed)?;
        Ok(public)
    }

    /// Every path with the names of its fields, in order.
    ///
    /// # Errors
    /// Where the file or the identity is missing or cannot be used.
    pub fn list(&self) -> Result<Vec<(String, Vec<String>)>, AgeFileError> {
        let identities = self.identities()?;
        if !self.location.file.exists() {
            return Err(AgeFileError::Missing { path: self.location.file.clone(), maker: "set" });
        }
        let contents = self.contents(&identities)?;
        Ok(contents.into_iter().map(|(path, fields)| (path, fields.into_keys().collect())).collect())
    }

    /// Stores `value` under `path` and `field`; true if there was one before.
    ///
    /// # Errors
    /// Where the path could not be referred to, the value is empty or over 64 KiB, or a file cannot be used.
    pub fn set(&self, path: &str, field: &str, value: Zeroizing<String>) -> Result<bool, AgeFileError> {
        let refused = |failure| AgeFileError::Path { path: path.to_owned(), failure };
        downward(path).map_err(refused)?;
        if value.is_empty() {
            return Err(refused(Failure::Malformed("the value is empty")));
        }
        if value.len() > VALUE_LIMIT {
            return Err(refused(Failure::Malformed("the value is larger than 64 KiB")));
        }
        self.edit(|contents| {
            let fields = contents.entry(path.to_owned()).or_default();
            Ok(fields.insert(field.to_owned(), AgeValue(value)).is_some())
        })
    }

    /// Removes one field of `path`, or all of them. A path without fields goes too.
    ///
    /// # Errors
    /// [`AgeFileError::Absent`] where there is nothing to remove, else where a file cannot be used.
    pub fn remove(&self, path: &str, field: Option<&str>) -> Result<(), AgeFileError> {
        self.edit(|contents| {
            let Some(field) = field else {
                return contents.remove(path).map(drop).ok_or(AgeFileError::Absent);
            };
            let fields = contents.get_mut(path).ok_or(AgeFileError::Absent)?;
            fields.remove(field).ok_or(AgeFileError::Absent)?;
            if fields.is_empty() {
                contents.remove(path);
            }
            Ok(())
        })
    }

    fn edit<T>(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<T, AgeFileError>,
    ) -> Result<T, AgeFileError> {
        let identities = self.identities()?;
        let file = &self.location.file;
        let failed = |error| AgeFileError::Write { path: file.clone(), error };
        let directory = File::open(directory_of(file)).map_err(failed)?;
        directory.lock().map_err(failed)?;
        let mut contents = self.contents(&identities)?;
        let changed = change(&mut contents)?;
        self.write(&contents, &identities).map_err(failed)?;
        Ok(changed)
    }

    fn identities(&self) -> Result<Vec<Identity>, AgeFileError> {
        let path = &self.location.identity;
        identities(path).map_err(|failure| match failure {
            Failure::File(io::ErrorKind::NotFound) => {
                AgeFileError::Missing { path: path.clone(), maker: "init" }
            }
            failure => AgeFileError::Unusable { path: path.clone(), failure },
        })
    }

    fn contents(&self, identities: &[Identity]) -> Result<Contents, AgeFileError> {
        let path = &self.location.file;
        if !path.exists() {
            return Ok(Contents::new());
        }
        let read = || {
            let plaintext = decrypt(path, identities)?;
            serde_json::from_slice(&plaintext)
                .map_err(|_| Failure::Malformed("its plaintext is not an object of paths with fields"))
        };
        read().map_err(|failure| AgeFileError::Unusable { path: path.clone(), failure })
    }

    fn write(&self, contents: &Contents, identities: &[Identity]) -> io::Result<()> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(encoded_bound(contents)));
        serde_json::to_writer(&mut *plaintext, contents)?;
        let recipients: Vec<Recipient> = identities.iter().map(Identity::to_public).collect();
        let encryptor =
            age::Encryptor::with_recipients(recipients.iter().map(|to| to as &dyn age::Recipient))
                .map_err(io::Error::other)?;
        let directory = directory_of(&self.location.file);
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        let mut ciphertext = encryptor.wrap_output(temporary.as_file_mut())?;
        ciphertext.write_all(&plaintext)?;
        ciphertext.finish()?;
        temporary.as_file().sync_all()?;
        temporary.persist(&self.location.file).map_err(|error| error.error)?;
        sync_directory(directory)
    }
}

/// The identities of a file as `age-keygen` writes it. One that others can read is refused: it opens everything.
fn identities(path: &Path) -> Result<Vec<Identity>, Failure> {
    let mut file = File::open(path).map_err(|error| Failure::File(error.kind()))?;
    let (text, metadata) = bounded(&mut file, VALUE_LIMIT)?;
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(Failure::Misconfigured(
            "the identity file is open to every user; mode 0600 would be right",
        ));
    }
    let text =
        std::str::from_utf8(&text).map_err(|_| Failure::Misconfigured("the identity file is not text"))?;
    let identities: Result<Vec<Identity>, _> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::parse)
        .collect();
    match identities {
        Ok(identities) if !identities.is_empty() => Ok(identities),
        _ => Err(Failure::Misconfigured("the identity file has no AGE-SECRET-KEY-1 line of the X25519 kind")),
    }
}

fn decrypt(path: &Path, identities: &[Identity]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut file = File::open(path).map_err(|error| Failure::File(error.kind()))?;
    let (ciphertext, _) = bounded(&mut file, FILE_LIMIT)?;
    let decryptor = age::Decryptor::new_buffered(ciphertext.as_slice()).map_err(|_| Failure::Decrypt)?;
    let identities = identities.iter().map(|identity| identity as &dyn age::Identity);
    let mut reader = decryptor.decrypt(identities).map_err(|_| Failure::Decrypt)?;
    // The plaintext is shorter than the ciphertext, so the buffer never has to grow.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(ciphertext.len()));
    reader.read_to_end(&mut plaintext).map_err(|_| Failure::Decrypt)?;
    Ok(plaintext)
}

/// At least the length of the JSON: a byte takes at most six (`\u0000`).
fn encoded_bound(contents: &Contents) -> usize {
    let fields = |fields: &BTreeMap<String, AgeValue>| {
        fields.iter().map(|(name, value)| 6 * (name.len() + value.0.len()) + 6).sum::<usize>()
    };
    contents.iter().map(|(path, of)| 6 * path.len() + 6 + fields(of)).sum::<usize>() + 2
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A value on its way between the file's plaintext and the caller.
struct AgeValue(Zeroizing<String>);

impl<'de> Deserialize<'de> for AgeValue {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        String::deserialize(json).map(|value| Self(Zeroizing::new(value)))
    }
}

impl Serialize for AgeValue {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
