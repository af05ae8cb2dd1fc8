//! Kubernetes Secrets as a store: of its own namespace alone, with rights on single names.

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::{Gateway, SecretKind, needs};

use super::{EGRESS, USER, World, answers, rights};

const SECRET: &str = "/api/v1/namespaces/egress/secrets/provider";

/// Lets the gateway do this to the one Secret, and nothing else in its namespace but have the Lease.
async fn allow(world: &World, verbs: &[&str]) {
    let mut rules = vec![json!({
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"],
    })];
    if !verbs.is_empty() {
        let names = ["provider"];
        rules.push(
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": verbs}),
        );
    }
    world.cluster.allow(USER, Some(EGRESS), &rules.into()).await;
}

/// The fixture's objects, with their key in a Secret that is read anew as often as `refresh` says.
fn with_secret(world: &World, refresh: &str) -> String {
    let mut documents: Vec<String> = world.objects.split("---\n").map(str::to_owned).collect();
    for document in &mut documents {
        if document.contains("kind: SecretStore") {
            let (head, _) = document.split_once("spec:\n").unwrap();
            *document = format!("{head}spec:\n  kubernetes: {{}}\n");
        }
        let from = format!("{{store: files, path: provider, field: api_key}}\n  refresh: {refresh}");
        *document = document.replace("{store: files, path: up}", &from);
    }
    documents.join("---\n")
}

/// Puts a fresh key into the Secret, and says that it is one of a Kubernetes Secret.
async fn put(world: &World, name: &str) -> String {
    let key = world.plan.sandbox.canary(name);
    world.plan.sandbox.stands_for(&key, &[SecretKind::Kubernetes, SecretKind::Bearer]);
    world.cluster.secret(EGRESS, "provider", "api_key", &key).await;
    key
}

fn rotations(gateway: &Gateway) -> usize {
    gateway.log().iter().filter(|line| field(line, "message") == "secret rotated").count()
}

async fn world() -> World {
    let world = World::new(&rights()).await;
    allow(&world, &["get", "watch"]).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_secret_is_used_and_a_change_is_followed_at_once() {
    needs!(Cluster::installed());
    let world = world().await;
    let key = put(&world, "first").await;
    let objects = with_secret(&world, "1h");
    let gateway = world.start().await;
    let client = world.checkout(&gateway);
    world.cluster.apply(&objects).await;
    answers(&client, 200).await;
    let sent = |world: &World| world.upstream.seen().pop().unwrap().header("authorization").to_owned();
    assert_eq!(sent(&world), format!("Bearer {key}"));

    // Another value: an hour's refresh does not hold it up.
    let key = put(&world, "second").await;
    eventually("the new key is taken", || rotations(&gateway) == 1).await;
    answers(&client, 200).await;
    assert_eq!(sent(&world), format!("Bearer {key}"));
    // Another label is no other value.
    let label = json!({"metadata": {"labels": {"team": "checkout"}}});
    world.cluster.call(Verb::Merge, SECRET, &label).await.expect(SECRET);
    // Long enough for it to be read anew.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(rotations(&gateway), 1);

    world.cluster.call(Verb::Delete, SECRET, &Value::Null).await.expect(SECRET);
    answers(&client, 503).await;
    client.get("/up/x").await.assert_refused(503, "secret_unavailable");
    let key = put(&world, "third").await;
    answers(&client, 200).await;
    assert_eq!(sent(&world), format!("Bearer {key}"));
    assert_eq!(rotations(&gateway), 1);
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_ends_the_key_and_no_other_namespace_is_asked() {
    needs!(Cluster::installed());
    let world = world().await;
    put(&world, "near").await;
    let gateway = world.start().await;
    let client = world.checkout(&gateway);
    let objects = with_secret(&world, "2s");
    world.cluster.apply(&objects).await;
    answers(&client, 200).await;

    // Without `watch` it is read as often as `refresh` says.
    allow(&world, &["get"]).await;
    put(&world, "read-anew").await;
    eventually("the new key is taken", || rotations(&gateway) >= 1).await;

    allow(&world, &[]).await;
    answers(&client, 503).await;
    let says = |word: &str| {
        gateway.log().iter().any(|line| field(line, "error").as_str().is_some_and(|it| it.contains(word)))
    };
    eventually("the log says why", || says("the store's own policy denies this path")).await;
    let health = "/apis/tollgate.dev/v1alpha1/namespaces/egress/credentials/up-key";
    world.cluster.until(health, |object| object["status"]["health"] == "unavailable").await;
    allow(&world, &["get", "watch"]).await;
    answers(&client, 200).await;

    // The gateway may read a Secret of another namespace, and a store of this one does not.
    let far = world.plan.sandbox.canary("far");
    world.cluster.secret("default", "elsewhere", "api_key", &far).await;
    let all = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch"]}]);
    world.cluster.allow(USER, Some("default"), &all).await;
    for path in ["elsewhere", "../default/secrets/elsewhere", "default/elsewhere"] {
        // What is refused next is refused for this path, and not still for the one before.
        world.cluster.apply(&objects).await;
        answers(&client, 200).await;
        let written = objects.replace("path: provider", &format!("path: {path}"));
        world.cluster.apply(&written).await;
        let refused = async {
            loop {
                let answer = client.get("/up/x").await;
                if answer.status != 200 {
                    break answer;
                }
            }
        };
        let refused = tokio::time::timeout(std::time::Duration::from_secs(30), refused).await.expect(path);
        assert!([403, 503].contains(&refused.status.as_u16()), "{path}: {refused:?}");
    }
    assert!(world.upstream.seen().iter().all(|seen| !format!("{:?}", seen.headers).contains(&far)));
    world.leave().await;
}
