//! Every entry point to the gateway under every rule: `entry_points/table.rs` lists both, and why a rule has nothing to say of an entry point.
//!
//! **Invariant:** an entry point that is added is a row of the table, and is then under every rule that the row does not name an exception from.

mod stand;
mod table;
mod way;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{forward, ledger, needs, websockets};

use self::stand::{Caller, ENDS_FIRST, ENDS_LAST, FAREWELL, GRANTED, Stand};
use self::table::{ENTRY_POINTS, EntryPoint, Refusal, Row, Rule, Traffic, under};
use self::way::{Ask, End, Open, Said};

const STRANGERS: &str = "strangers";
/// What is cut at once is looked at once a second; a busy machine takes longer.
const SECONDS: Duration = Duration::from_secs(15);
/// What is under way may outlast the proof of its caller by a minute.
const GRACE: Duration = Duration::from_secs(80);
/// The time of a certificate in which each entry point has to be opened.
const PROVEN_FOR: Duration = Duration::from_secs(40);
/// So long before its end it is asked whether each still carries.
const SHORTLY: Duration = Duration::from_secs(12);
/// More than waits anywhere on the way.
const PIECE: usize = 300_000;
/// Names that a request must not have at its destination.
const ASSERTED: [&str; 6] = [
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "forwarded",
    "baggage",
    "x-tollgate-caller",
    "x-spiffe-id",
];

/// The records of a caller.
fn of(stand: &Stand, caller: &Caller) -> Vec<Value> {
    let mut records = ledger::records(&stand.gateway);
    records.retain(|record| record["caller"] == caller.id.as_str());
    records
}

/// The only record of each caller, once all are there.
async fn records(
    stand: &Stand,
    callers: &[(&'static Row, Caller)],
    each: usize,
) -> BTreeMap<&'static str, Value> {
    eventually("all are recorded", || ledger::records(&stand.gateway).len() >= callers.len() * each).await;
    // One too many would come as late as this.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let last = |(row, caller): &(&'static Row, Caller)| {
        let mut records = of(stand, caller);
        assert_eq!(records.len(), each, "{}: {records:#?}", row.name);
        (row.name, records.pop().expect("a record"))
    };
    callers.iter().map(last).collect()
}

/// Whether a call was refused in the form of its entry point.
fn is_refused(said: &Said, form: Refusal, reason: &str) -> bool {
    match (said, form) {
        (Said::Refused(status, why), Refusal::Answer(expected)) => *status == expected && why == reason,
        (Said::Cut(_), Refusal::Reset) => true,
        _ => false,
    }
}

/// What was open has to end so, as far as its entry point tells.
fn assert_ended(row: &Row, end: Option<&End>, expected: &End) {
    let is_untold = !row.tells_cut && *expected == End::Cut && end == Some(&End::Whole(String::new()));
    assert!(end == Some(expected) || is_untold, "{}: {end:?}, not {expected:?}", row.name);
}

fn counted(stand: &Stand, row: &Row, namespace: &str, reason: &str) -> f64 {
    let labels = [
        format!("namespace=\"{namespace}\""),
        format!("service_account=\"{}\"", row.name),
        format!("reason=\"{reason}\""),
    ];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    stand.gateway.metrics().sum("tollgate_requests_total", &labels)
}

/// What each entry point under the rule has open, and whose it is.
async fn opened(stand: &Stand, rule: Rule, path: &str) -> (Vec<(&'static Row, Caller)>, Vec<Open>) {
    let (mut callers, mut all) = (Vec::new(), Vec::new());
    let ends_in = if rule == Rule::Expired { PROVEN_FOR.as_secs().cast_signed() } else { 3600 };
    for row in under(rule) {
        let caller = stand.caller_for(GRANTED, row, ends_in);
        let mut open = match row.open(stand, &caller, path).await {
            Ok(open) => open,
            Err(said) => panic!("{}: {said:?}", row.name),
        };
        assert!(open.carries().await, "{}", row.name);
        all.push(open);
        callers.push((row, caller));
    }
    (callers, all)
}

#[test]
fn a_rule_that_has_nothing_to_say_of_an_entry_point_is_excepted_by_name_and_with_a_reason() {
    for row in &ENTRY_POINTS {
        for (rule, why) in row.exceptions() {
            assert!(why.len() > 20, "{}: {rule:?}: {why}", row.name);
        }
        assert!(row.exceptions().count() < Rule::ALL.len() / 2, "{}", row.name);
    }
    for rule in Rule::ALL {
        assert!(
            under(rule).count() * 2 >= ENTRY_POINTS.len() || rule == Rule::Unseen,
            "{rule:?} holds on few entry points"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_by_any_entry_point_is_recorded_once_counted_once_and_hides_the_key() {
    needs!(websockets::installed());
    let stand = Stand::start("").await;
    let passed = stand.sandbox.canary("passed");
    let mut callers = Vec::new();
    for row in under(Rule::Recorded) {
        let caller = stand.caller(GRANTED, row);
        let asserted = format!("By=spiffe://prod.acme/gw;URI=spiffe://prod.acme/ns/admin/sa/{}", row.name);
        let fields = ASSERTED.map(|name| (name, asserted.clone()));
        let before = stand.arrived(row);
        let bytes = if row.obeys(Rule::Unseen) && row.traffic == Traffic::Bytes { &*passed } else { "word" };
        let said = row.call(&stand, &caller, Ask { path: "/key", fields: &fields, bytes }).await;
        let Said::Through(text) = said else { panic!("{}: {said:?}", row.name) };
        assert_eq!(stand.arrived(row), before + 1, "{}", row.name);
        if row.obeys(Rule::Hidden) {
            let last = stand.last(row);
            assert!(last.contains(&stand.key), "{}: {last}", row.name);
            assert!(!text.contains(&stand.key) && text.contains("****"), "{}: {text}", row.name);
        }
        if row.obeys(Rule::Unbelieved) && row.traffic != Traffic::Bytes {
            let last = stand.last(row);
            assert!(!last.contains("ns/admin/sa"), "{}: {last}", row.name);
        }
        callers.push((row, caller));
    }
    let records = records(&stand, &callers, 1).await;
    for (row, caller) in &callers {
        let record = &records[row.name];
        let (method, path, status, credential) = match row.traffic {
            Traffic::Requests => ("GET", Value::from("/key"), 200, Value::from("up-key")),
            Traffic::Messages => ("GET", Value::from("/key"), 101, Value::from("up-key")),
            Traffic::Bytes => ("CONNECT", Value::Null, 200, Value::Null),
        };
        for (member, expected) in [
            ("caller", Value::from(caller.id.as_str())),
            ("proof", row.proof.into()),
            ("destination", row.destination.into()),
            ("grant", row.name.into()),
            ("source", "127.0.0.1".into()),
            ("outcome", "completed".into()),
            ("method", method.into()),
            ("path", path),
            ("status", status.into()),
            ("credential", credential),
        ] {
            assert_eq!(record[member], expected, "{} of {}: {record}", member, row.name);
        }
        assert_eq!(counted(&stand, row, GRANTED, ""), 1.0, "{}", row.name);
    }
    stand.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_any_entry_point_is_refused_in_its_own_form_whatever_the_caller_says_of_itself() {
    needs!(websockets::installed());
    let stand = Stand::start("").await;
    let mut callers = Vec::new();
    for row in under(Rule::Refused) {
        let caller = stand.caller(STRANGERS, row);
        let granted = stand.caller(GRANTED, row);
        let before = stand.arrived(row);
        let fields = ASSERTED.map(|name| (name, format!("By=spiffe://prod.acme/gw;URI={}", granted.id)));
        let fields = if row.obeys(Rule::Unbelieved) { &fields[..] } else { &[] };
        let said = row.call(&stand, &caller, Ask { fields, ..Ask::path("/key") }).await;
        assert!(is_refused(&said, row.without_grant, "no_grant"), "{}: {said:?}", row.name);
        assert_eq!(stand.arrived(row), before, "{}", row.name);
        callers.push((row, caller));
    }
    let records = records(&stand, &callers, 1).await;
    for (row, _) in &callers {
        let record = &records[row.name];
        assert_eq!(
            (&record["reason"], &record["destination"], &record["outcome"]),
            (&"no_grant".into(), &row.destination.into(), &"refused".into()),
            "{}: {record}",
            row.name
        );
        assert_eq!(counted(&stand, row, STRANGERS, "no_grant"), 1.0, "{}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_refuses_the_next_call_by_any_entry_point() {
    needs!(websockets::installed());
    let stand = Stand::start("  limits: [{requests: 1, per: day}]\n").await;
    let mut callers = Vec::new();
    for row in under(Rule::Limited) {
        let caller = stand.caller(GRANTED, row);
        let first = row.call(&stand, &caller, Ask::path("/key")).await;
        assert!(matches!(first, Said::Through(_)), "{}: {first:?}", row.name);
        // Until then the limit is held, which is another reason.
        eventually("the first is over", || of(&stand, &caller).len() == 1).await;
        let before = stand.arrived(row);
        let said = row.call(&stand, &caller, Ask::path("/key")).await;
        assert!(is_refused(&said, row.beyond_limit, "budget_exhausted"), "{}: {said:?}", row.name);
        assert_eq!(stand.arrived(row), before, "{}", row.name);
        callers.push((row, caller));
    }
    let records = records(&stand, &callers, 2).await;
    for (row, _) in &callers {
        assert_eq!(records[row.name]["reason"], "budget_exhausted", "{}: {}", row.name, records[row.name]);
        assert_eq!(counted(&stand, row, GRANTED, "budget_exhausted"), 1.0, "{}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_parked_is_served_on_by_any_entry_point() {
    let stand = Stand::start("").await;
    let parked = || stand.gateway.log().iter().filter(|line| line["message"] == "connection parked").count();
    let mut all = Vec::new();
    for row in ENTRY_POINTS.iter().filter(|row| row.traffic == Traffic::Requests) {
        all.push((row, row.keep(&stand, &stand.caller(GRANTED, row), "/key").await.expect(row.name)));
    }
    // Over HTTP/2 a connection is never parked.
    let over_http1 = all.iter().filter(|(row, _)| row.entry_point != EntryPoint::Http2ByHost).count();
    for times in 1..=2 {
        eventually("all are parked", || parked() >= times * over_http1).await;
        for (row, kept) in &mut all {
            assert_eq!(kept.ask(&stand).await, Ok(()), "{}", row.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_through_any_entry_point_ends_with_its_grant() {
    needs!(websockets::installed());
    let stand = Stand::start("").await;
    let (callers, all) = opened(&stand, Rule::Withdrawn, "/endless").await;
    stand.withdraw_all().await;
    for ((row, caller), mut open) in callers.iter().zip(all) {
        let expected = match row.traffic {
            Traffic::Messages => End::Closed(1008, "withdrawn".to_owned()),
            _ => End::Cut,
        };
        assert_ended(row, open.end(SECONDS).await.as_ref(), &expected);
        let said = row.call(&stand, caller, Ask::path("/key")).await;
        assert!(is_refused(&said, row.without_grant, "no_grant"), "{}: {said:?}", row.name);
    }
    records(&stand, &callers, 2).await;
    for (row, caller) in &callers {
        let reasons: Vec<_> = of(&stand, caller).iter().map(|record| record["reason"].clone()).collect();
        assert_eq!(reasons, ["withdrawn", "no_grant"], "{}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_opens_nothing_at_any_entry_point_and_ends_what_it_has_opened() {
    needs!(websockets::installed());
    let stand = Stand::start("").await;
    let (callers, all) = opened(&stand, Rule::Revoked, "/endless").await;
    let (rows, callers): (Vec<_>, Vec<_>) = callers.into_iter().unzip();
    let first = stand.caller(STRANGERS, rows[0]);
    stand.revoke(callers.iter().chain([&first]));
    let refused =
        || stand.gateway.metrics().sum("tollgate_tls_handshakes_refused_total", &["reason=\"revoked\""]);
    for _ in 0..100 {
        if refused() > 0.0 {
            break;
        }
        let _ = first.client.refusal().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (row, caller) in rows.iter().zip(&callers) {
        let said = row.call(&stand, caller, Ask::path("/key")).await;
        assert!(matches!(said, Said::Cut(_)), "{}: {said:?}", row.name);
    }
    let callers: Vec<_> = rows.into_iter().zip(callers).collect();
    assert_end_with_their_proof(&stand, &callers, all, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_certificate_has_opened_through_any_entry_point_ends_with_it() {
    needs!(websockets::installed());
    let stand = Stand::start("").await;
    let begun = Instant::now();
    let (callers, mut all) = opened(&stand, Rule::Expired, "/endless").await;
    // The first certificate ends first.
    tokio::time::sleep_until(begun + PROVEN_FOR - SHORTLY).await;
    // What an answer said meanwhile is read first.
    let drained = Instant::now() + Duration::from_secs(4);
    loop {
        for ((row, _), open) in callers.iter().zip(&mut all) {
            assert!(open.carries().await, "{} ends before its certificate", row.name);
        }
        if Instant::now() >= drained {
            break;
        }
    }
    assert_end_with_their_proof(&stand, &callers, all, PROVEN_FOR).await;
    for (row, caller) in &callers {
        let said = row.call(&stand, caller, Ask::path("/key")).await;
        assert!(matches!(said, Said::Cut(_)), "{}: {said:?}", row.name);
    }
}

/// What is open ends with what has proven its caller, which does in so long, and one record of each says so.
async fn assert_end_with_their_proof(
    stand: &Stand,
    callers: &[(&'static Row, Caller)],
    all: Vec<Open>,
    proven: Duration,
) {
    let mut ends = tokio::task::JoinSet::new();
    for ((row, _), mut open) in callers.iter().zip(all) {
        let (row, within, expected) = match row.traffic {
            Traffic::Bytes => (*row, SECONDS, End::Cut),
            Traffic::Requests => (*row, GRACE, End::Cut),
            Traffic::Messages => (*row, GRACE, End::Closed(1008, "certificate_expired".to_owned())),
        };
        ends.spawn(async move { assert_ended(row, open.end(proven + within).await.as_ref(), &expected) });
    }
    ends.join_all().await;
    let records = records(stand, callers, 1).await;
    for (row, _) in callers {
        let record = &records[row.name];
        // An answer is cut with its connection, as if its caller had left.
        let (outcome, reason) = match row.traffic {
            Traffic::Requests => ("caller_gone", Value::Null),
            _ => ("refused", "certificate_expired".into()),
        };
        assert_eq!(
            (&record["outcome"], &record["reason"]),
            (&outcome.into(), &reason),
            "{}: {record}",
            row.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_what_is_passed_through_ends_by_itself_at_any_entry_point() {
    needs!(websockets::installed());
    let stand = Stand::start("").await;
    let (mut callers, mut heard) = (Vec::new(), 0);
    for row in ENTRY_POINTS.iter().filter(|row| row.traffic == Traffic::Bytes) {
        let caller = stand.caller(GRANTED, row);
        let both = async {
            // The caller ends, and is answered behind that.
            let mut io = row.bytes(&stand, &caller, Ask::path("/")).await.unwrap();
            io.write_all(ENDS_FIRST).await.unwrap();
            io.write_all(&[7; PIECE]).await.unwrap();
            io.shutdown().await.unwrap();
            let mut said = String::new();
            io.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, PIECE.to_string(), "{}", row.name);
            // The destination ends, and is told the rest behind that.
            let mut io = row.bytes(&stand, &caller, Ask::path("/")).await.unwrap();
            io.write_all(ENDS_LAST).await.unwrap();
            io.flush().await.unwrap();
            said.clear();
            io.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, FAREWELL, "{}", row.name);
            io.write_all(&[7; PIECE]).await.unwrap();
            io.shutdown().await.unwrap();
            heard += PIECE;
            eventually("the rest has arrived", || stand.heard() == heard).await;
        };
        tokio::time::timeout(GRACE, both).await.unwrap_or_else(|_| panic!("{}: nothing ends", row.name));
        callers.push((row, caller));
    }
    records(&stand, &callers, 2).await;
    for (row, caller) in &callers {
        for record in of(&stand, caller) {
            assert_eq!(record["outcome"], "completed", "{}: {record}", row.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_tls_in_a_tunnel_names_is_where_it_leads_from_any_entry_point() {
    needs!(websockets::installed());
    let stand = Stand::start("").await;
    for row in ENTRY_POINTS.iter().filter(|row| row.destination == "named") {
        let caller = stand.caller(GRANTED, row);
        for (server, reason) in [("api.up.test", "sni_mismatch"), ("127.0.0.1", "sni_missing")] {
            let carrier = row.carrier(&stand, &caller, Ask::path("/")).await.unwrap();
            let refused = forward::tls(carrier, server, stand.pki.roots(), &[]).await;
            assert!(refused.is_err(), "{}: {server}", row.name);
            let reasons =
                || of(&stand, &caller).iter().map(|record| record["reason"].clone()).collect::<Vec<_>>();
            eventually("it is recorded", || reasons().last() == Some(&reason.into())).await;
        }
        assert_eq!(stand.arrived(row), 0, "{}", row.name);
    }
    for row in ENTRY_POINTS.iter().filter(|row| row.destination == "named") {
        let (caller, before) = (stand.caller(GRANTED, row), stand.arrived(row));
        let said = row.call(&stand, &caller, Ask::path("/key")).await;
        assert_eq!(said, Said::Through("word".to_owned()), "{}", row.name);
        assert_eq!(stand.arrived(row), before + 1, "{}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_what_is_open_through_any_entry_point_finish_and_cuts_what_does_not() {
    needs!(websockets::installed());
    let mut stand = Stand::start("").await;
    let (callers, mut all) = opened(&stand, Rule::Drained, "/slow").await;
    stand.gateway.begin_drain();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for ((row, _), open) in callers.iter().zip(&mut all) {
        if row.traffic != Traffic::Requests {
            assert!(open.carries().await, "{} goes on while the drain has time", row.name);
        }
    }
    let mut ends = tokio::task::JoinSet::new();
    for ((row, _), mut open) in callers.iter().zip(all) {
        let (row, expected) = match row.traffic {
            Traffic::Requests => (*row, End::Whole("ended".to_owned())),
            Traffic::Bytes => (*row, End::Cut),
            Traffic::Messages => (*row, End::Closed(1001, "the gateway goes away".to_owned())),
        };
        ends.spawn(async move { assert_ended(row, open.end(SECONDS).await.as_ref(), &expected) });
    }
    ends.join_all().await;
    assert!(stand.gateway.ended().await.success());
    let records = records(&stand, &callers, 1).await;
    for (row, _) in &callers {
        let expected = if row.traffic == Traffic::Requests { Value::Null } else { "drained".into() };
        assert_eq!(records[row.name]["reason"], expected, "{}: {}", row.name, records[row.name]);
    }
}
