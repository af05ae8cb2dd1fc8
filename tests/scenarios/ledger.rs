//! The ledger cannot be changed unseen.

use std::fs;

use http::Method;
use memchr::memmem;
use serde_json::Value;
use tollgate_tests::ledger::{Segment, column, segments};
use tollgate_tests::report::{assert_verified, requests_reach};
use tollgate_tests::{Fixture, Plan, Protocol, Reply};

/// A stopped gateway with a ledger of twenty calls.
async fn kept() -> Fixture {
    let mut fixture = Plan::new().start(|_| Reply::status(200).data("fine")).await;
    let client = fixture.checkout();
    for _ in 0..20 {
        client.get("/up/x").await.assert_status(200);
    }
    requests_reach(&fixture.gateway, 20).await;
    assert!(fixture.gateway.stop().success());
    assert_verified(&fixture.gateway);
    fixture
}

fn assert_noticed(fixture: &Fixture, what: &str) {
    let output = fixture.gateway.tollgate(&["ledger", "verify"]);
    assert!(!output.status.success(), "{what} went unnoticed: {}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_cut_or_missing_journal_is_noticed() {
    let fixture = kept().await;
    let whole = segments(&fixture.gateway).into_iter().map(|path| (Segment::read(&path), path));
    let whole: Vec<_> = whole.filter(|(segment, _)| segment.batches.len() > 3).collect();
    assert!(!whole.is_empty());
    for (whole, path) in &whole {
        let (mut damaged, mut forged) = (whole.clone(), whole.clone());
        assert!(damaged.replace("completed", "complet3d", false));
        assert!(forged.replace("completed", "complet3d", true));
        let (mut cut, mut missing, mut doubled) = (whole.clone(), whole.clone(), whole.clone());
        cut.batches.pop();
        missing.batches.remove(2);
        doubled.batches.insert(3, whole.batches[2].clone());
        for (what, segment) in [
            ("a changed entry", damaged),
            ("a changed entry with its checksum", forged),
            ("a cut tail", cut),
            ("a missing batch", missing),
            ("a batch twice", doubled),
        ] {
            segment.write(path);
            assert_noticed(&fixture, what);
        }
        fs::remove_file(path).unwrap();
        assert_noticed(&fixture, "a missing segment");
        whole.write(path);
    }
    assert_verified(&fixture.gateway);
}

/// Cuts every segment back to what a seal says of it; segments that it does not name are cut to their first entry.
fn cut_to(fixture: &Fixture, seal: &Value) {
    for path in segments(&fixture.gateway) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let head = seal["seal"]["heads"].as_array().unwrap().iter().find(|head| head["segment"] == *name);
        let entries = head.and_then(|head| head["entries"].as_u64()).unwrap_or(1);
        let mut segment = Segment::read(&path);
        segment.truncate(entries as usize);
        segment.write(&path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cutting_journal_and_heads_together_is_noticed() {
    let fixture = kept().await;
    let heads = fixture.gateway.home().join("data/heads.jsonl");
    let text = fs::read_to_string(&heads).unwrap();
    let seals: Vec<_> = text.lines().collect();
    for keep in (1..seals.len()).rev() {
        fs::write(&heads, seals[..keep].join("\n") + "\n").unwrap();
        cut_to(&fixture, &serde_json::from_str(seals[keep - 1]).unwrap());
        assert_noticed(&fixture, &format!("{keep} of {} seals", seals.len()));
    }
    for path in segments(&fixture.gateway) {
        fs::remove_file(path).unwrap();
    }
    fs::remove_file(&heads).unwrap();
    assert_noticed(&fixture, "a ledger that is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_request_id_is_not_ours() {
    let fixture = Plan::new()
        .start(|seen| Reply::status(200).header("x-request-id", seen.header("x-request-id")))
        .await;
    let client = fixture.checkout();
    for _ in 0..5 {
        let mut request = client.request(Method::GET, "/up/x", "");
        for name in ["x-request-id", "x-tollgate-request-id"] {
            request.headers_mut().insert(name, "00000000000000000000000000000001".parse().unwrap());
        }
        client.send(Protocol::H1, request).await.unwrap().assert_status(200);
    }
    requests_reach(&fixture.gateway, 5).await;
    let ids = column(&fixture.gateway, "id");
    assert!(ids.iter().all(|id| id != "00000000000000000000000000000001"), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_headers_are_never_recorded() {
    let fixture = Plan::new().start(|_| Reply::status(200).header("x-answer", "never-record-this")).await;
    let client = fixture.checkout();
    let mut request = client.request(Method::GET, "/up/x?q=never-record-this", "");
    request.headers_mut().insert("x-question", "never-record-this".parse().unwrap());
    client.send(Protocol::H2, request).await.unwrap().assert_status(200);
    requests_reach(&fixture.gateway, 1).await;
    for path in segments(&fixture.gateway) {
        assert!(memmem::find(&fs::read(path).unwrap(), b"never-record-this").is_none());
    }
    assert!(!fixture.gateway.log().iter().any(|line| line.to_string().contains("never-record-this")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_before_a_caller_is_proven_leaves_no_record() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    for _ in 0..20 {
        fixture.stranger(None).refusal().await;
    }
    fixture.checkout().get("/up/x").await.assert_status(200);
    requests_reach(&fixture.gateway, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_names_the_first_and_exits() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let output = fixture.gateway.tollgate(&["serve"]);
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&fixture.gateway.pid().to_string()), "{said}");
    fixture.checkout().get("/up/x").await.assert_status(200);
}
