mod added;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::ledger::batch::tamper::Segment;
use crate::ledger::batch::{EntryKind, MAGIC, NewBatch};
use crate::ledger::chain::ChainHead;
use crate::ledger::samples::{copy, directory, hold, record, segment};
use crate::ledger::{Ledger, RecordId, seal, segment};

/// Two runs of two cores, all sealed; the gateway has stopped in order.
struct Bed {
    data: TempDir,
    keys: TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { data: directory(), keys: directory() };
        for _ in 0..2 {
            let ledger = bed.open();
            for core in 0..2 {
                bed.calls(&ledger, core, 2);
            }
            ledger.sync();
            ledger.seal();
            bed.calls(&ledger, 0, 1);
            ledger.close().unwrap();
        }
        bed
    }

    fn open(&self) -> Arc<Ledger> {
        Ledger::open(self.data.path(), Some(&self.key()), 2).unwrap().0
    }

    fn calls(&self, ledger: &Ledger, core: usize, count: usize) {
        let journal = ledger.journal(core).unwrap();
        for _ in 0..count {
            let hold = hold(RecordId::new());
            journal.hold(&hold).unwrap();
            journal.flush();
            journal.record(&record(&hold)).unwrap();
            journal.flush();
        }
    }

    fn key(&self) -> PathBuf {
        self.keys.path().join("seal.key")
    }

    fn verify(&self) -> Verification {
        verify(self.data.path(), Some(&self.key())).unwrap()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let names = segment::list(self.data.path()).unwrap();
        names.iter().map(|name| segment::file(self.data.path(), name)).collect()
    }

    fn heads(&self) -> PathBuf {
        seal::path(self.data.path())
    }

    /// With the key, and without it: what a tampering is found by.
    fn found(&self) -> (Vec<Finding>, Vec<Finding>) {
        (self.verify().findings, verify(self.data.path(), None).unwrap().findings)
    }

    /// Found with the key and without, at this line of this file and nowhere else.
    fn is_found_at(&self, file: &Path, line: u64) {
        let (with, without) = self.found();
        for findings in [with, without] {
            let places: Vec<_> =
                findings.iter().map(|finding| (finding.file.as_str(), finding.line)).collect();
            let name = format!("journal/{}", file.file_name().unwrap().to_str().unwrap());
            assert_eq!(places, [(name.as_str(), Some(line))], "{findings:?}");
        }
    }
}

fn edit(path: &Path, edit: impl FnOnce(&mut Segment)) {
    let mut segment = segment(path);
    edit(&mut segment);
    segment.write(path);
}

fn edit_lines(path: &Path, edit: impl FnOnce(&mut Vec<String>)) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(String::from).collect();
    edit(&mut lines);
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Lists of texts in each segment: those of the first hold, and what its record names beside them.
const TEXTS: u64 = 6;
/// Where the batch of a segment's first record begins: behind the first entry, three lists and a hold. It has three lists too.
const RECORD: u64 = 6;
/// The cost of a record, as it stands in its payload: 100,000 nano-USD.
const COST: [u8; 3] = [0xc0, 0x9a, 0x0c];

/// Makes the record of a batch cheaper, with a checksum that fits.
fn cheaper(segment: &mut Segment, batch: usize) {
    segment.replace(batch, &COST, &[COST[0], COST[1], 1]);
}

#[test]
fn an_untouched_ledger_verifies_with_and_without_the_key() {
    let bed = Bed::new();
    let verified = bed.verify();
    assert_eq!((verified.findings, verified.notes), (vec![], vec![]));
    assert_eq!((verified.segments, verified.entries), (4, 4 + 2 * 10 + 4 * TEXTS));
    assert!(verified.last_seal.is_some());
    let without = verify(bed.data.path(), None).unwrap();
    assert!(without.findings.is_empty());
    assert!(without.notes.iter().any(|note| note.contains("no key")), "it says what it could not check");
}

#[test]
fn a_changed_entry_is_found_at_its_place_whether_its_checksum_fits_or_not() {
    let bed = Bed::new();
    let path = &bed.segments()[0];
    let good = segment(path);
    edit(path, |segment| cheaper(segment, 2));
    bed.is_found_at(path, RECORD);
    let mut damaged = good;
    let place = memchr::memmem::find(&damaged.batches[2], &COST).unwrap();
    damaged.batches[2][place + 1] ^= 1;
    damaged.write(path);
    bed.is_found_at(path, RECORD + 3);
}

#[test]
fn of_several_entries_in_one_batch_the_damaged_one_is_named_and_a_forged_one_by_the_batch() {
    let bed = Bed::new();
    let ledger = bed.open();
    let journal = ledger.journal(0).unwrap();
    let calls = [(); 3].map(|()| hold(RecordId::new()));
    for call in &calls {
        journal.record(&record(call)).unwrap();
    }
    ledger.close().unwrap();
    let path = &segment::file(bed.data.path(), &journal.end().segment);
    let good = segment(path);
    assert_eq!(good.batches.len(), 2);
    let mut damaged = good.clone();
    let place = memchr::memmem::find(&damaged.batches[1], calls[1].id.as_bytes()).unwrap();
    damaged.batches[1][place] ^= 1;
    damaged.write(path);
    bed.is_found_at(path, 7);
    let mut forged = good;
    cheaper(&mut forged, 1);
    forged.write(path);
    bed.is_found_at(path, 2);
}

#[test]
fn a_batch_that_is_chained_and_has_fewer_entries_than_it_says_is_found() {
    let bed = Bed::new();
    let mut batch = NewBatch::default();
    batch.append(EntryKind::Record, &[], |entry| entry.extend_from_slice(b"{}"));
    batch.miscount();
    edit(&bed.segments()[3], |segment| {
        batch.close(segment.head());
        segment.batches.push(batch.bytes().to_vec());
    });
    let findings = bed.verify().findings;
    assert!(findings.iter().any(|finding| finding.what.contains("as many entries")), "{findings:?}");
}

#[test]
fn a_removed_batch_is_found_at_its_place() {
    let bed = Bed::new();
    let path = &bed.segments()[3];
    edit(path, |segment| drop(segment.batches.remove(2)));
    let (with, without) = bed.found();
    for findings in [with, without] {
        assert_eq!(findings[0].line, Some(RECORD));
        assert!(path.ends_with(findings[0].file.strip_prefix("journal/").unwrap()));
    }
}

#[test]
fn moved_and_repeated_batches_are_found() {
    let bed = Bed::new();
    edit(&bed.segments()[0], |segment| segment.batches.swap(2, 3));
    assert_eq!(bed.found().1[0].line, Some(RECORD));
    let bed = Bed::new();
    edit(&bed.segments()[0], |segment| segment.batches.insert(4, segment.batches[3].clone()));
    assert_eq!(bed.found().1[0].line, Some(RECORD + 5));
}

#[test]
fn any_changed_byte_of_any_file_is_found() {
    let bed = Bed::new();
    for path in bed.segments().into_iter().take(2).chain([bed.heads()]) {
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(3) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(!bed.verify().findings.is_empty(), "{} byte {at}", path.display());
        }
        fs::write(&path, good).unwrap();
    }
    assert!(bed.verify().findings.is_empty());
}

#[test]
fn a_rewritten_chain_is_found_by_the_seals() {
    let bed = Bed::new();
    let path = &bed.segments()[3];
    edit(path, |segment| {
        cheaper(segment, 2);
        segment.rechain();
    });
    let finding = &bed.verify().findings[0];
    assert!(finding.what.contains("rewritten"), "{finding}");
}

#[test]
fn a_missing_segment_is_found() {
    for index in 0..4 {
        let bed = Bed::new();
        let path = &bed.segments()[index];
        fs::remove_file(path).unwrap();
        let findings = bed.verify().findings;
        assert!(findings[0].what.contains("missing"), "{findings:?}");
        assert!(path.ends_with(findings[0].file.strip_prefix("journal/").unwrap()));
    }
    let bed = Bed::new();
    fs::remove_dir_all(segment::directory(bed.data.path())).unwrap();
    fs::create_dir(segment::directory(bed.data.path())).unwrap();
    assert_eq!(bed.verify().findings.len(), 4);
}

#[test]
fn a_tail_that_was_sealed_and_is_cut_off_is_found_a_torn_one_that_was_not_is_only_noted() {
    let bed = Bed::new();
    let path = &bed.segments()[2];
    let good = fs::read(path).unwrap();
    for cut in [1, 50, 400, good.len() - 1, good.len()] {
        fs::write(path, &good[..good.len() - cut]).unwrap();
        let findings = bed.verify().findings;
        assert!(findings.iter().any(|finding| finding.what.contains("cut off")), "{findings:?}");
    }
    fs::write(path, &good).unwrap();

    let ledger = bed.open();
    bed.calls(&ledger, 0, 1);
    drop(ledger);
    let last = &bed.segments()[4];
    let good = fs::read(last).unwrap();
    fs::write(last, &good[..good.len() - 5]).unwrap();
    let verified = bed.verify();
    assert_eq!(verified.findings, []);
    assert!(verified.notes.iter().any(|note| note.contains("torn tail")), "{:?}", verified.notes);
}

#[test]
fn a_renamed_or_replaced_segment_is_found() {
    let bed = Bed::new();
    let segments = bed.segments();
    fs::rename(&segments[3], segments[3].with_file_name("20990101T000000.000000Z-000.journal")).unwrap();
    assert!(bed.found().1.iter().any(|finding| finding.what.contains("renamed")));
    let bed = Bed::new();
    let segments = bed.segments();
    fs::copy(&segments[0], &segments[1]).unwrap();
    assert!(!bed.found().1.is_empty());
}

#[test]
fn seals_cannot_be_forged_reordered_or_cut_back() {
    let bed = Bed::new();
    let heads = bed.heads();
    let good = fs::read_to_string(&heads).unwrap();
    let count = good.lines().count();
    let found = |bed: &Bed, words: &str| {
        let findings = bed.verify().findings;
        assert!(findings.iter().any(|finding| finding.what.contains(words)), "{words}: {findings:?}");
    };
    edit_lines(&heads, |lines| lines.swap(0, 1));
    found(&bed, "out of order");
    fs::write(&heads, &good).unwrap();
    edit_lines(&heads, |lines| drop(lines.remove(1)));
    found(&bed, "MAC");
    fs::write(&heads, &good).unwrap();
    edit_lines(&heads, |lines| lines.truncate(count - 2));
    found(&bed, "cut back");
    fs::remove_file(&heads).unwrap();
    found(&bed, "missing");
    // With another key, made up by whoever changed the journal.
    let other = bed.keys.path().join("other.key");
    fs::write(&other, [7; 32]).unwrap();
    fs::write(&heads, &good).unwrap();
    let findings = verify(bed.data.path(), Some(&other)).unwrap().findings;
    assert_eq!(findings.iter().filter(|finding| finding.what.contains("MAC")).count(), count);
}

#[test]
fn a_ledger_put_back_to_an_older_state_as_a_whole_is_found() {
    let bed = Bed::new();
    let old = directory();
    copy(bed.data.path(), old.path());
    let ledger = bed.open();
    bed.calls(&ledger, 0, 3);
    ledger.close().unwrap();
    drop(ledger);
    fs::remove_dir_all(segment::directory(bed.data.path())).unwrap();
    copy(old.path(), bed.data.path());
    let findings = bed.verify().findings;
    assert!(findings.iter().any(|finding| finding.what.contains("cut back")), "{findings:?}");

    // The gateway that goes on from there does not cover it up.
    let ledger = bed.open();
    bed.calls(&ledger, 0, 1);
    ledger.close().unwrap();
    let findings = bed.verify().findings;
    assert!(findings.iter().any(|finding| finding.what.contains("missing or out of order")), "{findings:?}");
}

#[test]
fn it_verifies_while_the_gateway_runs_and_after_it_was_killed() {
    let bed = Bed::new();
    let ledger = bed.open();
    bed.calls(&ledger, 1, 5);
    ledger.ingest();
    assert_eq!(bed.verify().findings, []);
    ledger.sync();
    ledger.seal();
    bed.calls(&ledger, 1, 5);
    let killed = directory();
    copy(bed.data.path(), killed.path());
    assert_eq!(bed.verify().findings, []);
    // Seals of the killed one are those of the directory it was in; its anchor is not here.
    let verified = verify(killed.path(), Some(&bed.key())).unwrap();
    assert_eq!(verified.findings, []);
    assert!(verified.notes.iter().any(|note| note.contains("no anchor")));
}

#[test]
fn a_key_in_the_data_directory_or_too_short_is_refused() {
    let data = directory();
    let inside = data.path().join("seal.key");
    assert!(matches!(Ledger::open(data.path(), Some(&inside), 1), Err(LedgerError::SealKey { .. })));
    assert!(!inside.exists());
    let keys = directory();
    let short = keys.path().join("short.key");
    fs::write(&short, [1; 31]).unwrap();
    assert!(matches!(Ledger::open(data.path(), Some(&short), 1), Err(LedgerError::SealKey { .. })));
    let made = keys.path().join("made.key");
    Ledger::open(data.path(), Some(&made), 1).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(&made).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (32, 0o600));
}

/// That the ledger does not open, with an error that names the key, the seals and the anchor; and that nothing was written.
fn refuses(bed: &Bed, key: &Path) -> String {
    let (path, heads) = (bed.heads(), fs::read(bed.heads()).unwrap());
    let segments = bed.segments();
    let error = Ledger::open(bed.data.path(), Some(key), 2).unwrap_err();
    assert!(matches!(error, LedgerError::OtherSealKey { .. }), "{error}");
    let text = error.to_string();
    let named = ["ledger.sealKeyFile", key.to_str().unwrap(), path.to_str().unwrap(), ".seal away"];
    assert!(named.iter().all(|name| text.contains(name)), "{text}");
    assert_eq!((fs::read(&path).unwrap(), bed.segments()), (heads, segments));
    text
}

#[test]
fn a_key_that_did_not_make_the_last_seal_is_refused() {
    let bed = Bed::new();
    let other = bed.keys.path().join("other.key");
    fs::write(&other, [7; 32]).unwrap();
    refuses(&bed, &other);
    // In the place of the right one, where the anchor is.
    let right = fs::read(bed.key()).unwrap();
    fs::write(bed.key(), [7; 32]).unwrap();
    refuses(&bed, &bed.key());
    fs::write(bed.key(), right).unwrap();
    bed.open().close().unwrap();
    assert_eq!(bed.verify().findings, []);
}

#[test]
fn a_key_that_is_lost_is_not_made_again_while_there_are_seals() {
    let bed = Bed::new();
    fs::remove_file(bed.key()).unwrap();
    let text = refuses(&bed, &bed.key());
    assert!(!bed.key().exists());
    // What the error says helps.
    let anchor = text.split(" and ").last().unwrap().split(' ').next().unwrap();
    fs::remove_file(anchor).unwrap();
    fs::remove_file(bed.heads()).unwrap();
    bed.open().close().unwrap();
    assert_eq!(bed.verify().findings, []);
}

#[test]
fn seals_that_were_changed_or_cut_back_do_not_make_the_key_a_wrong_one() {
    let bed = Bed::new();
    edit_lines(&bed.heads(), |lines| {
        let last = lines.last_mut().unwrap();
        *last = last.replace("\"entries\":", "\"entries\":1");
    });
    bed.open().close().unwrap();
    assert!(!bed.verify().findings.is_empty(), "it stays visible");
    let bed = Bed::new();
    edit_lines(&bed.heads(), |lines| lines.truncate(2));
    bed.open().close().unwrap();
    assert!(!bed.verify().findings.is_empty(), "it stays visible");
}

#[test]
fn a_key_file_of_another_form_is_refused_with_its_path_and_a_missing_directory_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let (data, keys) = (directory(), directory());
    let long = keys.path().join("long.key");
    fs::write(&long, [1; 257]).unwrap();
    for unfit in [long.as_path(), keys.path()] {
        let error = Ledger::open(data.path(), Some(unfit), 1).unwrap_err();
        assert!(matches!(error, LedgerError::SealKey { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("ledger.sealKeyFile") && text.contains(unfit.to_str().unwrap()), "{text}");
    }
    let made = keys.path().join("a/b/seal.key");
    Ledger::open(data.path(), Some(&made), 1).unwrap();
    let mode = fs::metadata(made.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, fs::metadata(&made).unwrap().len()), (0o700, 32));
    let inside = data.path().join("keys/seal.key");
    assert!(matches!(Ledger::open(data.path(), Some(&inside), 1), Err(LedgerError::SealKey { .. })));
    assert!(!inside.parent().unwrap().exists());
}
