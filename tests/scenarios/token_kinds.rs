//! Tokens by kind: what is read, what is written, what came from a cache and what was reasoning are limited each by itself.

use serde_json::{Value, json};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::provider::{OPENAI_MODEL, chat, chat_completion};
use tollgate_tests::resources::document;
use tollgate_tests::{Client, Fixture, Plan, Reply, needs, python};

const BUDGETS: &str = "budgets.yaml";
const CHAT: &str = "/up/v1/chat/completions";

/// 3,000 tokens read, 2,000 of them from a cache; 300 written, 120 of them reasoning.
fn answer() -> Value {
    let mut answer = chat_completion(3_000, 300);
    answer["usage"]["prompt_tokens_details"] = json!({"cached_tokens": 2_000});
    answer["usage"]["completion_tokens_details"] = json!({"reasoning_tokens": 120});
    answer
}

async fn started(limits: &str) -> Fixture {
    let mut plan = Plan::openai(CHAT_ONLY);
    let budget = document("Budget", "team", format!("  appliesTo: All\n  limits: {limits}\n"));
    plan.settings = plan.settings.resource(BUDGETS, budget);
    plan.start(|_| Reply::json(&answer())).await
}

/// What the SDK of OpenAI makes of a call that may write as many as `cap`.
async fn by_sdk(fixture: &Fixture, client: &Client, cap: u64) -> Value {
    let call = json!({"path": "/up/v1", "model": OPENAI_MODEL, "cap": cap});
    python::run(&fixture.sandbox, "openai_chat.py", client, fixture.pki.bundle(), &call).await
}

fn spent(fixture: &Fixture, unit: &str) -> f64 {
    let limit = format!("limit=\"budget/team/{unit}/day/shared\"");
    fixture.gateway.metrics().sum("tollgate_limit_spent", &[&limit, &format!("unit=\"{unit}\"")])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_written_runs_out_while_what_may_be_read_is_free() {
    needs!(python::installed());
    let limits = "[{inputTokens: 1000000, per: day}, {outputTokens: 1000, per: day}, {cachedTokens: 1000000, per: day}, {reasoningTokens: 5000, per: day}]";
    let fixture = started(limits).await;
    let client = fixture.checkout();
    for _ in 0..2 {
        let said = by_sdk(&fixture, &client, 400).await;
        assert_eq!(said["model"], OPENAI_MODEL, "{said}");
    }
    // 600 are written: 400 more fit, 401 do not.
    let said = by_sdk(&fixture, &client, 401).await;
    assert_eq!((&said["status"], &said["reason"]), (&json!(429), &json!("budget_exhausted")), "{said}");
    let refused = client.post(CHAT, &chat(401)).await;
    let limit = &refused.json()["limit"];
    assert_eq!(
        (&limit["id"], &limit["unit"], &limit["used"], &limit["needed"]),
        (&json!("budget/team/outputTokens/day/shared"), &json!("output-tokens"), &json!(600), &json!(401))
    );
    let passed = client.post(CHAT, &chat(400)).await;
    passed.assert_status(200);
    let told = passed.header("ratelimit-policy");
    for (unit, word) in [
        ("inputTokens", "input"),
        ("outputTokens", "output"),
        ("cachedTokens", "cached"),
        ("reasoningTokens", "reasoning"),
    ] {
        let policy = format!("\"budget/team/{unit}/day/shared\";q=");
        assert!(told.contains(&policy) && told.contains(&format!("qu=\"{word}-tokens\"")), "{told}");
    }
    let used =
        ["inputTokens", "outputTokens", "cachedTokens", "reasoningTokens"].map(|unit| spent(&fixture, unit));
    assert_eq!(used, [9_000.0, 900.0, 6_000.0, 360.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_kind_is_raised_by_its_name_and_listed() {
    let fixture = started("[{inputTokens: 6000, per: day}, {outputTokens: 100000, per: day}]").await;
    let client = fixture.checkout();
    client.post(CHAT, &chat(400)).await.assert_status(200);
    client.post(CHAT, &chat(400)).await.assert_status(429);
    let generation = fixture.gateway.generation();
    let raise = [
        "budget",
        "raise",
        "team",
        "--by",
        "9000 inputTokens",
        "--until",
        "1h",
        "--reason",
        "x",
        "--who",
        "a",
    ];
    let raised = fixture.gateway.tollgate(&raise);
    assert!(raised.status.success(), "{raised:?}");
    fixture.gateway.reloaded(generation).await;
    client.post(CHAT, &chat(400)).await.assert_status(200);
    let listed = fixture.gateway.tollgate(&[
        "budget",
        "ls",
        "team",
        "--format",
        "json",
        "--admin",
        &fixture.gateway.admin().to_string(),
    ]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let lines = listed.as_array().expect("a list");
    let input = lines.iter().find(|line| line["unit"] == "input-tokens").expect("of what is read");
    assert_eq!(input["amount"], 15_000, "with what it is raised by: {input}");
    let text = listed.to_string();
    assert!(
        text.contains("\"unit\":\"input-tokens\"") && text.contains("\"unit\":\"output-tokens\""),
        "{text}"
    );
}
