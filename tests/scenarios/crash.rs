//! SIGKILL under load: what was answered is in the ledger once, and the budget still holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::ledger::column;
use tollgate_tests::provider::{chat, chat_chunk, chat_completion, chat_usage_chunk};
use tollgate_tests::report::{assert_verified, report, requests};
use tollgate_tests::{Client, Plan, Protocol, Reply, Seen};

const CHAT: &str = "/up/v1/chat/completions";
const USED: u64 = 30;

fn reply(seen: &Seen) -> Reply {
    let pause = Duration::from_millis(3);
    if seen.json()["stream"] == true {
        let stream =
            Reply::events([chat_chunk("a").as_str()]).wait(pause).event(&chat_chunk("b")).wait(pause);
        return stream.event(&chat_usage_chunk(10, 20)).event("[DONE]");
    }
    Reply::status(200)
        .header("content-type", "application/json")
        .wait(pause)
        .data(chat_completion(10, 20).to_string())
}

/// Calls without a break; the ids of all that was answered to its end.
async fn load(client: Client, protocol: Protocol, stream: bool, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut answered = BTreeSet::new();
    let mut body = chat(40);
    body["stream"] = stream.into();
    let Ok(mut connection) = client.open(protocol).await else { return answered };
    while !stop.load(Ordering::SeqCst) {
        let Ok(answer) = connection.send(client.json(CHAT, &body)).await else { return answered };
        if answer.status == 200 && (!stream || answer.text().contains("[DONE]")) {
            let id = answer.header("x-tollgate-request-id");
            assert!(!id.is_empty(), "{:?}", answer.headers);
            assert!(answered.insert(id.to_owned()), "an id was given twice");
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_call_is_in_the_report_once_after_a_kill_under_load() {
    let mut plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 300000, per: day}}]\n"));
    plan.settings.environment = vec![("RUST_LOG".to_owned(), "warn,tollgate::app=info".to_owned())];
    let mut fixture = plan.start(reply).await;
    let mut answered = BTreeSet::new();
    for _ in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let client = fixture.checkout();
        let shapes =
            [(Protocol::H1, false), (Protocol::H1, true), (Protocol::H2, false), (Protocol::H2, true)];
        let loads: Vec<_> = shapes
            .iter()
            .cycle()
            .take(12)
            .map(|(protocol, stream)| tokio::spawn(load(client.clone(), *protocol, *stream, stop.clone())))
            .collect();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        fixture.gateway.kill();
        stop.store(true, Ordering::SeqCst);
        for load in loads {
            for id in load.await.expect("a load") {
                assert!(answered.insert(id), "an id was given twice");
            }
        }
        fixture.gateway.restart().await;
    }
    assert!(answered.len() > 50, "{} calls were answered", answered.len());
    let recorded = column(&fixture.gateway, "id");
    let unique: BTreeSet<_> = recorded.iter().cloned().collect();
    assert_eq!(recorded.len(), unique.len(), "a call is recorded twice");
    let lost: Vec<_> = answered.difference(&unique).collect();
    assert!(lost.is_empty(), "{} answered calls are not in the ledger: {lost:?}", lost.len());
    let rows = report(&fixture.gateway, "caller");
    let requests = requests(&rows);
    assert_eq!(requests, recorded.len() as u64);
    assert!(
        requests as usize >= fixture.upstream.answered(),
        "a call that reached the provider is not in the report"
    );
    let spent = fixture.gateway.metrics().sum("tollgate_limit_spent", &["tokens/day"]) as u64;
    assert!(spent >= USED * answered.len() as u64, "spent {spent}");
    assert_verified(&fixture.gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_at_the_kill_is_presumed_to_have_cost_its_hold() {
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 10000, per: day}}]\n"));
    let mut fixture = plan.start(|_| Reply::status(200).wait(Duration::from_secs(60)).data("never")).await;
    let client = fixture.checkout();
    let call =
        tokio::spawn(async move { client.send(Protocol::H1, client.json(CHAT, &chat(3000))).await.is_err() });
    tollgate_tests::gateway::eventually("the call reached the provider", || fixture.upstream.count() == 1)
        .await;
    let held = fixture.gateway.metrics().sum("tollgate_limit_held", &["tokens/day"]);
    fixture.gateway.kill();
    assert!(call.await.unwrap());
    fixture.gateway.restart().await;
    let metrics = fixture.gateway.metrics();
    let (spent, still) = (
        metrics.sum("tollgate_limit_spent", &["tokens/day"]),
        metrics.sum("tollgate_limit_held", &["tokens/day"]),
    );
    assert_eq!((spent, still), (held, 0.0), "charged at its hold, once");
    fixture.checkout().post(CHAT, &chat(3000)).await.assert_refused(429, "budget_exhausted");
    tollgate_tests::gateway::eventually("the refusal is in the store", || {
        requests(&report(&fixture.gateway, "caller")) >= 2
    })
    .await;
    let rows = report(&fixture.gateway, "caller");
    assert_eq!(requests(&rows), 2, "the presumed call and the refusal, once each: {rows:#?}");
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    assert_eq!(
        fixture.gateway.metrics().sum("tollgate_limit_spent", &["tokens/day"]),
        held,
        "a second restart charges nothing again"
    );
    assert_verified(&fixture.gateway);
}
