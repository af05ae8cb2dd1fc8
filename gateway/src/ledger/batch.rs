//! How entries stand in a segment's file: in batches, each of which is written with one `write` and chained as a whole.
//!
//! A segment begins with [`MAGIC`]. Behind it stand batches: `marker[4] length[4] count[4] checksum[4] entries[length] head[32]`, where
//! `head` is the chain's hash behind the batch and the checksum is over all of these but the entries. An entry is
//! `kind[1] length[4] checksum[4] payload[length]`, its checksum over kind, length and payload. Numbers are little-endian, checksums
//! CRC-32: they tell what a crash or a disk did, the chain tells what somebody did.
//!
//! **Invariant:** what a payload says is nobody's business here.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod read;
#[cfg(test)]
pub(crate) mod tamper;
#[cfg(test)]
mod tests;

pub(crate) use read::{Batch, BatchEntry, Batches, Damaged, entry_at};

use super::chain::ChainHead;

/// How a segment begins; the last byte is the version of the format.
pub(crate) const MAGIC: [u8; 8] = *b"TOLLJNL\x02";
/// How a batch begins: no text in UTF-8 has it.
const MARKER: [u8; 4] = *b"\xf5TGB";
/// Bytes of a batch before its entries, and behind them.
const FRAME: usize = 16;
const HEAD: usize = 32;
/// Bytes of an entry before its payload.
const ENTRY: usize = 9;

/// What an entry says. The numbers stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EntryKind {
    /// What came before this segment, and who writes it: the first entry.
    Segment = 1,
    /// What a call reserves.
    Hold = 2,
    /// What a request used, or what a correction changes of it.
    Record = 3,
    /// What happened to a secret.
    Audit = 4,
}

impl EntryKind {
    const ALL: [Self; 4] = [Self::Segment, Self::Hold, Self::Record, Self::Audit];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The member that entries of this kind stand under in JSON.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Hold => "hold",
            Self::Record => "record",
            Self::Audit => "audit",
        }
    }
}

/// A batch that is put together in memory.
#[derive(Debug, Default)]
pub(crate) struct NewBatch {
    /// Room for the frame, and the entries; nothing while there is no entry.
    bytes: Vec<u8>,
    count: u32,
    closed: bool,
}

impl NewBatch {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entries so far.
    pub(crate) const fn count(&self) -> u64 {
        self.count as u64
    }

    /// Bytes so far.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends an entry whose payload is what `write` adds. Gives where it begins in the batch.
    #[inline]
    pub(crate) fn append(&mut self, kind: EntryKind, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.begin();
        self.bytes.extend_from_slice(&[0; ENTRY]);
        write(&mut self.bytes);
        let entry = &mut self.bytes[start..];
        let length = whole(entry.len() - ENTRY);
        entry[0] = kind as u8;
        entry[1..5].copy_from_slice(&length.to_le_bytes());
        let checksum = entry_checksum(entry);
        entry[5..ENTRY].copy_from_slice(&checksum.to_le_bytes());
        start
    }

    /// Appends the entries of `other` that are of any kind but this one.
    pub(crate) fn append_all_but(&mut self, kind: EntryKind, other: &Self) {
        let end = other.bytes.len().saturating_sub(if other.closed { HEAD } else { 0 });
        for entry in read::entries(other.bytes.get(FRAME..end).unwrap_or_default(), 0).flatten() {
            if entry.kind != Some(kind) {
                self.begin();
                self.bytes.extend_from_slice(entry.bytes);
            }
        }
    }

    fn begin(&mut self) -> usize {
        debug_assert!(!self.closed);
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; FRAME]);
        }
        self.count += 1;
        self.bytes.len()
    }

    /// Finishes the batch, which follows `previous`, and gives the head behind it. Once, and until it is cleared nothing is appended.
    pub(crate) fn close(&mut self, previous: ChainHead) -> ChainHead {
        debug_assert!(!self.is_empty() && !self.closed);
        let length = whole(self.bytes.len() - FRAME);
        self.bytes[..4].copy_from_slice(&MARKER);
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        let head = previous.next(&self.bytes[4..12], &self.bytes[FRAME..]);
        let checksum = frame_checksum(&self.bytes, head.as_bytes());
        self.bytes[12..FRAME].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.extend_from_slice(head.as_bytes());
        self.closed = true;
        head
    }

    /// The closed batch, as it stands in the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.closed) = (0, false);
    }

    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.bytes.shrink_to(bytes);
    }
}

/// How long the entries of a batch are that begins with these bytes.
fn length_of(batch: &[u8]) -> Option<usize> {
    let length = batch.strip_prefix(&MARKER)?.get(..4)?;
    usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()
}

fn whole(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn entry_checksum(entry: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&entry[..5]);
    checksum.update(&entry[ENTRY..]);
    checksum.finalize()
}

fn frame_checksum(frame: &[u8], head: &[u8; HEAD]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&frame[..12]);
    checksum.update(head);
    checksum.finalize()
}
