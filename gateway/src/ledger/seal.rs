//! Authenticated chain heads: what makes a cut-off tail and a rewritten chain visible.
//!
//! `heads.jsonl` says every minute how far each segment goes, under a MAC (HMAC-SHA-256) whose key is not in the data directory. Each
//! line's MAC also covers the MAC before it. Beside the key, where somebody who can write the data directory cannot, stands the
//! latest line (the anchor), so that seals and segments cannot be cut back together.
//!
//! **Invariant:** a seal only names lines that were on the disk when it was made. Seals are only added with the key that made the last.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::{digest, hmac, rand};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tollgate_secrets::hex;
use zeroize::Zeroizing;

use super::LedgerError;
use super::segment::{SegmentEnd, sync_directory};

const BEFORE: &[u8] = b",\"mac\":\"";
const AFTER: &[u8] = b"\"}";
const TAIL: usize = BEFORE.len() + 64 + AFTER.len();
/// Bytes of a key that is made here, and of one that is brought along.
const KEY: usize = 32;
const LONGEST_KEY: u64 = 256;
const READING_KEY: &str = "reading the seal key (ledger.sealKeyFile)";
const MAKING_KEY: &str = "making the seal key (ledger.sealKeyFile)";

/// The MAC of a seal.
pub(crate) type Mac = [u8; 32];

/// What one seal says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seal {
    /// Counts up from 1 without a gap.
    pub(crate) number: u64,
    /// When it was made.
    pub(crate) at: Timestamp,
    /// The segments that changed since the seal before, and how far they go.
    pub(crate) heads: Vec<SegmentEnd>,
    /// The segments that retention removes now, and how far they went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) retired: Vec<SegmentEnd>,
}

#[derive(Serialize, Deserialize)]
struct SealLine<S> {
    seal: S,
}

/// The key that seals are made and checked with.
pub(crate) struct SealKey {
    key: hmac::Key,
    path: PathBuf,
    anchor: PathBuf,
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SealKey").field("anchor", &self.anchor).finish_non_exhaustive()
    }
}

impl SealKey {
    /// Reads the key of a data directory. A key within that directory would protect nothing and is refused.
    pub(crate) fn read(path: &Path, data_dir: &Path) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::file(READING_KEY, path, source);
        let unfit = |what| LedgerError::SealKey { path: path.to_owned(), what };
        let (place, data) = outside(path, path, data_dir)?;
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(unfit("it is no regular file"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        let file = File::open(path).map_err(failed)?;
        file.take(LONGEST_KEY + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() < KEY {
            return Err(unfit("it has less than 32 bytes"));
        }
        if bytes.len() as u64 > LONGEST_KEY {
            return Err(unfit("it has more than 256 bytes"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Ok(Self { key, path: path.to_owned(), anchor: anchor_of(place, &data) })
    }

    /// [`SealKey::read`], with a new random key where the file is not there and nothing was sealed yet.
    pub(crate) fn read_or_create(path: &Path, data_dir: &Path) -> Result<Self, LedgerError> {
        let missing = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if !missing {
            return Self::read(path, data_dir);
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        let nearest = parent.ancestors().find(|place| place.exists()).unwrap_or_else(|| Path::new("."));
        let (_, data) = outside(nearest, path, data_dir)?;
        if !lines_of(&read_seals(data_dir)?).is_empty() {
            return Err(LedgerError::OtherSealKey {
                path: path.to_owned(),
                what: "is not there, though there are seals in",
                seals: self::path(data_dir),
                anchor: anchor_of(path.to_owned(), &data),
            });
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|source| LedgerError::file(MAKING_KEY, path, source))?;
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let failed = |source| LedgerError::file(MAKING_KEY, path, source);
                let mut bytes = Zeroizing::new([0; KEY]);
                rand::fill(&mut *bytes).map_err(|_| failed(io::Error::other("no random bytes")))?;
                file.write_all(&*bytes).and_then(|()| file.sync_all()).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LedgerError::file(MAKING_KEY, path, error)),
        }
        Self::read(path, data_dir)
    }

    fn sign(&self, body: &[u8], previous: &Mac) -> Mac {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(body);
        context.update(previous);
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Whether this line without its newline follows the seal with this MAC.
    pub(crate) fn verifies(&self, line: &[u8], previous: &Mac) -> bool {
        let Some((body, mac)) = split(line) else { return false };
        let mut signed = body.to_vec();
        signed.extend_from_slice(previous);
        hmac::verify(&self.key, &signed, &mac).is_ok()
    }

    /// Refuses to go on where this key did not make the last of these seals. If that one was changed or cut off since, the anchor says so.
    fn check(&self, seals: &[u8], data_dir: &Path) -> Result<(), LedgerError> {
        let lines = lines_of(seals);
        let Some(last) = lines.last() else { return Ok(()) };
        let follows = |line: &[u8], before: Option<&&[u8]>| {
            let previous = before.map_or(Some([0; 32]), |before| split(before).map(|(_, mac)| mac));
            previous.is_some_and(|previous| self.verifies(line, &previous))
        };
        if follows(last, lines.iter().nth_back(1)) {
            return Ok(());
        }
        let number = |line: &[u8]| parse(line).map_or(0, |seal| seal.number);
        let anchored = self.anchor().is_some_and(|anchor| match number(&anchor) {
            0 => false,
            sealed if sealed < number(last) => false,
            1 => follows(&anchor, None),
            sealed => {
                let before = lines.iter().rfind(|line| number(line) == sealed - 1);
                before.is_some() && follows(&anchor, before)
            }
        });
        if anchored {
            return Ok(());
        }
        Err(LedgerError::OtherSealKey {
            path: self.path.clone(),
            what: "did not make the last seal in",
            seals: path(data_dir),
            anchor: self.anchor.clone(),
        })
    }

    /// The line that stood last in `heads.jsonl`, as far as the anchor knows.
    pub(crate) fn anchor(&self) -> Option<Vec<u8>> {
        fs::read(&self.anchor).ok()
    }

    /// Where the anchor stands.
    pub(crate) fn anchor_path(&self) -> &Path {
        &self.anchor
    }
}

/// Where the latest seal of a data directory stands beside the key.
fn anchor_of(key: PathBuf, data: &Path) -> PathBuf {
    let directory = digest::digest(&digest::SHA256, data.as_os_str().as_encoded_bytes());
    let mut name = [0; 16];
    hex::encode(&directory.as_ref()[..8], &mut name);
    let mut anchor = key.into_os_string();
    anchor.push(".");
    anchor.push(str::from_utf8(&name).unwrap_or_default());
    anchor.push(".seal");
    anchor.into()
}

/// Both places without links, if the first is not in the data directory.
fn outside(place: &Path, key: &Path, data_dir: &Path) -> Result<(PathBuf, PathBuf), LedgerError> {
    let real =
        |path: &Path, doing| fs::canonicalize(path).map_err(|source| LedgerError::file(doing, path, source));
    let (place, data) = (real(place, READING_KEY)?, real(data_dir, "reading")?);
    if place.starts_with(&data) {
        return Err(LedgerError::SealKey {
            path: key.to_owned(),
            what: "it must not be in the data directory",
        });
    }
    Ok((place, data))
}

/// Where the seals of a data directory are.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("heads.jsonl")
}

/// All seals; none where the file is not there.
fn read_seals(data_dir: &Path) -> Result<Vec<u8>, LedgerError> {
    let path = path(data_dir);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| LedgerError::file("reading", &path, source)),
    }
}

/// The whole lines of the seals, without their newlines.
fn lines_of(seals: &[u8]) -> Vec<&[u8]> {
    let whole = memchr::memrchr(b'\n', seals).unwrap_or(0);
    seals[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
}

/// A line without its newline, as its body and its MAC. Says nothing about whether that is right.
pub(crate) fn split(line: &[u8]) -> Option<(&[u8], Mac)> {
    let (body, tail) = line.split_at(line.len().checked_sub(TAIL)?);
    let mut mac = [0; 32];
    hex::decode(tail.strip_prefix(BEFORE)?.strip_suffix(AFTER)?, &mut mac)?;
    Some((body, mac))
}

/// What a line without its newline says; `None` if it is no seal.
pub(crate) fn parse(line: &[u8]) -> Option<Seal> {
    serde_json::from_slice::<SealLine<Seal>>(line).ok().map(|line| line.seal)
}

/// `heads.jsonl`, opened for appending.
#[derive(Debug)]
pub(crate) struct Seals {
    key: SealKey,
    file: File,
    path: PathBuf,
    number: u64,
    last: Mac,
    anchored: bool,
}

impl Seals {
    /// Goes on where the file ends, if the key made what stands there. What a crash left of a last line is cut off; what somebody else cut off stays visible, as a gap
    /// in the numbers.
    pub(crate) fn open(key: SealKey, data_dir: &Path) -> Result<Self, LedgerError> {
        let path = path(data_dir);
        let failed = |source| LedgerError::file("opening", &path, source);
        let bytes = read_seals(data_dir)?;
        key.check(&bytes, data_dir)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
        let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        sync_directory(data_dir)?;
        let last = lines_of(&bytes).pop();
        let mut number = last.and_then(parse).map_or(0, |seal| seal.number);
        if let Some(anchored) = key.anchor().as_deref().and_then(parse)
            && anchored.number > number
        {
            tracing::error!(
                sealed = anchored.number,
                found = number,
                path = %path.display(),
                "seals are missing: run `tollgate ledger verify` and `tollgate audit verify`"
            );
            number = anchored.number;
        }
        let last = last.and_then(split).map_or([0; 32], |(_, mac)| mac);
        Ok(Self { key, file, path, number, last, anchored: true })
    }

    /// Writes a seal over these heads and waits for the disk. With no head there is nothing to seal.
    pub(crate) fn seal(&mut self, heads: &[SegmentEnd], at: Timestamp) -> Result<(), LedgerError> {
        if heads.is_empty() {
            return Ok(());
        }
        self.write(&Seal { number: self.number + 1, at, heads: heads.to_vec(), retired: Vec::new() })
    }

    /// Writes that these segments go, and waits for the disk.
    pub(crate) fn retire(&mut self, retired: &[SegmentEnd], at: Timestamp) -> Result<(), LedgerError> {
        self.write(&Seal { number: self.number + 1, at, heads: Vec::new(), retired: retired.to_vec() })
    }

    fn write(&mut self, seal: &Seal) -> Result<(), LedgerError> {
        let mut line = serde_json::to_vec(&SealLine { seal }).map_err(LedgerError::Encode)?;
        line.pop();
        let mac = self.key.sign(&line, &self.last);
        let mut text = [0; 64];
        hex::encode(&mac, &mut text);
        line.extend_from_slice(BEFORE);
        line.extend_from_slice(&text);
        line.extend_from_slice(AFTER);
        line.push(b'\n');
        self.append(&line).map_err(|source| LedgerError::file("writing", &self.path, source))?;
        self.number = seal.number;
        self.last = mac;
        line.pop();
        let anchored = write_anchor(&self.key.anchor, &line);
        if let Err(error) = &anchored
            && self.anchored
        {
            let path = self.key.anchor.display();
            tracing::warn!(%path, %error, "the latest seal cannot be kept beside its key: cutting back the seals too stays unseen");
        }
        self.anchored = anchored.is_ok();
        Ok(())
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let wrote = (&self.file).write_all(line).and_then(|()| self.file.sync_data());
        if wrote.is_err() {
            self.file.set_len(length)?;
        }
        wrote
    }
}

fn write_anchor(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(line)?;
    file.sync_data()?;
    fs::rename(&next, path)
}
