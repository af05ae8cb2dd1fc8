//! A gateway of some namespaces, with rights in these alone; and what people are shown of access beside an object that is broken.

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::needs;

use super::{EGRESS, USER, World, answers, rights};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_listed_namespaces_needs_no_right_outside_of_them_and_shows_access_beside_a_broken_object()
 {
    needs!(Cluster::installed());
    let mut world = World::new(&json!([])).await;
    let lease = json!({
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"],
    });
    let mut inside = rights();
    let rules = inside.as_array_mut().unwrap();
    rules.retain(|rule| rule["resources"] != json!(["namespaces"]));
    rules.push(lease);
    world.cluster.allow(USER, Some(EGRESS), &inside).await;
    world.cluster.namespace("shop", &json!({}), &[]).await;
    world.members = ", namespaces: [egress]";
    let gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    answers(&world.checkout(&gateway), 200).await;
    let (_, ready) = gateway.admin_get("/readyz");
    assert!(!ready.contains("cannot be watched"), "{ready}");
    let is_said = |line: &Value| field(line, "error").as_str().is_some_and(|it| it.contains("forbidden"));
    assert!(!gateway.log().iter().any(is_said), "a right was missing");
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_watch_errors_total", &["\"namespaces\""]), 0.0);

    // A neighbour that is broken, and one of a namespace that does not count.
    let grant = world.objects.split("---\n").find(|text| text.contains("kind: Grant")).unwrap();
    let broken = grant.replace("checkout-up", "broken").replace("credential: up-key", "credential: nobody");
    let outside = grant.replace("namespace: egress, name: checkout-up", "namespace: shop, name: outside");
    world.cluster.apply(&format!("{broken}\n---\n{outside}")).await;
    world.condition(&super::path("grants", "broken"), "Accepted", "False").await;
    let list = || gateway.tollgate(&["access", "list", "--json"]);
    eventually("what changed is persisted", || String::from_utf8_lossy(&list().stdout).contains("broken"))
        .await;
    let listed = list();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let state = |name: &str| {
        let grants = listed.as_array().unwrap().iter();
        let found = grants.clone().find(|grant| grant["grant"].as_str().unwrap().ends_with(name));
        found.map(|grant| grant["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(state("checkout-up").as_deref(), Some("in force"), "{listed}");
    assert_eq!(state("broken").as_deref(), Some("broken"), "{listed}");
    assert_eq!(state("outside"), None, "{listed}");
    world.leave().await;
}
