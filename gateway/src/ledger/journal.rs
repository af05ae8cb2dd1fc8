//! The truth about what was used: one append-only file per core, written before the answer's last byte leaves.
//!
//! Appending puts an entry into memory; waiting for it yields once, and then the first to resume writes everything that was appended
//! in the meantime as one batch, with a single `write`. A task of the control plane calls [`Journal::sync`].
//!
//! **Invariant:** a position that [`Journal::written`] returned `Ok` for is in the page cache of the kernel: a crash of the process
//! does not lose it. One that failed was not promised to anybody; a record among them is kept in memory (to 4 MiB) and written as soon as
//! the journal can be written again, a hold is forgotten.
//!
//! It knows no tasks and no time: it never sleeps, retries or opens a file on the data plane.

mod gate;
mod reserve;
mod rotation;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use jiff::Timestamp;

pub(crate) use gate::{Gate, Gated};
pub(crate) use reserve::Reserve;
use sink::Sink;

use super::LedgerError;
use super::batch::{EntryKind, NewBatch};
use super::chain::ChainHead;
use super::fields::Fields;
use super::line::Row;
use super::payload::{self, Appended};
use super::record::{HoldLine, Outcome, Record};
use super::rollup::Rollup;
use super::segment::{ProcessEpoch, SegmentEnd};
use super::sqlite::SegmentRange;

/// Records kept in memory while the journal cannot be written, in bytes.
const RETAINED: usize = 4 << 20;
/// How many failed ranges are remembered: a waiter asks within one turn of its loop, and there is at most one a second.
const FAILURES: usize = 64;

/// An entry's place in the order of appending, in one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// What a poll-style body keeps while it waits for its entry.
#[derive(Debug)]
pub struct Wait {
    at: Position,
    yielded: bool,
}

impl Wait {
    /// Waits for `at`.
    pub fn new(at: Position) -> Self {
        Self { at, yielded: false }
    }
}

/// The journal of one core. Appended to by the tasks of that core; the control plane only syncs it and asks where it is.
#[derive(Debug)]
pub struct Journal {
    who: String,
    epoch: ProcessEpoch,
    reserve: Arc<Reserve>,
    state: Mutex<JournalState>,
}

#[derive(Debug)]
struct JournalState {
    sink: Sink,
    /// Bytes of whole batches in the file.
    length: u64,
    /// What is in the file.
    written: SegmentEnd,
    /// What is not in the file yet.
    batch: NewBatch,
    /// The last position given out, and the last that is either in the file or failed.
    appended: u64,
    settled: u64,
    failed: VecDeque<RangeInclusive<u64>>,
    broken: Option<Broken>,
    /// The log knows that it is broken.
    complained: bool,
    /// Something was written since the last sync.
    dirty: bool,
    /// How much of the segment the disk keeps: bytes, and entries before them.
    durable: (u64, u64),
    /// The same of segments before, as long as they are not known to be on the disk.
    unsynced: Vec<(Arc<str>, (u64, u64))>,
    /// Segments left behind after a failure, not yet sealed.
    abandoned: Vec<SegmentEnd>,
    /// What the entries since `counted` add up to; absent since a write failed, until the next range begins.
    rollup: Option<Rollup>,
    /// When its segment was begun.
    begun: Timestamp,
    /// The byte that the next range for the store begins at.
    counted: u64,
    /// Stretches of segments left behind, not yet handed over.
    ranges: Vec<SegmentRange>,
}

/// Since a write failed.
#[derive(Debug)]
struct Broken {
    /// The file ends behind a whole batch and the disk was only full: it can go on.
    reuse: bool,
    /// Records that wait to be written.
    retained: NewBatch,
}

impl Journal {
    /// Begins a segment. `who` is the core's number.
    pub(crate) fn begin(
        epoch: &ProcessEpoch,
        who: &str,
        previous: &[SegmentEnd],
        reserve: Arc<Reserve>,
    ) -> Result<Self, LedgerError> {
        let (file, written, length) = epoch.create(who, Timestamp::now(), previous)?;
        let state = JournalState::new(Sink::File(Arc::new(file)), written, length);
        Ok(Self { who: who.to_owned(), epoch: epoch.clone(), reserve, state: Mutex::new(state) })
    }

    /// Whether new calls can be written down at all; what a call without any hold asks before it is sent.
    pub fn available(&self) -> Result<(), LedgerError> {
        if self.reserve.gone_since().is_some() {
            return Err(LedgerError::Full);
        }
        if self.state().broken.is_some() { Err(LedgerError::Unavailable) } else { Ok(()) }
    }

    /// Whether there is little space left for what is written.
    pub fn space_is_short(&self) -> bool {
        self.reserve.is_short()
    }

    /// Appends what a call reserves. Refused while the disk is full or the journal cannot be written.
    pub fn hold(&self, line: &HoldLine<'_>) -> Result<Position, LedgerError> {
        if self.reserve.gone_since().is_some() {
            return Err(LedgerError::Full);
        }
        let mut state = self.state();
        if state.broken.is_some() {
            return Err(LedgerError::Unavailable);
        }
        let (at, Appended { start, .. }) = state.append(EntryKind::Hold, &line.fields());
        let offset = state.length + start as u64;
        if let Some(rollup) = &mut state.rollup {
            rollup.hold(line.id, offset);
        }
        Ok(at)
    }

    /// Appends the record of a request. An error means that nobody may rely on it; it may be written later all the same.
    ///
    /// While the disk is full, refusals that came after it filled up are not written: the reserve is for calls under way.
    #[cfg(test)]
    pub(crate) fn record(&self, record: &Record) -> Result<Position, LedgerError> {
        self.record_seen(record, |_| {})
    }

    /// [`Journal::record`]; `seen` is shown what is written.
    pub(crate) fn record_seen(
        &self,
        record: &Record,
        seen: impl FnOnce(&Fields<'_>),
    ) -> Result<Position, LedgerError> {
        if let Some(since) = self.reserve.gone_since()
            && record.outcome == Outcome::Refused
            && record.id.millis() > since
        {
            return Err(LedgerError::Full);
        }
        let mut state = self.state();
        let fields = record.fields();
        if let Some(broken) = &mut state.broken {
            return Err(broken.retain(&fields));
        }
        let (at, Appended { named, .. }) = state.append(EntryKind::Record, &fields);
        if let Some(rollup) = &mut state.rollup {
            rollup.record_naming(&fields, named);
        }
        drop(state);
        seen(&fields);
        Ok(at)
    }

    /// Appends a record that was not made here. For the start, before the first range is handed over.
    pub(super) fn row(&self, row: &Row) -> Position {
        let mut state = self.state();
        state.rollup = None;
        state.append(EntryKind::Record, &row.fields()).0
    }

    /// Waits until the entry at `at` is in the file.
    pub async fn written(&self, at: Position) -> Result<(), LedgerError> {
        if let Some(done) = self.state().outcome(at) {
            return done;
        }
        tokio::task::yield_now().await;
        self.write_through(at)
    }

    /// [`Journal::written`] for poll-style bodies.
    pub fn poll_written(&self, wait: &mut Wait, context: &mut Context<'_>) -> Poll<Result<(), LedgerError>> {
        if let Some(done) = self.state().outcome(wait.at) {
            return Poll::Ready(done);
        }
        if !wait.yielded {
            wait.yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.write_through(wait.at))
    }

    /// Writes what is in memory unless the entry at `at` is in the file already.
    fn write_through(&self, at: Position) -> Result<(), LedgerError> {
        let mut state = self.state();
        if let Some(done) = state.outcome(at) {
            return done;
        }
        state.write(&self.reserve);
        state.outcome(at).unwrap_or(Err(LedgerError::Unavailable))
    }

    /// Writes what is in memory, for entries that nobody waits for.
    pub(crate) fn flush(&self) {
        self.state().write(&self.reserve);
    }

    /// Writes what is in memory, and hands over what was written since the last time: nothing that is not in a file, each entry once.
    pub(crate) fn ranges(&self) -> Vec<SegmentRange> {
        let mut state = self.state();
        state.write(&self.reserve);
        let mut ranges = std::mem::take(&mut state.ranges);
        if state.broken.is_none() && state.counted < state.length {
            ranges.push(state.range());
        }
        ranges
    }

    /// Writes what is in memory, waits for the disk, and gives the segments that changed with how far they are durable. Tries to
    /// reopen a journal that broke, on a new segment unless the disk was only full. Blocks: for the control plane, once a second.
    pub fn sync(&self) -> Result<Vec<SegmentEnd>, LedgerError> {
        self.reopen()?;
        self.sync_earlier();
        let (sink, durable, length, mut heads) = {
            let mut state = self.state();
            state.write(&self.reserve);
            if state.broken.is_some() {
                return Err(LedgerError::Unavailable);
            }
            let heads = std::mem::take(&mut state.abandoned);
            if !std::mem::take(&mut state.dirty) {
                return Ok(heads);
            }
            (state.sink.clone(), state.written.clone(), state.length, heads)
        };
        if let Err(error) = sink.sync() {
            let mut state = self.state();
            state.abandoned.append(&mut heads);
            if state.written.segment == durable.segment {
                state.fail(&error, false);
            }
            return Err(LedgerError::file("syncing", &*durable.segment, error));
        }
        let mut state = self.state();
        if state.written.segment == durable.segment {
            state.durable = (length, durable.entries);
        }
        drop(state);
        heads.push(durable);
        Ok(heads)
    }

    /// Whether the disk may not keep all of a segment before this one.
    pub(crate) fn has_unsynced(&self) -> bool {
        !self.state().unsynced.is_empty()
    }

    /// Segments of which the disk may not keep all, with how much it does: bytes, and entries before them.
    pub(crate) fn durable(&self) -> Vec<(Arc<str>, (u64, u64))> {
        let state = self.state();
        let own = (Arc::clone(&state.written.segment), state.durable);
        state.unsynced.iter().cloned().chain([own]).collect()
    }

    fn reopen(&self) -> Result<(), LedgerError> {
        let (reuse, previous) = match &*self.state() {
            JournalState { broken: None, .. } => return Ok(()),
            JournalState { broken: Some(broken), written, .. } => (broken.reuse, written.clone()),
        };
        // The file is made without the lock: a disk that hangs must not hang the core.
        let fresh = match reuse {
            true => None,
            false => Some(self.epoch.go_on(&self.who, Timestamp::now(), previous)?),
        };
        let mut state = self.state();
        if let Some((file, written, length)) = fresh {
            state.replace(Sink::File(Arc::new(file)), written, length);
        }
        state.resume(&self.reserve)
    }

    /// Where the file ends, for the next segment's first entry.
    pub(crate) fn end(&self) -> SegmentEnd {
        self.state().written.clone()
    }

    fn state(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}

impl JournalState {
    fn new(sink: Sink, written: SegmentEnd, length: u64) -> Self {
        Self {
            sink,
            length,
            written,
            batch: NewBatch::at(length),
            appended: 0,
            settled: 0,
            failed: VecDeque::new(),
            broken: None,
            complained: false,
            dirty: true,
            durable: (0, 0),
            unsynced: Vec::new(),
            abandoned: Vec::new(),
            rollup: Some(Rollup::default()),
            begun: Timestamp::now(),
            counted: 0,
            ranges: Vec::new(),
        }
    }

    /// All that is in the file and was not handed over. Nothing is in memory.
    fn range(&mut self) -> SegmentRange {
        let rollup = self.rollup.replace(Rollup::default()).map(Rollup::closed);
        let from = std::mem::replace(&mut self.counted, self.length);
        SegmentRange { end: self.written.clone(), from, until: self.length, rollup }
    }

    fn append(&mut self, kind: EntryKind, fields: &Fields<'_>) -> (Position, Appended) {
        let appended = payload::append(&mut self.batch, kind, fields);
        (self.appended(), appended)
    }

    fn appended(&mut self) -> Position {
        self.appended += 1;
        Position(self.appended)
    }

    /// `None` while the entry is only in memory.
    fn outcome(&self, at: Position) -> Option<Result<(), LedgerError>> {
        if self.failed.iter().any(|range| range.contains(&at.0)) {
            return Some(Err(LedgerError::Unavailable));
        }
        (at.0 <= self.settled).then_some(Ok(()))
    }

    fn write(&mut self, reserve: &Reserve) {
        if self.batch.is_empty() {
            return;
        }
        let head = self.batch.close(self.written.head);
        let mut wrote = self.sink.write_all(self.batch.bytes());
        if wrote.as_ref().is_err_and(is_full) && self.sink.truncate(self.length).is_ok() {
            reserve.release();
            wrote = self.sink.write_all(self.batch.bytes());
        }
        match wrote {
            Ok(()) => self.wrote(head),
            Err(error) => {
                let whole = self.sink.truncate(self.length).is_ok();
                self.fail(&error, whole && is_full(&error));
            }
        }
    }

    fn wrote(&mut self, head: ChainHead) {
        self.length += self.batch.bytes().len() as u64;
        self.written.entries += self.batch.count();
        self.written.head = head;
        self.settled = self.appended;
        self.dirty = true;
        self.batch.follow();
        self.batch.shrink_to(1 << 20);
    }

    /// From now on nothing is promised until [`JournalState::resume`].
    fn fail(&mut self, error: &io::Error, reuse: bool) {
        if self.settled < self.appended {
            self.failed.push_back(self.settled + 1..=self.appended);
            if self.failed.len() > FAILURES {
                self.failed.pop_front();
            }
            self.settled = self.appended;
        }
        let mut retained = NewBatch::default();
        retained.append_all_but(EntryKind::Hold, &self.batch);
        self.batch.restart(self.length);
        // It has entries that are not in the file: the store reads the file instead.
        self.rollup = None;
        match &mut self.broken {
            Some(broken) => broken.reuse &= reuse,
            None => self.broken = Some(Broken { reuse, retained }),
        }
        if !std::mem::replace(&mut self.complained, true) {
            let segment = &*self.written.segment;
            tracing::error!(segment, %error, "the journal cannot be written: new calls are refused");
        }
    }

    fn replace(&mut self, sink: Sink, written: SegmentEnd, length: u64) {
        let range = self.range();
        self.ranges.push(range);
        self.rollup = None;
        (self.counted, self.begun) = (0, Timestamp::now());
        self.sink = sink;
        self.leave_unsynced();
        self.length = length;
        self.batch.restart(length);
        self.abandoned.push(std::mem::replace(&mut self.written, written));
        self.dirty = true;
    }

    /// Notes how much the disk keeps of the segment that another one follows now.
    fn leave_unsynced(&mut self) {
        let durable = std::mem::take(&mut self.durable);
        self.unsynced.push((Arc::clone(&self.written.segment), durable));
    }

    /// Writes what was retained and opens the journal again.
    fn resume(&mut self, reserve: &Reserve) -> Result<(), LedgerError> {
        let Some(broken) = self.broken.take() else { return Ok(()) };
        self.appended += broken.retained.count();
        self.batch.append_all_but(EntryKind::Hold, &broken.retained);
        self.write(reserve);
        if self.broken.is_some() {
            return Err(LedgerError::Unavailable);
        }
        if std::mem::take(&mut self.complained) {
            tracing::info!(segment = &*self.written.segment, "the journal is written again");
        }
        Ok(())
    }
}

impl Broken {
    fn retain(&mut self, record: &Fields<'_>) -> LedgerError {
        if self.retained.len() < RETAINED {
            payload::append(&mut self.retained, EntryKind::Record, record);
        }
        LedgerError::Unavailable
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
