//! The ledger's files, read behind the gateway's back, and its journal as `tollgate ledger cat` prints it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::gateway::Gateway;

/// Every record in the journal, in the order of their ids. Entries that begin a segment or hold are left out.
pub fn records(gateway: &Gateway) -> Vec<Value> {
    let output = gateway.tollgate(&["ledger", "cat"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let mut records: Vec<_> =
        entries.filter_map(|mut entry| entry.get_mut("record").map(Value::take)).collect();
    records.sort_by_key(|record| record["id"].as_str().map(str::to_owned));
    records
}

/// One member of every record, as text.
pub fn column(gateway: &Gateway, name: &str) -> Vec<String> {
    let text = |record: &Value| match &record[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    records(gateway).iter().map(text).collect()
}

/// The journal's segments, oldest first.
pub fn segments(gateway: &Gateway) -> Vec<PathBuf> {
    let entries = fs::read_dir(gateway.home().join("data/journal")).expect("the journal");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
    paths.sort();
    paths
}

const MAGIC: usize = 8;
const FRAME: usize = 16;
const ENTRY: usize = 9;
const HEAD: usize = 32;

/// A segment's bytes, as who knows the format takes it apart.
#[derive(Clone)]
pub struct Segment {
    magic: Vec<u8>,
    /// Each with its frame and the hash behind its entries.
    pub batches: Vec<Vec<u8>>,
}

impl Segment {
    /// Of a gateway that has stopped in order.
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("a segment");
        let (magic, mut rest) = bytes.split_at(MAGIC);
        let mut batches = Vec::new();
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(FRAME + number(&rest[4..]) + HEAD);
            batches.push(batch.to_vec());
            rest = behind;
        }
        Self { magic: magic.to_vec(), batches }
    }

    /// Puts it where it was, or elsewhere.
    pub fn write(&self, path: &Path) {
        fs::write(path, [&self.magic[..], &self.batches.concat()].concat()).expect("writes");
    }

    /// Keeps so many entries; they end with a batch.
    pub fn truncate(&mut self, mut entries: usize) {
        let count = |batch: &Vec<u8>| number(&batch[8..]);
        let whole = self.batches.iter().take_while(|batch| {
            let left = entries.checked_sub(count(batch));
            entries = left.unwrap_or(0);
            left.is_some()
        });
        let whole = whole.count();
        self.batches.truncate(whole);
    }

    /// Replaces a text by one of the same length, in the first batch that has it, with checksums that fit if `fits`. Whether there is one.
    pub fn replace(&mut self, old: &str, new: &str, fits: bool) -> bool {
        assert_eq!(old.len(), new.len());
        let place = |batch: &Vec<u8>| memchr::memmem::find(batch, old.as_bytes());
        let Some((batch, at)) = self.batches.iter_mut().find_map(|batch| place(batch).map(|at| (batch, at)))
        else {
            return false;
        };
        batch[at..at + new.len()].copy_from_slice(new.as_bytes());
        let (mut start, end) = (FRAME, batch.len() - HEAD);
        while fits && start < end {
            let length = ENTRY + number(&batch[start + 1..]);
            let entry = &mut batch[start..start + length];
            let checksum = crc32([&entry[..5], &entry[ENTRY..]].concat());
            entry[5..ENTRY].copy_from_slice(&checksum.to_le_bytes());
            start += length;
        }
        true
    }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize
}

/// Bit by bit, so that it is not the gateway's own.
fn crc32(bytes: Vec<u8>) -> u32 {
    let mut rest = !0_u32;
    for byte in bytes {
        rest ^= u32::from(byte);
        for _ in 0..8 {
            rest = (rest >> 1) ^ if rest & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !rest
}
