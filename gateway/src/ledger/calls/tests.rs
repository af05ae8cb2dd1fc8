use super::*;
use crate::ledger::samples::{directory, hold, record};
use crate::ledger::{Attempt, Bounded, Ledger, Outcome, Record};
use tollgate_policy::denial::Reason;

fn written(records: &[Record]) -> tempfile::TempDir {
    let directory = directory();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    let journal = ledger.journal(0).unwrap();
    for record in records {
        journal.record(record).unwrap();
    }
    ledger.close().unwrap();
    directory
}

fn refused() -> Record {
    let mut refused = record(&hold(RecordId::new()));
    refused.caller = Some("spiffe://prod.acme/ns/billing/sa/web".parse().unwrap());
    (refused.status, refused.reason, refused.outcome) = (403, Some(Reason::NoGrant), Outcome::Refused);
    refused.model = Some(Bounded::new("gpt-5"));
    refused
}

fn ids(directory: &Path, wanted: &Wanted, most: usize) -> Vec<RecordId> {
    CallLookup::new().next(directory, wanted, most).unwrap().into_iter().map(|call| call.id).collect()
}

#[test]
fn calls_are_picked_by_what_their_records_say() {
    let (good, bad) = (record(&hold(RecordId::new())), refused());
    let directory = written(&[good.clone(), bad.clone()]);
    let everything = Wanted::since(Timestamp::UNIX_EPOCH);
    assert_eq!(ids(directory.path(), &everything, 9).len(), 2);
    let picks = |name, text: &str| {
        let wanted = Wanted { texts: vec![(name, text.to_owned())], ..everything.clone() };
        ids(directory.path(), &wanted, 9)
    };
    assert_eq!(picks(Dimension::Caller, "spiffe://prod.acme/ns/billing/sa/web"), [bad.id]);
    assert_eq!(picks(Dimension::Caller, "*/ns/billing/*"), [bad.id]);
    assert_eq!(picks(Dimension::Caller, "spiffe://prod.acme/ns/*").len(), 2);
    assert_eq!(picks(Dimension::Model, "gpt-5"), [bad.id]);
    assert_eq!(picks(Dimension::Model, "gpt-5*").len(), 2);
    assert_eq!(picks(Dimension::Reason, "no_grant"), [bad.id]);
    assert_eq!(picks(Dimension::Outcome, "completed"), [good.id]);
    assert_eq!(picks(Dimension::Grant, "checkout"), []);
    for (status, found) in
        [("403", vec![bad.id]), ("4xx", vec![bad.id]), ("2XX", vec![good.id]), ("40", vec![])]
    {
        let wanted = Wanted { statuses: vec![status.to_owned()], ..everything.clone() };
        assert_eq!(ids(directory.path(), &wanted, 9), found, "{status}");
    }
    assert_eq!(
        ids(
            directory.path(),
            &Wanted { until: good.at - jiff::SignedDuration::from_secs(1), ..everything.clone() },
            9
        ),
        []
    );
}

#[test]
fn of_too_many_calls_the_newest_are_shown_and_then_only_what_is_new() {
    let records: Vec<_> = (0..5).map(|_| record(&hold(RecordId::new()))).collect();
    let directory = written(&records);
    let wanted = Wanted::since(Timestamp::UNIX_EPOCH);
    let mut newest: Vec<_> = records.iter().map(|record| (record.at, record.id)).collect();
    newest.sort();
    let newest: Vec<_> = newest.into_iter().skip(3).map(|(_, id)| id).collect();
    assert_eq!(ids(directory.path(), &wanted, 2), newest);

    let mut reading = CallLookup::new();
    assert_eq!(reading.next(directory.path(), &wanted, 9).unwrap().len(), 5);
    assert_eq!(reading.next(directory.path(), &wanted, 9).unwrap(), []);
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    let later = refused();
    let journal = ledger.journal(0).unwrap();
    journal.record(&later).unwrap();
    journal.flush();
    let new = reading.next(directory.path(), &wanted, 9).unwrap();
    assert_eq!(new.iter().map(|call| call.id).collect::<Vec<_>>(), [later.id]);
    ledger.close().unwrap();
}

#[test]
fn one_call_has_everything_that_was_written_of_it() {
    let hold = hold(RecordId::new());
    let mut call = record(&hold);
    let failed = Attempt { status: Some(503), ..Attempt::default() };
    call.attempts = vec![failed.clone(), failed];
    let directory = directory();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    let journal = ledger.journal(0).unwrap();
    journal.hold(&hold).unwrap();
    journal.flush();
    let under_way = find(directory.path(), hold.id).unwrap().unwrap();
    assert!(under_way.record.is_none() && under_way.hold.is_some());
    journal.record(&call).unwrap();
    journal.flush();
    let found = find(directory.path(), hold.id).unwrap().unwrap();
    assert_eq!(found.at.as_millisecond(), call.at.as_millisecond());
    assert_eq!(found.record.as_ref().unwrap()["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(found.hold.as_ref().unwrap()["cost"], 2_000_000);
    assert_eq!(found.unit("input"), 100);
    assert_eq!(find(directory.path(), RecordId::new()).unwrap(), None);
    ledger.close().unwrap();
}

#[test]
fn stars_stand_for_anything() {
    for (wanted, text) in
        [("*", ""), ("a*", "a"), ("*c", "abc"), ("a*c", "abbc"), ("*b*", "abc"), ("a*b*c*", "a1b2c3")]
    {
        assert!(like(wanted, text), "{wanted} {text}");
    }
    for (wanted, text) in
        [("", "a"), ("a", "ab"), ("a*", "ba"), ("a*a", "a"), ("*b*d", "abc"), ("a*b*c", "acb")]
    {
        assert!(!like(wanted, text), "{wanted} {text}");
    }
}
