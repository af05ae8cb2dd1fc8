//! What of the journal may go: segments that are older than they are kept, and the oldest while all together take too much.
//!
//! **Invariant:** a segment goes only when it is over, every store has all of it and a seal names its end; when no call that is under way has
//! its hold in it; and when it is older than the longest window that was charged, so that the store can be built again with every
//! balance that counts. Before a segment goes it is written down that it does, in a seal where there are seals.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use super::segment::{self, SegmentEnd};
use super::{Control, Ledger, LedgerError, chain, correction};

/// Another process may still be writing a correction that is younger.
const CORRECTED: SignedDuration = SignedDuration::from_hours(1);

/// How much of the journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Segments whose last batch is older go.
    pub age: SignedDuration,
    /// While all segments together have more bytes, the oldest goes.
    pub size: u64,
}

/// A segment that is over.
struct Old {
    name: Arc<str>,
    bytes: u64,
    age: SignedDuration,
}

impl Ledger {
    /// Removes what is not kept. Blocks on the disk; once a minute, after [`Ledger::seal`].
    pub fn retire(&self, keep: Keep) {
        match self.try_retire(keep, Timestamp::now()) {
            Ok(0) => {}
            Ok(segments) => tracing::info!(segments, "segments of the journal went by ledger.keep"),
            Err(error) => tracing::error!(error = chain(&error), "the journal cannot be tidied up"),
        }
    }

    pub(super) fn try_retire(&self, keep: Keep, now: Timestamp) -> Result<usize, LedgerError> {
        let mut control = self.control();
        if control.seals.is_some() && !control.unsealed.is_empty() {
            return Ok(0);
        }
        let heads = self.removable(&control, keep, now)?;
        if heads.is_empty() {
            return Ok(0);
        }
        match &mut control.seals {
            Some(seals) => seals.retire(&heads, now)?,
            None => note(&self.data_dir, &heads)?,
        }
        for head in &heads {
            let path = segment::file(&self.data_dir, &head.segment);
            fs::remove_file(&path).map_err(|source| LedgerError::file("removing", &path, source))?;
            control.store.forget(&head.segment)?;
            control.segments.remove(&head.segment);
        }
        control.foreign.retain(|head| !heads.contains(head));
        Ok(heads.len())
    }

    /// The oldest segments, up to the first that is kept.
    fn removable(
        &self,
        control: &Control,
        keep: Keep,
        now: Timestamp,
    ) -> Result<Vec<SegmentEnd>, LedgerError> {
        let written: HashSet<Arc<str>> = self.journals.iter().map(|journal| journal.end().segment).collect();
        let under_way: HashSet<Arc<str>> =
            control.store.open_holds()?.into_iter().map(|(segment, _)| segment).collect();
        let known = control.store.known();
        let needed = control.store.longest_window()?;
        let segments: Vec<Old> = segment::list(&self.data_dir)?
            .into_iter()
            .map(|name| self.old(name, now))
            .collect::<Result<_, _>>()?;
        let mut bytes: u64 = segments.iter().map(|old| old.bytes).sum();
        let mut heads = Vec::new();
        for old in segments {
            if written.contains(&old.name) {
                continue;
            }
            let wanted = old.age <= keep.age && bytes <= keep.size;
            let settled = known.get(&old.name).is_some_and(|(offset, _)| *offset == old.bytes);
            let correction = segment::is_of(&old.name, correction::WHO) && old.age <= CORRECTED;
            // Of what the database of several replicas has not got, nothing goes.
            let is_shared = self.shared().is_none_or(|shared| shared.has(&old.name, old.bytes));
            let settled = settled && is_shared;
            if wanted || !settled || correction || old.age <= needed || under_way.contains(&old.name) {
                break;
            }
            let Some(head) = segment::end(&self.data_dir, &old.name, &known)? else { break };
            bytes -= old.bytes;
            heads.push(head);
        }
        Ok(heads)
    }

    fn old(&self, name: Arc<str>, now: Timestamp) -> Result<Old, LedgerError> {
        let path = segment::file(&self.data_dir, &name);
        let read = || {
            let file = fs::metadata(&path)?;
            Ok((file.len(), file.modified()?))
        };
        let (bytes, ended) = read().map_err(|source| LedgerError::file("reading", &path, source))?;
        Ok(Old { name, bytes, age: age(ended, now) })
    }
}

/// How long ago its last batch was written; nothing where the clock cannot say.
fn age(ended: SystemTime, now: Timestamp) -> SignedDuration {
    Timestamp::try_from(ended).map_or(SignedDuration::ZERO, |ended| now.duration_since(ended))
}

/// Where it stands which segments went, if there are no seals.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("retired.jsonl")
}

fn note(data_dir: &Path, heads: &[SegmentEnd]) -> Result<(), LedgerError> {
    let path = path(data_dir);
    let mut lines = Vec::new();
    for head in heads {
        serde_json::to_writer(&mut lines, head).map_err(LedgerError::Encode)?;
        lines.push(b'\n');
    }
    let write = || {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.write_all(&lines)?;
        file.sync_data()
    };
    write().map_err(|source| LedgerError::file("writing", &path, source))
}

/// The segments that went where there are no seals.
pub(super) fn noted(data_dir: &Path) -> Result<HashSet<Arc<str>>, LedgerError> {
    let path = path(data_dir);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        read => read.map_err(|source| LedgerError::file("reading", &path, source))?,
    };
    let heads = text.lines().filter_map(|line| serde_json::from_str::<SegmentEnd>(line).ok());
    Ok(heads.map(|head| head.segment).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;
    use crate::ledger::chain::ChainHead;
    use crate::ledger::samples::{SPEND, directory, hold, record, sums};
    use crate::ledger::{RecordId, verify};

    const HOUR: u64 = 3_600;
    const KEEP: Keep = Keep { age: SignedDuration::from_hours(24 * 90), size: u64::MAX };

    /// One run of one core that writes a call, and whose segment ends this long ago.
    fn run(data_dir: &Path, key: Option<&Path>, ago: Duration) {
        let (ledger, _) = Ledger::open(data_dir, key, 1).unwrap();
        let journal = ledger.journal(0).unwrap();
        let hold = hold(RecordId::new());
        journal.hold(&hold).unwrap();
        journal.record(&record(&hold)).unwrap();
        ledger.close().unwrap();
        let path = segment::file(data_dir, &journal.end().segment);
        drop((journal, ledger));
        File::options().append(true).open(path).unwrap().set_modified(SystemTime::now() - ago).unwrap();
    }

    fn three_runs(key: Option<&Path>) -> tempfile::TempDir {
        let data = directory();
        for days in [100, 50, 1] {
            run(data.path(), key, Duration::from_secs(days * 24 * HOUR));
        }
        data
    }

    /// What is left after the next run has tidied up and ended.
    fn left(data_dir: &Path, key: Option<&Path>, keep: Keep) -> usize {
        let (ledger, _) = Ledger::open(data_dir, key, 1).unwrap();
        ledger.sync();
        ledger.ingest();
        ledger.seal();
        ledger.retire(keep);
        ledger.close().unwrap();
        segment::list(data_dir).unwrap().len() - 1
    }

    #[test]
    fn old_segments_go_and_the_ledger_verifies_with_and_without_seals() {
        let keys = directory();
        let key = keys.path().join("seal.key");
        for key in [Some(&*key), None] {
            let data = three_runs(key);
            assert_eq!(left(data.path(), key, KEEP), 2, "the one that is 100 days old went");
            let verified = verify(data.path(), key).unwrap();
            assert_eq!(verified.findings, [], "{:?}", verified.notes);
            assert!(verified.notes.iter().any(|note| note.contains("ledger.keep")), "{:?}", verified.notes);
            let (_, balances) = Ledger::open(data.path(), key, 1).unwrap();
            assert_eq!(sums(&balances)[SPEND], 300_000, "the store still has what it took in");
        }
    }

    #[test]
    fn a_segment_that_was_removed_by_somebody_else_is_still_missed() {
        let keys = directory();
        let key = keys.path().join("seal.key");
        let data = three_runs(Some(&key));
        left(data.path(), Some(&key), KEEP);
        let second = segment::list(data.path()).unwrap().remove(0);
        fs::remove_file(segment::directory(data.path()).join(&*second)).unwrap();
        note(data.path(), &[SegmentEnd { segment: second, entries: 1, head: ChainHead::NONE }]).unwrap();
        let findings = verify(data.path(), Some(&key)).unwrap().findings;
        assert!(findings.iter().any(|finding| finding.what.contains("missing")), "{findings:?}");
    }

    #[test]
    fn too_many_bytes_cost_the_oldest_but_never_what_a_window_still_needs() {
        let data = three_runs(None);
        assert_eq!(left(data.path(), None, Keep { size: 0, ..KEEP }), 1, "budgets by the month were charged");
        let all = Keep { age: SignedDuration::ZERO, size: 0 };
        assert_eq!(left(data.path(), None, all), 2, "and of the run before, a day ago and now");
    }

    #[test]
    fn what_the_database_of_several_replicas_has_not_got_stays() {
        let data = directory();
        run(data.path(), None, Duration::from_secs(100 * 24 * HOUR));
        let (ledger, _) = Ledger::open(data.path(), None, 1).unwrap();
        ledger.share();
        assert_eq!(ledger.try_retire(KEEP, Timestamp::now()).unwrap(), 0);
        drop(ledger);
        let (ledger, _) = Ledger::open(data.path(), None, 1).unwrap();
        assert_eq!(ledger.try_retire(KEEP, Timestamp::now()).unwrap(), 1, "without one it goes");
    }

    #[test]
    fn what_holds_a_call_that_is_under_way_or_is_not_in_the_store_stays() {
        let data = directory();
        run(data.path(), None, Duration::from_secs(100 * 24 * HOUR));
        let (ledger, _) = Ledger::open(data.path(), None, 1).unwrap();
        let first = segment::list(data.path()).unwrap().remove(0);
        ledger.control().store.forget(&first).unwrap();
        assert_eq!(ledger.try_retire(KEEP, Timestamp::now()).unwrap(), 0, "the store does not have it");
    }
}
