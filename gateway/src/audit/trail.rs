//! The trail's file: appended to by one thread, chained and sealed as the ledger's journal is.
//!
//! **Invariant:** entries that [`Trail::append`] returned `Ok` for are in the page cache of the kernel, all of them; of those that it
//! failed with none is in the file's whole batches.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

use super::{Entry, directory};
use crate::ledger::seal::{SealKey, Seals};
use crate::ledger::segment::{self, Known, ProcessEpoch, SegmentEnd};
use crate::ledger::{EntryKind, LedgerError, NewBatch};

/// What segments of the trail have in their names where those of the journal have a core's number.
const WHO: &str = "audit";

#[derive(Debug)]
pub(super) struct Trail {
    epoch: ProcessEpoch,
    file: File,
    /// Bytes of whole batches in the file.
    length: u64,
    end: SegmentEnd,
    /// What is behind those bytes is not known: the next batch begins a new segment.
    torn: bool,
    dirty: bool,
    seals: Option<Seals>,
    unsealed: Vec<SegmentEnd>,
    sealed: Option<SegmentEnd>,
}

impl Trail {
    /// Goes on behind what the last process wrote, in a segment of its own. The data directory is locked, and the ledger has made the key.
    pub(super) fn open(data_dir: &Path, seal_key: Option<&Path>) -> Result<Self, LedgerError> {
        let directory = directory(data_dir);
        let now = Timestamp::now();
        let epoch = ProcessEpoch::begin(&directory, now)?;
        let seals = match seal_key {
            Some(path) => Some(Seals::open(SealKey::read_or_create(path, &directory)?, &directory)?),
            None => None,
        };
        let tips = tips(&directory)?;
        segment::sync(&directory, &tips)?;
        let (file, end, length) = epoch.create(WHO, now, &tips)?;
        let mut trail =
            Self { epoch, file, length, end, torn: false, dirty: false, seals, unsealed: tips, sealed: None };
        trail.seal()?;
        Ok(trail)
    }

    /// Writes these entries, all or none.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        if self.torn {
            let left = self.end.clone();
            let (file, end, length) = self.epoch.go_on(WHO, Timestamp::now(), left.clone())?;
            self.unsealed.push(left);
            (self.file, self.end, self.length, self.torn) = (file, end, length, false);
        }
        let mut batch = NewBatch::default();
        for entry in entries {
            let payload = serde_json::to_vec(entry).map_err(LedgerError::Encode)?;
            batch.append(EntryKind::Audit, &[], |out| out.extend_from_slice(&payload));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let head = batch.close(self.end.head);
        if let Err(source) = self.file.write_all(batch.bytes()) {
            self.torn = self.file.set_len(self.length).is_err();
            return Err(LedgerError::file("writing", &*self.end.segment, source));
        }
        self.length += batch.bytes().len() as u64;
        (self.end.head, self.dirty) = (head, true);
        self.end.entries += batch.count();
        Ok(())
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&mut self) -> Result<(), LedgerError> {
        if !self.dirty {
            return Ok(());
        }
        self.file.sync_data().map_err(|source| {
            self.torn = true;
            LedgerError::file("syncing", &*self.end.segment, source)
        })?;
        self.dirty = false;
        Ok(())
    }

    /// Seals what is new.
    pub(super) fn seal(&mut self) -> Result<(), LedgerError> {
        self.sync()?;
        let Some(seals) = &mut self.seals else { return Ok(()) };
        let mut heads = self.unsealed.clone();
        heads.extend(Some(&self.end).filter(|end| self.sealed.as_ref() != Some(*end)).cloned());
        seals.seal(&heads, Timestamp::now())?;
        self.unsealed.clear();
        self.sealed = Some(self.end.clone());
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn break_file(&mut self, file: File) {
        (self.file, self.torn) = (file, false);
    }
}

/// The segments whose end no later epoch has named.
fn tips(directory: &Path) -> Result<Vec<SegmentEnd>, LedgerError> {
    let mut headers = HashMap::new();
    let names = segment::list(directory)?;
    for name in &names {
        headers.extend(segment::first(directory, name)?.map(|header| (name.clone(), header)));
    }
    let mut named = HashSet::new();
    for header in headers.values() {
        let others = header.previous.iter().map(|head| &head.segment);
        let is_of_another = |segment| headers.get(segment).is_some_and(|other| other.epoch != header.epoch);
        named.extend(others.filter(|segment| is_of_another(*segment)));
    }
    let tips = names.iter().filter(|name| headers.contains_key(*name) && !named.contains(*name));
    tips.filter_map(|name| segment::end(directory, name, &Known::new()).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::{Word, list};
    use super::*;
    use crate::ledger::{Verification, samples, verify};

    struct Bench {
        data: tempfile::TempDir,
        key: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self { data: tempfile::tempdir().unwrap(), key: tempfile::tempdir().unwrap() }
        }

        fn key(&self) -> PathBuf {
            self.key.path().join("seal.key")
        }

        fn open(&self) -> Trail {
            Trail::open(self.data.path(), Some(&self.key())).unwrap()
        }

        fn verify(&self) -> Verification {
            verify(&directory(self.data.path()), Some(&self.key())).unwrap()
        }

        fn findings(&self) -> Vec<String> {
            self.verify().findings.iter().map(ToString::to_string).collect()
        }

        fn words(&self) -> Vec<String> {
            let entries = list(self.data.path(), Timestamp::UNIX_EPOCH, None).unwrap();
            entries.iter().map(|entry| entry.what.to_string()).collect()
        }

        fn segments(&self) -> Vec<PathBuf> {
            let names = segment::list(&directory(self.data.path())).unwrap();
            names.iter().map(|name| segment::directory(&directory(self.data.path())).join(&**name)).collect()
        }
    }

    fn entry(word: Word) -> Entry {
        Entry { secret: "bao:llm/openai#api_key".into(), ..Entry::new(Timestamp::now(), word) }
    }

    #[test]
    fn what_runs_wrote_verifies_and_is_listed_in_order() {
        let bench = Bench::new();
        for word in [Word::Fetched, Word::Rotated, Word::Revoked] {
            let mut trail = bench.open();
            trail.append(&[entry(word), entry(Word::Injected)]).unwrap();
            trail.seal().unwrap();
        }
        assert_eq!(bench.words(), ["fetched", "injected", "rotated", "injected", "revoked", "injected"]);
        let found = bench.verify();
        assert_eq!((found.findings, found.segments, found.entries), (Vec::new(), 3, 9));
        assert!(found.last_seal.is_some());
        let headers: Vec<_> = segment::list(&directory(bench.data.path()))
            .unwrap()
            .iter()
            .map(|name| segment::first(&directory(bench.data.path()), name).unwrap().unwrap())
            .collect();
        assert_eq!(headers.iter().map(|header| header.previous.len()).collect::<Vec<_>>(), [0, 1, 1]);
    }

    #[test]
    fn a_changed_a_cut_and_a_missing_entry_are_found() {
        let bench = Bench::new();
        let mut trail = bench.open();
        for word in [Word::Fetched, Word::Rotated, Word::Revoked] {
            trail.append(&[entry(word)]).unwrap();
        }
        trail.seal().unwrap();
        let path = bench.segments().remove(0);
        let whole = samples::segment(&path);
        let mut changed = whole.clone();
        changed.replace(1, b"llm/openai", b"llm/0penai");
        let (mut cut, mut missing) = (whole.clone(), whole.clone());
        cut.batches.truncate(3);
        missing.batches.remove(2);
        for changed in [changed, cut, missing] {
            changed.write(&path);
            assert!(!bench.findings().is_empty());
        }
        whole.write(&path);
        assert_eq!(bench.findings(), Vec::<String>::new());
        fs::remove_file(&path).unwrap();
        assert!(!bench.findings().is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_written_any_more_is_left_for_a_new_segment() {
        let bench = Bench::new();
        let mut trail = bench.open();
        trail.append(&[entry(Word::Fetched)]).unwrap();
        trail.break_file(File::open(&bench.segments()[0]).unwrap());
        assert!(trail.append(&[entry(Word::Rotated)]).is_err());
        trail.append(&[entry(Word::Revoked)]).unwrap();
        trail.seal().unwrap();
        drop(trail);
        bench.open().append(&[entry(Word::Fetched)]).unwrap();
        assert_eq!(bench.words(), ["fetched", "revoked", "fetched"]);
        assert_eq!(bench.findings(), Vec::<String>::new());
        assert_eq!(bench.segments().len(), 3);
    }
}
