//! Budgets over the grants of many: each call takes of all that select it, and only the callers of one that has run out are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::provider::{OPENAI_MODEL, chat, chat_completion};
use tollgate_tests::report::{report, requests_reach, total};
use tollgate_tests::resources::{document, grant};
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, Seen, needs, python};

const CHAT: &str = "/up/v1/chat/completions";
const CHEAP: &str = "gpt-5-nano";
/// What each call uses: a little less than it holds.
const USED: u64 = 3_400;
const BUDGETS: &str = "budgets.yaml";

/// A gateway whose grant is for every namespace, with these budgets.
fn plan(budgets: &str) -> Plan {
    let mut plan = Plan::openai(CHAT_ONLY);
    let everybody = grant(
        "everybody-up",
        "spiffe://prod.acme/ns/**",
        "up",
        "up-key",
        "  allow: {methods: [POST], paths: [/v1/chat/completions]}\n",
    );
    plan.settings = plan.settings.resource("everybody.yaml", everybody).resource(BUDGETS, budgets);
    plan
}

fn budget(name: &str, spec: &str) -> String {
    document("Budget", name, spec)
}

fn caller(fixture: &Fixture, namespace: &str, name: &str) -> Client {
    fixture.caller(&format!("spiffe://prod.acme/ns/{namespace}/sa/{name}"))
}

/// Amount, spent and held of a limit with its key.
fn usage(fixture: &Fixture, limit: &str, key: &str) -> (f64, f64, f64) {
    let metrics = fixture.gateway.metrics();
    let labels = [format!("limit=\"{limit}\""), format!("key=\"{key}\"")];
    let labels = [&*labels[0], &*labels[1]];
    let read = |name: &str| metrics.sum(name, &labels);
    (read("tollgate_limit_amount"), read("tollgate_limit_spent"), read("tollgate_limit_held"))
}

fn spent(fixture: &Fixture, limit: &str) -> f64 {
    usage(fixture, limit, "").1
}

async fn call(client: &Client) -> (u16, String) {
    let answer = client.post(CHAT, &chat(400)).await;
    let limit = if answer.status == 429 {
        answer.json()["limit"]["id"].as_str().unwrap_or_default().to_owned()
    } else {
        String::new()
    };
    (answer.status.as_u16(), limit)
}

const HIERARCHY: [(&str, &str); 4] = [
    ("organisation", "  limits: [{tokens: 18000, per: day}]\n"),
    ("commerce", "  parent: organisation\n  limits: [{tokens: 40000, per: day}]\n"),
    (
        "shop",
        "  appliesTo: {namespaces: [shop]}\n  parent: commerce\n  limits: [{tokens: 10000, per: day}]\n",
    ),
    (
        "search",
        "  appliesTo: {namespaces: [search]}\n  parent: commerce\n  limits: [{tokens: 100000, per: day}]\n",
    ),
];

fn hierarchy() -> String {
    HIERARCHY.iter().map(|(name, spec)| budget(name, spec)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hierarchy_only_the_callers_of_what_has_run_out_are_refused() {
    let mut fixture = plan(&hierarchy()).start_openai(3_000, 400).await;
    let (shop, search, other) =
        (caller(&fixture, "shop", "web"), caller(&fixture, "search", "api"), caller(&fixture, "bank", "api"));
    for _ in 0..2 {
        assert_eq!(call(&shop).await.0, 200);
    }
    assert_eq!(call(&shop).await, (429, "budget/shop/tokens/day/shared".to_owned()));
    for _ in 0..2 {
        assert_eq!(call(&search).await.0, 200);
    }
    assert_eq!(call(&search).await, (429, "budget/organisation/tokens/day/shared".to_owned()));
    // Of both that refuse, either may be told.
    assert_eq!(call(&shop).await.0, 429);
    let free = other.post(CHAT, &chat(400)).await;
    free.assert_status(200);
    assert!(free.headers.get("ratelimit").is_none(), "{:?}", free.headers);
    let all = [("organisation", 4.0), ("commerce", 4.0), ("shop", 2.0), ("search", 2.0)];
    let booked = |fixture: &Fixture| {
        for (name, calls) in all {
            let id = format!("budget/{name}/tokens/day/shared");
            assert_eq!(usage(fixture, &id, "").1, calls * USED as f64, "{name}");
            assert_eq!(usage(fixture, &id, "").2, 0.0, "{name}");
        }
    };
    booked(&fixture);
    // What was spent is rebuilt from the ledger.
    assert!(fixture.gateway.stop().success());
    fixture.gateway.restart().await;
    booked(&fixture);
    assert_eq!(call(&caller(&fixture, "search", "api")).await.0, 429);
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    booked(&fixture);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_and_a_refusal_name_each_budget_and_what_is_left() {
    let fixture = plan(&hierarchy()).start_openai(3_000, 400).await;
    let shop = caller(&fixture, "shop", "web");
    let answer = shop.post(CHAT, &chat(400)).await;
    answer.assert_status(200);
    for name in ["organisation", "commerce", "shop"] {
        assert!(
            answer.header("ratelimit").contains(&format!("\"budget/{name}/tokens/day/shared\";r=")),
            "{:?}",
            answer.headers
        );
        assert!(
            answer.header("ratelimit-policy").contains(&format!("\"budget/{name}/tokens/day/shared\";q=")),
            "{:?}",
            answer.headers
        );
    }
    shop.post(CHAT, &chat(400)).await.assert_status(200);
    let refused = shop.post(CHAT, &chat(400)).await;
    refused.assert_refused(429, "budget_exhausted");
    let body = refused.json();
    assert_eq!(body["limit"]["owner"], "budget/shop", "{body}");
    assert_eq!((&body["limit"]["amount"], &body["limit"]["used"]), (&json!(10_000), &json!(6_800)), "{body}");
    assert!(!body.to_string().contains("search"), "a budget that it is not held to is not named: {body}");
    let explained = fixture.gateway.tollgate(&[
        "explain",
        "--caller",
        "spiffe://prod.acme/ns/shop/sa/web",
        "--url",
        "https://localhost/up/v1/chat/completions",
        "--model",
        OPENAI_MODEL,
    ]);
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    for name in ["organisation", "commerce", "shop"] {
        assert!(said.contains(&format!("held to budget/{name}/tokens/day/shared: up to")), "{said}");
    }
    assert!(!said.contains("search"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_namespace_and_each_caller_has_its_own_part_where_the_key_says_so() {
    for (key, second, third) in [("namespace", 429, 200), ("caller", 200, 200), ("shared", 429, 429)] {
        let spec = format!("  appliesTo: All\n  limits: [{{tokens: 7000, per: day, key: {key}}}]\n");
        let fixture = plan(&budget("everyone", &spec)).start_openai(3_000, 400).await;
        let callers = [("shop", "web"), ("shop", "api"), ("search", "api")]
            .map(|(namespace, name)| caller(&fixture, namespace, name));
        assert_eq!(call(&callers[0]).await.0, 200, "{key}");
        assert_eq!(call(&callers[0]).await.0, 429, "{key}");
        assert_eq!((call(&callers[1]).await.0, call(&callers[2]).await.0), (second, third), "{key}");
    }
}

/// Calls until it is told to stop; how many were answered.
async fn insist(client: Client, stop: Arc<AtomicBool>, paid: Arc<AtomicU64>) {
    let mut connection = client.open(Protocol::H1).await.expect("a connection");
    while !stop.load(Ordering::SeqCst) {
        let answer = connection.send(client.json(CHAT, &chat(400))).await.expect("an answer");
        match (answer.status.as_u16(), answer.header("x-tollgate-reason")) {
            (200, _) => {
                paid.fetch_add(1, Ordering::SeqCst);
            }
            (429, "budget_held" | "budget_exhausted") => {}
            other => panic!("{other:?}: {}", answer.text()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_an_amount_under_load_keeps_what_was_spent_and_nothing_goes_past_it() {
    let text = |amount: u64| {
        let spec =
            format!("  appliesTo: {{destinations: [up]}}\n  limits: [{{tokens: {amount}, per: day}}]\n");
        budget("organisation", &spec)
    };
    let id = "budget/organisation/tokens/day/shared";
    let fixture = plan(&text(40_000)).start_openai(3_000, 400).await;
    let (stop, paid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..12)
        .map(|number| {
            let client = caller(&fixture, &format!("team-{}", number % 3), &format!("web-{number}"));
            tokio::spawn(insist(client, stop.clone(), paid.clone()))
        })
        .collect();
    let mut last = 0.0;
    for amount in [40_000_u64, 90_000, 60_000, 150_000] {
        if amount != 40_000 {
            fixture.gateway.replace(BUDGETS, &text(amount)).await;
        }
        let most = amount as f64;
        // It is used up to its end: no call fits any more, whatever the bound of one is. A lower amount than was spent lets nothing more go.
        eventually("the budget is used up", || {
            let (cap, spent, held) = usage(&fixture, id, "");
            assert!(spent + held <= cap.max(last), "spent {spent} + held {held} > {cap}");
            held == 0.0 && (spent + 4_800.0 > most)
        })
        .await;
        last = last.max(spent(&fixture, id)).max(most);
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("a caller");
    }
    let booked = spent(&fixture, id);
    assert_eq!(booked, (paid.load(Ordering::SeqCst) * USED) as f64);
    assert_eq!(fixture.upstream.count() as u64, paid.load(Ordering::SeqCst), "what was refused never left");
    assert!(booked <= 150_000.0 && booked > 150_000.0 - 4_800.0 - USED as f64, "{booked}");
}

/// An answer of the model that was asked for.
fn as_asked(seen: &Seen) -> Reply {
    let mut answer = chat_completion(3_000, 400);
    answer["model"] = seen.json()["model"].clone();
    Reply::json(&answer)
}

async fn by_sdk(fixture: &Fixture, client: &Client, model: &str) -> Value {
    let call = json!({"path": "/up/v1", "model": model, "cap": 400});
    python::run(&fixture.sandbox, "openai_chat.py", client, fixture.pki.bundle(), &call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_is_the_cheaper_models_answer_to_an_sdk_and_in_the_record() {
    needs!(python::installed());
    let team = "  appliesTo: {namespaces: [shop]}\n  parent: organisation\n  limits: [{tokens: 6000, per: day}]\n  onExhausted: {downgrade: gpt-5-nano}\n";
    let budgets = budget("organisation", "  limits: [{tokens: 14500, per: day}]\n") + &budget("team", team);
    let fixture = plan(&budgets).start(as_asked).await;
    let client = caller(&fixture, "shop", "web");
    let said = by_sdk(&fixture, &client, OPENAI_MODEL).await;
    assert_eq!(said["model"], OPENAI_MODEL, "{said}");
    // The team has nothing left for another one, the organisation has.
    for _ in 0..2 {
        let said = by_sdk(&fixture, &client, OPENAI_MODEL).await;
        assert_eq!(said["model"], CHEAP, "{said}");
    }
    // Who asks for the cheaper model goes on as they do; nobody goes past the organisation.
    let said = by_sdk(&fixture, &client, CHEAP).await;
    assert_eq!((&said["status"], &said["reason"]), (&json!(429), &json!("budget_exhausted")), "{said}");
    requests_reach(&fixture.gateway, 4).await;
    let rows = report(&fixture.gateway, "model,model_sent,model_answered,budget");
    let row = |sent: &str| {
        let mut rows = rows.iter().filter(|row| row["model_sent"] == sent && row["model_answered"] != "");
        rows.next().cloned().unwrap_or_else(|| panic!("{rows:?}"))
    };
    let plain = row("");
    assert_eq!(
        (&plain["model"], &plain["model_answered"], &plain["budget"]),
        (&json!(OPENAI_MODEL), &json!(OPENAI_MODEL), &json!(""))
    );
    let cheaper = row(CHEAP);
    assert_eq!(
        (&cheaper["model"], &cheaper["model_answered"], &cheaper["budget"]),
        (&json!(OPENAI_MODEL), &json!(CHEAP), &json!("team"))
    );
    assert_eq!(total(std::slice::from_ref(&cheaper), "requests", |_| true), 2);
    let costs = (&plain["cost_nano_usd"], &cheaper["cost_nano_usd"]);
    let (dear, cheap) = (3_000 * 250 + 400 * 2_000, 2 * (3_000 * 50 + 400 * 400));
    assert_eq!(costs, (&json!(dear), &json!(cheap)), "each is charged as its own model");
    assert_eq!(
        spent(&fixture, "budget/team/tokens/day/shared"),
        3.0 * USED as f64,
        "it is booked all the same"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cheaper_call_that_another_budget_refuses_is_told_of_that_one() {
    // The one that names a cheaper model is asked first.
    let commerce = "  appliesTo: {namespaces: [shop]}\n  parent: organisation\n  limits: [{tokens: 6000, per: day}]\n  onExhausted: {downgrade: gpt-5-nano}\n";
    let budgets =
        budget("organisation", "  limits: [{tokens: 7500, per: day}]\n") + &budget("commerce", commerce);
    let fixture = plan(&budgets).start(as_asked).await;
    let client = caller(&fixture, "shop", "web");
    assert_eq!(call(&client).await.0, 200);
    assert_eq!(call(&client).await, (429, "budget/organisation/tokens/day/shared".to_owned()));
    assert_eq!(fixture.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_that_the_grant_does_not_allow_is_refused() {
    let spec = "  appliesTo: {namespaces: [checkout]}\n  limits: [{tokens: 6000, per: day}]\n  onExhausted: {downgrade: gpt-5-nano}\n";
    let mut plan = Plan::openai(CHAT_ONLY);
    plan.settings = plan.settings.resource(BUDGETS, budget("team", spec));
    let fixture = plan.start(as_asked).await;
    let client = fixture.checkout();
    assert_eq!(call(&client).await.0, 200);
    assert_eq!(call(&client).await, (429, "budget/team/tokens/day/shared".to_owned()));
    assert_eq!(fixture.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_past_a_budget_that_marks_is_in_the_report_under_its_name() {
    let spec = "  appliesTo: All\n  limits: [{tokens: 6000, per: day}]\n  onExhausted: flag\n";
    let fixture = plan(&budget("soft", spec)).start_openai(3_000, 400).await;
    let client = caller(&fixture, "shop", "web");
    for _ in 0..3 {
        assert_eq!(call(&client).await.0, 200);
    }
    requests_reach(&fixture.gateway, 3).await;
    let rows = report(&fixture.gateway, "budget");
    assert_eq!(total(&rows, "requests", |row| row["budget"] == "soft"), 2, "{rows:?}");
    assert_eq!(spent(&fixture, "budget/soft/tokens/day/shared"), 3.0 * USED as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raise_lets_more_go_until_it_ends() {
    let spec = |raises: &str| {
        let spec = format!("  appliesTo: All\n  limits: [{{tokens: 6000, per: day}}]\n{raises}");
        budget("team", &spec)
    };
    let fixture = plan(&spec("")).start_openai(3_000, 400).await;
    let client = caller(&fixture, "shop", "web");
    assert_eq!((call(&client).await.0, call(&client).await.0), (200, 429));
    let raise = |until: &str| {
        format!("  raises: [{{tokens: 3000, until: \"{until}\", by: alice, reason: launch}}]\n")
    };
    fixture.gateway.replace(BUDGETS, &spec(&raise("2020-01-01T00:00:00Z"))).await;
    assert_eq!(call(&client).await.0, 429, "it has ended");
    fixture.gateway.replace(BUDGETS, &spec(&raise("2999-01-01T00:00:00Z"))).await;
    assert_eq!((call(&client).await.0, call(&client).await.0), (200, 429));
    assert_eq!(usage(&fixture, "budget/team/tokens/day/shared", "").0, 9_000.0);
}
