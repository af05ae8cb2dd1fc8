//! The thread that keeps the trail: takes what the secrets' cache tells as it comes, and what the cores counted once a second.
//!
//! **Invariant:** whoever waits for an event to be written is told so only after it was. What nobody waits for is kept while the trail
//! cannot be written, to [`RETAINED`] entries; beyond, it is counted, and the trail says how many are missing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_secrets::{Observation, Observations};

use super::trail::Trail;
use super::uses::{Counts, Uses};
use super::{Entry, Word};
use crate::ledger::{self, LedgerError};

const PAUSE: Duration = Duration::from_millis(100);
const COLLECT_EVERY: Duration = Duration::from_secs(1);
const SEAL_EVERY: Duration = Duration::from_secs(60);
const RETAINED: usize = 4096;

/// What others see of the trail.
#[derive(Debug, Default)]
pub(crate) struct AuditView {
    broken: AtomicBool,
    last_uses: Mutex<HashMap<(ResourceId, Option<Name>), Timestamp>>,
    /// What is to be written beside what the secrets' cache tells.
    noted: Mutex<Vec<Entry>>,
}

impl AuditView {
    /// Whether the trail can be written.
    pub(crate) fn writable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
    }

    /// Has a line written, within a second where the trail can be.
    pub(crate) fn note(&self, entry: Entry) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < RETAINED {
            noted.push(entry);
        }
    }

    fn take_noted(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When a key of a credential was last put on a call by this process, to the second.
    pub(crate) fn last_use(&self, credential: &ResourceId, alias: Option<&Name>) -> Option<Timestamp> {
        let key = (credential.clone(), alias.cloned());
        self.last_uses.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }
}

/// The trail of a data directory, being kept.
#[derive(Debug)]
pub(crate) struct Auditor {
    view: Arc<AuditView>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), LedgerError>>,
}

/// A trail that is open, before there are cores.
#[derive(Debug)]
pub(crate) struct OpenTrail {
    trail: Trail,
    observations: Observations,
}

impl Auditor {
    pub(crate) fn view(&self) -> Arc<AuditView> {
        Arc::clone(&self.view)
    }

    /// Ends it in order. The cores have ended. Fails where its thread panicked, or the trail cannot be closed.
    pub(crate) fn stop(self) -> std::thread::Result<Result<(), LedgerError>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join()
    }
}

impl OpenTrail {
    /// Opens the trail. The data directory is locked, and the ledger open.
    pub(crate) fn open(
        data_dir: &Path,
        seal_key: Option<&Path>,
        observations: Observations,
    ) -> Result<Self, LedgerError> {
        Ok(Self { trail: Trail::open(data_dir, seal_key)?, observations })
    }

    /// Begins to keep it, with what these cores count.
    pub(crate) fn keep(self, cores: Vec<Arc<Uses>>) -> std::io::Result<Auditor> {
        let (view, stop) = (Arc::<AuditView>::default(), Arc::<AtomicBool>::default());
        let keeper = TrailKeeper {
            trail: self.trail,
            observations: self.observations,
            cores,
            counts: Counts::default(),
            retained: Vec::new(),
            lost: 0,
            tried: Instant::now(),
            view: Arc::clone(&view),
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || keeper.run(&stopped))?;
        Ok(Auditor { view, stop, thread })
    }
}

struct TrailKeeper {
    trail: Trail,
    observations: Observations,
    cores: Vec<Arc<Uses>>,
    /// Of this minute.
    counts: Counts,
    /// Entries that could not be written so far.
    retained: Vec<Entry>,
    lost: u64,
    /// When the trail was last written to, or could not be.
    tried: Instant,
    view: Arc<AuditView>,
}

impl TrailKeeper {
    fn run(mut self, stop: &AtomicBool) -> Result<(), LedgerError> {
        let now = Instant::now();
        let (mut collected, mut sealed) = (now, now);
        while !stop.load(Ordering::Acquire) {
            match self.observations.next(PAUSE) {
                Ok(first) => self.take(Some(first)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(PAUSE),
            }
            if collected.elapsed() >= COLLECT_EVERY {
                collected = Instant::now();
                self.collect();
                self.take(None);
                if let Err(error) = self.trail.sync() {
                    self.say(&Err(error));
                }
            }
            if sealed.elapsed() >= SEAL_EVERY {
                sealed = Instant::now();
                self.write_counts();
                if let Err(error) = self.trail.seal() {
                    tracing::error!(error = ledger::chain(&error), "the audit trail cannot be sealed");
                }
            }
        }
        self.take(None);
        self.collect();
        self.write_counts();
        self.trail.seal()
    }

    /// Writes `first` and all that is waiting. A trail that cannot be written is tried again once a second, whatever comes.
    fn take(&mut self, first: Option<Observation>) {
        let tries = self.view.writable() || self.tried.elapsed() >= COLLECT_EVERY;
        let now = Timestamp::now();
        let mut waiting = Vec::new();
        let mut entries = std::mem::take(&mut self.retained);
        entries.extend(self.view.take_noted());
        let kept = entries.len();
        let mut awaited = Vec::new();
        let observations = first.into_iter().chain(std::iter::from_fn(|| self.observations.ready()));
        for Observation { event, written } in observations.take(RETAINED) {
            awaited.push(written.is_some());
            waiting.extend(written);
            entries.push(Entry::of(now, &event));
        }
        self.lost += self.observations.take_lost();
        if entries.is_empty() && self.lost == 0 {
            return;
        }
        if self.lost > 0 {
            entries.push(Entry { count: Some(self.lost), ..Entry::new(now, Word::Lost) });
        }
        if tries && self.append(&entries) {
            self.lost = 0;
            waiting.into_iter().for_each(|written| {
                let _ = written.send(());
            });
            return;
        }
        // What is waited for does not happen; the rest did.
        let happened =
            |index: usize| index < kept || awaited.get(index - kept).is_some_and(|awaited| !awaited);
        self.retained = entries
            .into_iter()
            .enumerate()
            .filter(|(index, _)| happened(*index))
            .map(|(_, entry)| entry)
            .collect();
        self.lost += self.retained.len().saturating_sub(RETAINED) as u64;
        self.retained.truncate(RETAINED);
    }

    fn collect(&mut self) {
        let mut second = Counts::default();
        self.cores.iter().for_each(|core| second.merge(core.take()));
        let mut last_uses = self.view.last_uses.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, at) in second.last_uses() {
            let last = last_uses.entry(key).or_insert(at);
            *last = at.max(*last);
        }
        drop(last_uses);
        self.counts.merge(second);
    }

    /// Writes what was counted; what cannot be written is counted on.
    fn write_counts(&mut self) {
        let entries = self.counts.entries(Timestamp::now());
        if !entries.is_empty() && self.append(&entries) {
            self.counts.clear();
        }
    }

    fn append(&mut self, entries: &[Entry]) -> bool {
        self.tried = Instant::now();
        let wrote = self.trail.append(entries);
        self.say(&wrote);
        wrote.is_ok()
    }

    /// Says once when the trail cannot be written, and once when it can again.
    fn say(&self, done: &Result<(), LedgerError>) {
        match (done, self.view.broken.swap(done.is_err(), Ordering::Relaxed)) {
            (Ok(()), true) => tracing::info!("the audit trail is written again"),
            (Err(error), false) => {
                let error = ledger::chain(error);
                tracing::error!(error, "the audit trail cannot be written: no new secret comes into use");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tollgate_policy::compile::compile_files;
    use tollgate_policy::model::SourceFile;
    use tollgate_policy::policy::Policy;
    use tollgate_secrets::{Event, Failure, Observer, Secrets, VersionKey, What};

    use super::super::list;
    use super::*;

    struct Bench {
        data: tempfile::TempDir,
        keeper: TrailKeeper,
    }

    impl Bench {
        fn new() -> Self {
            let data = tempfile::tempdir().unwrap();
            let (_, observations) = Observer::channel();
            let keeper = TrailKeeper {
                trail: Trail::open(data.path(), None).unwrap(),
                observations,
                cores: Vec::new(),
                counts: Counts::default(),
                retained: Vec::new(),
                lost: 0,
                tried: Instant::now(),
                view: Arc::default(),
            };
            Self { data, keeper }
        }

        fn break_file(&mut self) {
            self.keeper.trail.break_file(File::open("/dev/null").unwrap());
        }

        fn written(&self) -> Vec<(String, Option<u64>)> {
            let entries = list(self.data.path(), Timestamp::UNIX_EPOCH, None).unwrap();
            entries.into_iter().map(|entry| (entry.what.into_owned(), entry.count)).collect()
        }
    }

    fn told(what: What) -> (Observation, tokio::sync::oneshot::Receiver<()>) {
        let store = "bao".parse().unwrap();
        let event = Event { store, secret: None, credentials: Arc::default(), aliases: Arc::default(), what };
        let (written, answer) = tokio::sync::oneshot::channel();
        (Observation { event, written: Some(written) }, answer)
    }

    #[test]
    fn who_waits_is_told_after_the_line_is_in_the_file() {
        let mut bench = Bench::new();
        let (observation, mut answer) = told(What::Recovered);
        assert!(answer.try_recv().is_err());
        bench.keeper.take(Some(observation));
        assert_eq!(answer.try_recv(), Ok(()));
        assert_eq!(bench.written(), [("recovered".to_owned(), None)]);
    }

    #[test]
    fn what_happened_is_kept_until_it_can_be_written_and_what_waited_did_not_happen() {
        let mut bench = Bench::new();
        bench.break_file();
        let (awaited, mut answer) = told(What::Recovered);
        bench.keeper.take(Some(awaited));
        assert!(answer.try_recv().is_err());
        assert!(!bench.keeper.view.writable());
        for _ in 0..RETAINED + 7 {
            let (observation, _) = told(What::Recovered);
            bench.keeper.tried = Instant::now();
            bench.keeper.take(Some(Observation { written: None, ..observation }));
        }
        bench.keeper.tried = Instant::now().checked_sub(COLLECT_EVERY).unwrap();
        bench.keeper.take(None);
        assert!(bench.keeper.view.writable());
        let written = bench.written();
        assert_eq!(written.len(), RETAINED + 1);
        assert_eq!(written.last(), Some(&("lost".to_owned(), Some(7))));
    }

    fn policy(root: &Path) -> Policy {
        let resource = |kind: &str, name: &str, spec: &str| {
            format!(
                "---\napiVersion: tollgate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
            )
        };
        let text = resource("Destination", "up", "hosts: [up.example]")
            + &resource("SecretStore", "files", &format!("file: {{root: {root:?}}}"))
            + &resource(
                "Credential",
                "key",
                "destinations: [up], from: {store: files, path: key}, inject: {bearer: {}}",
            );
        let environment = crate::app::environment_of(&[], &[]).unwrap();
        compile_files(&[SourceFile { path: "a.yaml".into(), text }], &environment).unwrap().policy
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_that_cannot_be_written_down_is_not_had_and_is_as_soon_as_it_can() {
        let (data, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(keys.path().join("key"), "sk-canary").unwrap();
        let policy = policy(keys.path());
        let key = policy.credentials().next().unwrap();
        let (observer, observations) = Observer::channel();
        let handle = tokio::runtime::Handle::current();
        let versions = VersionKey::random();
        let secrets =
            Secrets::observed(handle, Arc::new(|_| true), observer, Arc::new(|_, _| Ok(())), versions);
        secrets.apply(&policy);
        let mut open = OpenTrail::open(data.path(), None, observations).unwrap();
        open.trail.break_file(File::open("/dev/null").unwrap());
        let auditor = open.keep(Vec::new()).unwrap();
        assert_eq!(secrets.get(key, 0).await.unwrap_err().failure(), Failure::Unrecorded);
        while secrets.get(key, 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(auditor.view().writable());
        auditor.stop().unwrap().unwrap();
        let entries = list(data.path(), Timestamp::UNIX_EPOCH, Some("key")).unwrap();
        let words: Vec<_> = entries.iter().map(|entry| (&*entry.what, entry.reason.as_str())).collect();
        assert_eq!(words, [("unavailable", "unrecorded"), ("fetched", "")]);
        assert!(!serde_json::to_string(&entries).unwrap().contains("canary"));
    }
}
