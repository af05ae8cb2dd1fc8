//! The thread that takes one replica's journal into the database.
//!
//! **Invariant:** nobody waits for it, and it waits for the database alone. What could not be taken in stays in the journal, and is
//! taken in when that works again.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_postgres::Client;

use super::charges;
use super::commit::{Remembered, StretchOrigin, commit, whole};
use super::schema::{self, Month};
use super::segment_part::{SegmentOffset, SegmentPart};
use super::session::{DatabaseSession, PostgresServer, failed};
use crate::ledger::segment::{self, Known};
use crate::ledger::{LedgerError, chain, replica};

/// How often it is looked what there is to take in.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the database is told that this replica is there.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How often months are made ahead and dropped.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// The first pause after a failure, doubled with every one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How one replica's journal does on its way into the database.
#[derive(Debug, Default)]
pub struct PostgresProgress {
    fails: AtomicBool,
    /// Bytes of the journal that the database has not.
    waiting: AtomicU64,
    /// What it has of each segment, once it was asked.
    taken: Mutex<Known>,
    /// The process that has shares of limits; 0: none.
    process: AtomicU64,
    /// The journal is closed, and no call is left open in it.
    is_closed: AtomicBool,
    /// Another process has the directory, or a copy of it: this one's end is not the replica's.
    is_superseded: AtomicBool,
}

impl PostgresProgress {
    /// Whether the database takes in what there is.
    pub fn works(&self) -> bool {
        !self.fails.load(Ordering::Relaxed)
    }

    /// Bytes of the journal that the database has not.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether the database has this much of a segment.
    pub(crate) fn has(&self, segment: &str, bytes: u64) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.get(segment).is_some_and(|(offset, _)| *offset >= bytes)
    }

    /// Notes that this process has shares of limits.
    pub(crate) fn shares_as(&self, process: u64) {
        self.process.store(process, Ordering::Relaxed);
    }

    /// Notes that nothing more comes, and that no call is left open.
    pub(crate) fn closed(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Notes that another process has the directory, or a copy of it.
    pub(crate) fn superseded(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) && !self.is_superseded.load(Ordering::Relaxed)
    }

    fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed)
    }

    fn note(&self, taken: &Known, waiting: u64) {
        self.waiting.store(waiting, Ordering::Relaxed);
        taken.clone_into(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One replica, writer.
pub(super) struct ReplicaWriter {
    session: DatabaseSession,
    remembered: Remembered,
    data_dir: PathBuf,
    /// Its row.
    replica: i64,
    /// What the database has of each of its segments.
    pub(super) taken: Known,
    /// When the database was told last, and which process it was.
    told: Option<(Instant, u64)>,
    tidied: Option<Instant>,
    keep: Duration,
}

impl ReplicaWriter {
    /// Connects, makes the tables where there are none, and asks how far this replica's journal was taken in. A replica that is known
    /// keeps its name where `renames` is not set.
    pub(super) fn open(
        server: &PostgresServer,
        data_dir: &Path,
        name: &str,
        renames: bool,
    ) -> Result<Self, LedgerError> {
        let id = replica::id_or_new(data_dir)?.to_string();
        let mut session = DatabaseSession::open(server)?;
        let (replica, taken) = session.run(async |client: &mut Client| {
            schema::ensure(client).await?;
            let begin = "INSERT INTO tollgate.replicas (uuid, name) VALUES ($1::text::uuid, $2)
                         ON CONFLICT (uuid) DO UPDATE
                         SET name = CASE WHEN $3 THEN excluded.name ELSE replicas.name END, last_seen = now(), ended = false,
                             forgotten_at = NULL, forgotten_by = NULL
                         RETURNING id";
            let replica: i64 = client.query_one(begin, &[&id, &name, &renames]).await?.try_get(0)?;
            Ok((replica, taken(client, replica).await?))
        })?;
        let keep = server.settings.keep.0;
        let data_dir = data_dir.to_owned();
        Ok(Self {
            session,
            remembered: Remembered::default(),
            data_dir,
            replica,
            taken,
            told: None,
            tidied: None,
            keep,
        })
    }

    /// Takes in what stands in the journal up to `until`, and tells the database that this replica is there. How many records were new.
    pub(super) fn take_in(
        &mut self,
        until: &Known,
        progress: &PostgresProgress,
    ) -> Result<usize, LedgerError> {
        self.tidy();
        let mut new = 0;
        let mut names: Vec<_> = until.keys().collect();
        names.sort_unstable();
        for name in names {
            let until = until.get(name).copied().unwrap_or_default();
            loop {
                let from = self.taken.get(name).copied().unwrap_or_default();
                if from.0 >= until.0 {
                    break;
                }
                let Some((end, count)) = self.take_stretch(name, from, until)? else { break };
                self.taken.insert(Arc::clone(name), end);
                new += count;
            }
        }
        progress.note(&self.taken, waiting(&self.taken, until));
        let process = progress.process();
        if self.told.is_none_or(|(told, as_process)| told.elapsed() >= TELL_EVERY || as_process != process) {
            self.tell(waiting(&self.taken, until), false, process)?;
        }
        Ok(new)
    }

    fn take_stretch(
        &mut self,
        segment: &str,
        from: SegmentOffset,
        until: SegmentOffset,
    ) -> Result<Option<(SegmentOffset, usize)>, LedgerError> {
        if segment::written(&self.data_dir, segment)?.is_none() {
            return Ok(None);
        }
        let Some(stretch) = SegmentPart::read(&self.data_dir, segment, from, until)? else { return Ok(None) };
        let replica = self.replica;
        let origin = StretchOrigin { data_dir: &self.data_dir, replica, segment, from };
        let remembered = &mut self.remembered;
        let work = async |client: &mut Client| commit(client, remembered, origin, &stretch).await;
        if let Some(count) = self.session.run(work)? {
            return Ok(Some((stretch.end, count)));
        }
        // A command takes in the same journal; the next turn goes on from where that is.
        self.taken = self.session.run(async |client: &mut Client| taken(client, replica).await)?;
        Ok(None)
    }

    /// Says that this replica is there, or that it ended in order, how much of its journal is not in, and which process has its shares.
    pub(super) fn tell(&mut self, waiting: u64, ended: bool, process: u64) -> Result<(), LedgerError> {
        let (replica, waiting, as_process) = (self.replica, whole(waiting), whole(process));
        self.session.run(async |client: &mut Client| {
            let tell = "UPDATE tollgate.replicas SET last_seen = now(), waiting = $2, ended = $3,
                        process = greatest(process, $4), forgotten_at = CASE WHEN $3 THEN forgotten_at END WHERE id = $1";
            client.execute(tell, &[&replica, &waiting, &ended, &as_process]).await?;
            Ok(())
        })?;
        self.told = Some((Instant::now(), process));
        Ok(())
    }

    /// Forgets how far segments were taken in, so that they are read again. Records that are in are not taken in twice.
    pub(super) fn forget_places(&mut self, segments: &Known) -> Result<(), LedgerError> {
        let names: Vec<&str> = segments.keys().map(AsRef::as_ref).collect();
        let replica = self.replica;
        self.taken = self.session.run(async |client: &mut Client| {
            let forget = "DELETE FROM tollgate.segments WHERE replica = $1 AND name = ANY($2)";
            client.execute(forget, &[&replica, &names]).await?;
            taken(client, replica).await
        })?;
        Ok(())
    }

    /// Makes months ahead and drops those that are over. What cannot be done now, as while somebody reads the month, is done in an hour;
    /// months that records need are made with them.
    fn tidy(&mut self) {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY_EVERY) {
            return;
        }
        self.tidied = Some(Instant::now());
        let (remembered, keep, now) = (&mut self.remembered, self.keep, Timestamp::now());
        let dropped = self.session.run(async |client: &mut Client| {
            let month = Month::of(now);
            remembered.months(client, [month, month.next()].into()).await?;
            charges::prune(client, now).await?;
            schema::drop_months(client, keep, now).await
        });
        match dropped {
            Ok(0) => {}
            Ok(months) => tracing::info!(months, "calls went from the database by ledger.postgres.keep"),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the months of the ledger's database cannot be tidied up now");
            }
        }
    }
}

async fn taken(client: &Client, replica: i64) -> Result<Known, LedgerError> {
    let sql = "SELECT name, bytes, entries FROM tollgate.segments WHERE replica = $1";
    let mut taken = HashMap::new();
    for row in client.query(sql, &[&replica]).await? {
        let count =
            |column| Ok::<_, LedgerError>(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default());
        taken.insert(row.try_get::<_, String>(0)?.into(), (count(1)?, count(2)?));
    }
    Ok(taken)
}

/// Bytes that are in `until` and not in `taken`.
fn waiting(taken: &Known, until: &Known) -> u64 {
    let missing = until
        .iter()
        .map(|(name, (bytes, _))| bytes.saturating_sub(taken.get(name).map_or(0, |(taken, _)| *taken)));
    missing.sum()
}

/// The thread, until it is stopped.
#[derive(Debug)]
pub struct PostgresIngest {
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl PostgresIngest {
    /// Begins to take in the journal of `data_dir`, whose replica has this name. `known` says how far it may be read: what the replica's own store has.
    pub fn start(
        server: PostgresServer,
        data_dir: PathBuf,
        (name, progress): (String, Arc<PostgresProgress>),
        known: impl Fn() -> Known + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let body = move || {
            let mut keeper =
                IngestLoop { server, data_dir, name, progress, writer: None, pause: FIRST_PAUSE };
            keeper.keep(&known, &stopped);
            // Whoever stopped it may no longer wait.
            let _ = end.send(());
        };
        std::thread::Builder::new().name("ledger-postgres".into()).spawn(body)?;
        Ok(Self { stop, ended })
    }

    /// Has it take in what is left, and waits for that at most this long.
    pub fn stop(self, patience: Duration) {
        drop(self.stop);
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the database of the ledger does not have everything yet: the next start takes in the rest"
            );
        }
    }
}

struct IngestLoop {
    server: PostgresServer,
    data_dir: PathBuf,
    name: String,
    progress: Arc<PostgresProgress>,
    writer: Option<ReplicaWriter>,
    pause: Duration,
}

impl IngestLoop {
    fn keep(&mut self, known: &impl Fn() -> Known, stopped: &Receiver<()>) {
        loop {
            let pause = self.turn(known);
            if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        self.turn(known);
        if let Some(writer) = &mut self.writer {
            let waiting = waiting(&writer.taken, &known());
            let ended = waiting == 0 && self.progress.has_ended();
            // What is not said is found out by the time that this replica was last seen.
            let _ = writer.tell(waiting, ended, self.progress.process());
        }
    }

    /// Takes in what there is. Gives how long to wait then. The log has one line for each change of state.
    fn turn(&mut self, known: &impl Fn() -> Known) -> Duration {
        let until = known();
        let result = self.take_in(&until);
        let failed_before = self.progress.fails.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Ok(()) => {
                if failed_before {
                    tracing::info!("the database of the ledger works again");
                }
                self.pause = FIRST_PAUSE;
                LOOK_EVERY
            }
            Err(error) => {
                self.writer = None;
                if !failed_before {
                    let error = chain(&error);
                    tracing::error!(
                        error,
                        "the database of the ledger fails: the journal has everything, and is taken in later"
                    );
                }
                let length = until.values().map(|(bytes, _)| bytes).sum::<u64>();
                let least =
                    waiting(&self.progress.taken.lock().unwrap_or_else(PoisonError::into_inner), &until);
                self.progress.waiting.store(least.min(length), Ordering::Relaxed);
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                pause
            }
        }
    }

    fn take_in(&mut self, until: &Known) -> Result<(), LedgerError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => ReplicaWriter::open(&self.server, &self.data_dir, &self.name, true)?,
        };
        writer.take_in(until, &self.progress)?;
        self.writer = Some(writer);
        Ok(())
    }
}

/// Takes in the whole journal of a data directory again, of which `known` says how far it goes. How many records were new. `ended`: no
/// process has the directory, and no call is left open in it.
pub(crate) fn replay(
    server: &PostgresServer,
    data_dir: &Path,
    (name, known): (Option<&str>, &Known),
    ended: bool,
) -> Result<usize, LedgerError> {
    if known.is_empty() {
        return Err(failed("database", format!("there is no journal in {}", data_dir.display())));
    }
    let mut writer = ReplicaWriter::open(server, data_dir, &replica::name(name), false)?;
    writer.forget_places(known)?;
    let progress = PostgresProgress::default();
    let new = writer.take_in(known, &progress)?;
    writer.tell(progress.waiting(), ended, 0)?;
    Ok(new)
}
