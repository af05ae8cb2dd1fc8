//! Segments of a journal that a disk, a crash or somebody had their way with.

use std::io::Write;
use std::path::Path;

use super::{Batches, ENTRY, EntryKind, MAGIC, NewBatch, SegmentReader};
use crate::fuzz::input::FuzzInput;
use crate::ledger::chain::ChainHead;

/// An entry: its kind's number, and its payload.
type WrittenEntry = (u8, Vec<u8>);

/// Where the first bit of how is set, the bytes are a segment. Else they are payloads, a line each, of a segment in which the bytes at
/// the places that the lengths say are damaged: what is read of it was written, and what is not damaged is read.
pub fn journal(data: &[u8]) {
    let Some(input) = FuzzInput::of(data) else { return };
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    let mut write = |bytes: &[u8]| file.write_all(bytes).is_ok();
    if input.how % 2 == 1 {
        if write(&MAGIC[..usize::from(input.how >> 1) % (MAGIC.len() + 1)]) && write(input.bytes) {
            read(file.path());
        }
        return;
    }
    let (written, mut segment) = segment(input.bytes);
    let sound = segment.len();
    // A code of 32 bits finds every error of at most so many in a row, and of a few bits anywhere.
    if let Some((place, bits)) = input.lengths.split_first() {
        let at = segment.len() * usize::from(*place) / 256;
        if let Some(byte) = segment.get_mut(at) {
            *byte ^= bits.first().copied().unwrap_or(1);
        }
    }
    if let Some(cut) = input.lengths.get(2) {
        segment.truncate(sound * usize::from(*cut) / 255);
    }
    if !write(&segment) {
        return;
    }
    let found = read(file.path());
    let mut rest = written.iter();
    assert!(found.iter().all(|entry| rest.any(|other| other == entry)), "what is read was written, in order");
    if input.lengths.is_empty() {
        assert_eq!(found, written);
    }
}

/// Entries in batches of up to three, and the segment that has them.
fn segment(payloads: &[u8]) -> (Vec<WrittenEntry>, Vec<u8>) {
    let (mut entries, mut bytes) = (Vec::new(), MAGIC.to_vec());
    let (mut batch, mut head) = (NewBatch::at(MAGIC.len() as u64), ChainHead::NONE);
    let payloads: Vec<&[u8]> = payloads.split(|byte| *byte == b'\n').collect();
    for three in payloads.chunks(3) {
        for payload in three {
            let kind = EntryKind::ALL[payload.len() % EntryKind::ALL.len()];
            batch.append(kind, &[], |out| out.extend_from_slice(payload));
            entries.push((kind as u8, payload.to_vec()));
        }
        head = batch.close(head);
        bytes.extend_from_slice(batch.bytes());
        batch.follow();
    }
    (entries, bytes)
}

/// The entries that hold. Each has the checksum that stands before it, and lies in its own place of the file.
fn read(path: &Path) -> Vec<WrittenEntry> {
    let (Ok(mut batches), Ok(mut reader)) = (Batches::open(path, 0), SegmentReader::open(path)) else {
        return Vec::new();
    };
    let (mut found, mut end) = (Vec::new(), 0);
    loop {
        let next = batches.next_batch();
        assert!(next.is_ok(), "a file is read to its end");
        let Ok(Some(batch)) = next else { break };
        assert!(batch.start >= end + batch.passed_over, "batches follow one another");
        end = batch.start;
        for entry in batch.entries() {
            match entry {
                Ok(entry) => {
                    assert!(entry.offset >= end, "entries follow one another");
                    end = entry.offset + entry.bytes.len() as u64;
                    let (head, body) = entry.bytes.split_at(ENTRY);
                    let (said, checksum) = head.split_at(5);
                    assert_eq!(checksum, crc32fast::hash(&[said, body].concat()).to_le_bytes());
                    let again = reader.entry_at(entry.offset).ok().flatten();
                    assert!(again.is_some_and(|again| again.bytes == entry.bytes));
                    assert!(entry.unreadable_list().is_none_or(|place| place != 0));
                    found.push((entry.number(), entry.payload.to_vec()));
                }
                Err(damaged) => assert!(damaged.offset > batch.start),
            }
        }
        let _ = batch.follows(ChainHead::NONE);
    }
    found
}
