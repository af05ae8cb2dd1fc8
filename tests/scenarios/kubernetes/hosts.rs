//! Whose a host is that several objects name: of objects that come whole the older's, and else whoever's it has been.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Gateway, Sandbox, needs};

use super::{APP, EGRESS, USER, World, answers, condition, path, rights};

/// Who the gateway is that the chart installs in the namespace `tollgate`.
pub(super) const ACCOUNT: &str = "system:serviceaccount:tollgate:tollgate";

/// A Destination of a namespace, where connecting takes so many seconds at the most.
pub(super) fn destination(namespace: &str, hosts: &[&str], seconds: u32) -> String {
    let spec = json!({"hosts": hosts, "dialect": "http", "timeouts": {"connect": format!("{seconds}s")}});
    let metadata = json!({"namespace": namespace, "name": "saas"});
    json!({"apiVersion": "tollgate.dev/v1alpha1", "kind": "Destination", "metadata": metadata, "spec": spec})
        .to_string()
}

pub(super) fn of(namespace: &str) -> String {
    path("destinations", "saas").replace(EGRESS, namespace)
}

/// Waits until the status of what a namespace has says so, of what is there now.
pub(super) async fn accepted(world: &World, namespace: &str, status: &str) -> Value {
    let wanted = |object: &Value| {
        let accepted = condition(object, "Accepted");
        accepted["status"] == status && accepted["observedGeneration"] == object["metadata"]["generation"]
    };
    world.cluster.until(&of(namespace), wanted).await
}

/// A cluster in which `shop` has the older Destination, and `web` the one that has the host `llm.test`.
async fn two_apps(world: &World) {
    for namespace in ["shop", "web"] {
        world.cluster.namespace(namespace, &json!({}), &[]).await;
    }
    world.cluster.apply(&destination("shop", &["shop.test"], 1)).await;
    accepted(world, "shop", "True").await;
    // Times of creation have seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.cluster.apply(&destination("web", &["llm.test"], 1)).await;
    let has = |object: &Value| object["status"]["hosts"] == json!(["llm.test"]);
    world.cluster.until(&of("web"), has).await;
}

pub(super) fn leads(gateway: &Gateway) -> bool {
    gateway.metrics().sum("tollgate_kubernetes_leader", &[]) == 1.0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_object_that_names_a_host_later_takes_it_from_nobody_whichever_replica_decides() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let mut first = world.start().await;
    world.cluster.apply(&world.objects).await;
    two_apps(&world).await;

    world.cluster.apply(&destination("shop", &["shop.test", "llm.test"], 1)).await;
    let refused = accepted(&world, "shop", "False").await;
    let message = condition(&refused, "Accepted")["message"].as_str().unwrap();
    assert!(
        message.contains("spec.hosts[1]") && message.contains("`web`, where a Destination has it already")
    );
    // It keeps what is its own.
    assert_eq!(refused["status"]["hosts"], json!(["shop.test"]));
    accepted(&world, "web", "True").await;

    // A replica that starts anew, with nothing on its disk, comes to the same once it leads, also when what has the host changes then.
    let others = Sandbox::new();
    let mut second = world.launch(&others).await;
    second.ready().await;
    first.kill();
    eventually("the second leads", || leads(&second)).await;
    for seconds in [2, 3] {
        world.cluster.apply(&destination("web", &["llm.test"], seconds)).await;
        accepted(&world, "web", "True").await;
        world.cluster.apply(&destination("shop", &["shop.test", "llm.test"], seconds)).await;
        accepted(&world, "shop", "False").await;
    }
    assert!(second.stop().success());
    second.restart().await;
    world.cluster.apply(&destination("web", &["llm.test"], 4)).await;
    assert_eq!(accepted(&world, "web", "True").await["status"]["hosts"], json!(["llm.test"]));

    // Once it is given up, it falls to who asks for it, and does not come back.
    world.cluster.apply(&destination("web", &["web.test"], 1)).await;
    let has = |object: &Value| object["status"]["hosts"] == json!(["llm.test", "shop.test"]);
    world.cluster.until(&of("shop"), has).await;
    accepted(&world, "shop", "True").await;
    world.cluster.apply(&destination("web", &["web.test", "llm.test"], 1)).await;
    let refused = accepted(&world, "web", "False").await;
    assert_eq!(refused["status"]["hosts"], json!(["web.test"]));
    accepted(&world, "shop", "True").await;
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_apps_whose_objects_come_whole_the_older_one_has_the_host() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    world.cluster.apply(&world.objects).await;
    for namespace in ["web", "shop"] {
        world.cluster.namespace(namespace, &json!({}), &[]).await;
        world.cluster.apply(&destination(namespace, &["llm.test"], 1)).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    // Both are there when the first gateway starts: nobody is known to have had it.
    let _gateway = world.start().await;
    accepted(&world, "web", "True").await;
    let refused = accepted(&world, "shop", "False").await;
    assert!(refused["status"]["hosts"].is_null(), "{refused:#}");
    world.cluster.kubectl(&["delete", "destination", "-n", "web", "saas"]).await;
    accepted(&world, "shop", "True").await;
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_write_a_destination_does_not_write_what_its_status_says_that_it_has() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let _gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    two_apps(&world).await;
    let writes = json!([{
        "apiGroups": ["tollgate.dev"], "resources": ["destinations"],
        "verbs": ["get", "list", "create", "update", "patch", "delete"],
    }]);
    world.cluster.allow(APP, Some("shop"), &writes).await;
    let app = world.cluster.token(APP).to_owned();

    // What an object says of its own status is not taken, and the status itself may not be written.
    let mut object = world.cluster.get(&of("shop")).await;
    object["status"]["hosts"] = json!(["shop.test", "llm.test"]);
    object["metadata"]["labels"] = json!({"written": "yes"});
    world.cluster.call_with(&app, Verb::Put, &of("shop"), &object).await.expect("the object");
    let after = world.cluster.get(&of("shop")).await;
    assert_eq!(after["metadata"]["labels"]["written"], "yes");
    assert_eq!(after["status"]["hosts"], json!(["shop.test"]));
    let status = format!("{}/status", of("shop"));
    assert_eq!(world.cluster.call_with(&app, Verb::Put, &status, &after).await.status, 403);
    world.cluster.apply(&destination("shop", &["shop.test", "llm.test"], 1)).await;
    accepted(&world, "shop", "False").await;

    // A role that gives rights on all of it gives those on status, too: then the policy of the chart refuses what is said of hosts.
    let all = json!([{"apiGroups": ["tollgate.dev"], "resources": ["*"], "verbs": ["*"]}]);
    world.cluster.allow(APP, Some("shop"), &all).await;
    world.cluster.apply(&policy(USER)).await;
    let patch = |body: Value| {
        let (cluster, app, status) = (&world.cluster, &app, &status);
        async move { cluster.call_with(app, Verb::Merge, status, &body).await }
    };
    let mut told = patch(json!({"status": {"hosts": ["forged.test"]}})).await;
    // It holds a moment after it was made.
    for _ in 0..600 {
        if told.status != 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        told = patch(json!({"status": {"hosts": ["forged.test"]}})).await;
    }
    assert_eq!(told.status, 403, "{}", told.body);
    assert!(told.body.to_string().contains("only the gateway writes `status.hosts`"), "{}", told.body);
    assert_eq!(patch(json!({"status": {"hosts": null}})).await.status, 403);
    assert_eq!(patch(json!({"status": {"observedGeneration": 2}})).await.status, 200);
    // The gateway writes as ever, whatever was said before the policy held.
    world.cluster.apply(&destination("shop", &["more.test"], 1)).await;
    let has = |object: &Value| object["status"]["hosts"] == json!(["more.test"]);
    world.cluster.until(&of("shop"), has).await;
    world.leave().await;
}

/// What the chart keeps others by from writing which hosts an object holds, where the gateway is this user.
pub(super) fn policy(user: &str) -> String {
    let golden = include_str!("../../chart/golden/default.yaml");
    let is_of = |text: &&str| text.contains("kind: ValidatingAdmissionPolicy");
    let documents: Vec<&str> = golden.split("---\n").filter(is_of).collect();
    assert_eq!(documents.len(), 2, "a policy and its binding");
    let policy = documents.join("---\n");
    assert!(policy.contains(ACCOUNT), "{policy}");
    policy.replace(ACCOUNT, user)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_destinations_with_one_host_the_older_serves_and_the_younger_says_so() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    let client = world.checkout(&gateway);
    answers(&client, 200).await;
    // Times of creation have seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let younger = world.objects.split("---\n").find(|text| text.contains("kind: Destination")).unwrap();
    world.cluster.apply(&younger.replace("name: up", "name: a-younger")).await;
    let accepted = world.condition(&path("destinations", "a-younger"), "Accepted", "False").await;
    let message = accepted["message"].as_str().unwrap();
    assert!(message.contains("is already Destination/egress/up"), "{message}");
    world.condition(&path("destinations", "up"), "Programmed", "True").await;
    client.get("/up/x").await.assert_status(200);
    world.cluster.kubectl(&["delete", "destination", "-n", EGRESS, "up"]).await;
    world.condition(&path("destinations", "a-younger"), "Accepted", "True").await;

    // The gateway's namespace has what it names, though an app has had it before.
    world.cluster.namespace("shop", &json!({}), &[]).await;
    let named = |namespace: &str, name: &str| {
        let metadata = json!({"namespace": namespace, "name": name});
        let spec = json!({"hosts": ["early.up.test"], "dialect": "http"});
        let api_version = "tollgate.dev/v1alpha1";
        json!({"apiVersion": api_version, "kind": "Destination", "metadata": metadata, "spec": spec})
            .to_string()
    };
    let of_app = path("destinations", "early").replace(EGRESS, "shop");
    world.cluster.apply(&named("shop", "early")).await;
    world.condition(&of_app, "Accepted", "True").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.cluster.apply(&named(EGRESS, "late")).await;
    world.condition(&path("destinations", "late"), "Accepted", "True").await;
    let message = world.condition(&of_app, "Accepted", "False").await["message"].clone();
    assert!(message.as_str().unwrap().contains("the gateway's own, whose claims come before"), "{message}");
    world.leave().await;
}
