//! Objects that are nested without end, where the definitions keep what they do not know.

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::gateway::eventually;
use tollgate_tests::needs;

use super::{EGRESS, World, answers, path, rights};

/// Deeper than `serde_json` reads.
fn nested() -> Value {
    (0..150).fold(json!(1), |inner, _| json!({"a": inner}))
}

/// Writes one of these kinds with such a member, and waits until its status says why it is refused.
async fn write(world: &World, kind: &str, word: &str, spec: Value) {
    let object = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": word,
        "metadata": {"namespace": EGRESS, "name": "deep"}, "spec": spec,
    });
    let list = path(kind, "");
    world.cluster.call(Verb::Post, list.trim_end_matches('/'), &object).await.expect(word);
    let said = "--output=jsonpath={.status.conditions[?(@.type==\"Accepted\")]}";
    let mut told = String::new();
    for _ in 0..150 {
        told = world.cluster.kubectl(&["get", kind, "-n", EGRESS, "deep", said]).await;
        if told.contains("\"status\":\"False\"") {
            assert!(told.contains("spec: this is nested more than a hundred levels deep"), "{told}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("{kind} is not refused: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_nested_without_end_is_refused_by_itself_in_a_watch_a_list_and_on_the_disk() {
    needs!(Cluster::installed());
    let mut world = World::new(&rights()).await;
    let mut gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    answers(&world.checkout(&gateway), 200).await;

    // Told of by the watches, which go on.
    let destination = json!({"hosts": ["deep.example"], "dialect": "http", "allowedNamespaces": nested()});
    write(&world, "destinations", "Destination", destination).await;
    let from = json!({"store": "files", "path": "up", "more": nested()});
    let credential = json!({"destinations": ["up"], "from": from, "inject": {"bearer": {}}});
    write(&world, "credentials", "Credential", credential).await;
    let changed = world.objects.replace("methods: [GET, POST", "methods: [PUT, POST");
    world.cluster.apply(&changed).await;
    answers(&world.checkout(&gateway), 403).await;
    world.cluster.apply(&world.objects).await;
    answers(&world.checkout(&gateway), 200).await;
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_objects_refused", &[]), 2.0);

    // Listed among the others by a start, and read from the disk by one without an API server.
    assert!(gateway.stop().success());
    gateway.restart().await;
    answers(&world.checkout(&gateway), 200).await;
    assert!(gateway.snapshot()["persisted"].is_null());
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_synced", &[]), 7.0);
    world.leave().await;
    let file = gateway.home().join("data/objects.json");
    let persisted = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("GET"));
    eventually("what this start has listed is persisted", persisted).await;
    world.cluster.stop_server();
    assert!(gateway.stop().success());
    gateway.restart().await;
    world.checkout(&gateway).get("/up/x").await.assert_status(200);
    assert!(!gateway.snapshot()["persisted"].is_null());
}
