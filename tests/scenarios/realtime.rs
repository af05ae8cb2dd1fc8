//! Realtime sessions by OpenAI's own SDK: each turn is held before it is asked for, and settled when it is over.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tollgate_tests::gateway::eventually;
use tollgate_tests::process::free_port;
use tollgate_tests::{Fixture, Plan, Reply, Upstream, ledger, needs, websockets};

/// nano-USD of what the provider reports for a turn, by the prices of `gpt-realtime`: 30 tokens of text, 10 of them cached before, 40 of sound and
/// 20 cached; 20 of text and 40 of sound written.
const TURN: u64 = 30 * 4_000 + 10 * 400 + 40 * 32_000 + 20 * 400 + 20 * 16_000 + 40 * 64_000;

/// A gateway whose caller has these limits, before a port where the script's own provider will be.
async fn fixture(limits: &str) -> (Fixture, Value) {
    let models = if limits.is_empty() { "" } else { ", models: [gpt-realtime]" };
    let grant = format!(
        "  allow: {{methods: [GET], paths: [/v1/realtime], upgrades: [websocket]{models}}}\n{limits}"
    );
    let plan = Plan::openai(&grant);
    let port = free_port();
    let settings = plan.complete(port);
    let unused = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(500)).await;
    let (cert, key) = (plan.server.cert.clone(), plan.server.key.clone());
    let fixture = Plan { settings, ..plan }.start_with(unused).await;
    let shown = shown(&fixture);
    (fixture, json!({"port": port, "server_cert": cert, "server_key": key, "shown": shown}))
}

/// The file with what the provider was shown, a line each time.
fn shown(fixture: &Fixture) -> PathBuf {
    fixture.sandbox.providers().join("shown")
}

async fn run(fixture: &Fixture, call: &Value, role: &str, more: Value) -> Value {
    let mut call = call.clone();
    call["role"] = json!(role);
    for (name, value) in more.as_object().unwrap() {
        call[name] = value.clone();
    }
    let (client, bundle) = (fixture.checkout(), fixture.pki.bundle());
    websockets::run_script(&fixture.sandbox, "realtime.py", &client, bundle, &call).await
}

/// The records of turns: those whose usage was learnt or is due.
fn turns(fixture: &Fixture) -> Vec<Value> {
    let mut records = ledger::records(&fixture.gateway);
    records.retain(|record| record["cost"] != Value::Null);
    records
}

fn spend(fixture: &Fixture, name: &str) -> u64 {
    let sum = fixture.gateway.metrics().sum(name, &["limit=\"grant/checkout-up/spend/month/shared\""]);
    (sum * 1e9).round() as u64
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realtime_session_is_held_and_billed_turn_by_turn() {
    needs!(websockets::installed());
    let (fixture, call) = fixture("  limits: [{spend: 100 USD, per: month}, {concurrency: 1}]\n").await;
    let said = run(&fixture, &call, "turns", json!({"turns": 3, "sound": 3_000_000})).await;
    assert_eq!(
        (&said["turns"], &said["errors"], &said["usage"]),
        (&json!(3), &json!([]), &json!(160)),
        "{said}"
    );
    assert_eq!(said["deltas"], json!([3_000_000, 3_000_000, 3_000_000]), "sound passes as it came");
    let handshake = &said["seen"][0];
    assert_eq!(handshake["path"], "/v1/realtime?model=gpt-realtime");
    assert_eq!(handshake["protocols"], "realtime", "the key among the subprotocols is thrown away");
    assert_eq!(fs::read_to_string(shown(&fixture)).unwrap(), format!("Bearer {}\n", fixture.key));
    eventually("the session is recorded", || ledger::records(&fixture.gateway).len() == 4).await;
    let turns = turns(&fixture);
    assert_eq!(turns.len(), 3, "{turns:?}");
    for turn in &turns {
        assert_eq!(number(&turn["cost"]), TURN, "{turn}");
        assert_eq!((&turn["usage_source"], &turn["outcome"]), (&json!("reported"), &json!("completed")));
        assert_eq!(turn["model"], "gpt-realtime");
    }
    assert_eq!(
        (spend(&fixture, "tollgate_limit_spent"), spend(&fixture, "tollgate_limit_held")),
        (3 * TURN, 0)
    );
    assert_eq!(fixture.gateway.metrics().sum("tollgate_hold_exceeded_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realtime_session_without_limits_is_left_as_it_is_and_billed_turn_by_turn() {
    needs!(websockets::installed());
    let (fixture, call) = fixture("").await;
    let said = run(&fixture, &call, "spoken", json!({"turns": 2})).await;
    assert_eq!(
        (&said["turns"], &said["unasked"]),
        (&json!(2), &json!(2)),
        "the provider starts them: {said}"
    );
    let asked = said["seen"].as_array().unwrap().iter().filter(|kind| **kind == "response.create").count();
    assert_eq!((asked, &said["detection"][0]["create_response"]), (0, &json!(true)), "{said}");
    eventually("the session is recorded", || ledger::records(&fixture.gateway).len() == 3).await;
    let turns = turns(&fixture);
    assert_eq!(turns.len(), 2, "{turns:?}");
    for turn in &turns {
        assert_eq!((number(&turn["cost"]), &turn["usage_source"]), (TURN, &json!("reported")), "{turn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realtime_session_without_money_for_another_turn_is_told_so_and_closed() {
    needs!(websockets::installed());
    // A turn of this cap is held at less than a quarter of a dollar, and costs less than half a cent.
    let (fixture, call) =
        fixture("  defaultOutputCap: 100\n  limits: [{spend: \"0.16 USD\", per: month}]\n").await;
    let said = run(&fixture, &call, "turns", json!({"turns": 40})).await;
    let made = said["turns"].as_u64().unwrap();
    assert!((1..30).contains(&made), "{said}");
    let asked = said["seen"].as_array().unwrap().iter().filter(|kind| **kind == "response.create").count();
    assert_eq!(asked as u64, made, "the turn that was refused never reached the provider");
    assert_eq!(said["errors"], json!([["budget_exhausted", format!("mine_{made}")]]), "{said}");
    assert_eq!(said["closed"], json!([1008, "budget_exhausted"]));
    let (spent, held) = (spend(&fixture, "tollgate_limit_spent"), spend(&fixture, "tollgate_limit_held"));
    assert_eq!((spent, held), (made * TURN, 0));
    assert!(spent <= 160_000_000);
    let is_refused = |record: &&Value| record["reason"] == "budget_exhausted";
    let refused = || ledger::records(&fixture.gateway).iter().filter(is_refused).cloned().collect::<Vec<_>>();
    eventually("the session is recorded", || !refused().is_empty()).await;
    for record in refused() {
        assert_eq!(record["limited_by"], "grant/checkout-up/spend/month/shared", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_the_provider_would_start_is_started_by_the_gateway_when_it_is_held() {
    needs!(websockets::installed());
    let (fixture, call) =
        fixture("  defaultOutputCap: 100\n  limits: [{spend: \"0.16 USD\", per: month}]\n").await;
    let said = run(&fixture, &call, "spoken", json!({"turns": 40})).await;
    assert_eq!(said["unasked"], 0, "the provider has started none by itself: {said}");
    let made = said["turns"].as_u64().unwrap();
    assert!((1..30).contains(&made), "{said}");
    assert_eq!(
        (&said["errors"][0][0], &said["closed"][0]),
        (&json!("budget_exhausted"), &json!(1008)),
        "{said}"
    );
    for detection in said["detection"].as_array().unwrap() {
        assert_eq!(detection["create_response"], false, "{said}");
    }
    assert_eq!(said["detection"][2]["threshold"], 0.4, "what the caller has set is kept");
    assert_eq!(
        (spend(&fixture, "tollgate_limit_spent"), spend(&fixture, "tollgate_limit_held")),
        (made * TURN, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_nothing_that_costs_what_is_not_read() {
    needs!(websockets::installed());
    let (fixture, call) = fixture("  limits: [{spend: 100 USD, per: month}]\n").await;
    let said = run(&fixture, &call, "refused", json!({})).await;
    assert_eq!(said["model"], json!(["model_not_allowed", "model"]), "{said}");
    for name in ["transcript", "mcp", "prompt", "idle", "kind", "tools", "unknown"] {
        assert_eq!(said[name], json!(["unmetered_endpoint", name]), "{said}");
    }
    assert_eq!(said["after"], "response.done", "the session goes on");
    assert_eq!(
        (&said["twice"][0], &said["case"][0], &said["text"][0]),
        (&json!(1008), &json!(1008), &json!(1007)),
        "{said}"
    );
    assert_eq!(said["elsewhere"], json!([403, "unmetered_endpoint"]));
    assert_eq!(said["none"], json!([403, "model_required"]));
    assert_eq!(said["other"], json!([403, "model_not_allowed"]));
    assert_eq!(said["ambiguous"], json!([400, "ambiguous_body"]));
    let seen = said["seen"].as_array().unwrap();
    let asked = seen.iter().filter(|kind| **kind == "response.create").count();
    assert_eq!(asked, 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_says_the_cap_that_it_is_held_at_and_is_charged_whatever_its_client_calls_other_messages() {
    needs!(websockets::installed());
    let (fixture, call) = fixture("  limits: [{spend: 100 USD, per: month}]\n").await;
    let said = run(&fixture, &call, "sly", json!({})).await;
    assert_eq!(said["caps"], json!([1, 1, 4096, 9, 1]), "{said}");
    assert_eq!(said["names"], 5, "the provider knows each turn by a name of its own: {said}");
    assert_eq!(said["refused"], json!([["invalid_value", "settings"], ["invalid_value", "same"]]), "{said}");
    eventually("all is settled", || spend(&fixture, "tollgate_limit_spent") == 5 * TURN).await;
    assert_eq!(spend(&fixture, "tollgate_limit_held"), 0);
    assert_eq!(turns(&fixture).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_whose_caller_has_gone_is_ended_and_charged_what_it_used() {
    needs!(websockets::installed());
    let (fixture, call) = fixture("  limits: [{spend: 100 USD, per: month}]\n").await;
    let said = run(&fixture, &call, "hung_up", json!({})).await;
    assert_eq!(said["status"], "failed", "{said}");
    assert_eq!(said["refused"], json!([["conversation_already_has_active_response", "second"]]), "{said}");
    let sum = || spend(&fixture, "tollgate_limit_spent") + spend(&fixture, "tollgate_limit_held");
    // Two that the caller hung up on, none for what failed or was refused, and one that it left running.
    eventually("all is settled", || sum() == 3 * TURN).await;
    assert_eq!(spend(&fixture, "tollgate_limit_held"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_a_crash_interrupts_is_charged_at_its_hold() {
    needs!(websockets::installed());
    let (mut fixture, mut call) = fixture("  limits: [{spend: 100 USD, per: month}]\n").await;
    let opened = fixture.sandbox.providers().join("opened");
    call["opened"] = json!(opened);
    let script = run(&fixture, &call, "held", json!({}));
    let crash = async {
        eventually("the turn runs", || opened.exists()).await;
        let held = spend(&fixture, "tollgate_limit_held");
        assert!(held > TURN, "{held}");
        fixture.gateway.crash();
        held
    };
    let (said, held) = tokio::join!(script, crash);
    assert_eq!(said["closed"], Value::Null, "{said}");
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    eventually("what was held is spent", || spend(&fixture, "tollgate_limit_spent") == held).await;
    let presumed: Vec<_> = turns(&fixture);
    assert_eq!(presumed.len(), 1, "{presumed:?}");
    assert_eq!((&presumed[0]["usage_source"], number(&presumed[0]["cost"])), (&json!("presumed"), held));
}
