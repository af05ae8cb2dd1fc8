use std::fs;
use std::path::Path;

use super::*;
use crate::ledger::chain::Head;
use crate::ledger::line::{HOLD, RECORD};
use crate::ledger::samples::{SPEND, TOKENS, directory, hold, record, sums};
use crate::ledger::segment;

/// A segment with these bodies, which the reader takes as they come.
fn write(data_dir: &Path, name: &str, lines: &[(&[u8], String)]) {
    let directory = segment::directory(data_dir);
    fs::create_dir_all(&directory).unwrap();
    let mut bytes = Vec::new();
    let mut head = Head::NONE;
    for (kind, json) in lines {
        let start = bytes.len();
        bytes.extend_from_slice(kind);
        bytes.extend_from_slice(json.as_bytes());
        head = head.close(&mut bytes, start);
    }
    fs::write(directory.join(name), bytes).unwrap();
}

fn json(line: &impl serde::Serialize) -> String {
    serde_json::to_string(line).unwrap()
}

fn count(data_dir: &Path) -> i64 {
    let mut count = 0;
    let reader = Reader::open(data_dir).unwrap();
    reader.query("SELECT count(*) FROM records", &[], |row| row.get(0).map(|found| count = found)).unwrap();
    count
}

fn charged(store: &Store) -> std::collections::BTreeMap<String, u64> {
    sums(&store.balances(Timestamp::UNIX_EPOCH).unwrap())
}

#[test]
fn a_record_that_stands_twice_counts_once() {
    let directory = directory();
    let call = record(&hold(RecordId::new()));
    write(directory.path(), "a.jsonl", &[(RECORD, json(&call)), (RECORD, json(&call))]);
    write(directory.path(), "b.jsonl", &[(RECORD, json(&call))]);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.ingest(directory.path(), "").unwrap(), 1);
    assert_eq!(store.ingest(directory.path(), "").unwrap(), 0);
    assert_eq!((count(directory.path()), charged(&store)[TOKENS]), (1, 120));
}

#[test]
fn a_record_may_stand_in_a_segment_before_that_of_its_hold() {
    let directory = directory();
    let (ended, open) = (hold(RecordId::new()), hold(RecordId::new()));
    write(directory.path(), "a.jsonl", &[(RECORD, json(&record(&ended)))]);
    write(directory.path(), "b.jsonl", &[(HOLD, json(&ended)), (HOLD, json(&open))]);
    let mut store = Store::open(directory.path()).unwrap();
    store.ingest(directory.path(), "").unwrap();
    let [line] = &store.open_holds().unwrap()[..] else { panic!("one hold is open") };
    assert!(String::from_utf8_lossy(line).contains(&open.id.to_string()));
}

#[test]
fn a_line_that_cannot_be_read_hides_no_other() {
    let directory = directory();
    let call = record(&hold(RecordId::new()));
    let lines: [(&[u8], String); 4] = [
        (RECORD, "{\"id\":\"nonsense\"}".into()),
        (HOLD, "{\"id\":7}".into()),
        (b"{\"unheard-of\":", "{}".into()),
        (RECORD, json(&call)),
    ];
    write(directory.path(), "a.jsonl", &lines);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.ingest(directory.path(), "").unwrap(), 1);
}

#[test]
fn words_and_fields_of_another_version_still_count() {
    let directory = directory();
    let id = RecordId::new();
    let line = format!(
        "{{\"id\":\"{id}\",\"at\":\"2026-11-01T00:00:00Z\",\"outcome\":\"teleported\",\"reason\":\"too_blue\",\"aura\":{{\"hue\":3}},\
         \"units\":{{\"input\":5,\"thoughts\":9}},\"cost\":18446744073709551615,\"usage_source\":\"reported\"}}"
    );
    write(directory.path(), "a.jsonl", &[(RECORD, line)]);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.ingest(directory.path(), "").unwrap(), 1);
}

#[test]
fn a_part_of_a_line_waits_for_the_rest() {
    let directory = directory();
    let calls = [record(&hold(RecordId::new())), record(&hold(RecordId::new()))];
    write(directory.path(), "a.jsonl", &calls.each_ref().map(|call| (RECORD, json(call))));
    let path = segment::directory(directory.path()).join("a.jsonl");
    let whole = fs::read(&path).unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(store.ingest(directory.path(), "").unwrap(), 1);
    assert_eq!(store.ingest(directory.path(), "").unwrap(), 0);
    fs::write(&path, &whole).unwrap();
    assert_eq!(store.ingest(directory.path(), "").unwrap(), 1);
    assert_eq!(store.known()["a.jsonl"], (whole.len() as u64, 2));
}

#[test]
fn charges_of_one_window_add_up_over_batches_and_can_be_lowered() {
    let directory = directory();
    let first = hold(RecordId::new());
    let mut store = Store::open(directory.path()).unwrap();
    for name in ["a.jsonl", "b.jsonl", "c.jsonl"] {
        let mut call = record(&hold(RecordId::new()));
        call.held_at = Some(first.at);
        write(directory.path(), name, &[(RECORD, json(&call))]);
        store.ingest(directory.path(), "").unwrap();
    }
    assert_eq!((charged(&store)[TOKENS], charged(&store)[SPEND]), (360, 300_000));
    let correction = json(&record(&first))
        .replace("\"amount\":120", "\"amount\":-300")
        .replace("\"amount\":100000", "\"amount\":-900000");
    write(directory.path(), "d.jsonl", &[(RECORD, correction)]);
    store.ingest(directory.path(), "").unwrap();
    assert_eq!(charged(&store).get(TOKENS), Some(&60));
    assert_eq!(charged(&store).get(SPEND), None, "below nothing is nothing");
}

#[test]
fn a_store_of_another_layout_is_left_alone() {
    let directory = directory();
    drop(Store::open(directory.path()).unwrap());
    let connection = Connection::open(path(directory.path())).unwrap();
    connection.pragma_update(None, "user_version", 9).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(LedgerError::Store { .. })));
    assert!(matches!(Reader::open(directory.path()), Err(LedgerError::Store { .. })));
}

#[test]
fn a_reader_needs_no_right_to_write() {
    let directory = directory();
    let call = record(&hold(RecordId::new()));
    write(directory.path(), "a.jsonl", &[(RECORD, json(&call))]);
    let mut store = Store::open(directory.path()).unwrap();
    store.ingest(directory.path(), "").unwrap();
    assert_eq!(count(directory.path()), 1, "beside the writer");
    drop(store);
    assert_eq!(count(directory.path()), 1, "alone");
    let uri = immutable(&path(directory.path())).unwrap();
    uri.query_row("SELECT count(*) FROM records", [], |row| row.get::<_, i64>(0)).unwrap();
}
