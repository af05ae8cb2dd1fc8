//! What somebody does to a segment who knows its format, for tests.

use std::fs;
use std::path::Path;

use super::read::{Lists, entries};
use super::{BatchEntry, Batches, ENTRY, EntryKind, FRAME, HEAD, MAGIC, NewBatch, entry_checksum, length_of};
use crate::ledger::chain::ChainHead;
use crate::ledger::entry::write_json;
use crate::ledger::json::{Calendar, Json};

/// The batches of a segment, each as it stands in the file.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) batches: Vec<Vec<u8>>,
}

/// Takes apart a segment whose frames hold.
pub(crate) fn segment(path: &Path) -> Segment {
    parse(&fs::read(path).unwrap())
}

/// [`segment`], of its bytes.
pub(crate) fn parse(bytes: &[u8]) -> Segment {
    let mut rest = bytes.strip_prefix(&MAGIC).unwrap();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(FRAME + length_of(rest).unwrap() + HEAD);
        batches.push(batch.to_vec());
        rest = behind;
    }
    Segment { batches }
}

impl NewBatch {
    /// Makes it say that it has one entry more than it has.
    pub(crate) fn miscount(&mut self) {
        self.count += 1;
    }
}

impl Segment {
    /// The head behind its last batch.
    pub(crate) fn head(&self) -> ChainHead {
        ChainHead::from_bytes(self.batches.last().and_then(|batch| batch.get(batch.len() - HEAD..)).unwrap())
            .unwrap()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&MAGIC[..], &self.batches.concat()].concat()
    }

    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }

    /// The byte behind each batch.
    pub(crate) fn ends(&self) -> Vec<usize> {
        let lengths = self.batches.iter().map(Vec::len);
        lengths
            .scan(MAGIC.len(), |end, length| {
                *end += length;
                Some(*end)
            })
            .collect()
    }

    /// All entries but texts, as JSON; the chain holds.
    pub(crate) fn entries(&self) -> Vec<(EntryKind, String)> {
        let mut head = ChainHead::NONE;
        for batch in &self.batches {
            head = head.next(&batch[4..12], &batch[FRAME..batch.len() - HEAD]);
            assert_eq!(batch[batch.len() - HEAD..], *head.as_bytes(), "the chain holds");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        self.write(&path);
        let (mut batches, mut all) = (Batches::open(&path, 0).unwrap(), Vec::new());
        while let Some(batch) = batches.next_batch().unwrap() {
            let entries = batch.entries().map(Result::unwrap);
            let entries = entries.filter(|entry| entry.kind != Some(EntryKind::Texts));
            all.extend(entries.map(|entry| (entry.kind.unwrap(), text(&entry))));
        }
        all
    }

    /// Puts some bytes in the place of others, as many, wherever they stand in a batch. Checksums of entries fit again, the chain does not.
    pub(crate) fn replace(&mut self, batch: usize, old: &[u8], new: &[u8]) {
        assert_eq!(old.len(), new.len());
        let batch = &mut self.batches[batch];
        let places: Vec<_> = memchr::memmem::find_iter(batch, old).collect();
        assert!(!places.is_empty());
        for place in places {
            batch[place..place + new.len()].copy_from_slice(new);
        }
        let (mut start, end) = (FRAME, batch.len() - HEAD);
        while start < end {
            let length = u32::from_le_bytes(batch[start + 1..start + 5].try_into().unwrap());
            let entry = &mut batch[start..start + ENTRY + usize::try_from(length).unwrap()];
            let checksum = entry_checksum(entry);
            entry[5..ENTRY].copy_from_slice(&checksum.to_le_bytes());
            start += entry.len();
        }
    }

    /// Makes all frames and hashes fit again.
    pub(crate) fn rechain(&mut self) {
        let mut head = ChainHead::NONE;
        for batch in &mut self.batches {
            let mut again = NewBatch::default();
            let none = Lists::default();
            for entry in entries(&batch[FRAME..batch.len() - HEAD], 0, &none).map(Result::unwrap) {
                let named: Vec<u64> = entry.named().collect();
                again.append(entry.kind.unwrap(), &named, |out| out.extend_from_slice(entry.payload));
            }
            head = again.close(head);
            *batch = again.bytes().to_vec();
        }
    }
}

/// An entry as JSON; its payload where that is text.
pub(crate) fn text(entry: &BatchEntry<'_>) -> String {
    let (mut out, mut calendar) = (Vec::new(), Calendar::default());
    if write_json(entry, &mut Json::new(&mut out, &mut calendar)).is_err() {
        out = entry.payload.to_vec();
    }
    String::from_utf8(out).unwrap()
}
