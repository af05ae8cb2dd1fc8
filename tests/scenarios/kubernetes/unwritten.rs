//! Hosts that are not in the status of what holds them yet: they are written before all else, and where they cannot be that is told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Gateway, Sandbox, needs};

use super::hosts::{destination, of};
use super::rights::without;
use super::{EGRESS, USER, World, answers, path, rights};

/// How many objects hold hosts that no status says.
fn unwritten(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("tollgate_kubernetes_hosts_unwritten", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_the_gateway_may_not_write_are_told_of_and_the_older_object_keeps_them() {
    needs!(Cluster::installed());
    let world = World::new(&without("patch", "destinations/status")).await;
    let first = world.start().await;
    let others = Sandbox::new();
    let mut second = world.launch(&others).await;
    second.ready().await;
    world.cluster.apply(&world.objects).await;
    let client = world.checkout(&first);
    answers(&client, 200).await;
    // Times of creation have seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let younger = world.objects.split("---\n").find(|text| text.contains("kind: Destination")).unwrap();
    world.cluster.apply(&younger.replace("name: up", "name: a-younger")).await;
    eventually("the younger is refused", || {
        first.metrics().sum("tollgate_kubernetes_objects_refused", &["resource=\"destinations\""]) == 1.0
    })
    .await;

    let remark = "1 objects hold hosts that cannot be written into their status";
    let begun = Instant::now();
    while unwritten(&first) + unwritten(&second) < 2.0 {
        assert!(begun.elapsed() < Duration::from_secs(90), "it is not told");
        client.get("/up/x").await.assert_status(200);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for gateway in [&first, &second] {
        assert_eq!(unwritten(gateway), 1.0);
        let (status, ready) = gateway.admin_get("/readyz");
        assert!(status == 200 && ready.contains(remark), "{status} {ready}");
    }
    client.get("/a-younger/x").await.assert_refused(403, "broken_configuration");
    let object = world.cluster.get(&path("destinations", "up")).await;
    assert!(object["status"].is_null(), "{object}");

    // With the right it is written, and nothing more is told.
    world.cluster.allow(USER, None, &rights()).await;
    let hosts = |object: &Value| object["status"]["hosts"].as_array().is_some_and(|hosts| hosts.len() == 1);
    world.cluster.until(&path("destinations", "up"), hosts).await;
    world.condition(&path("destinations", "a-younger"), "Accepted", "False").await;
    for gateway in [&first, &second] {
        eventually("nothing is unwritten", || unwritten(gateway) == 0.0).await;
        let (_, ready) = gateway.admin_get("/readyz");
        assert!(!ready.contains("cannot be written"), "{ready}");
    }
    client.get("/up/x").await.assert_status(200);
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_written_while_the_status_of_hundreds_of_other_objects_waits() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    world.cluster.apply(&world.objects).await;
    let grants = "/apis/tollgate.dev/v1alpha1/namespaces/egress/grants";
    for number in 0..500 {
        let grant = json!({
            "apiVersion": "tollgate.dev/v1alpha1", "kind": "Grant",
            "metadata": {"namespace": EGRESS, "name": format!("grant-{number}")},
            "spec": {"callers": [{"spiffe": format!("spiffe://prod.acme/ns/n{number}/sa/a")}], "destination": "nowhere"},
        });
        world.cluster.call(Verb::Post, grants, &grant).await.expect("a grant");
    }
    let _gateway = world.start().await;
    // How many grants say nothing yet.
    let silent = async || {
        let list = world.cluster.get(grants).await;
        let grants = list["items"].as_array().unwrap();
        (grants.iter().filter(|grant| grant["status"].is_null()).count(), grants.len())
    };
    loop {
        let (left, all) = silent().await;
        if left < all {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.cluster.namespace("shop", &json!({}), &[]).await;
    world.cluster.apply(&destination("shop", &["shop.test"], 1)).await;
    world.cluster.until(&of("shop"), |object| object["status"]["hosts"] == json!(["shop.test"])).await;
    let (left, _) = silent().await;
    assert!(left > 0, "all else was written before");
    eprintln!("{left} of 500 objects were still to be told of when the host was");
    // Nothing is forgotten over it.
    let begun = Instant::now();
    while silent().await.0 > 0 {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", silent().await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.leave().await;
}
