use std::collections::BTreeMap;
use std::path::Path;

use jiff::civil::date;
use tollgate_policy::denial::Reason;
use tollgate_policy::price::{Item, NanoUsd};

use super::*;
use crate::ledger::samples::{directory, hold, record};
use crate::ledger::{Bounded, Ledger, Outcome, Record, RecordId, ReportStore, UsageSource};
use crate::table::Page;

fn ledger_of(data_dir: &Path, records: &[Record]) {
    let (ledger, _) = Ledger::open(data_dir, None, 1).unwrap();
    let journal = ledger.journal(0).unwrap();
    for record in records {
        journal.record(record).unwrap();
    }
    ledger.close().unwrap();
}

fn ask(data_dir: &Path, by: &str) -> Report {
    let by = by.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()).collect();
    let until = "2027-01-01T00:00:00Z".parse().unwrap();
    let query =
        Query { by, since: Timestamp::UNIX_EPOCH, until, timezone: TimeZone::get("Europe/Berlin").unwrap() };
    report(&mut ReportStore::own(data_dir).unwrap(), query).unwrap()
}

fn at(text: &str) -> Record {
    let at: Timestamp = text.parse().unwrap();
    let id = RecordId::least(u64::try_from(at.as_millisecond()).unwrap());
    let mut bytes = *id.as_bytes();
    bytes[8..].copy_from_slice(&RecordId::new().as_bytes()[8..]);
    let mut record = record(&hold(bytes.into()));
    record.at = at;
    record
}

fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The generator of POSIX.1-2001, for reproducible variety.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn some_record(dice: &mut Dice) -> Record {
    let seconds = i64::try_from(dice.roll(90 * 86_400)).unwrap();
    let start = date(2026, 9, 1).to_zoned(TimeZone::UTC).unwrap().timestamp();
    let mut record = at(&(start + jiff::SignedDuration::from_secs(seconds)).to_string());
    let name = ["api", "web", "batch"][dice.roll(3) as usize];
    record.caller = Some(format!("spiffe://prod.acme/ns/{name}s/sa/{name}").parse().unwrap());
    record.model = Some(Bounded::new(["gpt-5-mini", "gpt-5", "claude-sonnet-5"][dice.roll(3) as usize]));
    record.units.input = dice.roll(100_000);
    record.units.cache_write_1h = dice.roll(50);
    record.units.cache_write_5m = dice.roll(50);
    record.units.reasoning = dice.roll(3_000);
    record.cost = Some(NanoUsd(dice.roll(1_000_000_000)));
    match dice.roll(8) {
        0 => {
            record.outcome = Outcome::Refused;
            record.reason = Some(Reason::NoGrant);
            record.units = tollgate_policy::price::Units::default();
            (record.cost, record.usage_source, record.status) = (None, UsageSource::None, 403);
        }
        1 => record.usage_source = UsageSource::Estimated,
        3 => (record.outcome, record.status) = (Outcome::UpstreamFailed, 502),
        4 => record.status = [404, 429, 500][dice.roll(3) as usize],
        2 => (record.cost, record.unpriced) = (None, true),
        _ => {}
    }
    record
}

/// The sums that a reader of the journal alone would come to.
fn naive(records: &[Record], by: &[By], timezone: &TimeZone) -> BTreeMap<Vec<String>, ReportTotals> {
    let mut lines: BTreeMap<Vec<String>, ReportTotals> = BTreeMap::new();
    for record in records {
        let zoned = record.at.to_zoned(timezone.clone());
        let key = |by: &By| match by {
            By::Dimension(Dimension::Caller) => record.caller.as_ref().unwrap().as_str().to_owned(),
            By::Namespace => record.caller.as_ref().unwrap().namespace().unwrap().to_owned(),
            By::Dimension(Dimension::Model) => record.model.as_ref().unwrap().to_string(),
            By::Day => zoned.date().to_string(),
            By::Month => zoned.strftime("%Y-%m").to_string(),
            By::Hour => zoned.strftime("%Y-%m-%dT%H:00%:z").to_string(),
            By::Dimension(Dimension::Reason) => record.reason.map_or("", Reason::as_str).to_owned(),
            By::Status => record.status.to_string(),
            By::Dimension(Dimension::UsageSource) => record.usage_source.as_str().to_owned(),
            other => panic!("{other:?}"),
        };
        let totals = lines.entry(by.iter().map(key).collect()).or_default();
        let refused = record.outcome == Outcome::Refused;
        let estimated = record.usage_source == UsageSource::Estimated;
        let cost = i128::from(record.cost.unwrap_or_default().0);
        totals.requests += 1;
        let failed = !refused && (record.status >= 400 || record.outcome == Outcome::UpstreamFailed);
        totals.calls += i128::from(!refused && !failed);
        totals.failed += i128::from(failed);
        totals.refused += i128::from(refused);
        record.units.entries().for_each(|(unit, count)| totals.usage.add(unit, i128::from(count)));
        totals.cost += cost;
        totals.estimated += i128::from(estimated);
        totals.estimated_cost += if estimated { cost } else { 0 };
        totals.unpriced += i128::from(record.unpriced);
    }
    lines
}

#[test]
fn sums_are_those_of_the_records_whatever_they_are_told_apart_by() {
    let directory = directory();
    let mut dice = Dice(42);
    let records: Vec<_> = (0..600).map(|_| some_record(&mut dice)).collect();
    ledger_of(directory.path(), &records);
    let questions = [
        "",
        "caller",
        "day",
        "caller,model,day",
        "month,reason",
        "hour,namespace",
        "status,usage_source",
        "model,caller,month,reason,status",
    ];
    for by in questions {
        let report = ask(directory.path(), by);
        let expected = naive(&records, &report.query.by, &report.query.timezone);
        let lines: BTreeMap<_, _> =
            report.lines.iter().map(|line| (line.keys.clone(), line.totals)).collect();
        assert_eq!(lines, expected, "{by}");
        let mut total = ReportTotals::default();
        expected.values().for_each(|line| total.add(line));
        assert_eq!(report.total, total);
        let by_time = report.query.by.iter().any(|by| by.is_time());
        assert!(by_time || report.lines.is_sorted_by_key(|line| std::cmp::Reverse(line.totals.cost)));
    }
}

#[test]
fn a_period_includes_its_first_instant_and_not_its_last() {
    let directory = directory();
    let times = [
        "2026-10-31T22:59:59.999999Z",
        "2026-10-31T23:00:00Z",
        "2026-11-30T22:59:59.999999Z",
        "2026-11-30T23:00:00Z",
    ];
    ledger_of(directory.path(), &times.map(at));
    let timezone = TimeZone::get("Europe/Berlin").unwrap();
    let instant = |text| instant(text, &timezone, Timestamp::now()).unwrap();
    let query = Query {
        by: vec![By::Month],
        since: instant("2026-11-01"),
        until: instant("2026-12-01"),
        timezone: timezone.clone(),
    };
    let report = report(&mut ReportStore::own(directory.path()).unwrap(), query).unwrap();
    assert_eq!(report.lines.len(), 1);
    assert_eq!((report.lines[0].keys[0].as_str(), report.total.calls), ("2026-11", 2));
}

#[test]
fn the_hour_that_the_clock_repeats_is_two_lines() {
    let directory = directory();
    ledger_of(directory.path(), &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"].map(at));
    let mut hours: Vec<_> =
        ask(directory.path(), "hour").lines.into_iter().map(|line| line.keys[0].clone()).collect();
    hours.sort();
    assert_eq!(hours, ["2026-10-25T02:00+01:00", "2026-10-25T02:00+02:00"]);
    assert_eq!(ask(directory.path(), "day").lines.len(), 1);
}

fn three_calls() -> [Record; 3] {
    let good = at("2026-11-01T10:00:00Z");
    let mut dear = at("2026-11-01T11:00:00Z");
    dear.units.input = 1_234_567;
    dear.cost = Some(NanoUsd(12_500_000_001));
    dear.usage_source = UsageSource::Presumed;
    let mut refused = at("2026-11-01T12:00:00Z");
    refused.caller = Some("spiffe://prod.acme/ns/evil/sa/x".parse().unwrap());
    refused.model = Some(Bounded::new("=HYPERLINK(\"http://evil\",\"\x1b[31mclick\")"));
    refused.units = tollgate_policy::price::Units::default();
    (refused.cost, refused.usage_source) = (None, UsageSource::None);
    (refused.outcome, refused.reason, refused.status) = (Outcome::Refused, Some(Reason::NoGrant), 403);
    [good, dear, refused]
}

#[test]
fn a_table_is_aligned_says_what_is_estimated_and_shows_refusals_with_their_reason() {
    let directory = directory();
    ledger_of(directory.path(), &three_calls());
    let table = text(|out| ask(directory.path(), "namespace,model,reason").write_table(out, Page::default()));
    let expected = "\
Everything up to 2027-01-01 01:00 +01:00
namespace  model                                  reason    calls  refused      input  output      cost USD  estimated
---------  -------------------------------------  --------  -----  -------  ---------  ------  ------------  ---------
checkout   gpt-5-mini                             -             2        0  1,234,667      40  12.500100001          1
evil       =HYPERLINK(\"http://evil\",\"[31mclick\")  no_grant      0        1          0       0   0.000000000          0
---------  -------------------------------------  --------  -----  -------  ---------  ------  ------------  ---------
total                                                           2        1  1,234,667      40  12.500100001          1
Usage of 1 of 2 calls was not reported by the provider: 12.500000001 USD of the cost is estimated.
";
    assert_eq!(table, expected, "\n{table}");
}

#[test]
fn a_call_without_a_price_is_never_silently_free() {
    let directory = directory();
    let mut call = at("2026-11-01T10:00:00Z");
    (call.cost, call.unpriced) = (None, true);
    ledger_of(directory.path(), &[call]);
    let report = ask(directory.path(), "");
    assert_eq!(report.total.unpriced, 1);
    assert!(text(|out| report.write_table(out, Page::default())).contains("1 of 1 call has no price"));
    assert!(text(|out| report.write_csv(out)).lines().nth(1).unwrap().ends_with(",1,0"));
}

#[test]
fn a_model_name_that_is_a_formula_reaches_no_spreadsheet_as_one() {
    let directory = directory();
    ledger_of(directory.path(), &three_calls());
    let csv = text(|out| ask(directory.path(), "model,status").write_csv(out));
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "model,status,requests,calls,failed,refused,input,cache_read,cache_write,output,reasoning,media,searches,sessions,images,seconds,characters,bytes_in,bytes_out,cost_usd,\
         estimated,estimated_cost_usd,unpriced,adjustments"
    );
    assert_eq!(
        lines[1],
        "gpt-5-mini,200,2,2,0,0,1234667,0,0,40,0,0,0,0,0,0,0,0,0,12.500100001,1,12.500000001,0,0"
    );
    assert!(
        lines[2].starts_with("\"'=HYPERLINK(\"\"http://evil\"\",\"\"[31mclick\"\")\",403,1,0,0,1,"),
        "{}",
        lines[2]
    );
    assert_eq!(lines.len(), 3);
}

#[test]
fn json_has_money_as_an_integer_and_as_a_decimal_string() {
    let directory = directory();
    ledger_of(directory.path(), &three_calls());
    let json = text(|out| ask(directory.path(), "caller").write_json(out));
    let lines: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(lines.as_array().unwrap().len(), 2);
    assert_eq!(lines[0]["caller"], "spiffe://prod.acme/ns/checkout/sa/api");
    assert_eq!(lines[0]["cost_nano_usd"], 12_500_100_001_i64);
    assert_eq!(lines[0]["cost_usd"], "12.500100001");
    assert_eq!((lines[0]["calls"].as_i64(), lines[1]["refused"].as_i64()), (Some(2), Some(1)));
}

#[test]
fn days_hours_and_months_are_in_the_order_of_time() {
    let directory = directory();
    let mut dear = at("2026-11-02T10:00:00Z");
    dear.cost = Some(NanoUsd(12_000_000_000));
    let times =
        ["2026-11-10T08:00:00Z", "2026-11-01T10:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z"];
    ledger_of(directory.path(), &times.map(at).into_iter().chain([dear]).collect::<Vec<_>>());
    let keys = |by: &str| {
        ask(directory.path(), by).lines.into_iter().map(|line| line.keys[0].clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys("day"), ["2026-10-25", "2026-11-01", "2026-11-02", "2026-11-10"]);
    assert_eq!(keys("hour")[..2], ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]);
    assert_eq!(keys("month,caller"), ["2026-10", "2026-11"]);
}

#[test]
fn what_failed_is_neither_a_call_nor_refused() {
    let directory = directory();
    let mut records = [0; 4].map(|_| at("2026-11-01T10:00:00Z"));
    records[0].status = 429;
    (records[1].outcome, records[1].status) = (Outcome::UpstreamFailed, 504);
    (records[2].outcome, records[2].status, records[2].reason) =
        (Outcome::Refused, 403, Some(Reason::NoGrant));
    ledger_of(directory.path(), &records);
    for by in ["", "status,outcome", "day"] {
        let total = ask(directory.path(), by).total;
        assert_eq!((total.requests, total.calls, total.failed, total.refused), (4, 1, 2, 1), "{by}");
    }
    assert!(text(|out| ask(directory.path(), "").write_table(out, Page::default())).contains("failed"));
}

#[test]
fn a_call_that_the_store_has_not_taken_in_is_in_the_report() {
    let directory = directory();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    let journal = ledger.journal(0).unwrap();
    for taken_in in [true, false] {
        journal.record(&at("2026-11-01T10:00:00Z")).unwrap();
        journal.flush();
        if taken_in {
            ledger.ingest();
        }
    }
    let report = ask(directory.path(), "caller,day");
    assert_eq!((report.lines.len(), report.total.calls, report.total.usage.get(Item::Input)), (1, 2, 200));
    ledger.ingest();
    assert_eq!(ask(directory.path(), "caller,day").total, report.total);
    ledger.close().unwrap();
}

#[test]
fn a_table_fits_a_terminal_of_eighty_columns() {
    let directory = directory();
    ledger_of(directory.path(), &three_calls());
    let page = Page { width: Some(80), colour: false };
    let table = text(|out| ask(directory.path(), "caller,destination,model").write_table(out, page));
    let rows: Vec<_> = table.lines().skip(1).take_while(|line| !line.starts_with("Usage of")).collect();
    assert!(rows.iter().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("cost USD") && table.contains("sa/api"), "{table}");
}

#[test]
fn an_empty_ledger_is_reported_as_such() {
    let directory = directory();
    ledger_of(directory.path(), &[]);
    let report = ask(directory.path(), "caller");
    assert!(text(|out| report.write_table(out, Page::default())).contains("No calls."));
    assert_eq!(text(|out| report.write_json(out)), "[]\n");
    assert_eq!(text(|out| report.write_csv(out)).lines().count(), 1);
}

#[test]
fn money_is_printed_exactly() {
    for (nanos, decimals, text) in [
        (0, 0, "0"),
        (0, 2, "0.00"),
        (1, 0, "0.000000001"),
        (-1_500_000_000, 2, "-1.50"),
        (1_000_000_000, 0, "1"),
        (i128::from(u64::MAX), 0, "18446744073.709551615"),
    ] {
        assert_eq!(usd(nanos, decimals), text);
    }
}
