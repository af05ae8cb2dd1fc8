//! The files of the journal: their names, and their first entries.
//!
//! A segment belongs to one core of one process epoch (one start) and is only ever appended to. Its first entry, which is a batch of its own,
//! says which segments came before it and how far they went, so that a whole file cannot go missing unseen.
//!
//! **Invariant:** names sort by the time of creation, then by core.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::batch::{Batches, EntryKind, MAGIC, NewBatch};
use super::chain::ChainHead;

const EXTENSION: &str = ".journal";

/// How far a segment goes, or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEnd {
    /// File name within the journal's directory.
    pub segment: Arc<str>,
    /// Entries in whole batches, the first one included.
    pub entries: u64,
    /// The chain's hash behind the last of them.
    pub head: ChainHead,
}

/// What the first entry of a segment says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SegmentHeader {
    /// The segment's own name: a file cannot pass for another.
    pub(crate) name: Arc<str>,
    /// Name of the process epoch: all segments that one process wrote.
    pub(crate) epoch: Arc<str>,
    /// Process that wrote it.
    pub(crate) pid: u32,
    /// When it was begun.
    pub(crate) at: Timestamp,
    /// The segments that no later epoch had named yet, with where they ended.
    pub(crate) previous: Vec<SegmentEnd>,
    /// The segment in `previous` is this core's own, left behind after a failure: what it has behind those entries does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) continues: bool,
}

/// A process start: what its segments have in common.
#[derive(Debug, Clone)]
pub(crate) struct ProcessEpoch {
    name: Arc<str>,
    at: Timestamp,
    directory: PathBuf,
}

impl ProcessEpoch {
    /// An epoch that begins now in this data directory, whose journal directory is made if it is not there.
    pub(crate) fn begin(data_dir: &Path, now: Timestamp) -> Result<Self, LedgerError> {
        let directory = directory(data_dir);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| LedgerError::file("creating", &directory, source))?;
        Ok(Self { name: stamp(now).into(), at: now, directory })
    }

    /// Whether this epoch wrote the segment with this first entry.
    pub(crate) fn wrote(&self, header: &SegmentHeader) -> bool {
        header.epoch == self.name
    }

    /// Waits until a segment is on the disk.
    pub(crate) fn sync(&self, segment: &str) -> io::Result<()> {
        File::open(self.directory.join(segment))?.sync_data()
    }

    /// Makes a new segment and writes its first entry. `who` is a core's number, or a word for what is not a core.
    pub(crate) fn create(
        &self,
        who: &str,
        now: Timestamp,
        previous: &[SegmentEnd],
    ) -> Result<(File, SegmentEnd, u64), LedgerError> {
        self.create_from(who, now, previous, false)
    }

    /// Makes the segment that a core goes on in because `full`, which may still grow until then, is large or old enough.
    pub(crate) fn follow(
        &self,
        who: &str,
        now: Timestamp,
        full: SegmentEnd,
    ) -> Result<(File, SegmentEnd, u64), LedgerError> {
        self.create_from(who, now, &[full], false)
    }

    /// Makes the segment that a core goes on in after it left one behind.
    pub(crate) fn go_on(
        &self,
        who: &str,
        now: Timestamp,
        left: SegmentEnd,
    ) -> Result<(File, SegmentEnd, u64), LedgerError> {
        self.create_from(who, now, &[left], true)
    }

    fn create_from(
        &self,
        who: &str,
        now: Timestamp,
        previous: &[SegmentEnd],
        continues: bool,
    ) -> Result<(File, SegmentEnd, u64), LedgerError> {
        // A clock that was set back must not make a segment that sorts before its epoch.
        let now = now.max(self.at);
        let name: Arc<str> = format!("{}-{who}{EXTENSION}", stamp(now)).into();
        let path = self.directory.join(&*name);
        let header = SegmentHeader {
            name: Arc::clone(&name),
            epoch: Arc::clone(&self.name),
            pid: std::process::id(),
            at: now,
            previous: previous.to_vec(),
            continues,
        };
        let payload = serde_json::to_vec(&header).map_err(LedgerError::Encode)?;
        let mut first = NewBatch::default();
        first.append(EntryKind::Segment, &[], |out| out.extend_from_slice(&payload));
        let head = first.close(ChainHead::NONE);
        let bytes = [&MAGIC, first.bytes()].concat();
        let file = write_new(&path, &bytes).map_err(|source| {
            let _ = fs::remove_file(&path);
            LedgerError::file("creating", &path, source)
        })?;
        sync_directory(&self.directory)?;
        Ok((file, SegmentEnd { segment: name, entries: 1, head }, bytes.len() as u64))
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_data()?;
    Ok(file)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), LedgerError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| LedgerError::file("syncing", path, source))
}

fn stamp(now: Timestamp) -> String {
    now.strftime("%Y%m%dT%H%M%S.%6fZ").to_string()
}

/// Whether this is the name of a segment made with this `who`.
pub(crate) fn is_of(name: &str, who: &str) -> bool {
    name.strip_suffix(EXTENSION)
        .and_then(|name| name.strip_suffix(who))
        .is_some_and(|name| name.ends_with('-'))
}

/// Whose segment this is, by its name: a core's number, or a word.
pub(crate) fn who(name: &str) -> Option<&str> {
    name.strip_suffix(EXTENSION)?.rsplit('-').next()
}

/// Where the segments of a data directory are.
pub(crate) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// Where a segment of a data directory is.
pub(crate) fn file(data_dir: &Path, name: &str) -> PathBuf {
    directory(data_dir).join(name)
}

/// Names of all segments, sorted; none where the directory is not there.
pub(crate) fn list(data_dir: &Path) -> Result<Vec<Arc<str>>, LedgerError> {
    let directory = directory(data_dir);
    let failed = |source| LedgerError::file("reading", &directory, source);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names: Vec<Arc<str>> = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(EXTENSION)) {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// How long a segment is, and when it was last written to; `None` where it is gone.
pub(crate) fn written(data_dir: &Path, name: &str) -> Result<Option<(u64, Timestamp)>, LedgerError> {
    let path = file(data_dir, name);
    match fs::metadata(&path) {
        Ok(metadata) => {
            let last = metadata.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
            Ok(Some((metadata.len(), last.unwrap_or(Timestamp::MAX))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LedgerError::file("reading", &path, source)),
    }
}

/// How much of each segment is known already: the byte behind a batch, and the number of entries up to there.
pub(crate) type Known = HashMap<Arc<str>, (u64, u64)>;

/// The segments whose end no other epoch has named, with where they end: what the next segment has to name.
pub(crate) fn tips(data_dir: &Path, known: &Known) -> Result<Vec<SegmentEnd>, LedgerError> {
    let headers = headers(data_dir)?;
    let epochs: HashMap<_, _> = headers.iter().map(|(name, header)| (name, &header.epoch)).collect();
    let mut named: HashMap<Arc<str>, u64> = HashMap::new();
    for (_, header) in &headers {
        for previous in &header.previous {
            if epochs.get(&previous.segment).is_some_and(|epoch| **epoch != header.epoch) {
                let entries = named.entry(Arc::clone(&previous.segment)).or_default();
                *entries = previous.entries.max(*entries);
            }
        }
    }
    let ends = |name: &Arc<str>| {
        let entries = known.get(name).map_or(u64::MAX, |(_, entries)| *entries);
        named.get(name).is_some_and(|named| *named >= entries)
    };
    let tips = headers.iter().map(|(name, _)| name).filter(|name| !ends(name));
    tips.filter_map(|name| end(data_dir, name, known).transpose()).collect()
}

/// Waits until these segments are on the disk, whoever wrote them.
pub(crate) fn sync(data_dir: &Path, heads: &[SegmentEnd]) -> Result<(), LedgerError> {
    for head in heads {
        let path = file(data_dir, &head.segment);
        let synced = File::open(&path).and_then(|file| file.sync_data());
        synced.map_err(|source| LedgerError::file("syncing", &path, source))?;
    }
    Ok(())
}

/// Waits until all segments that are there are on the disk.
pub(crate) fn sync_all(data_dir: &Path) -> Result<(), LedgerError> {
    for name in list(data_dir)? {
        let path = file(data_dir, &name);
        let synced = File::open(&path).and_then(|file| file.sync_data());
        synced.map_err(|source| LedgerError::file("syncing", &path, source))?;
    }
    Ok(())
}

/// The segments that their cores left behind, and the entries of them that count.
pub(crate) fn left_behind(data_dir: &Path) -> Result<HashMap<Arc<str>, u64>, LedgerError> {
    let headers = headers(data_dir)?.into_iter();
    let left = headers.filter(|(_, header)| header.continues).flat_map(|(_, header)| header.previous);
    Ok(left.map(|head| (head.segment, head.entries)).collect())
}

/// The first entries of all segments; those that have no whole one are passed over.
fn headers(data_dir: &Path) -> Result<Vec<(Arc<str>, SegmentHeader)>, LedgerError> {
    let mut headers = Vec::new();
    for name in list(data_dir)? {
        if let Some(header) = first(data_dir, &name)? {
            headers.push((name, header));
        }
    }
    Ok(headers)
}

/// What the first entry of a segment says; `None` if it is none. Does not check the chain.
pub(crate) fn first(data_dir: &Path, name: &str) -> Result<Option<SegmentHeader>, LedgerError> {
    let mut batches = Batches::open(&file(data_dir, name), 0)?;
    let batch = batches.next_batch().map_err(|source| LedgerError::file("reading", name, source))?;
    let Some(Ok(entry)) =
        batch.filter(|batch| batch.passed_over == 0).and_then(|batch| batch.entries().next())
    else {
        return Ok(None);
    };
    if entry.kind != Some(EntryKind::Segment) {
        return Ok(None);
    }
    Ok(serde_json::from_slice(entry.payload).ok())
}

/// Where a segment ends. Takes the last whole batch's word for the hash; `None` if there is no such batch.
pub(crate) fn end(
    data_dir: &Path,
    segment: &Arc<str>,
    known: &Known,
) -> Result<Option<SegmentEnd>, LedgerError> {
    let failed = |source| LedgerError::file("reading", segment.as_ref(), source);
    let length = fs::metadata(file(data_dir, segment)).map_err(failed)?.len();
    // A disk that lost power may have kept what is known of the segment and lost its tail.
    let known = known.get(segment).copied().filter(|(offset, _)| *offset <= length);
    let (offset, mut entries) = known.unwrap_or_default();
    let mut batches = Batches::open(&file(data_dir, segment), offset)?;
    let mut head = batches.head_before(offset).map_err(failed)?;
    while let Some(batch) = batches.next_batch().map_err(failed)? {
        entries += batch.count;
        head = Some(batch.head);
    }
    Ok(head.map(|head| SegmentEnd { segment: Arc::clone(segment), entries, head }))
}
