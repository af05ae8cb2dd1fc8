//! Reading batches back, and what to make of bytes that are none.
//!
//! **Invariant:** what does not hold hides nothing behind it. Bytes that are no batch are passed over where one that holds follows; where
//! none does they are a torn tail: what a crash left of the last batch, or what is being written now.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tollgate_policy::map::Map;

use super::{ENTRY, EntryKind, FRAME, HEAD, MAGIC, MARKER, entry_checksum, frame_checksum, length_of};
use crate::ledger::LedgerError;
use crate::ledger::chain::ChainHead;
use crate::ledger::varint;

/// Bytes that are looked through at first for the next batch, and from which on a batch is not read before its ends fit together.
const SEARCHED_FIRST: u64 = 64 << 10;
/// Lists that a reader remembers.
const REMEMBERED: usize = 16_384;

/// The texts of a list.
pub(crate) type TextList = Arc<[Arc<str>]>;

/// The lists of a segment, read where an entry names one.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    file: Option<File>,
    known: RefCell<Map<u64, Option<TextList>>>,
}

impl Lists {
    fn of(file: &File) -> io::Result<Self> {
        Ok(Self { file: Some(file.try_clone()?), known: RefCell::default() })
    }

    /// The list that begins at this byte; `None` where none does.
    fn get(&self, place: u64) -> Option<TextList> {
        if let Some(known) = self.known.borrow().get(&place) {
            return known.clone();
        }
        let list = self.read(place);
        let mut known = self.known.borrow_mut();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(place, list.clone());
        list
    }

    fn read(&self, place: u64) -> Option<TextList> {
        let mut bytes = Vec::new();
        read_at(self.file.as_ref()?, place, &mut bytes).ok()?;
        let entry = entry(&bytes, place, self).ok().filter(|entry| entry.kind == Some(EntryKind::Texts))?;
        let (mut texts, mut rest) = (Vec::new(), entry.payload);
        while !rest.is_empty() {
            texts.push(varint::read_text(&mut rest)?.into());
        }
        Some(texts.into())
    }
}

/// A batch whose frame holds.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    frame: &'a [u8],
    entries: &'a [u8],
    lists: &'a Lists,
    /// Bytes before it that are none, which damaged what stood there.
    pub(crate) passed_over: u64,
    /// Where it begins in the file.
    pub(crate) start: u64,
    /// How many entries it has.
    pub(crate) count: u64,
    /// The head that it claims; [`Batch::follows`] says whether that is right.
    pub(crate) head: ChainHead,
}

impl<'a> Batch<'a> {
    /// Its entries. Of those that are damaged the place is given; what follows one whose length is wrong cannot be told apart.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<BatchEntry<'a>, Damaged>> + use<'a> {
        entries(self.entries, self.start + FRAME as u64, self.lists)
    }

    /// Whether it is chained to the batch with this head.
    pub(crate) fn follows(&self, previous: ChainHead) -> bool {
        previous.next(&self.frame[4..12], self.entries) == self.head
    }
}

/// An entry whose checksum holds.
#[derive(Debug)]
pub(crate) struct BatchEntry<'a> {
    /// `None` for a kind that a later version has.
    pub(crate) kind: Option<EntryKind>,
    pub(crate) payload: &'a [u8],
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(super) bytes: &'a [u8],
    /// How many lists it names, and where they begin.
    named: &'a [u8],
    lists: &'a Lists,
}

impl BatchEntry<'_> {
    /// Of its kind, where the kind is not known here.
    pub(crate) fn number(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    /// Where the lists begin that it names; 0 for an empty one.
    pub(crate) fn named(&self) -> impl Iterator<Item = u64> + use<'_> {
        let mut named = self.named;
        let count = varint::read(&mut named).unwrap_or_default();
        (0..count).map_while(move |_| varint::read(&mut named))
    }

    /// The list that it names in this place; empty where it names none. `None` if that cannot be read.
    pub(crate) fn list(&self, place: usize) -> Option<TextList> {
        match self.named().nth(place) {
            None | Some(0) => Some(TextList::default()),
            Some(place) => self.list_at(place),
        }
    }

    /// Where the first list should begin that it names and that cannot be read.
    pub(crate) fn unreadable_list(&self) -> Option<u64> {
        self.named().find(|place| *place != 0 && self.list_at(*place).is_none())
    }

    fn list_at(&self, place: u64) -> Option<TextList> {
        if place < self.offset { self.lists.get(place) } else { None }
    }
}

/// An entry that is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("the entry at byte {offset} is damaged")]
pub(crate) struct Damaged {
    /// Where it begins in the file.
    pub(crate) offset: u64,
}

/// The entry that `bytes` begin with, and how long it says it is.
fn entry<'a>(bytes: &'a [u8], offset: u64, lists: &'a Lists) -> Result<BatchEntry<'a>, Option<usize>> {
    let length = bytes.get(1..5).and_then(number).ok_or(None)?;
    let length = ENTRY.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
    let bytes = bytes.get(..length).ok_or(None)?;
    if number(&bytes[5..ENTRY]) != Some(entry_checksum(bytes)) {
        return Err(Some(length));
    }
    let mut payload = &bytes[ENTRY..];
    for _ in 0..varint::read(&mut payload).ok_or(Some(length))? {
        varint::read(&mut payload).ok_or(Some(length))?;
    }
    let named = &bytes[ENTRY..length - payload.len()];
    Ok(BatchEntry { kind: EntryKind::of(bytes[0]), payload, offset, bytes, named, lists })
}

/// The entries that stand in `bytes`, which begin at `offset` of the file.
pub(super) fn entries<'a>(
    mut bytes: &'a [u8],
    mut offset: u64,
    lists: &'a Lists,
) -> impl Iterator<Item = Result<BatchEntry<'a>, Damaged>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (found, length) = match entry(bytes, offset, lists) {
            Ok(entry) => {
                let length = entry.bytes.len();
                (Ok(entry), length)
            }
            Err(length) => {
                // The length can be what is damaged: it is believed where an entry follows, or the end.
                let goes_on =
                    |length: &usize| bytes.len() == *length || entry(&bytes[*length..], 0, lists).is_ok();
                (Err(Damaged { offset }), length.filter(goes_on).unwrap_or(bytes.len()))
            }
        };
        bytes = &bytes[length..];
        offset += length as u64;
        Some(found)
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// Whether a frame and the head behind its entries belong together.
fn holds(frame: &[u8], head: &[u8]) -> bool {
    <&[u8; HEAD]>::try_from(head)
        .is_ok_and(|head| number(&frame[12..FRAME]) == Some(frame_checksum(frame, head)))
}

/// Where the first batch in `bytes` begins that holds. `Err` if what begins as one may go on behind them.
fn first_in(bytes: &[u8], is_all: bool) -> Result<Option<usize>, Undecided> {
    for start in memchr::memmem::find_iter(bytes, &MARKER) {
        let batch = &bytes[start..];
        let frame = batch.get(..FRAME);
        let end = frame.and_then(length_of).map(|length| FRAME.saturating_add(length));
        let head = end.and_then(|end| batch.get(end..end.saturating_add(HEAD)));
        match frame.zip(head) {
            Some((frame, head)) if holds(frame, head) => return Ok(Some(start)),
            None if !is_all => return Err(Undecided),
            _ => {}
        }
    }
    Ok(None)
}

/// More bytes are needed.
struct Undecided;

/// Reads the batches of a segment that its file has now, from a byte offset on.
#[derive(Debug)]
pub(crate) struct Batches {
    input: BufReader<File>,
    lists: Lists,
    bytes: Vec<u8>,
    offset: u64,
    end: u64,
}

impl Batches {
    /// `offset` is where a batch begins, or 0. Fails on a segment of another version.
    pub(crate) fn open(segment: &Path, offset: u64) -> Result<Self, LedgerError> {
        let open = || {
            let mut file = File::open(segment)?;
            let end = file.metadata()?.len();
            let mut offset = offset;
            let mut magic = MAGIC;
            let is_begun = offset > 0;
            if end >= magic.len() as u64 {
                file.read_exact_at(&mut magic, 0)?;
                offset = offset.max(magic.len() as u64);
            }
            let [name @ .., version] = &magic;
            let [ours @ .., known] = &MAGIC;
            match (name == ours, version == known) {
                (true, true) => {}
                (true, false) => {
                    let what = format!("its format is version {version}, and only {known} is known here");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                // Found as damage.
                (false, _) if !is_begun => offset = 0,
                (false, _) => {}
            }
            file.seek(SeekFrom::Start(offset))?;
            let lists = Lists::of(&file)?;
            Ok(Self {
                input: BufReader::with_capacity(256 << 10, file),
                lists,
                bytes: Vec::new(),
                offset,
                end,
            })
        };
        open().map_err(|source| LedgerError::file("reading", segment, source))
    }

    /// The next batch that holds; `None` where none follows.
    pub(crate) fn next_batch(&mut self) -> io::Result<Option<Batch<'_>>> {
        let before = self.offset;
        if !self.read()? {
            let Some(start) = self.search()? else { return Ok(None) };
            self.offset = start;
            self.input.seek(SeekFrom::Start(start))?;
            if !self.read()? {
                return Ok(None);
            }
        }
        let start = self.offset;
        self.offset += self.bytes.len() as u64;
        let (frame, rest) = self.bytes.split_at(FRAME);
        let (entries, head) = rest.split_at(rest.len() - HEAD);
        Ok(Some(Batch {
            frame,
            entries,
            lists: &self.lists,
            passed_over: start - before,
            start,
            count: number(&frame[8..12]).unwrap_or_default().into(),
            head: ChainHead::from_bytes(head).unwrap_or(ChainHead::NONE),
        }))
    }

    /// Reads a batch; whether there is one here.
    fn read(&mut self) -> io::Result<bool> {
        let left = usize::try_from(self.rest()).unwrap_or(usize::MAX);
        if left < FRAME + HEAD {
            return Ok(false);
        }
        self.bytes.resize(FRAME, 0);
        self.input.read_exact(&mut self.bytes)?;
        let Some(length) = length_of(&self.bytes).filter(|length| *length <= left - FRAME - HEAD) else {
            return Ok(false);
        };
        if length as u64 > SEARCHED_FIRST {
            let mut head = [0; HEAD];
            self.input.get_ref().read_exact_at(&mut head, self.offset + (FRAME + length) as u64)?;
            if !holds(&self.bytes, &head) {
                return Ok(false);
            }
        }
        self.bytes.resize(FRAME + length + HEAD, 0);
        self.input.read_exact(&mut self.bytes[FRAME..])?;
        let (frame, rest) = self.bytes.split_at(FRAME);
        Ok(holds(frame, &rest[length..]))
    }

    /// Where the next batch begins that holds, behind bytes that are none. Looks at more and more of them, so that a gap costs as much as it
    /// is long, and the file is read once for all gaps.
    fn search(&mut self) -> io::Result<Option<u64>> {
        self.input.seek(SeekFrom::Start(self.offset))?;
        let (left, mut part, mut most) = (self.rest(), Vec::new(), SEARCHED_FIRST);
        loop {
            let more = most.min(left) - part.len() as u64;
            self.input.by_ref().take(more).read_to_end(&mut part)?;
            match first_in(&part, most >= left) {
                Ok(Some(start)) => return Ok(Some(self.offset + start as u64)),
                Ok(None) if most >= left => return Ok(None),
                Ok(None) | Err(Undecided) => most = most.saturating_mul(2),
            }
        }
    }

    /// Where the next batch begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes behind the last batch that was read.
    pub(crate) fn rest(&self) -> u64 {
        self.end.saturating_sub(self.offset)
    }

    /// The head of the batch that ends at `offset`, which it is taken to claim.
    pub(crate) fn head_before(&self, offset: u64) -> io::Result<Option<ChainHead>> {
        let Some(start) = offset.checked_sub(HEAD as u64) else { return Ok(None) };
        let mut head = [0; HEAD];
        self.input.get_ref().read_exact_at(&mut head, start)?;
        Ok(ChainHead::from_bytes(&head))
    }
}

/// Reads entries of a segment by their places.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: File,
    lists: Lists,
    bytes: Vec<u8>,
}

impl SegmentReader {
    pub(crate) fn open(segment: &Path) -> Result<Self, LedgerError> {
        let open = || {
            let file = File::open(segment)?;
            Ok(Self { lists: Lists::of(&file)?, file, bytes: Vec::new() })
        };
        open().map_err(|source| LedgerError::file("reading", segment, source))
    }

    /// The entry that begins at this byte; `None` if none does.
    pub(crate) fn entry_at(&mut self, offset: u64) -> io::Result<Option<BatchEntry<'_>>> {
        read_at(&self.file, offset, &mut self.bytes)?;
        Ok(entry(&self.bytes, offset, &self.lists).ok())
    }
}

/// Reads what can be the entry at this byte.
fn read_at(file: &File, offset: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    let left = file.metadata()?.len().saturating_sub(offset);
    bytes.clear();
    if left < ENTRY as u64 {
        return Ok(());
    }
    bytes.resize(ENTRY, 0);
    file.read_exact_at(bytes, offset)?;
    let length = u64::from(number(&bytes[1..5]).unwrap_or_default()) + ENTRY as u64;
    if length <= left {
        bytes.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        file.read_exact_at(bytes, offset)?;
    }
    Ok(())
}
