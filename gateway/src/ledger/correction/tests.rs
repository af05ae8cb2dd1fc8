use std::fs;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::*;
use crate::files::DirectoryLock;
use crate::ledger::samples::{self, SPEND, TOKENS, directory, hold, record, sums};
use crate::ledger::{Call, Charge, Dimension, Ledger, Record, ReportStore, catch_up, find, list, verify};
use crate::report::{By, Query, Report, report};

/// A call of 100 tokens in and 20 out for 0.0001 USD, whose usage was worked out.
fn estimated() -> Record {
    let mut call = record(&hold(RecordId::new()));
    call.usage_source = UsageSource::Estimated;
    (call.bytes_in, call.bytes_out) = (11, 22);
    call
}

/// A ledger that was closed, with an estimated call and a reported one. Gives the first one's id.
fn closed(data_dir: &Path) -> RecordId {
    let call = estimated();
    let (ledger, _) = Ledger::open(data_dir, None, 1).unwrap();
    let journal = ledger.journal(0).unwrap();
    journal.record(&call).unwrap();
    journal.record(&record(&hold(RecordId::new()))).unwrap();
    ledger.close().unwrap();
    call.id
}

/// A correction of a call that was corrected before, or that never had to be.
fn settle(data_dir: &Path, id: RecordId, actual: Correction) -> Result<RecordId, LedgerError> {
    super::settle(data_dir, id, actual, &signature(true, Some("as billed")))
}

fn signature(force: bool, note: Option<&str>) -> Signature {
    Signature { by: Bounded::new("alice"), note: note.map(Bounded::new), force }
}

fn actual(input: u64, output: u64, nanos: u64) -> Correction {
    Correction { units: Units { input, output, ..Units::default() }, cost: NanoUsd(nanos) }
}

fn ask(data_dir: &Path, by: &[By]) -> Report {
    let until = Timestamp::now() + SignedDuration::from_secs(1);
    let query = Query { by: by.to_vec(), since: Timestamp::UNIX_EPOCH, until, timezone: TimeZone::UTC };
    report(&mut ReportStore::own(data_dir).unwrap(), query).unwrap()
}

/// Input, output and cost of the two calls, and what the next start finds in the budgets.
fn is_settled_at(data_dir: &Path, actual: Correction) {
    let total = ask(data_dir, &[]).total;
    assert_eq!((total.calls, total.requests, total.estimated, total.estimated_cost), (2, 2, 0, 0));
    assert_eq!(total.usage.get(Item::Input), i128::from(actual.units.input) + 100);
    assert_eq!(total.usage.get(Item::Output), i128::from(actual.units.output) + 20);
    assert_eq!(total.cost, i128::from(actual.cost.0) + 100_000);
    let (_ledger, balances) = Ledger::open(data_dir, None, 1).unwrap();
    assert_eq!(sums(&balances)[TOKENS], actual.units.tokens() + 120);
    assert_eq!(sums(&balances)[SPEND], actual.cost.0 + 100_000);
}

#[test]
fn a_correction_counts_those_before_it_that_the_store_has_not_seen() {
    let directory = directory();
    let id = closed(directory.path());
    settle(directory.path(), id, actual(10, 2, 7_000)).unwrap();
    settle(directory.path(), id, actual(10, 2, 7_000)).unwrap();
    settle(directory.path(), id, actual(30, 4, 9_000)).unwrap();
    catch_up(directory.path()).unwrap();
    assert_eq!(ask(directory.path(), &[]).total.adjustments, 3);
    is_settled_at(directory.path(), actual(30, 4, 9_000));
    assert!(verify(directory.path(), None).unwrap().findings.is_empty());

    // From the journal alone it is the same.
    for file in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = fs::remove_file(directory.path().join(file));
    }
    catch_up(directory.path()).unwrap();
    is_settled_at(directory.path(), actual(30, 4, 9_000));
}

#[test]
fn corrections_at_the_same_time_wait_for_and_count_one_another() {
    let directory = directory();
    let id = closed(directory.path());
    let alone = offline::alone(directory.path()).unwrap();
    let before = segment::list(directory.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| settle(directory.path(), id, actual(10, 2, 7_000)).unwrap());
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(segment::list(directory.path()).unwrap(), before, "they wait for their turn");
        drop(alone);
    });
    catch_up(directory.path()).unwrap();
    is_settled_at(directory.path(), actual(10, 2, 7_000));
}

#[test]
fn a_call_is_corrected_whose_record_the_store_has_not_seen() {
    let directory = directory();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    let journal = ledger.journal(0).unwrap();
    let call = estimated();
    journal.record(&call).unwrap();
    journal.record(&record(&hold(RecordId::new()))).unwrap();
    journal.flush();
    settle(directory.path(), call.id, actual(10, 2, 7_000)).unwrap();
    ledger.ingest();
    ledger.close().unwrap();
    drop((ledger, journal));
    is_settled_at(directory.path(), actual(10, 2, 7_000));
}

#[test]
fn a_report_has_what_the_store_has_not_taken_in() {
    let directory = directory();
    let id = closed(directory.path());
    settle(directory.path(), id, actual(10, 2, 7_000)).unwrap();
    let lock = DirectoryLock::take(directory.path()).unwrap();
    catch_up(directory.path()).unwrap();
    let known = StoreReader::open(directory.path()).unwrap().known().unwrap();
    assert_eq!(known.len() + 1, segment::list(directory.path()).unwrap().len(), "the gateway reads it");
    assert_eq!(ask(directory.path(), &[]).total.adjustments, 1);
    drop(lock);
    for _ in 0..2 {
        catch_up(directory.path()).unwrap();
        assert_eq!(ask(directory.path(), &[]).total.adjustments, 1);
    }
    is_settled_at(directory.path(), actual(10, 2, 7_000));
}

#[test]
fn a_gateway_that_starts_while_a_correction_is_written_takes_it_in() {
    let directory = directory();
    let id = closed(directory.path());
    settle(directory.path(), id, actual(10, 2, 7_000)).unwrap();
    let name = segment::list(directory.path()).unwrap().pop().unwrap();
    let path = segment::file(directory.path(), &name);
    let whole = fs::read(&path).unwrap();
    let header = samples::segment(&path).ends()[0];
    fs::write(&path, &whole[..header]).unwrap();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    fs::write(&path, &whole).unwrap();
    ledger.ingest();
    assert_eq!(ask(directory.path(), &[]).total.adjustments, 1);
    ledger.close().unwrap();
    drop(ledger);
    is_settled_at(directory.path(), actual(10, 2, 7_000));
}

#[test]
fn a_correction_takes_its_call_out_of_the_group_it_was_in() {
    let directory = directory();
    let id = closed(directory.path());
    for (cost, adjustments) in [(7_000, 1), (9_000, 2)] {
        settle(directory.path(), id, actual(10, 2, cost)).unwrap();
        catch_up(directory.path()).unwrap();
        let by_source = ask(directory.path(), &[By::Dimension(Dimension::UsageSource)]);
        let [line] = &by_source.lines[..] else { panic!("{:?}", by_source.lines) };
        assert_eq!(line.keys, ["reported"]);
        assert_eq!((line.totals.calls, line.totals.adjustments), (2, adjustments));
        assert_eq!((line.totals.bytes_in, line.totals.bytes_out), (11, 22));
        let by_outcome = ask(directory.path(), &[By::Dimension(Dimension::Outcome), By::Status]);
        let cost_of =
            |outcome: &str| by_outcome.lines.iter().find(|line| line.keys[0] == outcome).unwrap().totals.cost;
        assert_eq!(cost_of("completed"), 100_000 + i128::from(cost));
        assert_eq!(cost_of("adjustment"), 0);
        let mut table = Vec::new();
        by_source.write_table(&mut table, crate::table::Page::default()).unwrap();
        assert!(!String::from_utf8(table).unwrap().contains("estimated."), "nothing is estimated any more");
    }
}

#[test]
fn what_a_call_without_a_price_cost_is_no_longer_unknown() {
    let directory = directory();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    let mut call = record(&hold(RecordId::new()));
    (call.cost, call.unpriced) = (None, true);
    ledger.journal(0).unwrap().record(&call).unwrap();
    ledger.close().unwrap();
    settle(directory.path(), call.id, actual(100, 20, 5)).unwrap();
    catch_up(directory.path()).unwrap();
    let total = ask(directory.path(), &[]).total;
    assert_eq!((total.calls, total.unpriced, total.cost), (1, 0, 5));
}

/// Writes a correction as earlier versions did: the difference and nothing else.
fn settle_plainly(data_dir: &Path, id: RecordId, actual: Correction) {
    let reader = StoreReader::open(data_dir).unwrap();
    let original = read(data_dir, &reader, id).unwrap().unwrap();
    let now = Timestamp::now();
    let row = Row { takes: None, ..difference(&original, &[], actual, now) };
    let tips = segment::tips(data_dir, &reader.known().unwrap()).unwrap();
    let (mut file, head, length) =
        ProcessEpoch::begin(data_dir, now).unwrap().create(WHO, now, &tips).unwrap();
    file.write_all(batch_of(&row, &head, length).bytes()).unwrap();
}

#[test]
fn corrections_of_earlier_versions_count_and_can_be_corrected_again() {
    let directory = directory();
    let id = closed(directory.path());
    settle_plainly(directory.path(), id, actual(10, 2, 7_000));
    catch_up(directory.path()).unwrap();
    let total = ask(directory.path(), &[]).total;
    assert_eq!((total.calls, total.cost, total.adjustments), (2, 107_000, 1));
    settle(directory.path(), id, actual(30, 4, 9_000)).unwrap();
    catch_up(directory.path()).unwrap();
    let sources = ask(directory.path(), &[By::Dimension(Dimension::UsageSource)]).lines;
    assert_eq!(sources.len(), 1, "{sources:?}");
    is_settled_at(directory.path(), actual(30, 4, 9_000));
}

#[test]
fn calls_are_listed_by_where_their_usage_comes_from_until_they_are_corrected() {
    let directory = directory();
    let id = closed(directory.path());
    let since = Timestamp::now() - SignedDuration::from_hours(1);
    let all = list(directory.path(), None, since, &[]).unwrap();
    assert_eq!(all.len(), 2);
    assert!(all.is_sorted_by_key(|call| (call.at, call.id)));
    let open = list(directory.path(), None, since, &[UsageSource::Estimated]).unwrap();
    assert_eq!(open.iter().map(|call| call.id).collect::<Vec<_>>(), [id]);
    assert_eq!((open[0].text("model"), open[0].number("cost")), ("gpt-5-mini", Some(100_000)));
    assert_eq!(list(directory.path(), None, since, &[UsageSource::Presumed]).unwrap(), []);
    assert_eq!(list(directory.path(), None, Timestamp::now(), &[]).unwrap(), []);
    settle(directory.path(), id, actual(10, 2, 7_000)).unwrap();
    assert_eq!(list(directory.path(), None, since, &[UsageSource::Estimated]).unwrap(), []);
    let settled = list(directory.path(), None, since, &[]).unwrap();
    let ids = |calls: &[Call]| calls.iter().map(|call| call.id).collect::<Vec<_>>();
    assert_eq!(ids(&settled), ids(&all), "corrections are no calls");
}

#[test]
fn a_call_that_was_corrected_is_the_same_in_the_list_and_in_the_report() {
    let directory = directory();
    let id = closed(directory.path());
    settle(directory.path(), id, actual(10, 2, 7_000)).unwrap();
    let call = find(directory.path(), id).unwrap().unwrap();
    assert_eq!((call.unit("input"), call.unit("output")), (10, 2));
    assert_eq!((call.number("cost"), call.text("usage_source")), (Some(7_000), "reported"));
    let charges = &call.record.as_ref().unwrap()["charges"];
    assert_eq!((&charges[0]["amount"], &charges[1]["amount"]), (&7_000.into(), &12.into()));
    let original = call.original.as_ref().unwrap();
    assert_eq!((&original["usage_source"], &original["cost"]), (&"estimated".into(), &100_000.into()));
    let listed = list(directory.path(), None, Timestamp::UNIX_EPOCH, &[]).unwrap();
    let listed = listed.into_iter().find(|call| call.id == id).unwrap();
    assert_eq!((listed.record, listed.corrections.len()), (call.record, 1));
    let total = ask(directory.path(), &[]).total;
    assert_eq!((total.usage.get(Item::Input), total.cost, total.estimated), (110, 107_000, 0));
}

#[test]
fn cached_and_reasoning_tokens_are_corrected_apart() {
    let directory = directory();
    let limit = |unit: &str| format!("grant/checkout-openai/{unit}/month/shared");
    let charged = ["tokens", "inputTokens", "outputTokens", "cachedTokens", "reasoningTokens"];
    let mut call = estimated();
    call.charges =
        charged.map(|unit| Charge { limit: (*limit(unit)).into(), key: "".into(), amount: 500 }).into();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    ledger.journal(0).unwrap().record(&call).unwrap();
    ledger.close().unwrap();
    drop(ledger);
    let units = Units { input: 10, cache_read: 30, output: 2, reasoning: 5, ..Units::default() };
    settle(directory.path(), call.id, Correction { units, cost: NanoUsd(7_000) }).unwrap();
    let total = ask(directory.path(), &[]).total;
    for (item, count) in units.entries() {
        assert_eq!(total.usage.get(item), i128::from(count), "{item:?}");
    }
    let (_ledger, balances) = Ledger::open(directory.path(), None, 1).unwrap();
    let sums = sums(&balances);
    assert_eq!(charged.map(|unit| sums[&limit(unit)]), [47, 40, 7, 30, 5]);
}

#[test]
fn what_is_known_of_a_call_is_changed_by_force_and_with_a_note_alone() {
    let directory = directory();
    let estimated = closed(directory.path());
    let calls = list(directory.path(), None, Timestamp::UNIX_EPOCH, &[UsageSource::Reported]).unwrap();
    let [reported] = &calls[..] else { panic!("{calls:?}") };
    let settle = |id, force, note| {
        let signature = signature(force, note);
        super::settle(directory.path(), id, actual(1, 1, 1), &signature).map_err(|error| error.to_string())
    };
    let refused = settle(reported.id, false, None).unwrap_err();
    assert!(refused.contains("the provider reported") && refused.contains("--force"), "{refused}");
    assert!(settle(reported.id, false, Some("because")).is_err());
    assert!(settle(reported.id, true, None).unwrap_err().contains("--note"));
    let before = segment::list(directory.path()).unwrap();
    settle(reported.id, true, Some("invoice 2026-11")).unwrap();
    assert_eq!(segment::list(directory.path()).unwrap().len(), before.len() + 1);
    settle(estimated, false, None).unwrap();
    assert!(settle(estimated, false, None).unwrap_err().contains("corrected before"));
    let corrections = find(directory.path(), reported.id).unwrap().unwrap().corrections;
    let [correction] = &corrections[..] else { panic!("{corrections:?}") };
    assert_eq!((&correction["by"], &correction["note"]), (&"alice".into(), &"invoice 2026-11".into()));
    assert!(correction["at"].as_str().unwrap().parse::<Timestamp>().is_ok());
    assert!(verify(directory.path(), None).unwrap().findings.is_empty());
}
