use std::future::poll_fn;
use std::path::Path;

use super::rotation::SEGMENT_TIME;
use super::sink::fake::Disk;
use super::*;
use crate::ledger::batch::SegmentReader;
use crate::ledger::samples;
use crate::ledger::segment;
use crate::ledger::{HoldLine, LedgerError, RecordId};

pub(super) fn journal(data_dir: &Path) -> (Arc<Journal>, Arc<Disk>) {
    let epoch = ProcessEpoch::begin(data_dir, Timestamp::now()).unwrap();
    let reserve = Arc::new(Reserve::new(data_dir));
    assert!(reserve.restore());
    let journal = Journal::begin(&epoch, "000", &[], reserve).unwrap();
    let disk = Arc::new(Disk::default());
    {
        let mut state = journal.state();
        let file = segment::directory(data_dir).join(&*state.written.segment);
        disk.0.lock().unwrap().bytes = std::fs::read(file).unwrap();
        state.sink = Sink::Fake(Arc::clone(&disk));
    }
    (Arc::new(journal), disk)
}

pub(super) fn hold() -> HoldLine<'static> {
    samples::hold(RecordId::new())
}

/// The entries on the disk, whose chain is checked.
pub(super) fn entries(disk: &Disk) -> Vec<(EntryKind, String)> {
    samples::parse(&disk.0.lock().unwrap().bytes).entries()
}

#[tokio::test]
async fn all_that_is_appended_in_one_turn_of_the_loop_shares_one_write() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let journal = Arc::clone(&journal);
        tasks.spawn(async move {
            let at = journal.hold(&hold()).unwrap();
            journal.written(at).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(disk.0.lock().unwrap().writes, 1);
    assert_eq!(samples::parse(&disk.0.lock().unwrap().bytes).batches.len(), 2);
    assert_eq!(entries(&disk).len(), 201);
}

#[tokio::test]
async fn a_body_that_polls_waits_like_a_task_that_awaits() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let body = |journal: Arc<Journal>| async move {
        let mut wait = Wait::new(journal.record(&samples::record(&hold())).unwrap());
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            journal.poll_written(&mut wait, context)
        })
        .await
        .unwrap();
        polls
    };
    let first = tokio::spawn(body(Arc::clone(&journal)));
    let second = tokio::spawn(body(Arc::clone(&journal)));
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (2, 2));
    assert_eq!(disk.0.lock().unwrap().writes, 1);
    let mut wait = Wait::new(Position(1));
    assert!(
        poll_fn(|context| journal.poll_written(&mut wait, context)).await.is_ok(),
        "at once: it is written"
    );
}

#[tokio::test]
async fn a_full_disk_refuses_holds_while_records_use_the_reserve() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let (early, late) = (hold(), hold());
    let at = journal.hold(&early).unwrap();
    journal.written(at).await.unwrap();
    let refused_early = Record { outcome: Outcome::Refused, ..samples::record(&hold()) };

    let reserve = directory.path().join("journal.reserve");
    assert!(reserve.exists());
    {
        let mut disk = disk.0.lock().unwrap();
        (disk.room, disk.reserve) = (Some(disk.bytes.len() + 10), Some(reserve.clone()));
    }
    let at = journal.record(&samples::record(&early)).unwrap();
    journal.written(at).await.unwrap();
    assert!(!reserve.exists(), "its space was given back");
    assert!(matches!(journal.hold(&late), Err(LedgerError::Full)));
    assert!(matches!(journal.available(), Err(LedgerError::Full)));
    let at = journal.record(&refused_early).unwrap();
    journal.written(at).await.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let refused_late = Record { outcome: Outcome::Refused, ..samples::record(&hold()) };
    assert!(
        matches!(journal.record(&refused_late), Err(LedgerError::Full)),
        "a flood of refusals does not use it up"
    );

    assert!(journal.reserve.restore());
    let at = journal.hold(&hold()).unwrap();
    journal.written(at).await.unwrap();
    let entries = entries(&disk);
    assert_eq!(entries.iter().filter(|(_, text)| text.contains(&early.id.to_string())).count(), 2);
    assert_eq!(entries.len(), 5);
}

#[tokio::test]
async fn a_disk_that_stays_full_cuts_what_was_half_written_and_goes_on_in_the_same_segment() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let used = disk.0.lock().unwrap().bytes.len();
    disk.0.lock().unwrap().room = Some(used + 10);
    let first = hold();
    let at = journal.record(&samples::record(&first)).unwrap();
    assert!(journal.written(at).await.is_err());
    assert_eq!(entries(&disk).len(), 1);
    assert!(journal.sync().is_err());
    disk.0.lock().unwrap().room = None;
    let segment = journal.end().segment;
    journal.sync().unwrap();
    assert_eq!(journal.end().segment, segment);
    let entries = entries(&disk);
    assert!(entries.len() == 2 && entries[1].1.contains(&first.id.to_string()));
}

#[tokio::test]
async fn what_fails_is_refused_and_a_retained_record_is_written_later_but_a_hold_is_not() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let (first, second, third) = (hold(), hold(), hold());
    let at = journal.hold(&first).unwrap();
    journal.written(at).await.unwrap();

    disk.0.lock().unwrap().broken = true;
    let record_at = journal.record(&samples::record(&first)).unwrap();
    let hold_at = journal.hold(&second).unwrap();
    assert!(journal.written(record_at).await.is_err());
    assert!(journal.written(hold_at).await.is_err());
    assert!(journal.written(at).await.is_ok(), "it was written before");
    assert!(matches!(journal.hold(&third), Err(LedgerError::Unavailable)));
    assert!(matches!(journal.record(&samples::record(&third)), Err(LedgerError::Unavailable)));

    let before = journal.end();
    assert!(journal.ranges().is_empty(), "nothing is handed over while it is broken");
    journal.sync().unwrap();
    let now = journal.end();
    assert_ne!(before.segment, now.segment, "a new segment");
    let header = segment::first(directory.path(), &now.segment).unwrap().unwrap();
    assert_eq!(header.previous, std::slice::from_ref(&before), "that says where the old one ended");
    assert!(header.continues);
    let [old, new] = &journal.ranges()[..] else { panic!("two ranges") };
    assert_eq!((&old.end, old.from), (&before, 0));
    assert_eq!((&new.end, new.from), (&now, 0));
    assert!(old.rollup.is_none() && new.rollup.is_none(), "both are read from the files");
    assert!(journal.written(hold_at).await.is_err(), "still not promised");
    let at = journal.hold(&third).unwrap();
    journal.written(at).await.unwrap();
    let entries = samples::segment(&segment::file(directory.path(), &now.segment)).entries();
    let has = |kind: EntryKind, hold: &HoldLine<'_>| {
        let begins = format!("{{\"id\":\"{}\"", hold.id);
        entries.iter().any(|(of, text)| *of == kind && text.starts_with(&begins))
    };
    assert!(has(EntryKind::Record, &first) && has(EntryKind::Record, &third) && has(EntryKind::Hold, &third));
    assert!(!has(EntryKind::Hold, &second));
}

#[tokio::test]
async fn a_sync_that_fails_abandons_the_segment_and_the_next_one_goes_on() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    disk.0.lock().unwrap().sync_fails = true;
    assert!(journal.sync().is_err());
    assert!(journal.available().is_err());
    let heads = journal.sync().unwrap();
    assert_eq!(heads.len(), 2, "the abandoned one and the new one");
    assert!(journal.available().is_ok());
    assert!(journal.sync().unwrap().is_empty(), "nothing changed since");
}

#[tokio::test]
async fn records_kept_in_memory_while_nothing_can_be_written_are_bounded() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    disk.0.lock().unwrap().broken = true;
    let at = journal.hold(&hold()).unwrap();
    assert!(journal.written(at).await.is_err());
    let record = samples::record(&hold());
    for _ in 0..60_000 {
        assert!(journal.record(&record).is_err());
    }
    let kept = journal.state().broken.as_ref().unwrap().retained.len();
    assert!((RETAINED..RETAINED + 4096).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_segment_that_is_a_day_old_is_followed_by_another_and_nothing_is_lost_between() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let (first, second, third) = (hold(), hold(), hold());
    let at = journal.hold(&first).unwrap();
    journal.written(at).await.unwrap();
    assert!(journal.rotate(Timestamp::now()).unwrap().is_none(), "it is young");
    let waits = journal.hold(&second).unwrap();
    let over = journal.rotate(Timestamp::now() + SEGMENT_TIME).unwrap().expect("it is old");
    assert!(journal.written(waits).await.is_ok(), "it was written before");
    assert_eq!((entries(&disk).len(), over.entries), (3, 3 + 3), "and the three lists that both holds name");
    let at = journal.hold(&third).unwrap();
    journal.written(at).await.unwrap();
    let now = journal.end();
    let header = segment::first(directory.path(), &now.segment).unwrap().unwrap();
    assert!(!header.continues && header.previous[0].segment == over.segment);
    let [old, new] = &journal.ranges()[..] else { panic!("two ranges") };
    assert_eq!((&old.end, old.rollup.as_ref().unwrap().open.len()), (&over, 2));
    assert_eq!((&new.end, new.from, new.rollup.as_ref().unwrap().open.len()), (&now, 0, 1));
}

#[test]
fn entries_that_nobody_waited_for_are_written_when_the_journal_ends() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    journal.record(&samples::record(&hold())).unwrap();
    assert_eq!(entries(&disk).len(), 1);
    drop(journal);
    assert_eq!(entries(&disk).len(), 2);
}

#[test]
fn stretches_follow_one_another_and_have_only_what_is_written() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let (first, second) = (hold(), hold());
    journal.hold(&first).unwrap();
    journal.record(&samples::record(&first)).unwrap();
    journal.hold(&second).unwrap();
    let [one] = &journal.ranges()[..] else { panic!("one range") };
    let rollup = one.rollup.as_ref().unwrap();
    assert_eq!((one.from, one.until), (0, disk.0.lock().unwrap().bytes.len() as u64));
    assert_eq!((rollup.records, rollup.open.len(), rollup.ended.len()), (1, 1, 0));
    let begins = rollup.open[&second.id];
    let path = directory.path().join("copy");
    std::fs::write(&path, &disk.0.lock().unwrap().bytes).unwrap();
    let mut reader = SegmentReader::open(&path).unwrap();
    let entry = reader.entry_at(begins).unwrap().unwrap();
    assert!(samples::text(&entry).starts_with(&format!("{{\"id\":\"{}", second.id)));

    journal.record(&samples::record(&second)).unwrap();
    let [two] = &journal.ranges()[..] else { panic!("one range") };
    assert_eq!(two.from, one.until);
    assert_eq!(two.rollup.as_ref().unwrap().ended, [second.id]);
    assert!(journal.ranges().is_empty());
}

#[test]
fn a_record_never_holds_a_query_and_leaves_out_what_is_absent() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    journal.record(&samples::record(&hold())).unwrap();
    journal.flush();
    let (kind, text) = &entries(&disk)[1];
    assert!(*kind == EntryKind::Record && !text.contains("canary"));
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let record = value.as_object().unwrap();
    assert!(
        !record.contains_key("reason")
            && !record.contains_key("first_byte_us")
            && !record.contains_key("unpriced")
    );
    assert_eq!(record["units"], serde_json::json!({"input": 100, "output": 20}));
    assert_eq!(record["cost"], 100_000);
}

#[tokio::test]
async fn records_that_could_not_be_written_are_one_batch_of_the_next_segment_and_their_holds_are_not() {
    let directory = samples::directory();
    let (journal, disk) = journal(directory.path());
    let (first, second) = (hold(), hold());
    journal.record(&samples::record(&first)).unwrap();
    disk.0.lock().unwrap().broken = true;
    let at = journal.hold(&second).unwrap();
    assert!(journal.written(at).await.is_err());
    assert!(journal.record(&samples::record(&second)).is_err());
    journal.sync().unwrap();
    let now = journal.end();
    let entries = samples::segment(&segment::file(directory.path(), &now.segment)).entries();
    let kinds: Vec<_> = entries.iter().map(|(kind, _)| *kind).collect();
    assert_eq!((kinds, now.entries), (vec![EntryKind::Segment, EntryKind::Record, EntryKind::Record], 3 + 4));
    for (entry, call) in entries[1..].iter().zip([&first, &second]) {
        assert!(entry.1.contains(&call.id.to_string()), "in the order of appending");
    }
}
