//! Hosts that cannot be written into the status of what holds them: that is told, and the older object keeps them.

use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Gateway, Sandbox, needs};

use super::rights::without;
use super::{USER, World, answers, path, rights};

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

    // Not at once, because it takes a moment to write it.
    assert_eq!((unwritten(&first), unwritten(&second)), (0.0, 0.0));
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
