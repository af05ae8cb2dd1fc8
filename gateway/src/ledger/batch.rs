//! How entries stand in a segment's file: in batches, each of which is written with one `write` and chained as a whole.
//!
//! A segment begins with [`MAGIC`]. Behind it stand batches: `marker[4] length[4] count[4] checksum[4] entries[length] head[32]`, where
//! `head` is the chain's hash behind the batch and the checksum is over all of these but the entries. An entry is
//! `kind[1] length[4] checksum[4] body[length]`, its checksum over kind, length and body; a body is how many lists of texts it names, where in
//! the file the entry of each begins (0 for an empty one), as LEB128, and the payload. Numbers are little-endian, checksums CRC-32: they tell
//! what a crash or a disk did, the chain tells what somebody did.
//!
//! **Invariant:** what a payload says is nobody's business here, but for lists: what they share, many entries name and none repeats. An entry
//! names lists of its own segment that stand before it, less than [`NAMED_FOR`] back: one that is damaged takes no more with it.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod read;
#[cfg(test)]
pub(crate) mod tamper;
#[cfg(test)]
mod tests;

use std::mem;

use tollgate_policy::map::Map;

pub(crate) use read::{Batch, BatchEntry, Batches, Damaged, SegmentReader, TextList};

use super::chain::ChainHead;
use super::varint;

/// How a segment begins; the last byte is the version of the format.
pub(crate) const MAGIC: [u8; 8] = *b"TOLLJNL\x03";
/// How a batch begins: no text in UTF-8 has it.
const MARKER: [u8; 4] = *b"\xf5TGB";
/// Bytes of a batch before its entries, and behind them.
const FRAME: usize = 16;
const HEAD: usize = 32;
/// Bytes of an entry before its body.
const ENTRY: usize = 9;
/// A list is written again that was written this many bytes ago.
const NAMED_FOR: u64 = 64 << 10;
/// Roles that lists have: four of a hold, and four of a record.
pub(crate) const ROLES: usize = 8;
/// Lists that a writer remembers, so that callers who invent models cost memory only for a while.
const REMEMBERED: usize = 4_096;

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
    /// A list of texts that entries behind it name.
    Texts = 5,
}

impl EntryKind {
    const ALL: [Self; 5] = [Self::Segment, Self::Hold, Self::Record, Self::Audit, Self::Texts];

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
            Self::Texts => "texts",
        }
    }
}

/// A batch that is put together in memory, and what its segment has to name.
#[derive(Debug, Default)]
pub(crate) struct NewBatch {
    /// Room for the frame, and the entries; nothing while there is no entry.
    bytes: Vec<u8>,
    count: u32,
    closed: bool,
    /// Where it begins in the file.
    start: u64,
    /// The lists that can be named, with where they begin in the file; and where the first of them can be.
    lists: Map<Box<[u8]>, u64>,
    lists_from: u64,
    /// The list that is looked for.
    list: Vec<u8>,
    /// In each role the list that was named last, and where it begins: most entries name it again.
    latest: [(Vec<u8>, u64); ROLES],
}

impl NewBatch {
    /// The first batch of those that a segment gets from byte `start` on.
    pub(crate) fn at(start: u64) -> Self {
        Self { start, lists_from: start, ..Self::default() }
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

    /// Where the list begins that `write` makes, as text after text, each behind its length; appends it where none can be named. 0: it is empty.
    /// `role`: which of the [`ROLES`] it has.
    #[inline]
    pub(crate) fn list(&mut self, role: usize, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let mut list = mem::take(&mut self.list);
        list.clear();
        write(&mut list);
        let place = match self.latest.get(role) {
            _ if list.is_empty() => 0,
            Some((latest, place)) if *latest == list => *place,
            _ => self.looked_up(role, &list),
        };
        self.list = list;
        place
    }

    fn looked_up(&mut self, role: usize, list: &[u8]) -> u64 {
        let place = self.named(list);
        if let Some((latest, at)) = self.latest.get_mut(role) {
            latest.clear();
            latest.extend_from_slice(list);
            *at = place;
        }
        place
    }

    fn named(&mut self, list: &[u8]) -> u64 {
        if let Some(place) = self.lists.get(list) {
            return *place;
        }
        let place = self.start + self.append(EntryKind::Texts, &[], |out| out.extend_from_slice(list)) as u64;
        self.lists.insert(list.into(), place);
        place
    }

    /// Appends an entry that names these lists and whose payload is what `write` adds. Gives where it begins in the batch.
    #[inline]
    pub(crate) fn append(
        &mut self,
        kind: EntryKind,
        lists: &[u64],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let start = self.begin();
        self.bytes.extend_from_slice(&[0; ENTRY]);
        varint::write(lists.len() as u64, &mut self.bytes);
        lists.iter().for_each(|place| varint::write(*place, &mut self.bytes));
        write(&mut self.bytes);
        let entry = &mut self.bytes[start..];
        let length = whole(entry.len() - ENTRY);
        entry[0] = kind as u8;
        entry[1..5].copy_from_slice(&length.to_le_bytes());
        let checksum = entry_checksum(entry);
        entry[5..ENTRY].copy_from_slice(&checksum.to_le_bytes());
        start
    }

    /// Appends the entries of `other` that are of any kind but this one, with lists of this batch's own.
    pub(crate) fn append_all_but(&mut self, kind: EntryKind, other: &Self) {
        let lists: Map<u64, &[u8]> = other.lists.iter().map(|(list, place)| (*place, &**list)).collect();
        let end = other.bytes.len().saturating_sub(if other.closed { HEAD } else { 0 });
        let none = read::Lists::default();
        for entry in read::entries(other.bytes.get(FRAME..end).unwrap_or_default(), 0, &none).flatten() {
            let Some(own) = entry.kind.filter(|own| *own != kind && *own != EntryKind::Texts) else {
                continue;
            };
            let places: Vec<u64> =
                entry.named().map(|place| lists.get(&place).map_or(0, |list| self.named(list))).collect();
            self.append(own, &places, |out| out.extend_from_slice(entry.payload));
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

    /// Finishes the batch, which follows `previous`, and gives the head behind it. Once, and then nothing is appended until another is begun.
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

    /// Begins the batch that follows it in the file.
    pub(crate) fn follow(&mut self) {
        self.start += self.bytes.len() as u64;
        self.clear();
        if self.start - self.lists_from >= NAMED_FOR || self.lists.len() >= REMEMBERED {
            self.forget_lists();
        }
    }

    /// Begins a batch at byte `start` of a file, which has no list that can be named.
    pub(crate) fn restart(&mut self, start: u64) {
        self.start = start;
        self.clear();
        self.forget_lists();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.closed) = (0, false);
    }

    fn forget_lists(&mut self) {
        self.lists.clear();
        self.latest.iter_mut().for_each(|(list, _)| list.clear());
        self.lists_from = self.start;
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
