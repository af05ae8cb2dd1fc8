//! Who spent how much of one budget: `tollgate budget ls NAME --by …`, from the records.

use serde_json::{Value, json};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::ledger::records;
use tollgate_tests::provider::{OPENAI_MODEL, chat};
use tollgate_tests::report::requests_reach;
use tollgate_tests::resources::{document, grant};
use tollgate_tests::{Fixture, Plan};

const CHAT: &str = "/up/v1/chat/completions";
/// What each call uses.
const USED: u64 = 3_400;

fn split(fixture: &Fixture, budget: &str, by: &str) -> Vec<(String, u64, f64, u64)> {
    let admin = fixture.gateway.admin().to_string();
    let output = fixture
        .gateway
        .tollgate(&["budget", "ls", budget, "--by", by, "--format", "json", "--admin", &admin]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("an array");
    let row = |row: &Value| {
        let number = |name: &str| row[name].as_u64().expect("a number");
        (
            row["by"].as_str().expect("a text").to_owned(),
            number("spent"),
            row["percent"].as_f64().expect("a number"),
            number("calls"),
        )
    };
    rows.iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_budget_says_who_spent_it_by_caller_namespace_destination_and_model() {
    let mut plan = Plan::openai(CHAT_ONLY);
    let allow = "  allow: {methods: [POST], paths: [/v1/chat/completions]}\n";
    let everybody = grant("everybody-up", "spiffe://prod.acme/ns/**", "up", "up-key", allow);
    let budgets = document("Budget", "organisation", "  limits: [{tokens: 1000000, per: month}]\n")
        + &document(
            "Budget",
            "shop",
            "  appliesTo: {namespaces: [shop]}\n  parent: organisation\n  limits: [{tokens: 1000000, per: day}, {concurrency: 9}]\n",
        )
        + &document(
            "Budget",
            "search",
            "  appliesTo: {namespaces: [search]}\n  parent: organisation\n  limits: [{requests: 9, per: day}]\n",
        );
    plan.settings = plan.settings.resource("everybody.yaml", everybody).resource("budgets.yaml", budgets);
    let fixture = plan.start_openai(3_000, 400).await;
    let callers = ["shop/sa/web", "shop/sa/web", "shop/sa/api", "search/sa/web"]
        .map(|name| format!("spiffe://prod.acme/ns/{name}"));
    for caller in &callers {
        fixture.caller(caller).post(CHAT, &chat(400)).await.assert_status(200);
    }
    // Whoever is held to neither spends of neither.
    fixture.checkout().post(CHAT, &chat(400)).await.assert_status(200);
    requests_reach(&fixture.gateway, 5).await;
    let row = |by: &str, calls: u64, percent: f64| (by.to_owned(), calls * USED, percent, calls);
    let (web, api, search) = (&*callers[0], &*callers[2], &*callers[3]);
    assert_eq!(
        split(&fixture, "organisation", "caller"),
        [row(web, 2, 50.0), row(search, 1, 25.0), row(api, 1, 25.0)]
    );
    assert_eq!(split(&fixture, "organisation", "namespace"), [row("shop", 3, 75.0), row("search", 1, 25.0)]);
    assert_eq!(split(&fixture, "organisation", "destination"), [row("up", 4, 100.0)]);
    assert_eq!(split(&fixture, "organisation", "model"), [row(OPENAI_MODEL, 4, 100.0)]);
    assert_eq!(split(&fixture, "shop", "namespace"), [row("shop", 3, 100.0)]);
    assert_eq!(split(&fixture, "search", "caller"), [(search.to_owned(), 1, 100.0, 1)], "in its own unit");

    // A correction counts where its call does.
    let called = records(&fixture.gateway);
    let called = called.iter().find(|record| record["caller"] == json!(api)).expect("its record");
    let id = called["id"].as_str().expect("an id");
    let settled = fixture.gateway.tollgate(&[
        "ledger", "settle", id, "--input", "1000", "--output", "0", "--cost", "1 USD", "--note", "x",
        "--force",
    ]);
    assert!(settled.status.success(), "{settled:?}");
    let after = split(&fixture, "organisation", "caller");
    assert!(after.contains(&(api.to_owned(), 1_000, 8.9, 1)), "{after:?}");

    for (arguments, why) in
        [(&["nobody", "--by", "caller"][..], "there is no Budget nobody"), (&["--by", "caller"], "<NAME>")]
    {
        let admin = fixture.gateway.admin().to_string();
        let all = [&["budget", "ls", "--admin", &admin], arguments].concat();
        let refused = fixture.gateway.tollgate(&all);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{said}");
    }
}
