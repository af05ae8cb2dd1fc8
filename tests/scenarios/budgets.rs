//! Budgets are held before a call and settled after: exact, whatever the callers do at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::{Metrics, eventually};
use tollgate_tests::provider::{chat, chat_completion};
use tollgate_tests::report::{report, requests_reach};
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply};

const CHAT: &str = "/up/v1/chat/completions";
const CALLERS: usize = 500;

fn limited(limits: &str) -> Plan {
    Plan::openai(&format!("{CHAT_ONLY}  limits: {limits}\n"))
}

/// Amount, spent and held of one limit, read in one scrape.
fn usage(metrics: &Metrics, limit: &str) -> (f64, f64, f64) {
    let label = format!("limit=\"{limit}\"");
    let read = |name: &str| metrics.sum(name, &[&label]);
    (read("tollgate_limit_amount"), read("tollgate_limit_spent"), read("tollgate_limit_held"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_affords_a_hundred_calls_pays_for_exactly_a_hundred() {
    // What one call holds is read off the gateway; it really costs a twentieth of that.
    let mut plan = limited("[{spend: 1000 USD, per: month}]");
    plan.settings.environment = vec![("RUST_LOG".to_owned(), "warn,tollgate::app=info".to_owned())];
    let tokens = Arc::new(AtomicU64::new(0));
    let reported = tokens.clone();
    let fixture = plan
        .start(move |_| {
            let tokens = reported.load(Ordering::SeqCst);
            let pause = Duration::from_millis(if tokens == 0 { 4000 } else { 200 });
            let reply = Reply::status(200).header("content-type", "application/json").wait(pause);
            reply.data(chat_completion(0, tokens).to_string())
        })
        .await;
    let hold = hold_of_one_call(&fixture).await;
    let per_token = 2000.0;
    let cost_tokens = (hold / 20.0 / per_token).round() as u64;
    let cost = cost_tokens as f64 * per_token;
    tokens.store(cost_tokens, Ordering::SeqCst);
    fixture.upstream.clear();
    let cap = 99.0 * cost + hold;
    let usd = format!("{:.9} USD", cap / 1e9);
    let (file, text) =
        fixture.gateway.settings().resources.iter().find(|(file, _)| file == "fixture.yaml").unwrap().clone();
    let generation = fixture.gateway.generation();
    // A budget of its own: a limit of another unit, per or key starts empty.
    fixture.gateway.write_resource(
        &file,
        &text.replace("spend: 1000 USD, per: month", &format!("spend: {usd}, per: week")),
    );
    fixture.gateway.reloaded(generation).await;
    let stop = Arc::new(AtomicBool::new(false));
    let paid = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            tokio::spawn(insist(
                fixture.caller(&format!("spiffe://prod.acme/ns/checkout/sa/web-{number}")),
                number,
                paid.clone(),
            ))
        })
        .collect();
    let samples = sample(&fixture, stop.clone(), async {
        for caller in callers {
            caller.await.expect("a caller");
        }
    })
    .await;
    assert_eq!(paid.load(Ordering::SeqCst), 100);
    assert_eq!(fixture.upstream.count(), 100, "the provider bills exactly a hundred calls");
    assert!(samples > 20, "{samples} samples");
    let (amount, spent, held) = usage(&fixture.gateway.metrics(), "grant/checkout-up/spend/week/shared");
    let billed = 100.0 * cost / 1e9;
    assert!(
        (spent - billed).abs() < 1e-9 && held == 0.0,
        "spent {spent}, held {held}, billed {billed}, cap {amount}"
    );
    assert_eq!(fixture.gateway.metrics().sum("tollgate_hold_exceeded_total", &[]), 0.0);
}

/// nano-USD that one call of [`insist`] reserves.
async fn hold_of_one_call(fixture: &Fixture) -> f64 {
    let client = fixture.checkout();
    let call = tokio::spawn(async move { client.post(CHAT, &chat(400)).await });
    let mut hold = 0.0_f64;
    eventually("the call holds its bound", || {
        hold = hold.max(usage(&fixture.gateway.metrics(), "grant/checkout-up/spend/month/shared").2);
        hold > 0.0
    })
    .await;
    call.await.unwrap().assert_status(200);
    (hold * 1e9).round()
}

/// Calls until the budget is exhausted, retrying while it is only held.
async fn insist(client: Client, number: usize, paid: Arc<AtomicU64>) {
    let pause = Duration::from_millis(150 + (number as u64 * 37) % 400);
    tokio::time::sleep(pause).await;
    let mut connection = client.open(Protocol::H1).await.expect("a connection");
    loop {
        let answer = connection.send(client.json(CHAT, &chat(400))).await.expect("an answer");
        match (answer.status.as_u16(), answer.header("x-tollgate-reason")) {
            (200, _) => {
                paid.fetch_add(1, Ordering::SeqCst);
            }
            (429, "budget_held") => {
                assert!(
                    answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds <= 5),
                    "a short Retry-After"
                );
                assert!(answer.header("x-should-retry") != "false");
            }
            (429, "budget_exhausted") => {
                assert_eq!(answer.header("x-should-retry"), "false");
                return;
            }
            other => panic!("{other:?}: {}", answer.text()),
        }
        tokio::time::sleep(pause).await;
    }
}

/// Watches `spent + held <= cap` until `work` is done; returns how often.
async fn sample(fixture: &Fixture, stop: Arc<AtomicBool>, work: impl Future<Output = ()>) -> usize {
    let watch = async {
        let mut samples = 0;
        while !stop.load(Ordering::SeqCst) {
            let (amount, spent, held) =
                usage(&fixture.gateway.metrics(), "grant/checkout-up/spend/week/shared");
            assert!(spent + held <= amount + 1e-10, "spent {spent} + held {held} > cap {amount}");
            samples += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        samples
    };
    let work = async {
        work.await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(watch, work).0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_budget_refuses_before_a_byte_leaves() {
    let fixture = limited("[{tokens: 15000, per: day}]").start_openai(7000, 7000).await;
    let client = fixture.checkout();
    let allowed = client.post(CHAT, &chat(400)).await;
    allowed.assert_status(200);
    assert!(
        allowed.header("ratelimit").contains("grant/checkout-up/tokens/day/shared"),
        "{:?}",
        allowed.headers
    );
    assert!(allowed.headers.contains_key("ratelimit-policy"), "{:?}", allowed.headers);
    let refused = client.post(CHAT, &chat(400)).await;
    refused.assert_refused(429, "budget_exhausted");
    assert_eq!(refused.header("x-should-retry"), "false");
    let left = refused.header("ratelimit");
    assert!(left.starts_with("\"grant/checkout-up/tokens/day/shared\";r=1000;t="), "{left}");
    let refused_id = refused.header("x-tollgate-request-id");
    assert_eq!((fixture.upstream.count(), fixture.upstream.connections()), (1, 1));
    requests_reach(&fixture.gateway, 2).await;
    let by = report(&fixture.gateway, "limited_by");
    let refused: Vec<_> = by.iter().map(|row| (&row["limited_by"], &row["refused"])).collect();
    let limit = json!("grant/checkout-up/tokens/day/shared");
    assert!(refused.contains(&(&limit, &json!(1))) && refused.len() == 2, "{by:?}");
    let shown = fixture.gateway.tollgate(&["calls", refused_id]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("grant/checkout-up/tokens/day/shared"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_per_minute_are_spread_and_refused_with_a_retry_after() {
    let fixture = limited("[{requests: 60, per: minute, burst: 3}]").start_openai(9, 2).await;
    let client = fixture.checkout();
    let mut connection = client.open(Protocol::H2).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let answer = connection.send(client.json(CHAT, &chat(9))).await.unwrap();
        if answer.status == 429 {
            answer.assert_refused(429, "rate_limited");
            assert!(
                answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=2).contains(&seconds))
            );
        }
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    client.post(CHAT, &chat(9)).await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_are_limited_and_their_places_come_back() {
    let fixture = limited("[{concurrency: 2}]")
        .start(|_| Reply::json(&chat_completion(1, 1)).wait(Duration::from_millis(1)).abort())
        .await;
    drop(fixture);
    let fixture = limited("[{concurrency: 2}]")
        .start(|_| {
            Reply::status(200)
                .header("content-type", "application/json")
                .wait(Duration::from_secs(1))
                .data(chat_completion(1, 1).to_string())
        })
        .await;
    let client = fixture.checkout();
    for _ in 0..2 {
        let body = chat(9);
        let (one, two, three, four) = tokio::join!(
            client.post(CHAT, &body),
            client.post(CHAT, &body),
            client.post(CHAT, &body),
            client.post(CHAT, &body)
        );
        let mut statuses: Vec<_> = [&one, &two, &three, &four].map(|answer| answer.status.as_u16()).into();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 429, 429]);
        let refused = [one, two, three, four].into_iter().find(|answer| answer.status == 429).unwrap();
        refused.assert_refused(429, "concurrency_limited");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_grant_shares_one_budget_unless_it_says_otherwise() {
    for (key, second) in [("", 429), (", key: caller", 200), (", key: namespace", 429)] {
        let fixture = limited(&format!("[{{tokens: 15000, per: day{key}}}]")).start_openai(7000, 7000).await;
        let (one, two) = (fixture.checkout(), fixture.caller("spiffe://prod.acme/ns/checkout/sa/other"));
        one.post(CHAT, &chat(400)).await.assert_status(200);
        assert_eq!(two.post(CHAT, &chat(400)).await.status, second, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_survives_an_edit_of_the_amount_and_a_restart() {
    let mut fixture = limited("[{tokens: 15000, per: day}]").start_openai(7000, 7000).await;
    let client = fixture.checkout();
    client.post(CHAT, &chat(400)).await.assert_status(200);
    let (file, text) =
        fixture.gateway.settings().resources.iter().find(|(file, _)| file == "fixture.yaml").unwrap().clone();
    for (from, to, status) in [("15000", "16000", 429), ("16000", "40000", 200)] {
        let generation = fixture.gateway.generation();
        fixture.gateway.write_resource(&file, &text.replace("15000", to));
        fixture.gateway.reloaded(generation).await;
        assert_eq!(client.post(CHAT, &chat(400)).await.status, status, "{from} to {to}");
    }
    assert!(fixture.gateway.stop().success());
    fixture.gateway.restart().await;
    let (_, spent, held) = usage(&fixture.gateway.metrics(), "grant/checkout-up/tokens/day/shared");
    assert_eq!((spent, held), (28_000.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_above_the_hold_is_booked_and_counted() {
    let fixture = limited("[{tokens: 100000, per: day}]").start_openai(9000, 9000).await;
    fixture.checkout().post(CHAT, &chat(9)).await.assert_status(200);
    eventually("the call is settled", || {
        usage(&fixture.gateway.metrics(), "grant/checkout-up/tokens/day/shared").1 > 0.0
    })
    .await;
    let metrics = fixture.gateway.metrics();
    assert_eq!(usage(&metrics, "grant/checkout-up/tokens/day/shared").1, 18_000.0);
    assert_eq!(metrics.sum("tollgate_hold_exceeded_total", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_usage_settles_at_the_hold() {
    let nonsense =
        [json!(-5), json!(1e300), json!("12"), json!(null), json!(18_446_744_073_709_551_615_u64), json!({})];
    for value in nonsense {
        let shown = value.to_string();
        let fixture = limited("[{tokens: 100000, per: day}]")
            .start(move |_| {
                let mut body = chat_completion(1, 1);
                body["usage"]["completion_tokens"] = value.clone();
                Reply::json(&body)
            })
            .await;
        fixture.checkout().post(CHAT, &chat(400)).await.assert_status(200);
        eventually("the call is settled", || {
            usage(&fixture.gateway.metrics(), "grant/checkout-up/tokens/day/shared").2 == 0.0
        })
        .await;
        let spent = usage(&fixture.gateway.metrics(), "grant/checkout-up/tokens/day/shared").1;
        assert!((400.0 + 4096.0..6000.0).contains(&spent), "{shown}: {spent}");
    }
}
