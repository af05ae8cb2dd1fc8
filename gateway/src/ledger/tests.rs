use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use tollgate_policy::price::{Item, NanoUsd, Units};

use super::samples::{self, SPEND, TOKENS, copy, directory, hold, record, sums};
use super::*;
use crate::report::{By, Query, Report, report};

const HELD: (u64, i128) = (1_000, 2_000_000);
const USED: (u64, i128) = (120, 100_000);

fn open(data_dir: &Path) -> (Arc<Ledger>, Vec<(Timestamp, Charge)>) {
    Ledger::open(data_dir, None, 1).unwrap()
}

fn whole_report(data_dir: &Path, by: &[By]) -> Report {
    let until = Timestamp::now() + SignedDuration::from_secs(1);
    let query = Query { by: by.to_vec(), since: Timestamp::UNIX_EPOCH, until, timezone: TimeZone::UTC };
    report(&mut ReportStore::own(data_dir).unwrap(), query).unwrap()
}

fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let names = segment::list(data_dir).unwrap();
    names.iter().map(|name| segment::file(data_dir, name)).collect()
}

/// The payloads of a kind in whole batches, over all segments.
fn payloads(data_dir: &Path, kind: EntryKind) -> Vec<String> {
    let mut payloads = Vec::new();
    for path in segments(data_dir) {
        let mut batches = Batches::open(&path, 0).unwrap();
        while let Some(batch) = batches.next_batch().unwrap() {
            let entries = batch.entries().map(Result::unwrap).filter(|entry| entry.kind == Some(kind));
            payloads.extend(entries.map(|entry| samples::text(&entry)));
        }
    }
    payloads
}

/// The ids of a kind, over all segments; every id once.
fn ids(data_dir: &Path, kind: EntryKind) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for payload in payloads(data_dir, kind) {
        let id = payload.strip_prefix("{\"id\":\"").unwrap()[..32].to_owned();
        assert!(ids.insert(id), "twice: {payload}");
    }
    ids
}

/// Three calls: the first with its record, the second without, the third only recorded (it held nothing). Each entry is a batch, but the
/// first hold and record, which share one.
fn some_calls(data_dir: &Path) {
    let (ledger, _) = open(data_dir);
    let journal = ledger.journal(0).unwrap();
    let (first, second) = (hold(RecordId::new()), hold(RecordId::new()));
    journal.hold(&first).unwrap();
    journal.record(&record(&first)).unwrap();
    journal.flush();
    journal.hold(&second).unwrap();
    journal.flush();
    let mut third = record(&hold(RecordId::new()));
    third.charges.clear();
    journal.record(&third).unwrap();
    journal.flush();
}

/// Everything that has to hold of a ledger after a start: one record for each hold, and the budgets say what the records say.
fn is_recovered(data_dir: &Path, balances: &[(Timestamp, Charge)]) {
    let (holds, records) = (ids(data_dir, EntryKind::Hold), ids(data_dir, EntryKind::Record));
    assert!(holds.is_subset(&records), "a hold without a record");
    let total = whole_report(data_dir, &[]).total;
    assert_eq!(usize::try_from(total.sent()).unwrap(), records.len());
    let presumed = u64::try_from(total.estimated).unwrap();
    let charged = holds.len() as u64 - presumed;
    let expected = presumed * HELD.0 + charged * USED.0;
    assert_eq!(sums(balances).get(TOKENS).copied().unwrap_or_default(), expected);
    let spend = u128::from(sums(balances).get(SPEND).copied().unwrap_or_default());
    assert_eq!(total.estimated_cost, i128::from(presumed) * HELD.1);
    assert_eq!(spend, (i128::from(presumed) * HELD.1 + i128::from(charged) * USED.1).unsigned_abs());
    let verified = verify(data_dir, None).unwrap();
    assert!(verified.findings.is_empty(), "{:?}", verified.findings);
}

#[test]
fn nobody_else_is_told_of_what_a_loss_of_power_may_take_away() {
    let data = directory();
    let (ledger, _) = open(data.path());
    let journal = ledger.journal(0).unwrap();
    let segment = journal.end().segment;
    let call = || {
        let hold = hold(RecordId::new());
        journal.hold(&hold).unwrap();
        journal.record(&record(&hold)).unwrap();
        journal.flush();
        ledger.ingest();
    };
    let ends = || {
        let stored = ledger.control().store.known()[&segment];
        (stored, ledger.durable()[&segment])
    };
    call();
    ledger.sync();
    let (stored, durable) = ends();
    assert_eq!(durable, stored);
    call();
    let (more, still) = ends();
    assert!(more.0 > stored.0 && more.1 > stored.1);
    assert_eq!(still, durable, "it is in the store, and may not be on the disk");
    ledger.sync();
    assert_eq!(ends(), (more, more));
    // A segment that is over is on the disk as a whole.
    call();
    let later = Timestamp::now() + SignedDuration::from_hours(25);
    assert!(journal.rotate(later).unwrap().is_some());
    ledger.ingest();
    let (stored, durable) = ends();
    assert_eq!((stored, durable.0 > more.0), (durable, true));
}

#[test]
fn a_journal_cut_at_any_byte_of_its_last_batch_or_between_batches_gives_one_record_for_each_whole_hold() {
    let origin = directory();
    some_calls(origin.path());
    let [path] = &segments(origin.path())[..] else { panic!("one segment") };
    let bytes = fs::read(path).unwrap();
    let ends = samples::segment(path).ends();
    let last_batch = ends[ends.len() - 2];
    let near_an_end = |length: usize| ends.iter().any(|end| end.abs_diff(length) < 3);
    let everywhere =
        |length: &usize| *length > last_batch || near_an_end(*length) || length.is_multiple_of(41);
    for length in (ends[0]..=bytes.len()).rev().filter(everywhere) {
        let directory = directory();
        fs::create_dir_all(segment::directory(directory.path())).unwrap();
        fs::write(segment::directory(directory.path()).join(path.file_name().unwrap()), &bytes[..length])
            .unwrap();
        let (ledger, balances) = open(directory.path());
        is_recovered(directory.path(), &balances);
        drop(ledger);
        let (ledger, again) = open(directory.path());
        assert_eq!(ledger.recovered(), Recovered::default(), "nothing is left to recover");
        assert_eq!(sums(&balances), sums(&again));
    }
}

#[test]
fn recovery_that_is_itself_cut_short_still_gives_one_record() {
    let origin = directory();
    some_calls(origin.path());
    let crashed = directory();
    copy(origin.path(), crashed.path());
    drop(open(crashed.path()));
    let [_, recovering] = &segments(crashed.path())[..] else { panic!("two segments") };
    let bytes = fs::read(recovering).unwrap();
    for length in (0..=bytes.len()).step_by(37).chain([bytes.len() - 1, bytes.len()]) {
        // The store may have got as far as the crash before, or not exist at all.
        for with_store in [false, true] {
            let again = directory();
            copy(origin.path(), again.path());
            if !with_store {
                fs::remove_file(sqlite::path(again.path())).unwrap();
                let _ = fs::remove_file(again.path().join("ledger.sqlite-wal"));
            }
            let cut = segment::directory(again.path()).join(recovering.file_name().unwrap());
            fs::write(cut, &bytes[..length]).unwrap();
            let (_ledger, balances) = open(again.path());
            is_recovered(again.path(), &balances);
        }
    }
}

#[test]
fn a_store_that_is_removed_is_built_again_from_the_journal() {
    let directory = directory();
    some_calls(directory.path());
    let (ledger, before) = open(directory.path());
    ledger.close().unwrap();
    drop(ledger);
    let table = whole_report(
        directory.path(),
        &[By::Dimension(Dimension::Caller), By::Dimension(Dimension::Outcome)],
    );
    for file in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = fs::remove_file(directory.path().join(file));
    }
    let (_ledger, after) = open(directory.path());
    assert_eq!(sums(&before), sums(&after));
    assert_eq!(
        whole_report(
            directory.path(),
            &[By::Dimension(Dimension::Caller), By::Dimension(Dimension::Outcome)]
        )
        .lines,
        table.lines
    );
}

#[test]
fn a_journal_that_lost_what_the_store_has_does_not_keep_the_gateway_from_starting() {
    let directory = directory();
    some_calls(directory.path());
    drop(open(directory.path()));
    let [path, _] = &segments(directory.path())[..] else { panic!("two segments") };
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 300]).unwrap();
    let (ledger, balances) = open(directory.path());
    assert_eq!(sums(&balances)[TOKENS], 1_120, "the store still has it");
    ledger.close().unwrap();
    let findings = verify(directory.path(), None).unwrap().findings;
    assert!(findings.iter().any(|finding| finding.what.contains("cut off")), "{findings:?}");
}

#[test]
fn a_locked_store_loses_nothing_and_stops_nothing() {
    let directory = directory();
    let (ledger, _) = open(directory.path());
    let journal = ledger.journal(0).unwrap();
    let locker = rusqlite::Connection::open(sqlite::path(directory.path())).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = hold(RecordId::new());
    journal.hold(&first).unwrap();
    journal.record(&record(&first)).unwrap();
    ledger.ingest();
    assert!(!ledger.storing());
    assert_eq!(whole_report(directory.path(), &[]).total.calls, 1, "the journal has it");
    journal.record(&record(&hold(RecordId::new()))).unwrap();
    assert!(ledger.journal(0).unwrap().available().is_ok());

    locker.execute_batch("COMMIT").unwrap();
    ledger.ingest();
    assert!(!ledger.storing(), "it waits a while after a failure");
    ledger.control().retry = None;
    ledger.ingest();
    assert!(ledger.storing());
    assert_eq!(whole_report(directory.path(), &[]).total.calls, 2);
}

#[test]
fn a_call_that_spans_many_turns_of_the_store_is_counted_once() {
    let directory = directory();
    let (ledger, _) = open(directory.path());
    let journal = ledger.journal(0).unwrap();
    let call = hold(RecordId::new());
    journal.hold(&call).unwrap();
    ledger.ingest();
    ledger.ingest();
    assert_eq!(whole_report(directory.path(), &[]).total.calls, 0);
    journal.record(&record(&call)).unwrap();
    ledger.ingest();
    ledger.close().unwrap();
    drop((ledger, journal));
    let (ledger, balances) = open(directory.path());
    assert_eq!(ledger.recovered(), Recovered::default());
    is_recovered(directory.path(), &balances);
}

#[test]
fn cores_write_segments_of_their_own_and_the_next_run_names_them_all() {
    let directory = directory();
    let (ledger, _) = Ledger::open(directory.path(), None, 3).unwrap();
    for core in 0..3 {
        ledger.journal(core).unwrap().record(&record(&hold(RecordId::new()))).unwrap();
    }
    assert!(ledger.journal(3).is_none());
    ledger.close().unwrap();
    drop(ledger);
    let (_ledger, _) = open(directory.path());
    let names = segment::list(directory.path()).unwrap();
    assert_eq!(names.len(), 4);
    let header = segment::first(directory.path(), &names[3]).unwrap().unwrap();
    let ends: Vec<_> = header.previous.iter().map(|head| (Arc::clone(&head.segment), head.entries)).collect();
    assert_eq!(ends, names[..3].iter().map(|name| (Arc::clone(name), 2 + 4)).collect::<Vec<_>>());
    assert_eq!(whole_report(directory.path(), &[]).total.calls, 3);
}

#[test]
fn balances_keep_the_moment_of_the_hold_to_the_minute_for_long_windows() {
    let directory = directory();
    let (ledger, _) = open(directory.path());
    let at: Timestamp = Timestamp::now() - SignedDuration::from_hours(5);
    let mut call = record(&hold(RecordId::new()));
    call.held_at = Some(at);
    call.charges.push(Charge {
        limit: "grant/a/tokens/second/caller".into(),
        key: "spiffe://a/b".into(),
        amount: 7,
    });
    call.charges.push(Charge { limit: "grant/a/tokens/minute/shared".into(), key: "".into(), amount: 8 });
    ledger.journal(0).unwrap().record(&call).unwrap();
    ledger.close().unwrap();
    drop(ledger);
    let (_ledger, balances) = open(directory.path());
    let opened =
        |limit: &str| balances.iter().find(|(_, charge)| &*charge.limit == limit).unwrap().0.as_millisecond();
    assert_eq!(opened("grant/a/tokens/second/caller"), at.as_millisecond());
    assert_eq!(opened("grant/a/tokens/minute/shared"), at.as_second() * 1_000);
    assert_eq!(opened(TOKENS), at.as_second().div_euclid(60) * 60_000);
    assert!(balances.iter().any(|(_, charge)| &*charge.key == "spiffe://a/b"));
}

#[test]
fn a_correction_of_a_presumed_call_lowers_its_budget_from_the_next_start_on() {
    let directory = directory();
    some_calls(directory.path());
    let (ledger, before) = open(directory.path());
    let records = payloads(directory.path(), EntryKind::Record);
    let presumed = records.iter().find(|payload| payload.contains("presumed")).unwrap();
    let id: RecordId = presumed.strip_prefix("{\"id\":\"").unwrap()[..32].parse().unwrap();
    let units = Units { input: 300, output: 50, ..Units::default() };
    let actual = Correction { units, cost: NanoUsd(500_000) };
    let signature =
        Signature { by: Bounded::new("alice"), note: Some(Bounded::new("as billed")), force: true };
    let correction = settle(directory.path(), id, actual, &signature).unwrap();
    ledger.ingest();
    let total = whole_report(directory.path(), &[]).total;
    assert_eq!((total.sent(), total.estimated, total.adjustments), (3, 0, 1));
    assert_eq!((total.usage.get(Item::Input), total.usage.get(Item::Output)), (200 + 300, 40 + 50));
    assert_eq!(total.cost, 2 * 100_000 + 500_000);

    // A second one is the difference to what is known by then.
    settle(directory.path(), id, Correction { units: Units { output: 60, ..units }, ..actual }, &signature)
        .unwrap();
    ledger.ingest();
    assert_eq!(whole_report(directory.path(), &[]).total.usage.get(Item::Output), 40 + 60);
    assert!(
        settle(directory.path(), correction, actual, &signature).is_err(),
        "a correction is not corrected"
    );
    assert!(settle(directory.path(), RecordId::new(), actual, &signature).is_err(), "no such record");
    ledger.close().unwrap();
    drop(ledger);
    let (_ledger, after) = open(directory.path());
    assert_eq!(sums(&before)[TOKENS], 1_000 + 120);
    assert_eq!(sums(&after)[TOKENS], 360 + 120);
    assert_eq!(sums(&after)[SPEND], 500_000 + 100_000);
    assert!(verify(directory.path(), None).unwrap().findings.is_empty());
}

#[test]
fn there_is_no_ledger_where_there_is_none() {
    let directory = directory();
    assert!(matches!(ReportStore::own(directory.path()), Err(LedgerError::Missing(_))));
    assert!(matches!(verify(directory.path(), None), Err(LedgerError::Missing(_))));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "looking makes nothing");
}
