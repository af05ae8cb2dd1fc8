//! What was used and what it cost, written down so that nothing answered is lost and nothing written can be changed unseen.
//!
//! A request's hold and record go to the [`Journal`] of its core, which is the truth. The control plane makes it durable, reads it into
//! the SQLite store that reports and opening balances come from, and seals how far it goes.
//!
//! **Invariant:** the data plane touches journals only. A store that is locked, full or gone delays reports; it refuses no call and
//! loses nothing.
//!
//! What of the journal may go again, and when, is `retention`'s.

pub(crate) mod amount;
mod batch;
mod bounded;
mod calls;
mod cat;
mod chain;
mod charged;
mod correction;
pub(crate) mod dimension;
mod entry;
mod error;
mod fields;
mod free_texts;
pub(crate) mod grouping;
mod journal;
pub(crate) mod json;
pub(crate) mod line;
mod list;
mod offline;
mod outcome;
mod payload;
mod postgres;
pub mod record;
mod record_id;
mod recover;
mod replay;
mod replica;
mod report_store;
mod retention;
pub(crate) mod rollup;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod seal;
pub(crate) mod segment;
pub(crate) mod sqlite;
#[cfg(test)]
mod tests;
pub(crate) mod timed_sums;
mod varint;
mod verify;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

#[cfg(any(test, fuzzing))]
pub use batch::fuzz::journal as fuzz_journal;
pub(crate) use batch::{Batches, EntryKind, NewBatch};
pub use calls::{Call, CallLookup, Object, Wanted, find};
pub use cat::{Printed, Unprinted};
pub(crate) use charged::{ChargedKey, ChargedSum, ChargedSums, ChargedWindow, charged};
pub use correction::{Correction, Signature, settle};
pub use dimension::Dimension;
pub use error::LedgerError;
pub(crate) use error::chain;
pub(crate) use fields::Fields;
pub(crate) use journal::{Gate, Gated};
pub use journal::{Journal, Position, Wait};
pub use list::list;
pub(crate) use offline::recorded_balances;
pub use offline::{catch_up, written};
pub(crate) use postgres::{ChargeReader, ChargedReplica};
pub use postgres::{
    PostgresIngest, PostgresProgress, PostgresServer, PostgresSettings, ReplicaState, SharedReader, forget,
    verify_shared,
};
pub use record::{Attempt, Bounded, Charge, HoldLine, Outcome, Record, RecordId, UsageSource};
pub use recover::Recovered;
pub use replay::replay;
pub(crate) use replica::{id_or_new as replica_id, name as replica_name};
pub use report_store::ReportStore;
pub use retention::Keep;
pub use segment::SegmentEnd;
pub use verify::{Verification, verify};

use journal::Reserve;
use seal::{SealKey, Seals};
use segment::ProcessEpoch;
use sqlite::{SegmentRange, Store, Until};

/// Charges older than this are in no window: a month with a day to spare.
const LONGEST_WINDOW: SignedDuration = SignedDuration::from_hours(32 * 24);
/// The first pause after the store failed, doubled with every failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between attempts at a store that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What windows were charged, each with the moment in which the hold was taken.
pub type Balances = Vec<(Timestamp, Charge)>;

/// The ledger of one data directory, which the caller has locked.
#[derive(Debug)]
pub struct Ledger {
    data_dir: PathBuf,
    epoch: ProcessEpoch,
    journals: Vec<Arc<Journal>>,
    reserve: Arc<Reserve>,
    recovered: Recovered,
    control: Mutex<Control>,
    /// The store takes in what the journals have.
    storing: AtomicBool,
    /// The seals can be written.
    sealing: AtomicBool,
    /// How it does on its way into the database of several replicas, where there is one.
    shared: OnceLock<Arc<PostgresProgress>>,
}

/// What only the control plane touches.
#[derive(Debug)]
struct Control {
    store: Store,
    /// What the store has to take in next, in order.
    queue: VecDeque<SegmentRange>,
    /// The segments whose writer is known, and whether it is another process that may be writing them now.
    segments: BTreeMap<Arc<str>, bool>,
    seals: Option<Seals>,
    /// How far each segment is durable that was not sealed so far.
    unsealed: BTreeMap<Arc<str>, SegmentEnd>,
    /// Segments of other processes that a seal names, or the next one will.
    foreign: Vec<SegmentEnd>,
    /// When a store that failed is tried again, and the pause after that.
    retry: Option<(Instant, Duration)>,
}

impl Ledger {
    /// Takes over where the last process ended: reads its journals to the end, gives every call that it left open a record, and begins
    /// a journal for each of `cores`. Also gives the opening balances of the limits. To be called before anything listens; blocks on the disk.
    ///
    /// `seal_key` is made if there are neither it nor seals; without one there are no seals. Fails if the directory, the store or the key cannot be
    /// used: without the ledger the budgets are not known.
    pub fn open(
        data_dir: &Path,
        seal_key: Option<&Path>,
        cores: usize,
    ) -> Result<(Arc<Self>, Balances), LedgerError> {
        let now = Timestamp::now();
        let epoch = ProcessEpoch::begin(data_dir, now)?;
        let seals = match seal_key {
            Some(path) => Some(Seals::open(SealKey::read_or_create(path, data_dir)?, data_dir)?),
            None => None,
        };
        let mut store = Store::open(data_dir)?;
        let ingested = recover::read_all(data_dir, &mut store)?;
        store.forget_missing(&segment::list(data_dir)?)?;
        let tips = segment::tips(data_dir, &store.known())?;
        segment::sync(data_dir, &tips)?;
        let reserve = Arc::new(Reserve::new(data_dir));
        reserve.restore();
        let journals = begin(&epoch, cores, &tips, &reserve)?;
        let mut presumed = 0;
        if let Some(journal) = journals.first() {
            presumed = recover::presume(data_dir, &mut store, journal)?;
        }
        let balances = store.balances(now.saturating_sub(LONGEST_WINDOW).unwrap_or(Timestamp::MIN))?;
        store.impatient()?;
        // A correction may be under way.
        let whole = |name: &str, entries: u64| entries > 1 || !segment::is_of(name, correction::WHO);
        let known = store.known().into_iter().filter(|(name, (_, entries))| whole(name, *entries));
        let segments = known.map(|(name, _)| (name, false)).collect();
        let unsealed = tips.into_iter().map(|head| (Arc::clone(&head.segment), head)).collect();
        let ledger = Self {
            data_dir: data_dir.to_owned(),
            epoch,
            journals,
            reserve,
            recovered: Recovered { ingested, presumed },
            control: Mutex::new(Control {
                store,
                queue: VecDeque::new(),
                segments,
                seals,
                unsealed,
                foreign: Vec::new(),
                retry: None,
            }),
            storing: AtomicBool::new(true),
            sealing: AtomicBool::new(true),
            shared: OnceLock::new(),
        };
        ledger.try_sync()?;
        ledger.try_seal()?;
        Ok((Arc::new(ledger), balances))
    }

    /// The journal of a core, counted from 0.
    pub fn journal(&self, core: usize) -> Option<Arc<Journal>> {
        self.journals.get(core).map(Arc::clone)
    }

    /// What the start found.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// Whether the store takes in what the journals have; if not, reports take longer.
    pub fn storing(&self) -> bool {
        self.storing.load(Ordering::Relaxed)
    }

    /// From now on the journal goes into a database of several replicas too, and stays until it has.
    pub fn share(&self) -> Arc<PostgresProgress> {
        Arc::clone(self.shared.get_or_init(Arc::default))
    }

    /// How it does on its way into that database; `None` where there is none.
    pub fn shared(&self) -> Option<&PostgresProgress> {
        self.shared.get().map(Arc::as_ref)
    }

    /// How much of each segment the store has and the disk keeps: what others may be told of, who must not know of a call that a loss of power
    /// takes away.
    pub(crate) fn durable(&self) -> segment::Known {
        let mut known = self.control().store.known();
        for (segment, durable) in self.journals.iter().flat_map(|journal| journal.durable()) {
            if let Some(known) = known.get_mut(&segment)
                && known.0 > durable.0
            {
                *known = durable;
            }
        }
        known
    }

    /// Makes what was written durable, reopens journals that broke, and puts the reserve aside again where there is room. Blocks on
    /// the disk; once a second. A journal says on the log itself when it breaks and when it works again.
    pub fn sync(&self) {
        let _ = self.try_sync();
    }

    /// Reads into the store what the journals have. Blocks on the disk; several times a second. After a failure it does nothing for a
    /// while, at most half a minute; the log has one line for each change of state.
    pub fn ingest(&self) {
        let mut control = self.control();
        let now = Instant::now();
        if control.retry.is_some_and(|(at, _)| now < at) {
            return;
        }
        let result = self.take_in(&mut control);
        let pause = control.retry.map_or(FIRST_PAUSE, |(_, pause)| pause);
        control.retry = result.is_err().then(|| (now + pause, (pause * 2).min(LONGEST_PAUSE)));
        drop(control);
        match (&result, self.storing.swap(result.is_ok(), Ordering::Relaxed)) {
            (Ok(_), false) => tracing::info!("the ledger's store works again"),
            (Err(error), true) => {
                let error = chain(error);
                tracing::error!(
                    error,
                    "the ledger's store fails: the journal has everything, reports take longer"
                );
            }
            _ => {}
        }
    }

    /// Seals what is durable. Blocks on the disk; once a minute.
    pub fn seal(&self) {
        let result = self.try_seal();
        match (&result, self.sealing.swap(result.is_ok(), Ordering::Relaxed)) {
            (Ok(()), false) => tracing::info!("the ledger is sealed again"),
            (Err(error), true) => tracing::error!(error = chain(error), "the ledger cannot be sealed"),
            _ => {}
        }
    }

    /// Ends it in order: everything durable, in the store, and sealed. The cores have ended.
    pub fn close(&self) -> Result<(), LedgerError> {
        let synced = self.try_sync();
        let ingested = self.take_in(&mut self.control());
        let sealed = self.try_seal();
        synced?;
        ingested?;
        let is_whole = self.journals.iter().all(|journal| !journal.has_unsynced());
        if let Some(progress) = self.shared()
            && is_whole
            && self.control().store.open_holds()?.is_empty()
        {
            progress.closed();
        }
        sealed
    }

    /// Brings the store up to what the journals have.
    fn take_in(&self, control: &mut Control) -> Result<(), LedgerError> {
        for journal in &self.journals {
            control.queue.extend(journal.ranges());
        }
        while let Some(range) = control.queue.front() {
            if let Err(error) = control.store.take(&self.data_dir, range) {
                control.forget_rollups();
                return Err(error);
            }
            control.queue.pop_front();
        }
        // Corrections are written by other processes, into segments of their own.
        for name in segment::list(&self.data_dir)? {
            let foreign = match control.segments.get(&name) {
                Some(foreign) => *foreign,
                None => {
                    let Some(header) = segment::first(&self.data_dir, &name)? else { continue };
                    !self.epoch.wrote(&header)
                }
            };
            if foreign {
                control.store.read(&self.data_dir, &name, Until::default())?;
            }
            control.segments.insert(name, foreign);
        }
        Ok(())
    }

    fn try_sync(&self) -> Result<(), LedgerError> {
        self.reserve.restore();
        self.reserve.look();
        let mut result = Ok(());
        let mut heads = Vec::new();
        for journal in &self.journals {
            match journal.sync() {
                Ok(durable) => heads.extend(durable),
                Err(error) => result = Err(error),
            }
        }
        for journal in &self.journals {
            match journal.rotate(Timestamp::now()) {
                Ok(over) => heads.extend(over),
                Err(error) => result = Err(error),
            }
        }
        let durable = heads.into_iter().map(|head| (Arc::clone(&head.segment), head));
        self.control().unsealed.extend(durable);
        result
    }

    fn try_seal(&self) -> Result<(), LedgerError> {
        let mut control = self.control();
        let Control { store, segments, seals: Some(seals), unsealed, foreign, .. } = &mut *control else {
            return Ok(());
        };
        let known = store.known();
        for (name, _) in segments.iter().filter(|(_, foreign)| **foreign) {
            if let Some(head) = segment::end(&self.data_dir, name, &known)?
                && !foreign.contains(&head)
            {
                unsealed.insert(Arc::clone(&head.segment), head.clone());
                foreign.push(head);
            }
        }
        let heads: Vec<_> = unsealed.values().cloned().collect();
        seals.seal(&heads, Timestamp::now())?;
        unsealed.clear();
        Ok(())
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// What waits for the store is read from the files when it works again, so that waiting takes no memory.
    fn forget_rollups(&mut self) {
        let mut last: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for range in &mut self.queue {
            range.rollup = None;
            last.insert(Arc::clone(&range.end.segment), range.until);
        }
        self.queue.retain(|range| last.get(&range.end.segment) == Some(&range.until));
    }
}

fn begin(
    epoch: &ProcessEpoch,
    cores: usize,
    tips: &[SegmentEnd],
    reserve: &Arc<Reserve>,
) -> Result<Vec<Arc<Journal>>, LedgerError> {
    let mut journals: Vec<Arc<Journal>> = Vec::with_capacity(cores);
    for core in 0..cores {
        let who = format!("{core:03}");
        let journal = match journals.first() {
            None => Journal::begin(epoch, &who, tips, Arc::clone(reserve))?,
            Some(first) => Journal::begin(epoch, &who, &[first.end()], Arc::clone(reserve))?,
        };
        journals.push(Arc::new(journal));
    }
    Ok(journals)
}
