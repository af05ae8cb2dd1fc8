//! Budgets that are objects: what is used of them is in their status, and an Event tells of a threshold.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_tests::cluster::{ADMIN, Cluster};
use tollgate_tests::needs;

use super::{EGRESS, World, answers, path, rights};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/egress/events";

fn budget(requests: u32) -> String {
    format!(
        "---
apiVersion: tollgate.dev/v1alpha1
kind: Budget
metadata: {{namespace: {EGRESS}, name: team}}
spec:
  appliesTo: {{destinations: [up]}}
  thresholds: [50, 100]
  limits: [{{requests: {requests}, per: day}}]
"
    )
}

/// The limit of the budget, once its status says that so much was spent. Counts are told of twice a minute.
async fn spent(world: &World, amount: &str) -> Value {
    let begun = Instant::now();
    loop {
        let budget = world.cluster.get(&path("budgets", "team")).await;
        let limit = budget["status"]["limits"][0].clone();
        if limit["spent"] == amount {
            return limit;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{budget:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits for an Event of the budget with these words.
async fn told(world: &World, reason: &str, words: &str) {
    let is_it = |event: &Value| {
        let regarding = &event["regarding"];
        (&regarding["kind"], &regarding["name"]) == (&json!("Budget"), &json!("team"))
            && event["reason"] == reason
            && event["type"] == "Warning"
            && event["note"].as_str().is_some_and(|note| note.contains(words))
    };
    let has = |list: &Value| list["items"].as_array().is_some_and(|it| it.iter().any(is_it));
    world.cluster.until(EVENTS, has).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_says_what_is_spent_and_an_event_tells_of_each_threshold_that_is_reached() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    let client = world.checkout(&gateway);
    answers(&client, 200).await;
    world.cluster.apply(&budget(4)).await;
    let team = path("budgets", "team");
    for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
        world.condition(&team, condition, "True").await;
    }
    assert_eq!(spent(&world, "0").await["left"], "4");

    for _ in 0..2 {
        client.get("/up/x").await.assert_status(200);
    }
    let limit = spent(&world, "2").await;
    assert_eq!((&limit["left"], &limit["held"], &limit["reached"]), (&json!("2"), &json!("0"), &json!(50)));
    assert!(limit["resets"].is_string(), "{limit}");
    let id = limit["id"].as_str().unwrap();
    told(&world, "ThresholdReached", &format!("50 % of {id} are used: 2 are spent, and 2 left")).await;
    let shown = world.cluster.kubectl(&["get", "tgb", "-n", EGRESS, "team"]).await;
    let (head, line) = shown.split_once('\n').unwrap();
    let column = |name: &str| {
        let rest = line.get(head.find(name).unwrap()..).unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!((column("SPENT"), column("LEFT")), ("2".to_owned(), "2".to_owned()), "{shown}");

    for _ in 0..2 {
        client.get("/up/x").await.assert_status(200);
    }
    client.get("/up/x").await.assert_status(429);
    assert_eq!(spent(&world, "4").await["reached"], 100);
    told(&world, "ThresholdReached", &format!("100 % of {id} are used")).await;

    // More of it lets calls go on, and what was spent stays.
    world.cluster.apply(&budget(10)).await;
    answers(&client, 200).await;
    // One that names what is not there says so, and denies what it would have limited.
    let broken = budget(10).replace("  thresholds", "  parent: nobody\n  thresholds");
    world.cluster.apply(&broken).await;
    let accepted = world.condition(&team, "Accepted", "False").await;
    assert!(accepted["message"].as_str().unwrap().contains("spec.parent"), "{accepted}");
    told(&world, "NotAccepted", "spec.parent").await;
    answers(&client, 403).await;
    client.get("/up/x").await.assert_refused(403, "broken_configuration");
    world.cluster.apply(&budget(10)).await;
    world.condition(&team, "Programmed", "True").await;
    answers(&client, 200).await;
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_a_cluster_is_raised_by_command_and_not_where_somebody_else_writes_its_raises() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    let client = world.checkout(&gateway);
    answers(&client, 200).await;
    world.cluster.apply(&budget(2)).await;
    let team = path("budgets", "team");
    world.condition(&team, "Programmed", "True").await;
    answers(&client, 429).await;

    let kubeconfig = world.cluster.kubeconfig(ADMIN).display().to_string();
    let raise = |name: &str, by: &str, more: &[&str]| {
        let said = ["--until", "1h", "--reason", "launch", "--who", "alice", "--kubeconfig", &kubeconfig];
        gateway.tollgate(&[&["budget", "raise", name, "--by", by], &said[..], more].concat())
    };
    let named = format!("{EGRESS}/team");
    for (name, by, why) in
        [("egress/nobody", "50 requests", "no Budget"), (named.as_str(), "5 USD", "spec.raises[0].spend")]
    {
        let refused = raise(name, by, &[]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{said}");
    }
    let trial = raise(&named, "50 requests", &["--dry-run"]);
    assert!(trial.status.success(), "{trial:?}");
    assert!(world.cluster.get(&team).await["spec"]["raises"].is_null(), "nothing was written so far");

    let raised = raise(&named, "50 requests", &[]);
    assert!(raised.status.success(), "{raised:?}");
    answers(&client, 200).await;
    let spec = world.cluster.get(&team).await["spec"].clone();
    assert_eq!((&spec["raises"][0]["by"], &spec["raises"][0]["requests"]), (&json!("alice"), &json!(50)));
    assert_eq!(spec["limits"][0]["requests"], 2, "the rest is its owner's");

    let raises = "  raises: [{requests: 1, until: \"2999-01-01T00:00:00Z\", by: bob, reason: git}]\n";
    let other = budget(2).replace("name: team", "name: other") + raises;
    world.cluster.apply(&other).await;
    let refused = raise(&format!("{EGRESS}/other"), "50 requests", &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("written by somebody else"), "{said}");
    world.leave().await;
}
