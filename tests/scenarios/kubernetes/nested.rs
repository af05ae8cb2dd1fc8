//! Objects that are nested without end, or larger than any, where the definitions keep what they do not know.

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::gateway::eventually;
use tollgate_tests::needs;

use super::{EGRESS, World, answers, is_all_followed, path, rights};

/// Deeper than `serde_json` reads.
fn nested() -> Value {
    (0..150).fold(json!(1), |inner, _| json!({"a": inner}))
}

const NESTED: &str = "spec: this is nested more than a hundred levels deep";

/// Writes an object of a kind, and waits until its status says why it is refused.
async fn write(world: &World, (kind, word): (&str, &str), (name, spec): (&str, Value), why: &str) {
    let object = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": word,
        "metadata": {"namespace": EGRESS, "name": name}, "spec": spec,
    });
    let list = path(kind, "");
    world.cluster.call(Verb::Post, list.trim_end_matches('/'), &object).await.expect(word);
    let said = "--output=jsonpath={.status.conditions[?(@.type==\"Accepted\")]}";
    let mut told = String::new();
    for _ in 0..150 {
        told = world.cluster.kubectl(&["get", kind, "-n", EGRESS, name, said]).await;
        if told.contains("\"status\":\"False\"") {
            assert!(told.contains(why), "{told}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("{kind} is not refused: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_nested_without_end_or_too_large_is_refused_by_itself_in_a_watch_a_list_and_on_the_disk()
 {
    needs!(Cluster::installed());
    let mut world = World::new(&rights()).await;
    let mut gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    answers(&world.checkout(&gateway), 200).await;

    // Told of by the watches, which go on.
    let destination = json!({"hosts": ["deep.example"], "dialect": "http", "allowedNamespaces": nested()});
    write(&world, ("destinations", "Destination"), ("deep", destination), NESTED).await;
    let from = json!({"store": "files", "path": "up", "more": nested()});
    let credential = json!({"destinations": ["up"], "from": from, "inject": {"bearer": {}}});
    write(&world, ("credentials", "Credential"), ("deep", credential), NESTED).await;
    let note = json!({"note": "x".repeat(300_000)});
    let large = json!({"hosts": ["large.example"], "dialect": "http", "allowedNamespaces": note});
    let why = "spec: this has 294 KiB and is not read: 256 KiB are the most of one object";
    write(&world, ("destinations", "Destination"), ("large", large), why).await;
    let changed = world.objects.replace("methods: [GET, POST", "methods: [PUT, POST");
    world.cluster.apply(&changed).await;
    answers(&world.checkout(&gateway), 403).await;
    world.cluster.apply(&world.objects).await;
    answers(&world.checkout(&gateway), 200).await;
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_objects_refused", &[]), 3.0);

    // Listed among the others by a start, and read from the disk by one without an API server.
    assert!(gateway.stop().success());
    gateway.restart().await;
    answers(&world.checkout(&gateway), 200).await;
    assert!(gateway.snapshot()["persisted"].is_null());
    assert!(is_all_followed(&gateway));
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
