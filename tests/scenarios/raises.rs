//! `tollgate budget raise`: more of a budget for a time, written where the Budget is written.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Fixture, Plan, Reply};

const BUDGETS: &str = "budgets.yaml";
const BUDGET: &str = "# What the platform gives to everybody.
apiVersion: tollgate.dev/v1alpha1
kind: Budget
metadata: {name: team}
spec:
  appliesTo: All
  limits: [{requests: 2, per: day}]  # Few.
";

fn raise(fixture: &Fixture, more: &[&str]) -> Output {
    let by = ["budget", "raise", "team", "--by", "5 requests", "--reason", "launch: week", "--who", "alice"];
    fixture.gateway.tollgate(&[&by[..], more].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What cannot be raised is refused by its name.
fn assert_refuses_what_is_wrong(fixture: &Fixture) {
    for (more, why) in [(["--until", "2020-01-01T00:00:00Z"], "--until"), (["--until", "never"], "--until")] {
        let refused = raise(fixture, &more);
        assert!(!refused.status.success() && text(&refused.stderr).contains(why), "{refused:?}");
    }
    let by = |by: &str| {
        let raise = ["budget", "raise", "team", "--by", by, "--reason", "x", "--who", "a", "--until", "1h"];
        fixture.gateway.tollgate(&raise)
    };
    for (amount, why) in [("5 USD", "spec.raises[0].spend"), ("5 apples", "--by"), ("0 requests", "requests")]
    {
        let refused = by(amount);
        assert!(!refused.status.success() && text(&refused.stderr).contains(why), "{refused:?}");
    }
    let unknown = fixture.gateway.tollgate(&[
        "budget",
        "raise",
        "nobody",
        "--by",
        "1 requests",
        "--reason",
        "x",
        "--who",
        "a",
        "--until",
        "1h",
    ]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("no Budget nobody"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_raised_by_command_lets_refused_calls_pass_until_the_raise_ends() {
    let mut plan = Plan::new();
    plan.settings = plan.settings.resource(BUDGETS, BUDGET);
    let mut fixture = plan.start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let status = async || client.get("/up/x").await.status.as_u16();
    assert_eq!([status().await, status().await, status().await], [200, 200, 429]);

    let file = fixture.gateway.home().join("resources").join(BUDGETS);
    assert_refuses_what_is_wrong(&fixture);
    let trial = raise(&fixture, &["--until", "1h", "--dry-run"]);
    assert!(trial.status.success() && text(&trial.stdout).contains("by: \"alice\""), "{trial:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), BUDGET, "nothing was written so far");

    let raised = raise(&fixture, &["--until", "15s"]);
    assert!(raised.status.success(), "{raised:?}");
    let said = text(&raised.stdout);
    assert!(
        said.contains("budget/team/requests/day/shared: 7, raised until") && said.contains("alice"),
        "{said}"
    );
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.starts_with(BUDGET) && written.contains("reason: \"launch: week\""), "{written}");
    let amount = |fixture: &Fixture| {
        fixture.gateway.metrics().sum("tollgate_limit_amount", &["limit=\"budget/team/requests/day/shared\""])
    };
    eventually("the raise is in force", || amount(&fixture) == 7.0).await;
    assert_eq!([status().await, status().await], [200, 200]);
    eventually("the raise has ended", || amount(&fixture) == 2.0).await;
    assert_eq!(status().await, 429);

    let listed = || -> Vec<Value> {
        let listed = fixture.gateway.tollgate(&["audit", "list", "--format", "json"]);
        serde_json::from_slice(&listed.stdout).expect("entries")
    };
    let is_raise = |entry: &&Value| entry["what"] == "raised";
    let entries = listed();
    let entry = entries.iter().find(is_raise).expect("the raise in the audit trail");
    assert_eq!((&entry["by"], &entry["amount"]), (&"alice".into(), &5.into()), "{entry}");
    assert_eq!(
        (&entry["reason"], &entry["limit"]),
        (&"launch: week".into(), &"budget/team/requests/day/shared".into())
    );

    // Where no gateway runs, the ledger says what was spent.
    fixture.gateway.stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let offline = fixture.gateway.tollgate(&["budget", "ls", "--format", "json"]);
    let listed: Value = serde_json::from_slice(&offline.stdout).expect("a list");
    assert_eq!((&listed[0]["spent"], &listed[0]["amount"]), (&4.into(), &2.into()), "{listed}");
    assert!(text(&offline.stderr).contains("as of the last record"), "{offline:?}");
}
