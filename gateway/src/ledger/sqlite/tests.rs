use std::fs;
use std::path::Path;

use super::*;
use crate::ledger::batch::{EntryKind, MAGIC, NewBatch, SegmentReader};
use crate::ledger::chain::ChainHead;
use crate::ledger::line::Row;
use crate::ledger::rollup::Rollup;
use crate::ledger::samples::{SPEND, TOKENS, directory, hold, read_back, record, sums, text};
use crate::ledger::timed_sums::TimeUnit;
use crate::ledger::{HoldLine, Record, payload, segment};

enum Entry {
    Hold(Box<HoldLine<'static>>),
    Record(Box<Record>),
    Row(Box<Row>),
    Raw(EntryKind, &'static str),
}

fn a_record(record: &Record) -> Entry {
    Entry::Record(Box::new(record.clone()))
}

fn a_hold(hold: &HoldLine<'static>) -> Entry {
    Entry::Hold(Box::new(hold.clone()))
}

/// A segment with these entries, each a batch of its own, which the reader takes as they come.
fn write(data_dir: &Path, name: &str, entries: &[Entry]) {
    let directory = segment::directory(data_dir);
    fs::create_dir_all(&directory).unwrap();
    let mut bytes = MAGIC.to_vec();
    let mut head = ChainHead::NONE;
    for entry in entries {
        let mut batch = NewBatch::at(bytes.len() as u64);
        match entry {
            Entry::Hold(hold) => payload::append(&mut batch, EntryKind::Hold, &hold.fields()).start,
            Entry::Record(record) => payload::append(&mut batch, EntryKind::Record, &record.fields()).start,
            Entry::Row(row) => payload::append(&mut batch, EntryKind::Record, &row.fields()).start,
            Entry::Raw(kind, payload) => {
                batch.append(*kind, &[], |out| out.extend_from_slice(payload.as_bytes()))
            }
        };
        head = batch.close(head);
        bytes.extend_from_slice(batch.bytes());
    }
    fs::write(directory.join(name), bytes).unwrap();
}

/// How many requests the store knows.
fn count(data_dir: &Path) -> i64 {
    let mut count = 0;
    let reader = StoreReader::open(data_dir).unwrap();
    let sql = "SELECT coalesce(sum(requests), 0) FROM sums";
    reader.query(sql, &[], |row| row.get(0).map(|found| count = found)).unwrap();
    count
}

/// Reads all segments to their ends; how many records were new.
fn read(store: &mut Store, data_dir: &Path) -> u64 {
    let names = segment::list(data_dir).unwrap();
    names.iter().map(|name| store.read(data_dir, name, Until::default()).unwrap()).sum()
}

fn charged(store: &Store) -> std::collections::BTreeMap<String, u64> {
    sums(&store.balances(Timestamp::UNIX_EPOCH).unwrap())
}

#[test]
fn a_segment_that_is_read_again_counts_once() {
    let directory = directory();
    write(directory.path(), "a.journal", &[a_record(&record(&hold(RecordId::new())))]);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(read(&mut store, directory.path()), 1);
    assert_eq!(read(&mut store, directory.path()), 0);
    drop(store);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(read(&mut store, directory.path()), 0);
    assert_eq!((count(directory.path()), charged(&store)[TOKENS]), (1, 120));
}

#[test]
fn what_another_process_took_in_counts_once() {
    let directory = directory();
    let calls = [record(&hold(RecordId::new())), record(&hold(RecordId::new()))];
    let lines = calls.each_ref().map(a_record);
    let (mut one, mut other) =
        (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
    let name: Arc<str> = "a.journal".into();
    for count in 1..=2 {
        write(directory.path(), &name, &lines[..count]);
        assert_eq!(one.read(directory.path(), &name, Until::default()).unwrap(), 1);
        assert!(other.read(directory.path(), &name, Until::default()).is_err());
        assert_eq!(other.read(directory.path(), &name, Until::default()).unwrap(), 0);
    }
    assert_eq!((count(directory.path()), charged(&other)[TOKENS]), (2, 240));
}

#[test]
fn a_hold_stays_open_until_its_record_comes_in_whatever_stretch() {
    let directory = directory();
    let (ended, open) = (hold(RecordId::new()), hold(RecordId::new()));
    write(directory.path(), "a.journal", &[a_hold(&ended), a_hold(&open)]);
    let mut store = Store::open(directory.path()).unwrap();
    read(&mut store, directory.path());
    assert_eq!(store.open_holds().unwrap().len(), 2);
    write(directory.path(), "b.journal", &[a_record(&record(&ended))]);
    read(&mut store, directory.path());
    let [(segment, offset)] = &store.open_holds().unwrap()[..] else { panic!("one hold is open") };
    let mut reader = SegmentReader::open(&segment::file(directory.path(), segment)).unwrap();
    let entry = reader.entry_at(*offset).unwrap().unwrap();
    assert!(text(&entry).contains(&open.id.to_string()));
}

#[test]
fn what_a_core_left_behind_is_not_counted_beyond_what_its_next_segment_says() {
    let directory = directory();
    let calls = [record(&hold(RecordId::new())), record(&hold(RecordId::new()))];
    write(directory.path(), "a.journal", &calls.each_ref().map(a_record));
    let mut store = Store::open(directory.path()).unwrap();
    let name: Arc<str> = "a.journal".into();
    assert_eq!(store.read(directory.path(), &name, Until { bytes: None, entries: Some(5) }).unwrap(), 1);
    assert_eq!(store.read(directory.path(), &name, Until { bytes: None, entries: Some(5) }).unwrap(), 0);
    assert_eq!(store.known()["a.journal"].1, 5, "a record and its four lists");
}

#[test]
fn a_stretch_that_does_not_follow_the_cursor_is_read_from_the_file() {
    let directory = directory();
    let calls = [record(&hold(RecordId::new())), record(&hold(RecordId::new()))];
    write(directory.path(), "a.journal", &calls.each_ref().map(a_record));
    let mut store = Store::open(directory.path()).unwrap();
    let length = fs::metadata(segment::directory(directory.path()).join("a.journal")).unwrap().len();
    let end = segment::end(directory.path(), &"a.journal".into(), &Known::new()).unwrap().unwrap();
    let mut rollup = Rollup::default();
    calls.iter().for_each(|call| rollup.record(&call.fields()));
    let mut range = SegmentRange { end, from: 10, until: length, rollup: Some(rollup) };
    store.take(directory.path(), &range).unwrap();
    assert_eq!(count(directory.path()), 2);
    range.from = 0;
    store.take(directory.path(), &range).unwrap();
    assert_eq!(count(directory.path()), 2, "what is in the store is not taken in again");
}

#[test]
fn a_record_is_found_by_its_id() {
    let directory = directory();
    let mut store = Store::open(directory.path()).unwrap();
    let mut ids = Vec::new();
    for name in ["a.journal", "b.journal"] {
        let calls: Vec<_> = (0..20).map(|_| record(&hold(RecordId::new()))).collect();
        ids.extend(calls.iter().map(|call| call.id));
        write(directory.path(), name, &calls.iter().map(a_record).collect::<Vec<_>>());
        read(&mut store, directory.path());
        std::thread::sleep(Duration::from_millis(2));
    }
    let reader = StoreReader::open(directory.path()).unwrap();
    for (index, id) in ids.iter().enumerate() {
        let [place] = &reader.find(*id).unwrap()[..] else { panic!("one place") };
        assert_eq!(&*place.segment, ["a.journal", "b.journal"][index / 20]);
    }
    assert_eq!(reader.find(RecordId::new()).unwrap(), []);
}

#[test]
fn an_entry_that_cannot_be_read_hides_no_other() {
    let directory = directory();
    let call = record(&hold(RecordId::new()));
    let entries = [
        Entry::Raw(EntryKind::Record, "{\"id\":\"nonsense\"}"),
        Entry::Raw(EntryKind::Hold, "{\"id\":7}"),
        Entry::Raw(EntryKind::Audit, "{}"),
        a_record(&call),
    ];
    write(directory.path(), "a.journal", &entries);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(read(&mut store, directory.path()), 1);
}

#[test]
fn words_of_another_version_still_count() {
    let directory = directory();
    let mut row = read_back(&record(&hold(RecordId::new())));
    (row.outcome, row.reason, row.cost) = ("teleported".into(), "too_blue".into(), Some(i64::MAX));
    write(directory.path(), "a.journal", &[Entry::Row(Box::new(row))]);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(read(&mut store, directory.path()), 1);
}

#[test]
fn a_part_of_a_batch_waits_for_the_rest() {
    let directory = directory();
    let calls = [record(&hold(RecordId::new())), record(&hold(RecordId::new()))];
    write(directory.path(), "a.journal", &calls.each_ref().map(a_record));
    let path = segment::directory(directory.path()).join("a.journal");
    let whole = fs::read(&path).unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(read(&mut store, directory.path()), 1);
    assert_eq!(read(&mut store, directory.path()), 0);
    fs::write(&path, &whole).unwrap();
    assert_eq!(read(&mut store, directory.path()), 1);
    assert_eq!(store.known()["a.journal"], (whole.len() as u64, 2 * 5), "each with its four lists");
}

#[test]
fn charges_of_one_window_add_up_over_batches_and_can_be_lowered() {
    let directory = directory();
    let first = hold(RecordId::new());
    let mut store = Store::open(directory.path()).unwrap();
    for name in ["a.journal", "b.journal", "c.journal"] {
        let mut call = record(&hold(RecordId::new()));
        call.held_at = Some(first.at);
        write(directory.path(), name, &[a_record(&call)]);
        read(&mut store, directory.path());
    }
    assert_eq!((charged(&store)[TOKENS], charged(&store)[SPEND]), (360, 300_000));
    let mut correction = read_back(&record(&first));
    for charge in &mut correction.charges {
        charge.amount.0 = if &*charge.limit == TOKENS { -300 } else { -900_000 };
    }
    write(directory.path(), "d.journal", &[Entry::Row(Box::new(correction))]);
    read(&mut store, directory.path());
    assert_eq!(charged(&store).get(TOKENS), Some(&60));
    assert_eq!(charged(&store).get(SPEND), None, "below nothing is nothing");
}

#[test]
fn a_store_of_another_layout_is_left_alone_and_it_is_said_what_to_do() {
    let directory = directory();
    drop(Store::open(directory.path()).unwrap());
    let connection = Connection::open(path(directory.path())).unwrap();
    for layout in [1, 3, 9] {
        connection.pragma_update(None, "user_version", layout).unwrap();
        let refused = [
            Store::open(directory.path()).map(drop).unwrap_err(),
            StoreReader::open(directory.path()).map(drop).unwrap_err(),
        ];
        for error in refused {
            let error = crate::ledger::chain(&error);
            assert!(error.contains(&format!("its layout is number {layout}")), "{error}");
            assert!(error.contains("move it away: it is built again from the journal"), "{error}");
        }
    }
}

#[test]
fn a_reader_needs_no_right_to_write() {
    let directory = directory();
    let call = record(&hold(RecordId::new()));
    write(directory.path(), "a.journal", &[a_record(&call)]);
    let mut store = Store::open(directory.path()).unwrap();
    read(&mut store, directory.path());
    assert_eq!(count(directory.path()), 1, "beside the writer");
    drop(store);
    assert_eq!(count(directory.path()), 1, "alone");
    let uri = immutable(&path(directory.path())).unwrap();
    uri.query_row("SELECT count(*) FROM sums", [], |row| row.get::<_, i64>(0)).unwrap();
}

#[test]
fn a_dimension_that_a_store_has_not_got_is_added_to_what_it_has() {
    let directory = directory();
    let mut calls = [record(&hold(RecordId::new())), record(&hold(RecordId::new()))];
    calls[1].alias = Some("team-a".parse().unwrap());
    write(directory.path(), "a.journal", &[a_record(&calls[0])]);
    let mut store = Store::open(directory.path()).unwrap();
    read(&mut store, directory.path());
    store.connection.execute_batch("ALTER TABLE dimensions DROP COLUMN alias").unwrap();
    drop(store);
    assert!(StoreReader::open(directory.path()).is_err(), "the gateway has to have been here first");
    let mut store = Store::open(directory.path()).unwrap();
    write(directory.path(), "b.journal", &[a_record(&calls[1])]);
    read(&mut store, directory.path());
    let mut aliases = Vec::new();
    let sql = "SELECT alias, requests FROM sums s JOIN dimensions d ON d.id = s.dimensions ORDER BY alias";
    StoreReader::open(directory.path())
        .unwrap()
        .query(sql, &[], |row| {
            aliases.push((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
            Ok(())
        })
        .unwrap();
    assert_eq!(aliases, [(String::new(), 1), ("team-a".to_owned(), 1)]);
}

#[test]
fn usage_is_a_row_for_each_unit() {
    let directory = directory();
    let mut store = Store::open(directory.path()).unwrap();
    for name in ["a.journal", "b.journal"] {
        let mut call = record(&hold(RecordId::new()));
        (call.at, call.units.file_searches) = (Timestamp::UNIX_EPOCH, 3);
        write(directory.path(), name, &[a_record(&call)]);
        read(&mut store, directory.path());
    }
    let mut usage = Vec::new();
    let reader = StoreReader::open(directory.path()).unwrap();
    let each = |row: &rusqlite::Row<'_>| {
        usage.push((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        Ok(())
    };
    reader.query("SELECT unit, amount FROM usage ORDER BY unit", &[], each).unwrap();
    assert_eq!(usage, [("file_searches", 6), ("input", 200), ("output", 40)].map(|(u, n)| (u.to_owned(), n)));
}

/// What the store has by the minute, summed up by a longer unit, and what it has by that.
fn by_unit(data_dir: &Path, TimeUnit { minutes, suffix, column }: TimeUnit) -> [Vec<[i64; 5]>; 2] {
    let reader = StoreReader::open(data_dir).unwrap();
    let of = |sums: &str, usage: &str| {
        let sql = format!(
            "SELECT u.{column}, u.dimensions, sum(DISTINCT s.requests), sum(DISTINCT s.cost), sum(u.amount) FROM ({usage}) u
             JOIN ({sums}) s ON s.{column} = u.{column} AND s.dimensions = u.dimensions AND s.status = u.status
             GROUP BY 1, 2 ORDER BY 1, 2"
        );
        let mut rows = Vec::new();
        let read = |row: &rusqlite::Row<'_>| {
            rows.push([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]);
            Ok(())
        };
        reader.query(&sql, &[], read).unwrap();
        rows
    };
    let time = format!("SELECT minute / {minutes} AS {column}, dimensions, status");
    [
        of(
            &format!("{time}, sum(requests) AS requests, sum(cost) AS cost FROM sums GROUP BY 1, 2, 3"),
            &format!("{time}, unit, sum(amount) AS amount FROM usage GROUP BY 1, 2, 3, 4"),
        ),
        of(&format!("SELECT * FROM sums{suffix}"), &format!("SELECT * FROM usage{suffix}")),
    ]
}

#[test]
fn hours_and_days_have_what_their_minutes_have_in_a_new_store_and_in_one_that_had_none() {
    let directory = directory();
    let mut store = Store::open(directory.path()).unwrap();
    for (name, minutes) in [("a.journal", [0, 59, 60]), ("b.journal", [61, 1_439, 7_000_000])] {
        let calls = minutes.map(|minute| {
            let mut call = record(&hold(RecordId::new()));
            call.at = Timestamp::from_second(minute * 60 + 30).unwrap();
            a_record(&call)
        });
        write(directory.path(), name, &calls);
        read(&mut store, directory.path());
    }
    let [day, hour, _] = TimeUnit::ALL;
    let of = |unit| by_unit(directory.path(), unit);
    let sums = |rows: &[[i64; 5]]| rows.iter().map(|row| (row[0], row[2])).collect::<Vec<_>>();
    let (of_hours, of_days) = (of(hour), of(day));
    let ([minutes, hours], [again, days]) = (&of_hours, &of_days);
    assert_eq!((minutes, again), (hours, days));
    assert_eq!(sums(hours), [(0, 2), (1, 2), (23, 1), (116_666, 1)]);
    assert_eq!(sums(days), [(0, 5), (4_861, 1)]);
    drop(store);

    let without_days = "DROP TABLE sums_by_day; DROP TABLE usage_by_day; PRAGMA user_version = 5";
    let without_hours = "DROP TABLE sums_by_hour; DROP TABLE usage_by_hour; PRAGMA user_version = 4";
    for forget in [without_days.to_owned(), format!("{without_days};{without_hours}")] {
        Store::open(directory.path()).unwrap().connection.execute_batch(&forget).unwrap();
        assert!(StoreReader::open(directory.path()).is_err(), "the gateway has to have been here first");
        drop(Store::open(directory.path()).unwrap());
        assert_eq!((of(hour), of(day)), (of_hours.clone(), of_days.clone()));
    }
}

#[test]
fn models_that_callers_make_up_grow_the_store_only_so_far_and_each_call_counts() {
    let directory = directory();
    let entries: Vec<Entry> = (0..1_100)
        .map(|n| {
            let mut made_up = record(&hold(RecordId::new()));
            made_up.model = Some(crate::ledger::Bounded::new(&format!("made-up-{n}")));
            a_record(&made_up)
        })
        .collect();
    write(directory.path(), "a.journal", &entries);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(read(&mut store, directory.path()), 1_100);
    assert_eq!(count(directory.path()), 1_100);
    let (mut rows, mut others) = (0, 0);
    let reader = StoreReader::open(directory.path()).unwrap();
    reader
        .query("SELECT count(*) FROM dimensions", &[], |row| row.get(0).map(|found: i64| rows = found))
        .unwrap();
    let sql =
        "SELECT sum(requests) FROM sums s JOIN dimensions d ON d.id = s.dimensions WHERE model = '(other)'";
    reader.query(sql, &[], |row| row.get(0).map(|found: i64| others = found)).unwrap();
    assert!((900..=1_001).contains(&rows), "{rows}");
    assert_eq!(rows - 1 + others, 1_100);
}
